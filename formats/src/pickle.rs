//! The few words of Python's pickle language (protocol 2) that a state dict is told in.
//!
//! A pickle is a program for a stack machine; each method here appends an instruction. Nothing is remembered and
//! referred to again, so a pickle is as long as what it tells, and plain to read back.

/// A pickle in the making.
#[derive(Debug)]
pub(crate) struct Pickle(Vec<u8>);

impl Pickle {
    /// An empty program of protocol 2.
    pub fn new() -> Pickle {
        Pickle(vec![0x80, 2])
    }

    /// Ends the program; what is on the stack is its value.
    pub fn finish(mut self) -> Vec<u8> {
        self.0.push(b'.');
        self.0
    }

    /// Pushes a string.
    pub fn text(&mut self, text: &str) -> Result<(), String> {
        let length = u32::try_from(text.len()).map_err(|_| "a name is longer than 4 GiB")?;
        self.0.push(b'X');
        self.0.extend(length.to_le_bytes());
        self.0.extend(text.as_bytes());
        Ok(())
    }

    /// Pushes a whole number.
    pub fn integer(&mut self, n: usize) -> Result<(), String> {
        let signed = i64::try_from(n).map_err(|_| format!("{n} elements are too many"))?;
        match (u8::try_from(n), i32::try_from(n)) {
            (Ok(n), _) => self.0.extend([b'K', n]),
            (_, Ok(n)) => {
                self.0.push(b'J');
                self.0.extend(n.to_le_bytes());
            }
            _ => {
                self.0.extend([0x8a, 8]);
                self.0.extend(signed.to_le_bytes());
            }
        }
        Ok(())
    }

    /// Pushes False.
    pub fn no(&mut self) {
        self.0.push(0x89);
    }

    /// Pushes a class or function by its module and name.
    pub fn global(&mut self, module: &str, name: &str) {
        self.0.extend(format!("c{module}\n{name}\n").into_bytes());
    }

    /// Marks the stack: what comes from here on belongs together.
    pub fn mark(&mut self) {
        self.0.push(b'(');
    }

    /// Puts the pairs since the mark into the dictionary below it.
    pub fn set_items(&mut self) {
        self.0.push(b'u');
    }

    /// Replaces the tuple on top by what it identifies outside of the pickle.
    pub fn persistent_id(&mut self) {
        self.0.push(b'Q');
    }

    /// Pushes a tuple of what `items` pushes.
    pub fn tuple(&mut self, items: impl FnOnce(&mut Pickle) -> Result<(), String>) -> Result<(), String> {
        self.mark();
        items(self)?;
        self.0.push(b't');
        Ok(())
    }

    /// Pushes the result of calling a class or function with what `arguments` pushes.
    pub fn call(
        &mut self,
        module: &str,
        name: &str,
        arguments: impl FnOnce(&mut Pickle) -> Result<(), String>,
    ) -> Result<(), String> {
        self.global(module, name);
        self.tuple(arguments)?;
        self.0.push(b'R');
        Ok(())
    }
}

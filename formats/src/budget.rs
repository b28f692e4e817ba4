//! What reading a file may cost.
//!
//! A hostile file is small and asks for much: a compressed entry that inflates a thousandfold, a view of one number
//! as a billion, a pickle whose every byte makes an object. So everything that is allocated while a file is read, beside
//! the file itself, is charged here first, against a limit that follows from the file's size.

use crate::ReadError;

/// Any file may take so much, whatever its size.
const BASE_BYTES: u64 = 16 << 20;
/// And so many bytes for each of its own: the arrays (half precision grows twofold), a compressed entry, the objects of its
/// pickle.
const BYTES_PER_BYTE: u64 = 4;

/// What is left to spend on one file. Nothing is ever given back, so it bounds the work as well as the memory.
#[derive(Debug)]
pub(crate) struct Budget {
    file_bytes: u64,
    left: u64,
}

impl Budget {
    /// For a file of so many bytes.
    pub fn for_file(file_bytes: usize) -> Budget {
        let file_bytes = file_bytes as u64;
        Budget { file_bytes, left: Budget::limit(file_bytes) }
    }

    /// The most that a file of so many bytes may take.
    pub fn limit(file_bytes: u64) -> u64 {
        BASE_BYTES.saturating_add(file_bytes.saturating_mul(BYTES_PER_BYTE))
    }

    /// Charges what is about to be allocated.
    pub fn spend(&mut self, bytes: u64) -> Result<(), ReadError> {
        let refuse = || ReadError::TooLarge {
            file_bytes: self.file_bytes,
            limit_bytes: Budget::limit(self.file_bytes),
        };
        self.left = self.left.checked_sub(bytes).ok_or_else(refuse)?;
        Ok(())
    }
}

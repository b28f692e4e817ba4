//! What can be wrong with a file that someone gives us.

/// Why a file was not read. Each message says what was expected, what was found, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// No format that is read here.
    #[error("not a checkpoint: {0}; expected what torch.save writes, or a safetensors file")]
    NotACheckpoint(String),
    /// The right format, but cut short or contradicting itself: get it again.
    #[error("the file is damaged: {0}; get or save it again")]
    Damaged(String),
    /// A pickle that asks for a callable that no state dict needs. Nothing has been run.
    #[error(
        "refused: its pickle asks for the callable `{callable}`, which no state dict needs; unpickling it would run that, \
         so nothing of it was read. If you know where the file comes from, save its state dict alone: \
         torch.save(model.state_dict(), FILE)"
    )]
    Unsafe {
        /// Module and name, e.g. `os.system`.
        callable: String,
    },
    /// Whole, but in a way that is not read here: save it in another.
    #[error("{0}")]
    Unsupported(String),
    /// What it would take to read it is out of proportion to its size.
    #[error(
        "refused: reading its {file_bytes} bytes would take more than {limit_bytes} bytes of memory, as no checkpoint \
         does; get the file from its source again"
    )]
    TooLarge {
        /// Size of the file.
        file_bytes: u64,
        /// Most memory that is spent on a file of this size.
        limit_bytes: u64,
    },
}

impl ReadError {
    /// A damaged file.
    pub(crate) fn damaged(what: impl Into<String>) -> ReadError {
        ReadError::Damaged(what.into())
    }

    /// Of a kind that is not read here.
    pub(crate) fn unsupported(what: impl Into<String>) -> ReadError {
        ReadError::Unsupported(what.into())
    }
}

/// Bytes of a file as a message shows them: printable, and not longer than a line.
pub(crate) fn shown(bytes: &[u8]) -> String {
    printable(bytes, 100)
}

/// A message from elsewhere, that may quote the file at length.
pub(crate) fn shortened(message: &str) -> String {
    printable(message.as_bytes(), 300)
}

fn printable(bytes: &[u8], most: usize) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(most)]);
    let mut out = String::new();
    for c in text.chars() {
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    if bytes.len() > most {
        out.push('…');
    }
    out
}

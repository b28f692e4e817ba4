//! What can be wrong with a model, or with what it is asked.

use std::path::PathBuf;

use cnx_formats::ReadError;
use cnx_formats::check::Listed;

use crate::Instructions;

/// Why there is no model, or there are no logits. Each message says what was expected, what was found, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read the model {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no model, or damaged.
    #[error(transparent)]
    File(#[from] ReadError),
    /// The file does not say of what network it is.
    #[error(
        "the file carries no spec of its network; expected a model that cnx wrote, or made by `cnx import --spec`"
    )]
    NoSpec,
    /// The file's spec is none.
    #[error("the file's spec is wrong:\n{0}")]
    Spec(String),
    /// The tensors are not of the spec's network.
    #[error("the tensors are not of the spec's network:\n{0}")]
    Tensors(String),
    /// The network is not one that is run here.
    #[error("{0}")]
    Unsupported(String),
    /// The maps of one image are out of all proportion.
    #[error("refused: the maps of one image would take {bytes} bytes of memory, expected at most {limit}")]
    TooLarge {
        /// What they would take.
        bytes: u64,
        /// What is allowed.
        limit: u64,
    },
    /// The CPU lacks the instructions.
    #[error("this CPU has no {0} instructions; ask for `auto` to get the best that it has")]
    Instructions(Instructions),
    /// The images are not of the network's size.
    #[error(
        "{found} numbers are no whole images of 3×{size}×{size} = {each}; expected a multiple of {each}, at least one"
    )]
    Images {
        /// How many there are.
        found: usize,
        /// Numbers of an image.
        each: usize,
        /// Edge of an image, in pixels.
        size: usize,
    },
    /// A thread cannot be started, or has died.
    #[error("the engine's threads fail: {0}; ask for fewer threads")]
    Threads(String),
}

impl Error {
    /// What a check found.
    pub(crate) fn of(report: &cnx_formats::check::Report) -> Error {
        Error::Tensors(Listed(report).to_string())
    }
}

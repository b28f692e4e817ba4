//! How things look on a terminal.

pub mod bar;
pub mod escape;
pub mod format;
pub mod plot;
pub mod screen;
pub mod style;
pub mod table;

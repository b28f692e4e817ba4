//! Text that others wrote (logs, messages, names) must not steer the terminal.

pub use cnx_proto::escape::{printable, printable_line, printable_lines};

//! What happened, line by line: its hash tells whether two runs were the same, its tail what led to a failure.

use std::collections::VecDeque;
use std::fmt::{self, Write};
use std::time::Duration;

/// Lines kept.
const TAIL: usize = 250;

/// The trace of a run.
#[derive(Debug, Default)]
pub struct Trace {
    hash: u64,
    tail: VecDeque<String>,
    all: bool,
}

impl Trace {
    /// Adds a line.
    pub fn note(&mut self, now: Duration, what: fmt::Arguments<'_>) {
        let mut line =
            if self.tail.len() == TAIL { self.tail.pop_front().unwrap_or_default() } else { String::new() };
        line.clear();
        let _ = write!(line, "{:>14.6} {what}", now.as_secs_f64());
        for byte in line.bytes() {
            // FNV-1a
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        if self.all {
            println!("{line}");
        }
        self.tail.push_back(line);
    }

    /// Prints every line from now on.
    pub fn print_all(&mut self) {
        self.all = true;
    }

    /// Of all lines.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The last lines.
    pub fn tail(&self) -> String {
        self.tail.iter().fold(String::new(), |text, line| text + line + "\n")
    }
}

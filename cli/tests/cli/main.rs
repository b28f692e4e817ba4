//! The real `cnx`, run as a person runs it: without a coordinator, against one that is played here, and with programs
//! in the background that are played by shell scripts.

// A test fails by panicking; clippy knows that of test functions, not of what they call.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod background;
mod bench;
mod coordinator;
mod export;
mod hostile;
mod import;
mod offline;
mod online;
mod operations;
mod predict;
mod queue;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// `cnx` with nothing of the surroundings' settings.
fn cnx(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cnx"));
    command.args(args).env("COLUMNS", "100");
    for name in [
        "CNX_STATE",
        "CNX_SERVER",
        "CNX_TOKEN",
        "CNX_WORKER_TOKEN",
        "CNX_TLS_CA",
        "CNX_TLS_CERT",
        "CNX_TLS_KEY",
        "CNX_DATA",
        "CNX_WORKER",
        "CNX_DAEMON",
    ] {
        command.env_remove(name);
    }
    command
}

/// What a finished `cnx` said.
struct Said {
    code: i32,
    out: String,
    err: String,
}

fn said(output: Output) -> Said {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
    Said {
        code: output.status.code().expect("no signal"),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

fn run(command: &mut Command) -> Said {
    said(command.output().expect("cnx starts"))
}

/// A file of the repository's configs.
fn config(name: &str) -> String {
    repository().join("configs").join(name).display().to_string()
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository").to_path_buf()
}

/// An executable shell script.
fn script(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, format!("#!/bin/sh\n{text}\n")).expect("written");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("executable");
}

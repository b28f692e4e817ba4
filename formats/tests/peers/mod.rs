//! The programs that others read our files with: PyTorch and ONNX Runtime, which `make peers` puts under `target/peers`.

// A test may panic; and not every test uses all of this.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What Python says to a program of its own and its arguments; nothing, and a word about it, where the peers are missing.
/// With `CNX_PEERS=required`, they have to be there.
pub fn python(test: &str, program: &str, arguments: &[&Path]) -> Option<String> {
    let interpreter = repository().join("target/peers/python");
    if !interpreter.is_file() {
        let required = std::env::var("CNX_PEERS").is_ok_and(|value| value == "required");
        assert!(!required, "{test}: {} is missing: run make peers", interpreter.display());
        // Not by println!, which is kept back of a test that passes.
        let line = format!("skipped: {test}: no PyTorch and ONNX Runtime; run make peers\n");
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        return None;
    }
    let output = Command::new(interpreter).arg("-c").arg(program).args(arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{test}: {error}");
    Some(String::from_utf8(output.stdout).unwrap())
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

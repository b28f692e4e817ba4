//! Where the binary finds libtorch when it runs, and which commit and libtorch it was made of.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rustc-env=CNX_COMMIT={}", commit().unwrap_or_else(|| "unknown".to_owned()));

    let libtorch = std::env::var_os("LIBTORCH").filter(|v| !v.is_empty()).map(PathBuf::from);
    let libtorch = libtorch.and_then(|folder| folder.canonicalize().ok());
    let version = libtorch.as_deref().and_then(version).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo:rustc-env=CNX_LIBTORCH={version}");
    let Some(libtorch) = libtorch else { return };
    let lib = libtorch.join("lib");
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "windows") {
        return;
    }
    // So that binaries and tests run without LD_LIBRARY_PATH.
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
    if has_cuda(&libtorch) {
        // Nothing here names a symbol of libtorch_cuda, so a linker that drops what it deems unneeded would leave it
        // out, and libtorch would say that there is no CUDA. Without CUDA's own libraries beside it, it
        // could not be loaded: then it must stay out.
        println!("cargo:rustc-link-arg=-Wl,--no-as-needed,-L{},-ltorch_cuda,--as-needed", lib.display());
    }
}

fn has_cuda(libtorch: &Path) -> bool {
    let holds = |folder: PathBuf, start: &str| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with(start))
    };
    let site = libtorch.parent().unwrap_or(libtorch);
    let cublas =
        holds(site.join("nvidia/cu13/lib"), "libcublas.so") || holds(libtorch.join("lib"), "libcublas");
    cublas && libtorch.join("lib/libtorch_cuda.so").exists()
}

fn version(libtorch: &Path) -> Option<String> {
    let read = |name: &str| {
        let text = std::fs::read_to_string(libtorch.join(name)).ok()?;
        // Only what is there: a file that is missing would count as changed at every build.
        println!("cargo:rerun-if-changed={}", libtorch.join(name).display());
        Some(text)
    };
    if let Some(version) = read("build-version") {
        return Some(version.trim().to_owned());
    }
    let python = read("version.py")?;
    let line = python.lines().find_map(|line| line.strip_prefix("__version__ = "))?;
    Some(line.trim_matches(['\'', '"']).to_owned())
}

fn commit() -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok().filter(|o| o.status.success())?;
        String::from_utf8(output.stdout).ok().map(|text| text.trim().to_owned())
    };
    // Grows with every commit and checkout.
    let log = PathBuf::from(git(&["rev-parse", "--git-path", "logs/HEAD"])?);
    if log.exists() {
        println!("cargo:rerun-if-changed={}", log.display());
    }
    git(&["rev-parse", "HEAD"])
}

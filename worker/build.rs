//! Compiles the shim over libtorch (`native/`), and says where the binary finds libtorch when it runs, and of which commit and
//! libtorch it was made.

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
    let Some(libtorch) = libtorch else {
        fail("LIBTORCH names no folder: `make setup` fetches libtorch, .cargo/config.toml points there");
    };
    let cuda = Cuda::beside(&libtorch);
    compile_shim(&libtorch, cuda.as_ref());
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "windows") {
        return;
    }
    let lib = libtorch.join("lib");
    // So that binaries and tests run without LD_LIBRARY_PATH.
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
    if let Some(cuda) = cuda {
        // A linker drops what it deems unneeded, and without libtorch_cuda libtorch says that there is no CUDA.
        println!("cargo:rustc-link-arg=-Wl,--no-as-needed,-L{},-ltorch_cuda,--as-needed", lib.display());
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", cuda.lib.display());
    }
}

/// CUDA's own part of a libtorch that was built for it.
struct Cuda {
    /// Holds cuda_runtime_api.h and what that includes.
    include: PathBuf,
    /// Holds the runtime library.
    lib: PathBuf,
    /// The runtime library's file name.
    runtime: String,
}

impl Cuda {
    /// None beside a libtorch that computes on CPUs only: libtorch_cuda may lie there, but could not be loaded.
    fn beside(libtorch: &Path) -> Option<Cuda> {
        let site = libtorch.parent().unwrap_or(libtorch).join("nvidia/cu13");
        let own = libtorch.join("lib");
        let cublas = find(&site.join("lib"), "libcublas.so").is_some() || find(&own, "libcublas").is_some();
        if !cublas || !own.join("libtorch_cuda.so").exists() {
            return None;
        }
        println!("cargo:rerun-if-env-changed=CUDA_HOME");
        let home = std::env::var_os("CUDA_HOME").map_or_else(|| "/usr/local/cuda".into(), PathBuf::from);
        let include = [site.join("include"), home.join("include")].into_iter().find(|folder| {
            folder.join("crt/host_config.h").exists() && folder.join("cuda_runtime_api.h").exists()
        });
        let lib = [site.join("lib"), own, home.join("lib64")]
            .into_iter()
            .find_map(|folder| Some((find(&folder, "libcudart")?, folder)));
        match (include, lib) {
            (Some(include), Some((runtime, lib))) => Some(Cuda { include, lib, runtime }),
            _ => fail(
                "this libtorch is one for CUDA, but CUDA's headers (crt/host_config.h, cuda_runtime_api.h) or its runtime library \
                 are neither beside it nor in CUDA_HOME: `make setup` fetches them, or point CUDA_HOME at a toolkit",
            ),
        }
    }
}

/// The first file of a folder whose name starts so.
fn find(folder: &Path, start: &str) -> Option<String> {
    let entries = std::fs::read_dir(folder).ok()?.flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(start) && name.contains(".so")).min()
}

fn compile_shim(libtorch: &Path, cuda: Option<&Cuda>) {
    for file in ["native/shim.h", "native/shim.cpp"] {
        println!("cargo:rerun-if-changed={file}");
    }
    let include = libtorch.join("include");
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").file("native/shim.cpp");
    // As system headers: their warnings are not ours.
    for folder in [include.join("torch/csrc/api/include"), include] {
        build.flag("-isystem").flag(folder);
    }
    println!("cargo:rustc-link-search=native={}", libtorch.join("lib").display());
    if let Some(cuda) = cuda {
        build.define("CNX_CUDA", None).flag("-isystem").flag(&cuda.include);
    }
    build.compile("cnx_native");
    for library in ["torch_cpu", "c10"] {
        println!("cargo:rustc-link-lib=dylib={library}");
    }
    if let Some(cuda) = cuda {
        println!("cargo:rustc-link-search=native={}", cuda.lib.display());
        for library in ["torch_cuda", "c10_cuda"] {
            println!("cargo:rustc-link-lib=dylib={library}");
        }
        println!("cargo:rustc-link-lib=dylib:+verbatim={}", cuda.runtime);
    }
}

fn fail(why: &str) -> ! {
    eprintln!("cnx-worker: {why}");
    std::process::exit(1);
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

//! Who may import whom: the contract and the kernels import no sibling; formats, images and access the contract; the engine
//! the contract and the formats; the programs these, never each other.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::process::Command;

use serde_json::Value;

#[test]
fn the_crates_import_only_what_the_architecture_allows() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let imports = |name: &str| -> Vec<String> {
        let package =
            packages.iter().find(|p| p["name"] == name).unwrap_or_else(|| panic!("no crate {name}"));
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        dependencies.filter(|d| d["kind"].is_null()).map(|d| d["name"].as_str().unwrap().to_owned()).collect()
    };
    let siblings =
        |name: &str| -> Vec<String> { imports(name).into_iter().filter(|d| d.starts_with("cnx-")).collect() };
    assert_eq!(siblings("cnx-proto"), Vec::<String>::new());
    for name in ["cnx-formats", "cnx-images", "cnx-access"] {
        assert_eq!(siblings(name), ["cnx-proto"], "{name}");
    }
    assert_eq!(siblings("cnx-kernels"), Vec::<String>::new());
    assert_eq!(siblings("cnx-engine"), ["cnx-formats", "cnx-proto"]);
    assert_eq!(siblings("cnx-daemon"), ["cnx-access", "cnx-proto"]);
    assert_eq!(siblings("cnx-cli"), ["cnx-access", "cnx-engine", "cnx-formats", "cnx-images", "cnx-proto"]);
    assert_eq!(
        siblings("cnx-worker"),
        ["cnx-access", "cnx-engine", "cnx-formats", "cnx-images", "cnx-kernels", "cnx-proto"]
    );
    let has = |name: &str, dependency: &str| imports(name).iter().any(|d| d == dependency);
    for name in [
        "cnx-proto",
        "cnx-formats",
        "cnx-images",
        "cnx-access",
        "cnx-kernels",
        "cnx-engine",
        "cnx-daemon",
        "cnx-cli",
    ] {
        assert!(!has(name, "tch"), "{name} must not know libtorch");
    }
    for name in
        ["cnx-proto", "cnx-formats", "cnx-images", "cnx-access", "cnx-engine", "cnx-worker", "cnx-cli"]
    {
        assert!(!has(name, "sqlx"), "{name} must not know SQL");
    }
    for io in ["tokio", "reqwest", "ureq", "sqlx"] {
        assert!(!has("cnx-proto", io), "the contract does no IO");
    }
}

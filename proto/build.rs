//! Compiles `cnx.proto` with protox (pure Rust), so that no machine needs protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=cnx.proto");
    let descriptors = protox::compile(["cnx.proto"], ["."])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}

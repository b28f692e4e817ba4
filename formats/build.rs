//! Compiles `onnx.proto` with protox (pure Rust), so that no machine needs protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=src/onnx/onnx.proto");
    let descriptors = protox::compile(["src/onnx/onnx.proto"], ["src/onnx"])?;
    prost_build::Config::new().compile_fds(descriptors)?;
    Ok(())
}

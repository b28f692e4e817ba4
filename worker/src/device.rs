//! The device that computes.

use std::process::Command;

use cnx_proto::Spec;
use cnx_proto::spec::Precision;
use cnx_proto::v1::FailureClass;
use tch::{Cuda, Device};

use crate::failure::{Failure, Result};
use crate::native;

/// Parses `cpu` or `cuda:N`, and checks that libtorch sees it.
///
/// # Errors
/// BAD_SPEC for anything else, DEVICE for a GPU that is not there.
pub fn parse(text: &str) -> Result<Device> {
    if text == "cpu" {
        return Ok(Device::Cpu);
    }
    let number = text.strip_prefix("cuda:").and_then(|number| number.parse::<usize>().ok());
    let Some(number) = number else {
        return Err(Failure::bad_spec(format!(
            "unknown device {text:?}: expected cpu or cuda:N, e.g. cuda:0"
        )));
    };
    let seen = if Cuda::is_available() { Cuda::device_count() } else { 0 };
    if number as i64 >= seen {
        let advice = "is this build's libtorch the one with CUDA, and does nvidia-smi answer?";
        return Err(Failure::new(
            FailureClass::Device,
            format!("no device {text}: libtorch sees {seen} GPUs; {advice}"),
        ));
    }
    Ok(Device::Cuda(number))
}

/// Sets this process up for the arithmetic of a spec.
///
/// # Errors
/// BAD_SPEC for arithmetic that the device has not.
pub fn set_arithmetic(spec: &Spec, device: Device) -> Result<()> {
    let tf32 = spec.train.precision == Precision::Tf32;
    if tf32 && !device.is_cuda() {
        return Err(Failure::bad_spec(
            "train.precision is tf32, which only GPUs compute, and this worker computes on a CPU; give it to a worker with a GPU, \
             or set train.precision = \"float32\"",
        ));
    }
    native::set_tf32(tf32)
}

/// Has a training repeat bit for bit, as far as its spec asks for it.
///
/// # Errors
/// DEVICE where the environment keeps a GPU from it.
pub fn set_repeatable(spec: &Spec, device: Device) -> Result<()> {
    if !device.is_cuda() {
        return Ok(());
    }
    let deterministic = spec.train.deterministic;
    let workspace = std::env::var(WORKSPACE).unwrap_or_default();
    if deterministic && !REPEATABLE.contains(&workspace.as_str()) {
        let message = format!(
            "train.deterministic needs {WORKSPACE}={} in the environment (found {workspace:?}): without it cuBLAS does not repeat \
             bit for bit; set it, or set train.deterministic = false",
            REPEATABLE[0]
        );
        return Err(Failure::new(FailureClass::Device, message));
    }
    // Which algorithm is fastest is measured, and the clock never says the same twice.
    Cuda::cudnn_set_benchmark(!deterministic);
    native::set_deterministic(deterministic)
}

/// cuBLAS reads this when it is first used; whoever starts this process sets it.
pub const WORKSPACE: &str = "CUBLAS_WORKSPACE_CONFIG";

/// Its values with which cuBLAS repeats; the first is the faster.
pub const REPEATABLE: [&str; 2] = [":4096:8", ":16:8"];

/// What the device is called: `cpu`, or the GPU's product name.
pub fn name(device: Device) -> String {
    let Device::Cuda(number) = device else { return "cpu".to_owned() };
    let output = Command::new("nvidia-smi")
        .args(["--query-gpu=name", "--format=csv,noheader", &format!("--id={number}")])
        .output();
    let name = output.ok().filter(|o| o.status.success()).and_then(|o| String::from_utf8(o.stdout).ok());
    let name = name.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
    name.unwrap_or_else(|| format!("cuda:{number}"))
}

/// The devices that an attempt can be given: every GPU, or the CPU where there is none.
pub fn all() -> Vec<Device> {
    if !Cuda::is_available() {
        return vec![Device::Cpu];
    }
    (0..Cuda::device_count() as usize).map(Device::Cuda).collect()
}

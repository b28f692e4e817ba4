//! The device that computes.

use std::process::Command;

use cnx_proto::v1::FailureClass;
use tch::{Cuda, Device};

use crate::failure::{Failure, Result};

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

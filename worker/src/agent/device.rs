//! Which device this agent's children use. A child looks, because looking takes libtorch.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};

const CPU: &str = "cpu";

/// A device by its two names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// What the child is told: `cpu` or `cuda:N`.
    pub id: String,
    /// What people read: `cpu`, or the GPU's product name.
    pub name: String,
}

/// The device that `wanted` names, or the first GPU, or the CPU. `program device` lists what there is.
///
/// # Errors
/// When it is not there.
pub fn find(program: &Path, wanted: Option<&str>) -> anyhow::Result<Device> {
    if wanted == Some(CPU) {
        return choose("", wanted);
    }
    let output = Command::new(program).arg("device").output();
    let output = output.with_context(|| format!("cannot start {} to look for devices", program.display()))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        bail!("libtorch cannot say which devices there are ({}): {why}; give --device cpu", output.status);
    }
    choose(&String::from_utf8_lossy(&output.stdout), wanted)
}

/// Picks from a list of GPUs, one name a line, or the one line `cpu`.
fn choose(list: &str, wanted: Option<&str>) -> anyhow::Result<Device> {
    let gpus: Vec<&str> =
        list.lines().map(str::trim).filter(|line| !line.is_empty() && *line != CPU).collect();
    let number = match wanted {
        Some(CPU) => None,
        None if gpus.is_empty() => None,
        None => Some(0),
        Some(wanted) => {
            let number = wanted.strip_prefix("cuda:").and_then(|number| number.parse::<usize>().ok());
            Some(number.with_context(|| format!("unknown device {wanted}: expected cpu or cuda:N"))?)
        }
    };
    let Some(number) = number else { return Ok(Device { id: CPU.to_owned(), name: CPU.to_owned() }) };
    let Some(name) = gpus.get(number) else {
        bail!(
            "no device cuda:{number}: libtorch sees {} GPUs here; give --device cpu, or see that nvidia-smi answers and \
             that the libtorch in use is one with CUDA",
            gpus.len()
        );
    };
    Ok(Device { id: format!("cuda:{number}"), name: (*name).to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(list: &str, wanted: Option<&str>) -> (String, String) {
        let device = choose(list, wanted).expect("a device");
        (device.id, device.name)
    }

    fn pair(id: &str, name: &str) -> (String, String) {
        (id.to_owned(), name.to_owned())
    }

    #[test]
    fn the_first_gpu_is_used_where_there_is_one() {
        assert_eq!(chosen("NVIDIA H200\nNVIDIA L4\n", None), pair("cuda:0", "NVIDIA H200"));
        assert_eq!(chosen("cpu\n", None), pair("cpu", "cpu"));
    }

    #[test]
    fn the_wanted_device_is_used_or_missed() {
        assert_eq!(chosen("NVIDIA H200\nNVIDIA L4\n", Some("cuda:1")), pair("cuda:1", "NVIDIA L4"));
        assert_eq!(chosen("NVIDIA H200\n", Some("cpu")), pair("cpu", "cpu"));
        let error = choose("cpu\n", Some("cuda:0")).expect_err("missing").to_string();
        assert!(error.contains("sees 0 GPUs"), "{error}");
    }
}

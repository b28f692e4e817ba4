//! What `cnx-worker run`, `evaluate`, `convert`, `latency` and `device` do.

mod convert;
mod evaluate;
mod latency;
mod run;

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use cnx_proto::Spec;
use tch::Device;

use crate::device;
use crate::failure::{Failure, Result};
use crate::model::Network;
use crate::model_file::ModelFile;

pub use convert::{ConvertArguments, convert};
pub use evaluate::{EvaluateArguments, evaluate};
pub use latency::{LatencyArguments, latency};
pub(crate) use run::duration;
pub use run::{RunArguments, run};

/// Where to compute.
#[derive(Debug, Clone, Args)]
pub struct DeviceArguments {
    /// Device that computes: cpu or cuda:N
    #[arg(long, default_value = "cpu")]
    device: String,
    /// CPU threads for the arithmetic; 0: as many as there are cores
    #[arg(long, default_value_t = 0)]
    threads: u32,
}

impl DeviceArguments {
    /// The device, and the number of threads.
    fn resolve(&self) -> Result<(Device, u32)> {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
        let threads = if self.threads == 0 { cores } else { self.threads };
        tch::set_num_threads(threads as i32);
        Ok((device::parse(&self.device)?, threads))
    }
}

/// A model given by path.
#[derive(Debug, Clone, Args)]
pub struct ModelArguments {
    /// A checkpoint or model, in safetensors
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// Its spec in JSON, or - for standard input; needless where the file carries its own, as ours do
    #[arg(long, value_name = "FILE")]
    spec: Option<PathBuf>,
}

impl ModelArguments {
    /// The spec and the network with the file's tensors.
    fn load(&self, device: Device) -> Result<(Spec, Network)> {
        let file = ModelFile::read(&self.model)?;
        let json = match &self.spec {
            Some(spec) => read_text(spec)?,
            None => file.spec_json()?.to_owned(),
        };
        let spec = Spec::from_json(&json)
            .map_err(|e| Failure::bad_spec(format!("the spec of {}: {e}", self.model.display())))?;
        device::set_arithmetic(&spec, device)?;
        let network = file.network(&spec, device)?;
        Ok((spec, network))
    }
}

/// A file's text, or standard input's for `-`.
fn read_text(path: &Path) -> Result<String> {
    let mut text = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).map(drop)
    } else {
        std::fs::read_to_string(path).map(|contents| text = contents)
    };
    read.map(|()| text).map_err(|error| Failure::bad_spec(format!("cannot read {}: {error}", path.display())))
}

/// Prints the name of each device that an attempt can be given, one a line: the GPUs, or `cpu`.
pub fn devices() {
    for device in device::all() {
        println!("{}", device::name(device));
    }
}

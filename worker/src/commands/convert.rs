//! `cnx-worker convert`: from learned group convolutions to group convolutions.

use std::path::PathBuf;

use clap::Args;
use tch::Device;

use super::ModelArguments;
use crate::failure::Result;
use crate::tensor_file;

/// `cnx-worker convert`.
#[derive(Debug, Clone, Args)]
pub struct ConvertArguments {
    #[command(flatten)]
    model: ModelArguments,
    /// Where the converted model goes
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
}

/// Converts a trained model and writes the result.
///
/// # Errors
/// When condensing is not over, or a file cannot be read or written.
pub fn convert(arguments: &ConvertArguments) -> Result<()> {
    let (spec, network) = arguments.model.load(Device::Cpu)?;
    let converted = crate::convert::convert(&network, &spec)?;
    let bytes = tensor_file::encode(&spec.to_json(), &converted.state().snapshot()?)?;
    let out = &arguments.out;
    crate::artifacts::write_whole(out, &bytes, 0)?;
    println!("{}", out.display());
    Ok(())
}

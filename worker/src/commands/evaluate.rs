//! `cnx-worker evaluate`: the errors of a model on its dataset's test images.

use std::path::PathBuf;

use clap::Args;
use cnx_proto::job::Evaluation;
use cnx_proto::spec::Engine;
use tch::Device;

use super::{DeviceArguments, ModelArguments};
use crate::data;
use crate::failure::{Failure, Result};
use crate::stop::Stop;

/// `cnx-worker evaluate`.
#[derive(Debug, Clone, Args)]
pub struct EvaluateArguments {
    #[command(flatten)]
    model: ModelArguments,
    #[command(flatten)]
    device: DeviceArguments,
    /// Folder that holds the datasets [default: $CNX_DATA, or ~/.cache/cnx]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// What runs the model: libtorch, or native, the engine for CPUs without it
    #[arg(long, value_name = "ENGINE", default_value = "libtorch", value_parser = engine)]
    engine: Engine,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

fn engine(name: &str) -> std::result::Result<Engine, String> {
    let known = Engine::ALL.iter().copied().find(|engine| engine.as_str() == name);
    known.ok_or_else(|| "expected libtorch or native".to_owned())
}

/// Evaluates a model, large (half condensed or not) or converted, and prints its errors.
///
/// # Errors
/// When the model, its spec or its data cannot be read.
pub fn evaluate(arguments: &EvaluateArguments) -> Result<()> {
    let (device, _) = arguments.device.resolve()?;
    if arguments.engine == Engine::Native && device != Device::Cpu {
        return Err(Failure::bad_spec(
            "the native engine runs on CPUs; leave --device out, or --engine native",
        ));
    }
    let (mut spec, mut network) = arguments.model.load(device)?;
    spec.run.engine = arguments.engine;
    if arguments.data.is_some() {
        spec.data.root = None;
    }
    let data = data::load_test(&spec, arguments.data.as_deref())?;
    let errors =
        crate::evaluate::evaluate(&mut network, &data.test, &spec, &Stop::default(), &mut |_, _| {})?;
    let evaluation = Evaluation { errors, form: network.form() };
    if arguments.json {
        println!("{}", evaluation.to_json());
    } else {
        println!("{evaluation}");
    }
    Ok(())
}

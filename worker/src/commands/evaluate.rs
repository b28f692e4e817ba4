//! `cnx-worker evaluate`: the errors of a model on its dataset's test images.

use std::path::PathBuf;

use clap::Args;

use super::{DeviceArguments, ModelArguments};
use crate::data;
use crate::failure::Result;
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
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Evaluates a model, large (half condensed or not) or converted, and prints its errors.
///
/// # Errors
/// When the model, its spec or its data cannot be read.
pub fn evaluate(arguments: &EvaluateArguments) -> Result<()> {
    let (device, _) = arguments.device.resolve()?;
    let (mut spec, mut network) = arguments.model.load(device)?;
    // Only the test images matter: do not ask for all training batches. Of the generated set, none are made.
    spec.data.train_images = Some(0);
    if arguments.data.is_some() {
        spec.data.root = None;
    }
    let data = data::load(&spec, arguments.data.as_deref())?;
    let errors =
        crate::evaluate::evaluate(&mut network, &data.test, &spec, &Stop::default(), &mut |_, _| {})?;
    let form = network.form();
    if arguments.json {
        let object = serde_json::json!({
            "loss": errors.loss,
            "top1_error": errors.top1_error,
            "top5_error": errors.top5_error,
            "images": errors.images,
            "model": form.as_str(),
        });
        println!("{object}");
    } else {
        println!(
            "{form} model, {} images: top-1 error {:.2} %, top-5 error {:.2} %, loss {:.4}",
            errors.images, errors.top1_error, errors.top5_error, errors.loss
        );
    }
    Ok(())
}

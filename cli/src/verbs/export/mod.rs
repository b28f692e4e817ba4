//! `cnx export`: a model in a format that others read, and a card that says how it came about. Neither libtorch nor Python.

mod card;
mod markdown;
mod model;

use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};

use cnx_formats::{onnx, pth, safetensors};
use cnx_proto::v1::{DescribeRequest, ExperimentDetail};
use serde::Serialize;
use serde_json::json;

use crate::args::ExportArgs;
use crate::client::Client;
use crate::context::{Context, print_json, stdout};
use crate::failure::{Failure, Result};
use crate::json::VERSION;
use crate::source::{self, Source, Which};
use crate::term::format::{bytes, params};
use crate::whole_file;
use card::Card;
use model::Model;

/// A format that others read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Tensors by name, with the spec; what cnx itself reads
    Safetensors,
    /// A state dict that PyTorch's torch.load reads
    Pth,
    /// A graph with its weights, for ONNX Runtime and others
    Onnx,
}

impl Format {
    /// The format that a file's name ends in.
    fn of(path: &Path) -> Option<Format> {
        match path.extension()?.to_str()? {
            "safetensors" => Some(Format::Safetensors),
            "pth" | "pt" => Some(Format::Pth),
            "onnx" => Some(Format::Onnx),
            _ => None,
        }
    }

    fn extension(self) -> &'static str {
        match self {
            Format::Safetensors => "safetensors",
            Format::Pth => "pth",
            Format::Onnx => "onnx",
        }
    }

    /// The library that reads it, as model hubs call it.
    fn library(self) -> &'static str {
        match self {
            Format::Safetensors => "safetensors",
            Format::Pth => "pytorch",
            Format::Onnx => "onnx",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Format::Safetensors => "safetensors",
            Format::Pth => "PyTorch state dict",
            Format::Onnx => "ONNX",
        })
    }
}

pub async fn run(context: &Context, args: &ExportArgs) -> Result {
    let format = args.format.or_else(|| Format::of(args.output.as_deref()?)).ok_or_else(|| {
        Failure::usage(
            "which format? give --format safetensors, pth or onnx, or an -o that ends in one of them",
        )
    })?;
    let source = chosen(context, args, format).await?;
    let model = Model::read(&source, &args.spec)?;
    let output = args.output.clone().unwrap_or_else(|| default_name(&source, &model, format));
    if output.canonicalize().is_ok_and(|path| path == model.path) {
        let output = output.display();
        return Err(Failure::usage(format!("{output} is the model itself; name another file with -o")));
    }

    let file = match format {
        Format::Safetensors => safetensors::write(&model.state),
        Format::Pth => pth::write(&model.state),
        Format::Onnx => onnx::write(&model.spec, model.form, &model.state),
    };
    let file = file.map_err(|error| Failure::refused(format!("{}: {error}", model.path.display())))?;
    let mut card = model.card(&output, format, &file);
    if let Source::Stored(stored) = &source {
        card.tell(&lineage(context, &stored.detail).await?, Which::of(&stored.artifact));
    }
    let cards = [card_path(&output, "json"), card_path(&output, "md")];
    whole_file::write(&output, &file)?;
    let as_json = serde_json::to_string_pretty(&card).map_err(|error| Failure::refused(error.to_string()))?;
    whole_file::write(&cards[0], format!("{as_json}\n").as_bytes())?;
    whole_file::write(&cards[1], markdown::markdown(&card).as_bytes())?;
    report(context, args, &model, &card, &output, &cards)
}

/// The model that is meant. As ONNX, an experiment's is the converted one, where it has one: what is to be deployed.
async fn chosen(context: &Context, args: &ExportArgs, format: Format) -> Result<Source> {
    let source = source::find(context, &args.model, args.artifact).await?;
    match source {
        Source::Stored(stored) if args.artifact.is_none() && format == Format::Onnx => {
            let converts = stored.spec()?.model.arch.condenses();
            let stored = if converts { Box::new(stored.choose(Which::Converted)?) } else { stored };
            Ok(Source::Stored(stored))
        }
        source => Ok(source),
    }
}

/// The experiments that this one retries, oldest first, and itself.
async fn lineage(context: &Context, detail: &ExperimentDetail) -> Result<Vec<ExperimentDetail>> {
    let mut client = Client::connect(context).await?;
    let mut lineage = vec![detail.clone()];
    let earlier = |detail: &ExperimentDetail| detail.experiment.as_ref().map_or(0, |e| e.retry_of);
    // A retry has a higher ID than what it retries.
    while let Some(id) = lineage.last().map(earlier).filter(|&id| id > 0) {
        let request = DescribeRequest { selector: id.to_string() };
        let detail = client.rpc.describe(request).await.map_err(|status| client.failure(&status))?;
        lineage.push(detail.into_inner());
    }
    lineage.reverse();
    Ok(lineage)
}

/// In the current folder, after the experiment or the file.
fn default_name(source: &Source, model: &Model, format: Format) -> PathBuf {
    let stem = match source {
        Source::Stored(stored) => {
            let which = Which::of(&stored.artifact).map(|which| format!("-{}", which.as_str()));
            format!("{}{}", model.spec.name, which.unwrap_or_default())
        }
        Source::File(path) => path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
    };
    PathBuf::from(format!("{stem}.{}", format.extension()))
}

/// Beside the file, after its whole name: the same model in two formats has two cards.
fn card_path(output: &Path, extension: &str) -> PathBuf {
    let mut path = output.as_os_str().to_owned();
    path.push(format!(".card.{extension}"));
    path.into()
}

fn report(
    context: &Context,
    args: &ExportArgs,
    model: &Model,
    card: &Card,
    output: &Path,
    cards: &[PathBuf; 2],
) -> Result {
    let show = |path: &Path| path.display().to_string();
    for note in &model.notes {
        context.talk(format!("note: {note}"));
    }
    if args.json {
        return print_json(&json!({
            "version": VERSION, "path": show(output), "card_json": show(&cards[0]), "card_md": show(&cards[1]),
            "file": card.file, "source": card.source, "notes": model.notes,
        }));
    }
    let (count, size) = (params(model.parameters), bytes(card.file.bytes));
    context.talk(format!(
        "wrote {} as {}: {} model, {count} parameters, {}, {size}; its card: {}",
        card.name,
        card.file.format,
        card.file.form,
        card.file.precision,
        show(&cards[1])
    ));
    Ok(writeln!(stdout(), "{}", show(output))?)
}

//! Verbs that run a converted network.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};
use cnx_proto::spec::Engine;

use super::QueueArgs;
use crate::source::Which;

/// What a model sees in images: the likeliest classes (needs neither libtorch nor a coordinator)
///
/// MODEL is a converted model that carries its spec, in safetensors, or an experiment whose converted model is meant.
/// Images are JPEG or PNG; each is resized and cropped as the test images of the model's dataset are. One that cannot be
/// read is named, and the others are answered all the same.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cnx predict converted.safetensors cat.jpg
  cnx predict converted.safetensors --top 1 --json photos/*.jpg
  cnx predict imagenet.safetensors --labels /data/imagenet dog.jpg
  cnx predict condensenet-86 ship.png

Exit codes:
  0  all images were answered
  1  the model cannot be used, or an image not; the others were answered
  2  wrong usage")]
pub struct PredictArgs {
    /// Converted model; or the ID or name of an experiment
    #[arg(value_name = "MODEL", value_hint = ValueHint::FilePath)]
    pub model: PathBuf,
    /// Images
    #[arg(required = true, value_name = "IMAGE", value_hint = ValueHint::FilePath)]
    pub images: Vec<PathBuf>,
    /// Classes to name, the likeliest first
    #[arg(long, value_name = "N", default_value = "5")]
    pub top: NonZeroUsize,
    /// Names of the classes: a file with a line a class, or ImageNet's class folders [default: CIFAR's are known]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::AnyPath)]
    pub labels: Option<PathBuf>,
    /// Threads [default: one a CPU]
    #[arg(long, value_name = "N", value_parser = threads)]
    pub threads: Option<NonZeroUsize>,
    /// Which model of an experiment [default: converted]
    #[arg(long, value_enum, value_name = "WHICH")]
    pub artifact: Option<Which>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// More threads than any machine has CPUs are a slip.
const MOST_THREADS: usize = 1024;

pub fn threads(text: &str) -> Result<NonZeroUsize, String> {
    let number = text.parse::<usize>().ok().filter(|n| *n <= MOST_THREADS).and_then(NonZeroUsize::new);
    number.ok_or_else(|| format!("expected a number of threads from 1 to {MOST_THREADS}"))
}

pub fn engine(name: &str) -> Result<Engine, String> {
    let known = Engine::ALL.iter().copied().find(|engine| engine.as_str() == name);
    known.ok_or_else(|| "expected libtorch or native".to_owned())
}

/// The verbs of `cnx bench`.
#[derive(Debug, Subcommand)]
pub enum BenchVerb {
    Latency(LatencyArgs),
    #[command(hide = true)]
    Row(RowArgs),
}

/// The paper's third table, of this machine's CPU: how long each network takes for one image
///
/// Networks for ImageNet at 224×224, batch 1, with random weights, converted where they convert: in libtorch (by cnx-worker),
/// and those of dense blocks in cnx's own engine too. Each is timed for three seconds in a process of its own, whose memory
/// is told. With --queue a worker does it, a job a row; `cnx results --table inference` shows the times then.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cnx bench latency
  cnx bench latency --threads 1 --engine native
  cnx bench latency --csv > latency.csv
  cnx bench latency --queue --wait && cnx results --table inference")]
pub struct LatencyArgs {
    /// Threads [default: one a CPU; with --queue, the worker's share]
    #[arg(long, value_name = "N", value_parser = threads)]
    pub threads: Option<NonZeroUsize>,
    /// Only this one: libtorch or native [default: both]
    #[arg(long, value_name = "ENGINE", value_parser = engine)]
    pub engine: Option<Engine>,
    #[command(flatten)]
    pub queue: QueueArgs,
    /// Print CSV
    #[arg(long, conflicts_with_all = ["json", "queue"])]
    pub csv: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Time one network on the native engine in this process; the spec is read from standard input
#[derive(Debug, Args)]
pub struct RowArgs {}

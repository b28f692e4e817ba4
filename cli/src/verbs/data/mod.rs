//! `cnx data`: datasets on disk.

mod dataset;
mod download;
mod fetch;
mod synth;
mod unpack;
mod verify;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueHint};

use crate::context::Context;
use crate::failure::{Failure, Result};
use dataset::Cifar;

/// The verbs of `cnx data`.
#[derive(Debug, Subcommand)]
pub enum DataVerb {
    Synth(SynthArgs),
    Fetch(FetchArgs),
    Verify(VerifyArgs),
}

/// Generate images of ten classes in CIFAR-10's binary format
///
/// The set is learnable, but not trivially so: patterns (stripes, checkerboards, discs, …) in random colours, sizes
/// and places, with clutter and noise. Experiments with `dataset = "synthetic"` generate it by themselves.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cnx data synth /tmp/images
  cnx data synth /tmp/images --train 50000 --test 10000 --seed 1")]
pub struct SynthArgs {
    /// Folder to write into
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub folder: PathBuf,
    /// Training images
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub train: u32,
    /// Test images
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub test: u32,
    /// Other seeds, other images
    #[arg(long, value_name = "S", default_value_t = cnx_proto::synthetic::DATASET_SEED)]
    pub seed: u64,
}

/// Download CIFAR-10 or CIFAR-100, check it and unpack it
///
/// An interrupted download goes on where it stopped. The archive's MD5 is that of its home page.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cnx data fetch cifar10
  cnx data fetch cifar100 --data /data
  cnx data fetch cifar10 --from https://mirror.example.org/cifar/
  cnx data fetch cifar10 --from ~/Downloads/cifar-10-binary.tar.gz")]
pub struct FetchArgs {
    /// Which one
    #[arg(value_enum)]
    pub dataset: Cifar,
    /// Folder of the datasets [default: $CNX_DATA, else ~/.cache/cnx]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub data: Option<PathBuf>,
    /// A mirror's URL, or the archive if you have it already
    #[arg(long, value_name = "URL|FILE")]
    pub from: Option<String>,
}

/// Check a dataset in CIFAR's binary format: files, sizes, labels
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cnx data verify ~/.cache/cnx/cifar-10-batches-bin\n  cnx data verify ~/.cache/cnx"
)]
pub struct VerifyArgs {
    /// Its folder, or the folder of the datasets
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub folder: PathBuf,
}

pub fn run(context: &Context, verb: &DataVerb) -> Result {
    match verb {
        DataVerb::Synth(args) => synth::run(context, args),
        DataVerb::Fetch(args) => fetch::run(context, args),
        DataVerb::Verify(args) => verify::run(args),
    }
}

/// The folder of the datasets, as the worker finds it too.
fn root(flag: Option<&Path>) -> Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    flag.map(Path::to_path_buf)
        .or_else(|| set("CNX_DATA"))
        .or_else(|| set("HOME").map(|home| home.join(".cache/cnx")))
        .ok_or_else(|| Failure::usage("no folder for the dataset: give --data DIR, or set CNX_DATA or HOME"))
}

/// An IO error and where it happened.
fn at<'a>(path: &'a Path, doing: &'a str) -> impl Fn(std::io::Error) -> Failure + 'a {
    move |error| Failure::refused(format!("{} cannot be {doing}: {error}", path.display()))
}

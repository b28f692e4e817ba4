//! `cnx data`: datasets on disk.

mod classes;
mod dataset;
mod download;
mod fetch;
mod images;
mod import;
mod imported;
mod pack;
mod progress;
mod synth;
mod unpack;
mod verify;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueHint};

use crate::context::Context;
use crate::failure::{Failure, Result};
use dataset::Cifar;

/// The names of a dataset's classes, by label; none where they are not known.
pub fn class_names(dataset: cnx_proto::spec::Dataset) -> Vec<String> {
    use cnx_proto::spec::Dataset;
    let names = |cifar| classes::classes(cifar).iter().map(|class| class.name.to_owned()).collect();
    match dataset {
        Dataset::Cifar10 => names(Cifar::Cifar10),
        Dataset::Cifar100 => names(Cifar::Cifar100),
        Dataset::ImageNet | Dataset::Synthetic => Vec::new(),
    }
}

/// The verbs of `cnx data`.
#[derive(Debug, Subcommand)]
pub enum DataVerb {
    Synth(SynthArgs),
    Fetch(FetchArgs),
    Import(ImportArgs),
    Pack(PackArgs),
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

/// Turn folders of PNGs into CIFAR's binary format
///
/// DIR holds train/CLASS/*.png and test/CLASS/*.png, 32×32 pixels each, the classes by their names in the dataset. Labels
/// are the dataset's own. The images of each file are shuffled, always in the same way, so that a first part of them is a
/// sample of all classes; the published files have another order, and so other checksums.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cnx data import CIFAR-10-dataset --format cifar10
  cnx data import pngs --format cifar100 -o /data/cifar-100-binary")]
pub struct ImportArgs {
    /// The folder that holds train and test
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub folder: PathBuf,
    /// Folder to write [default: where workers look, in $CNX_DATA, else ~/.cache/cnx]
    #[arg(short = 'o', long = "output", value_name = "OUT", value_hint = ValueHint::DirPath)]
    pub out: Option<PathBuf>,
    /// Whose format, classes and labels
    #[arg(long, value_enum)]
    pub format: Cifar,
}

/// Pack ImageNet's class folders into a few large files
///
/// DIR holds train/CLASS/*.JPEG and val/CLASS/*.JPEG, or one of them. The bytes of the images stay as they are, so training
/// on the pack gives the same figures; reading it is faster than reading a million files, and damage to it is noticed. What
/// was interrupted goes on where it stopped.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cnx data pack /data/imagenet
  cnx data pack /data/imagenet -o /nvme/imagenet-packed
  cnx data pack /data/imagenet -o /nvme/imagenet-small --shorter-side 320")]
pub struct PackArgs {
    /// The folder that holds train and val
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub folder: PathBuf,
    /// Folder to write [default: DIR-packed]
    #[arg(short = 'o', long = "output", value_name = "OUT", value_hint = ValueHint::DirPath)]
    pub out: Option<PathBuf>,
    /// Make larger images so many pixels at their shorter side and encode them again: smaller and faster to decode, but no
    /// longer the originals, and figures differ
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(32..=4096))]
    pub shorter_side: Option<u32>,
    /// Size of the files, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..=65536))]
    pub shard_mib: u64,
}

/// Check a dataset: CIFAR's files, sizes and labels; every image of ImageNet's folders or pack
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cnx data verify ~/.cache/cnx/cifar-10-batches-bin\n  cnx data verify ~/.cache/cnx\n  \
                  cnx data verify /data/imagenet"
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
        DataVerb::Import(args) => import::run(context, args),
        DataVerb::Pack(args) => pack::run(context, args),
        DataVerb::Verify(args) => verify::run(context, args),
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

//! Our side of `bench/infer.sh`.
//!
//!     infer make FOLDER                                          the networks, as safetensors and as ONNX, and images
//!     infer serve MODEL IMAGES THREADS BATCH INSTRUCTIONS        see `bench/infer.py`
//!     infer profile MODEL IMAGES INSTRUCTIONS THREADS            where the time of an image goes, on the first of some threads
//!     infer peak THREADS INSTRUCTIONS                            multiply-adds a second, at most
//!
//! The networks' weights are random, and so are their batch norms, with scales of every sign: nothing can be left out.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, stdin};
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use cnx_engine::profile::{self, Step};
use cnx_engine::{Instructions, Model, Runner, peak, sample};
use cnx_formats::{onnx, safetensors};
use cnx_proto::architecture::Form;
use cnx_proto::cost::cost;
use cnx_proto::file::parse;

/// Configs of the networks, below `configs/`.
const NETWORKS: &[&str] = &[
    "imagenet/condensenet-74-g8",
    "imagenet/condensenet-74-g4",
    "condensenet-50",
    "condensenet-74",
    "condensenet-86",
    "condensenet-98",
    "condensenet-110",
    "condensenet-122",
    "condensenet-182",
];
/// Images of each network: the largest batch.
const IMAGES: usize = 16;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["make", folder] => make(Path::new(folder)),
        ["serve", model, images, threads, batch, instructions] => {
            serve(Path::new(model), Path::new(images), number(threads), number(batch), named(instructions))
        }
        ["profile", model, images, instructions, threads] => {
            profile(Path::new(model), Path::new(images), named(instructions), number(threads))
        }
        ["peak", threads, instructions] => {
            println!("{}", peak::multiply_adds_per_s(named(instructions), number(threads)).unwrap());
        }
        _ => panic!(
            "infer make FOLDER, infer serve MODEL IMAGES THREADS BATCH INSTRUCTIONS, infer profile MODEL IMAGES INSTRUCTIONS THREADS, or infer peak THREADS INSTRUCTIONS"
        ),
    }
}

fn number(text: &str) -> NonZeroUsize {
    text.parse().unwrap_or_else(|_| panic!("{text} is no number from 1"))
}

fn named(text: &str) -> Instructions {
    match text {
        "auto" => Instructions::Auto,
        "avx512" => Instructions::Avx512,
        "avx2" => Instructions::Avx2,
        "portable" => Instructions::Portable,
        _ => panic!("{text} is none of auto, avx512, avx2, portable"),
    }
}

/// For each network its files, and a line: name, multiply-adds.
fn make(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    for config in NETWORKS {
        let file = format!("configs/{config}.toml");
        let text = fs::read_to_string(&file).expect("run this in the repository's root");
        let spec = parse(&file, &text, &[]).unwrap();
        let state = sample::state(&spec, Form::Converted, 1);
        let write = |extension: &str, bytes: &[u8]| {
            fs::write(folder.join(format!("{}.{extension}", spec.name)), bytes).unwrap();
        };
        write("safetensors", &safetensors::write(&state).unwrap());
        write("onnx", &onnx::write(&spec, Form::Converted, &state).unwrap());
        let images = sample::images(&spec, IMAGES, 2);
        write("images", &images.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>());
        println!("{} {}", spec.name, cost(&spec).converted_multiply_adds);
    }
}

/// Reads "SECONDS" and answers with the milliseconds of each run in so many seconds; reads "logits FILE" and writes them.
fn serve(
    model: &Path,
    images: &Path,
    threads: NonZeroUsize,
    batch: NonZeroUsize,
    instructions: Instructions,
) {
    let model = Model::open(model).unwrap().with_instructions(instructions).unwrap();
    let size = model.spec().data.dataset.image_size() as usize;
    let mut runner = Runner::new(Arc::new(model), threads);
    let images: Vec<f32> =
        fs::read(images).unwrap().as_chunks().0.iter().map(|&x| f32::from_le_bytes(x)).collect();
    let images = &images[..batch.get() * 3 * size * size];
    runner.logits(images).unwrap();
    println!("ready");
    for line in stdin().lock().lines() {
        let line = line.unwrap();
        if let Some(file) = line.strip_prefix("logits ") {
            let logits = runner.logits(images).unwrap();
            fs::write(file, logits.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>()).unwrap();
            println!("written");
            continue;
        }
        let seconds: f64 = line.parse().expect("seconds");
        let mut times = Vec::new();
        let all = Instant::now();
        // Each run is timed by itself.
        while times.is_empty() || all.elapsed().as_secs_f64() < seconds {
            let start = Instant::now();
            std::hint::black_box(runner.logits(std::hint::black_box(images)).unwrap());
            times.push((start.elapsed().as_secs_f64() * 1e3).to_string());
        }
        println!("{}", times.join(" "));
    }
}

/// The median time of each step.
fn profile(model: &Path, images: &Path, instructions: Instructions, threads: NonZeroUsize) {
    let model = Model::open(model).unwrap().with_instructions(instructions).unwrap();
    let spec = model.spec().clone();
    let size = spec.data.dataset.image_size() as usize;
    let mut runner = Runner::new(Arc::new(model), threads);
    let images: Vec<f32> =
        fs::read(images).unwrap().as_chunks().0.iter().map(|&x| f32::from_le_bytes(x)).collect();
    let image = &images[..3 * size * size];
    let mut times: BTreeMap<Step, Vec<f64>> = BTreeMap::new();
    for _ in 0..200 {
        let steps = profile::of(|| {
            runner.logits(image).unwrap();
        });
        for (step, time) in steps {
            times.entry(step).or_default().push(time.as_secs_f64());
        }
    }
    let mut all = 0.0;
    for (step, times) in &mut times {
        times.sort_by(f64::total_cmp);
        let median = times[times.len() / 2];
        all += median;
        println!("{:<14} {:>7.3} ms", format!("{step:?}"), median * 1e3);
    }
    println!("{:<14} {:>7.3} ms", "all", all * 1e3);
}

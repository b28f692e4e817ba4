//! `make bench-data`: images/s of ImageNet's loader, from files to batches, beside torchvision's in the same run. What is measured
//! takes turns, round after round, so that whatever else the machine does falls on all alike; the median counts.

// A benchmark may panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use cnx_images::folder::Folders;
use cnx_images::pack::{Options, pack};
use cnx_proto::Spec;
use cnx_proto::recipe::recipe;
use cnx_proto::spec::{Arch, Dataset};
use cnx_worker::data::{self, Images, batches};
use serde_json::json;
use tch::Device;

const FOLDER: &str = "target/bench/imagenet";
const PACK: &str = "target/bench/imagenet-packed";
const BATCH: u32 = 128;
/// Images of which decoding alone is measured.
const DECODED: usize = 256;

fn main() {
    let setting =
        |name: &str, default: f64| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default);
    let seconds = setting("CNX_BENCH_SECONDS", 4.0);
    let rounds = setting("CNX_BENCH_ROUNDS", 5.0) as usize;
    let folders = Folders::open(Path::new(FOLDER)).unwrap();
    let splits = [("train", folders.list("train").unwrap())];
    let options = Options { shard_bytes: 64 << 20, shorter_side: None };
    let _ = fs::remove_dir_all(PACK);
    pack(&folders, &splits, Path::new(PACK), options, &mut |_, _| {}).unwrap();

    let mut peer = Peer::start();
    let mut measured: BTreeMap<(&str, u32), Vec<f64>> = BTreeMap::new();
    for round in 0..rounds {
        eprintln!("round {} of {rounds}", round + 1);
        let mut note = |what, threads, value| measured.entry((what, threads)).or_default().push(value);
        note("decode", 1, decode(seconds));
        note("peer decode", 1, peer.ask("decode", 1, seconds));
        for threads in [1, 2] {
            note("folder", threads, ours(Path::new(FOLDER), threads, seconds));
            note("pack", threads, ours(Path::new(PACK), threads, seconds));
            note("pillow", threads, peer.ask("pillow", threads, seconds));
            note("torchvision", threads, peer.ask("torchvision", threads, seconds));
        }
    }
    peer.end();

    let median = |what: &str, threads: u32| {
        let mut values = measured[&(what, threads)].clone();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let mut figures = Vec::new();
    let mut figure = |metric: String, value: f64, peer: &str, peer_value: f64| {
        println!(
            "{metric:<50} {value:>6.0} images/s   {peer:<41} {peer_value:>6.0}   {:.2}",
            value / peer_value
        );
        figures.push(json!({
            "metric": metric, "value": value, "unit": "images/s", "peer": peer, "peer_value": peer_value,
            "ratio": value / peer_value,
        }));
    };
    figure(
        "JPEG decoding, 1 thread".into(),
        median("decode", 1),
        "libjpeg-turbo (Pillow)",
        median("peer decode", 1),
    );
    for threads in [1, 2] {
        for (what, ours) in [("class folders", "folder"), ("a pack", "pack")] {
            for (name, peer) in
                [("torchvision with Pillow", "pillow"), ("torchvision with decode_jpeg", "torchvision")]
            {
                let threads_are =
                    if threads == 1 { "1 thread".to_owned() } else { format!("{threads} threads") };
                let metric = format!("training batches from {what}, {threads_are}");
                figure(
                    metric,
                    median(ours, threads),
                    &format!("{name}, workers: {threads}"),
                    median(peer, threads),
                );
            }
        }
    }
    let out = PathBuf::from("target/bench/data.json");
    fs::write(&out, format!("{:#}\n", json!(figures))).unwrap();
    eprintln!("also in {}", out.display());
}

/// Images/s of training batches.
fn ours(root: &Path, threads: u32, seconds: f64) -> f64 {
    let mut spec: Spec = recipe(Arch::CondenseNet, Dataset::ImageNet);
    spec.train.batch_size = BATCH;
    (spec.data.root, spec.data.workers, spec.data.test_images) = (Some(root.to_path_buf()), threads, Some(0));
    let data = data::load(&spec, None).unwrap();
    let pass = |epoch| {
        let batches = batches::training(&data.train, &spec, epoch, Device::Cpu);
        batches.map(|batch| batch.unwrap().len()).sum::<usize>()
    };
    pass(0);
    let (mut images, mut epoch, start) = (0, 1, Instant::now());
    while start.elapsed().as_secs_f64() < seconds {
        images += pass(epoch);
        epoch += 1;
    }
    assert!(matches!(*data.train, Images::Encoded(_)));
    images as f64 / start.elapsed().as_secs_f64()
}

/// Images/s of decoding alone, reading them included.
fn decode(seconds: f64) -> f64 {
    let listing = Folders::open(Path::new(FOLDER)).unwrap().list("train").unwrap();
    let mut paths: Vec<PathBuf> = listing.images.iter().map(|image| listing.path(image)).collect();
    paths.sort();
    paths.truncate(DECODED);
    let (mut images, start) = (0, Instant::now());
    while start.elapsed().as_secs_f64() < seconds {
        for path in &paths {
            cnx_images::decode::decode(&fs::read(path).unwrap()).unwrap();
        }
        images += paths.len();
    }
    images as f64 / start.elapsed().as_secs_f64()
}

/// `bench/data.py serve`
struct Peer {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    fn start() -> Peer {
        let mut child = Command::new("target/peers/python")
            .args(["bench/data.py", "serve", FOLDER])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("make peers");
        let (questions, answers) =
            (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Peer { child, questions, answers }
    }

    fn ask(&mut self, loader: &str, workers: u32, seconds: f64) -> f64 {
        writeln!(self.questions, "{loader} {workers} {seconds}").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim().parse().expect("the peer answers with a number")
    }

    fn end(mut self) {
        drop(self.questions);
        self.child.wait().unwrap();
    }
}

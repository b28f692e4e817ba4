//! What the tests of the trainer share: small specs, and attempts run in this process or as a child.

#![allow(dead_code)]
// A test may panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cnx_proto::Spec;
use cnx_proto::recipe::recipe;
use cnx_proto::spec::{Arch, Dataset};
use cnx_proto::v1::{Artifact, Assign, EpochMetrics, Figures, Lease, Outcome, Report, Started, report::Body};
use cnx_worker::paths::Paths;
use cnx_worker::pipeline::{Surroundings, attempt};
use cnx_worker::reporter::Reporter;
use cnx_worker::stop::Stop;
use prost::Message;
use tch::Device;

/// Longer than any test: no checkpoint in the middle of an epoch but when stopped.
pub const NEVER: Duration = Duration::from_secs(1_000_000);

/// A CondenseNet that trains on 192 generated images in a second or two, dropout on, in 6 epochs.
pub fn tiny() -> Spec {
    let mut spec = recipe(Arch::CondenseNet, Dataset::Synthetic);
    spec.name = "tiny".to_owned();
    spec.model.stages = serde_json::from_value("1-1-1".into()).unwrap();
    spec.model.growth = serde_json::from_value("4-4-8".into()).unwrap();
    spec.model.dropout = 0.1;
    spec.data.train_images = Some(192);
    spec.data.test_images = Some(60);
    spec.train.epochs = 6;
    spec.train.batch_size = 40;
    spec.train.group_lasso = 1e-5;
    spec.resources.threads = 1;
    spec
}

/// The assignment of an attempt of experiment 1, whose artifacts lie in a folder.
pub fn assign(spec: &Spec, folder: &Path, attempt: u32) -> Assign {
    Assign {
        lease: Some(Lease { experiment: 1, attempt, token: String::new() }),
        spec_json: spec.to_json(),
        lineage: vec![1],
        artifacts_url: url::Url::from_directory_path(folder).unwrap().into(),
    }
}

/// The program.
pub const WORKER: &str = env!("CARGO_BIN_EXE_cnx-worker");

/// A child that runs an attempt, and the input that must stay open for as long as its agent lives.
pub fn spawn(spec: &Spec, folder: &Path, attempt: u32, arguments: &[&str]) -> (Child, ChildStdin) {
    let mut child = Command::new(WORKER)
        .args(["run", "--device", "cpu", "--threads", "1", "--data"])
        .arg(folder)
        .args(arguments)
        // As the agent does: several of them share few cores.
        .env("GOMP_SPINCOUNT", "1000")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(&assign(spec, folder, attempt).encode_length_delimited_to_vec()).unwrap();
    (child, input)
}

/// Reads one report; none at the end.
fn read(output: &mut impl Read) -> Option<Report> {
    let mut length = 0usize;
    for shift in (0..35).step_by(7) {
        let mut byte = [0];
        if output.read(&mut byte).unwrap() == 0 {
            return None;
        }
        length |= usize::from(byte[0] & 0x7f) << shift;
        if byte[0] < 0x80 {
            break;
        }
    }
    let mut bytes = vec![0; length];
    output.read_exact(&mut bytes).unwrap();
    Some(Report::decode(bytes.as_slice()).unwrap())
}

/// All reports until the end, `each` seeing them as they come.
pub fn read_all(child: &mut Child, mut each: impl FnMut(&Report)) -> Told {
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut told = Told::default();
    while let Some(report) = read(&mut output) {
        each(&report);
        told.reports.push(report);
    }
    told
}

/// What an attempt reported.
#[derive(Debug, Default)]
pub struct Told {
    pub reports: Vec<Report>,
}

impl Told {
    fn all<T: Clone>(&self, of: impl Fn(&Body) -> Option<&T>) -> Vec<T> {
        self.reports.iter().filter_map(|report| of(report.body.as_ref()?).cloned()).collect()
    }

    pub fn started(&self) -> Started {
        let first = self.reports.iter().find(|report| !matches!(report.body, Some(Body::Progress(_))));
        match &first.unwrap().body {
            Some(Body::Started(started)) => started.clone(),
            other => panic!("the first durable report is {other:?}"),
        }
    }

    /// Without what measures time.
    pub fn epochs(&self) -> Vec<EpochMetrics> {
        let epochs = self.all(|body| if let Body::Epoch(epoch) = body { Some(epoch) } else { None });
        epochs
            .into_iter()
            .map(|epoch| EpochMetrics { train_wall_s: 0.0, images_per_s: 0.0, ..epoch })
            .collect()
    }

    pub fn artifacts(&self) -> Vec<Artifact> {
        self.all(|body| if let Body::Artifact(artifact) = body { Some(artifact) } else { None })
    }

    pub fn figures(&self) -> Figures {
        self.all(|body| if let Body::Figures(figures) = body { Some(figures) } else { None }).pop().unwrap()
    }

    pub fn outcome(&self) -> Outcome {
        match &self.reports.last().unwrap().body {
            Some(Body::Outcome(outcome)) => outcome.clone(),
            other => panic!("the last report is {other:?}"),
        }
    }
}

/// Runs an attempt in this process. `stop_after`: asks it to stop once it has told so many epochs of its own.
pub fn run(spec: &Spec, folder: &Path, number: u32, stop_after: Option<u32>) -> Told {
    run_with(spec, folder, number, Stop::default(), stop_after, NEVER)
}

/// The same, with whatever else may stop it, and checkpoints in the middle of epochs.
pub fn run_with(
    spec: &Spec,
    folder: &Path,
    number: u32,
    stop: Stop,
    stop_after: Option<u32>,
    checkpoint_every: Duration,
) -> Told {
    let told = Arc::new(Mutex::new(Told::default()));
    let (sink_told, sink_stop) = (Arc::clone(&told), stop.clone());
    let sink = move |report: &Report| {
        if let Some(Body::Epoch(epoch)) = &report.body
            && stop_after == Some(epoch.epoch)
        {
            sink_stop.request();
        }
        sink_told.lock().unwrap().reports.push(report.clone());
        Ok(())
    };
    let mut reporter = Reporter::new(Box::new(sink), stop.clone());
    let here = Surroundings {
        device: Device::Cpu,
        threads: 1,
        data: None,
        paths: Paths::default(),
        checkpoint_every,
    };
    attempt(&assign(spec, folder, number), &here, &mut reporter, &stop).unwrap();
    reporter.finish().unwrap();
    Arc::try_unwrap(told).unwrap().into_inner().unwrap()
}

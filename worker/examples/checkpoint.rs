//! What a checkpoint costs a training of CondenseNet-86, batch 64, on two threads of a CPU: how long a step waits for it, and how
//! much slower steps are while one is written.
//!
//!     cargo run --release -p cnx-worker --example checkpoint [FOLDER]     # where they are written [default: a temporary one]

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use cnx_proto::Spec;
use cnx_proto::dashed::Dashed;
use cnx_proto::recipe::recipe;
use cnx_proto::spec::{Arch, Dataset};
use cnx_proto::v1::{Assign, Lease};
use cnx_worker::checkpoint::{Keeper, Snapshot};
use cnx_worker::data::batches::{Batch, Normalisation};
use cnx_worker::failure::{Failure, Result};
use cnx_worker::model::{Form, Network};
use cnx_worker::optimizer::Sgd;
use cnx_worker::record::{Record, UnderWay};
use cnx_worker::step::{StepSettings, train_step};
use tch::{Device, Kind, Tensor};

const STEPS: u64 = 8;

fn main() -> Result<()> {
    let folder = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = folder.join(format!("cnx-checkpoint-cost-{}", std::process::id()));
    let url = url::Url::from_directory_path(&folder)
        .map_err(|()| Failure::bad_spec(format!("{} is not an absolute path", folder.display())))?;
    let spec = condensenet_86();
    let lease = Some(Lease { experiment: 1, attempt: 1, token: String::new() });
    let assign = Assign { lease, artifacts_url: url.into(), ..Assign::default() };
    let keeper = Keeper::open(&assign, &spec)?;

    tch::set_num_threads(2);
    let mut network = Network::new(&spec, Form::Large, Device::Cpu)?;
    let mut optimizer = Sgd::new(network.state(), &spec.train)?;
    let normalisation = Normalisation::new(&spec, Kind::Float, Device::Cpu)?;
    let batch = Batch {
        images: Tensor::f_randint(256, [64, 3, 32, 32], (Kind::Uint8, Device::Cpu))?,
        labels: Tensor::f_randint(10, [64], (Kind::Int64, Device::Cpu))?,
    };
    let step = |number: u64, network: &mut Network, optimizer: &mut Sgd| -> Result<Duration> {
        let settings = StepSettings { step: number, learning_rate: 0.1, train: &spec.train };
        let start = Instant::now();
        train_step(network, optimizer, &normalisation, &batch, &settings)?;
        Ok(start.elapsed())
    };

    step(0, &mut network, &mut optimizer)?;
    let (mut plain, mut beside, mut waits, mut writes, mut bytes) = (vec![], vec![], vec![], vec![], 0);
    for number in 1..=STEPS {
        plain.push(step(2 * number, &mut network, &mut optimizer)?);
        let under_way = Some(UnderWay { steps: number, ..UnderWay::default() });
        let record = Record { under_way, ..Record::default() };
        let start = Instant::now();
        let snapshot = Snapshot::take(&network, &optimizer, record, false)?;
        waits.push(start.elapsed());
        let written = thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let start = Instant::now();
                keeper.save(snapshot).map(|saved| (saved, start.elapsed()))
            });
            beside.push(step(2 * number + 1, &mut network, &mut optimizer)?);
            writer.join().map_err(|_| Failure::internal("the writer died"))?
        })?;
        writes.push(written.1);
        bytes = written.0.iter().map(|artifact| artifact.bytes).sum();
    }
    println!("a checkpoint                              {:>9.2} MB", bytes as f64 / 1e6);
    for (what, times) in [
        ("a step", plain),
        ("a step while a checkpoint is written", beside),
        ("what a step waits for a checkpoint", waits),
        ("encoding, hashing and writing it", writes),
    ] {
        println!("{what:<41} {} ms (median of {STEPS}; least, most)", spread(times));
    }
    std::fs::remove_dir_all(&folder).map_err(|error| Failure::file("delete", &folder, &error))
}

fn condensenet_86() -> Spec {
    let mut spec = recipe(Arch::CondenseNet, Dataset::Synthetic);
    spec.name = "condensenet-86".to_owned();
    (spec.model.stages, spec.model.growth) = (Dashed(vec![14, 14, 14]), Dashed(vec![8, 16, 32]));
    spec
}

fn spread(mut times: Vec<Duration>) -> String {
    times.sort();
    let ms = |time: Option<&Duration>| time.map_or(0.0, |time| time.as_secs_f64() * 1e3);
    format!("{:>9.2} ({:.2}, {:.2})", ms(times.get(times.len() / 2)), ms(times.first()), ms(times.last()))
}

//! How fast this worker trains: images/s of whole steps (data, update and figures included) on generated images.
//!
//!     cargo run --release -p cnx-worker --example train -- configs/condensenet-86.toml STEPS THREADS [KEY=VALUE…] [WHERE…]
//!
//! WHERE: `device=cuda:0` (default: cpu), `ways=graph,libtorch` and `stages=0,3` (default: all that there are).
//! Prints a line of JSON for each way of taking a step and each condensing stage: way, stage, images/s; on a GPU also the MiB that
//! tensors had at most. `bench/train.sh` and `bench/gpu.sh` set it beside PyTorch.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;
use std::time::Instant;

use cnx_proto::Spec;
use cnx_proto::file::{Override, parse};
use cnx_proto::spec::{Dataset, Kernels};
use cnx_worker::cpu_step::CpuStep;
use cnx_worker::data::{self, Images, Pixels, batches, batches::Normalisation};
use cnx_worker::device_step::DeviceStep;
use cnx_worker::model::{Form, Network};
use cnx_worker::optimizer::Sgd;
use cnx_worker::step::{StepSettings, train_step};
use cnx_worker::{device, native};
use tch::{Cuda, Device};

fn main() {
    let (mut device, mut ways, mut stages) = ("cpu".to_owned(), None, None);
    let mut arguments = Vec::new();
    for argument in std::env::args().skip(1) {
        match argument.split_once('=') {
            Some(("device", name)) => device = name.to_owned(),
            Some(("ways", list)) => ways = Some(list.split(',').map(str::to_owned).collect::<Vec<_>>()),
            Some(("stages", list)) => {
                stages = Some(list.split(',').map(|n| n.parse().expect("a stage")).collect())
            }
            _ => arguments.push(argument),
        }
    }
    let mut arguments = arguments.into_iter();
    let file = arguments.next().expect("a config");
    let steps: u32 = arguments.next().expect("steps").parse().expect("a number of steps");
    let threads: usize = arguments.next().expect("threads").parse().expect("a number of threads");
    let text = std::fs::read_to_string(&file).expect("the config can be read");
    let overrides: Vec<Override> = arguments.map(|a| a.parse().expect("KEY=VALUE")).collect();
    let spec = parse(&file, &text, &overrides).expect("a config");
    tch::set_num_threads(threads as i32);
    let device = device::parse(&device).expect("a device");
    device::set_arithmetic(&spec, device).unwrap();
    device::set_repeatable(&spec, device).unwrap();

    let bench = Bench { images: images(&spec, steps + WARM_UP), spec, steps, threads, device };
    let all = if device.is_cuda() { &["graph", "device", "libtorch"][..] } else { &["kernels", "libtorch"] };
    let ways = ways.unwrap_or_else(|| all.iter().map(|&way| way.to_owned()).collect());
    let last = bench.spec.model.condense_factor.saturating_sub(1);
    for way in ways {
        // Of libtorch's steps only the first stage: masks cost it the same, however much they leave.
        let of_way = if way == "kernels" { (0..=last).collect() } else { vec![0] };
        for stage in stages.clone().unwrap_or(of_way) {
            bench.measure(&way, stage);
        }
    }
}

/// Steps that are taken before the first that counts.
const WARM_UP: u32 = 2;

/// As many as the steps need; of 224×224, four batches of noise, which come again and again.
fn images(spec: &Spec, steps: u32) -> Arc<Images> {
    if spec.data.dataset != Dataset::ImageNet {
        let mut spec = spec.clone();
        spec.data.dataset = Dataset::Synthetic;
        (spec.data.train_images, spec.data.test_images) = (Some(spec.train.batch_size * steps), Some(1));
        return data::load(&spec, None).unwrap().train;
    }
    let (images, size) = (4 * spec.train.batch_size as usize, spec.data.dataset.image_size() as usize);
    let noise = (0..images * 3 * size * size).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8);
    let labels = (0..images).map(|i| (i % 256) as u8).collect();
    Arc::new(Images::from(Pixels { pixels: noise.collect(), labels, size }))
}

struct Bench {
    spec: Spec,
    images: Arc<Images>,
    steps: u32,
    threads: usize,
    device: Device,
}

impl Bench {
    fn measure(&self, way: &str, stage: u32) {
        let mut network = Network::new(&self.spec, Form::Large, self.device).unwrap();
        network.condense_to(stage).unwrap();
        let mut optimizer = Sgd::new(network.state(), &self.spec.train).unwrap();
        if self.device.is_cuda() {
            native::reset_peak_memory(self.device).unwrap();
        }
        let seconds = match way {
            "graph" | "device" => self.seconds_from_device(way == "graph", &mut network, &mut optimizer),
            _ => self.seconds_from_host(way == "kernels", &mut network, &mut optimizer),
        };
        let Some(mut seconds) = seconds else { return };
        seconds.sort_by(f64::total_cmp);
        let images_per_s = f64::from(self.spec.train.batch_size) / seconds[seconds.len() / 2];
        let mut line = format!(r#""way": "{way}", "stage": {stage}, "images_per_s": {images_per_s}"#);
        if self.device.is_cuda() {
            line += &format!(r#", "peak_mib": {}"#, native::peak_memory(self.device).unwrap() >> 20);
        }
        println!("{{{line}}}");
    }

    /// Seconds of each step, from batches that threads prepare; on a GPU, which works behind the host, of all of them on average.
    fn seconds_from_host(
        &self,
        kernels: bool,
        network: &mut Network,
        optimizer: &mut Sgd,
    ) -> Option<Vec<f64>> {
        let Bench { spec, images, steps, threads, device } = self;
        let normalisation = Normalisation::new(spec, network.state().kind(), *device).unwrap();
        let mut kernels =
            if kernels { Some(CpuStep::with_threads(spec, network, *threads).unwrap()?) } else { None };
        let mut seconds = Vec::new();
        let mut started = Instant::now();
        let epochs = (0..).flat_map(|epoch| batches::training(images, spec, epoch, *device));
        for (step, batch) in epochs.enumerate().take((steps + WARM_UP) as usize) {
            let batch = batch.unwrap();
            let settings = StepSettings { step: step as u64, learning_rate: 0.1, train: &spec.train };
            match &mut kernels {
                Some(kernels) => kernels.step(network, optimizer, &normalisation, &batch, &settings),
                None => train_step(network, optimizer, &normalisation, &batch, &settings),
            }
            .unwrap();
            if !device.is_cuda() || step + 1 == WARM_UP as usize {
                self.synchronize();
                seconds.push(started.elapsed().as_secs_f64());
                started = Instant::now();
            }
        }
        if device.is_cuda() {
            self.synchronize();
            return Some(vec![started.elapsed().as_secs_f64() / f64::from(*steps)]);
        }
        Some(seconds.split_off(WARM_UP as usize))
    }

    /// Seconds of a step in each of five runs of steps, from data on the device; the host runs ahead, as in a training.
    fn seconds_from_device(
        &self,
        captured: bool,
        network: &mut Network,
        optimizer: &mut Sgd,
    ) -> Option<Vec<f64>> {
        let mut spec = self.spec.clone();
        spec.resources.kernels = Kernels::Graph;
        let mut step = DeviceStep::new(&spec, &self.images, network, optimizer).unwrap()?;
        if !captured {
            step = step.uncaptured();
        }
        let of_epoch = batches::steps_per_epoch(self.images.len(), spec.train.batch_size);
        let rates = vec![0.1; of_epoch as usize];
        let (mut taken, mut seconds) = (0, Vec::new());
        let mut take = |steps: u64, network: &mut Network, optimizer: &mut Sgd| {
            let mut within = 0.0;
            let mut left = steps;
            while left > 0 {
                step.start_epoch(&spec, taken as u32, 0, &rates).unwrap();
                taken += 1;
                self.synchronize();
                let started = Instant::now();
                for _ in 0..left.min(of_epoch) {
                    step.step(network, optimizer, &spec.train).unwrap();
                }
                self.synchronize();
                within += started.elapsed().as_secs_f64();
                left -= left.min(of_epoch);
            }
            within / steps as f64
        };
        take(u64::from(WARM_UP), network, optimizer);
        let run = u64::from(self.steps.div_ceil(5).max(1));
        for _ in 0..5 {
            seconds.push(take(run, network, optimizer));
        }
        Some(seconds)
    }

    fn synchronize(&self) {
        if let Device::Cuda(number) = self.device {
            Cuda::synchronize(number as i64);
        }
    }
}

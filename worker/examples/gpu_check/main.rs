//! Whether a GPU computes what the CPU computes: each check prints a line with its verdict and what it measured.
//!
//!     CUBLAS_WORKSPACE_CONFIG=:4096:8 cargo run --release -p cnx-worker --example gpu_check [DEVICE [CHECK]]   # default: cuda:0, all
//!
//! CHECK: words that a check's name holds. With `cpu` it checks itself: all but graphs, which a CPU has not. Status 1: a check failed.

mod kill;
mod trainer;

use cnx_proto::Spec;
use cnx_proto::spec::Precision;
use cnx_worker::failure::{Failure, Result};
use cnx_worker::{device, native};
use tch::Device;

use trainer::{Trainer, difference, small};

/// What a check found: whether all is well, and what it measured.
type Verdict = (bool, String);

type Check = fn(Device) -> Result<Verdict>;

fn main() -> Result<()> {
    let name = std::env::args().nth(1).unwrap_or_else(|| "cuda:0".to_owned());
    let only = std::env::args().nth(2).unwrap_or_default();
    let here = device::parse(&name)?;
    println!("{name}: {}, libtorch {}", device::name(here), env!("CNX_LIBTORCH"));
    let checks: [(&str, Check); 10] = [
        ("a step in float64 is the CPU's, within 1e-9", in_double),
        (
            "a step in float32 is as near to the CPU's in float64 as the CPU's in float32, or within 1e-4",
            in_single,
        ),
        ("an evaluation is the CPU's, within 1e-4", evaluation),
        ("a captured graph gives the numbers of its operations one by one, to the bit", graph),
        ("a training repeats to the bit (train.deterministic)", repeats),
        ("killed and resumed, a training ends the same, to the bit", kill::check),
        ("with train.deterministic = false it trains", |here| {
            trains(here, |spec| spec.train.deterministic = false)
        }),
        ("in TF32 it trains", |here| trains(here, |spec| spec.train.precision = Precision::Tf32)),
        ("in bfloat16 it trains", |here| trains(here, |spec| spec.train.precision = Precision::Bfloat16)),
        ("with channels_last it trains", |here| trains(here, |spec| spec.train.channels_last = true)),
    ];
    let chosen: Vec<_> = checks.into_iter().filter(|(name, _)| name.contains(&only)).collect();
    if chosen.is_empty() {
        return Err(Failure::bad_spec(format!("no check's name holds {only:?}; without it all run")));
    }
    let mut failed = 0;
    for (name, check) in chosen {
        let (passed, measured) = check(here).unwrap_or_else(|failure| (false, failure.message));
        println!("{} {name}: {measured}", if passed { "ok    " } else { "FAILED" });
        failed += u32::from(!passed);
    }
    // Where all checks ran in other processes, this one has used no GPU.
    if let (true, Ok(peak)) = (here.is_cuda(), native::peak_memory(here)) {
        println!("at most {} MiB of tensors", peak >> 20);
    }
    if failed > 0 {
        return Err(Failure::internal(format!("{failed} checks failed")));
    }
    Ok(())
}

/// A step of each condensing stage, each time from the CPU's state.
fn in_double(here: Device) -> Result<Verdict> {
    let mut spec = small();
    spec.train.precision = Precision::Float64;
    device::set_repeatable(&spec, here)?;
    device::set_arithmetic(&spec, here)?;
    let [mut cpu, mut other] = [Trainer::new(&spec, Device::Cpu)?, Trainer::new(&spec, here)?];
    let (mut furthest, mut at) = (0.0, String::new());
    for stage in 0..spec.model.condense_factor {
        other.adopt(&cpu)?;
        cpu.host_step(stage)?;
        other.device_steps(stage, 1, true)?;
        let (off, name) = difference(&cpu, &other)?;
        if off >= furthest {
            (furthest, at) = (off, name);
        }
    }
    Ok((furthest <= 1e-9, format!("furthest {furthest:.1e} of the largest element, in {at}")))
}

/// The same in float32. Where an activation lies within rounding of 0, a ReLU may pass it here and not there: how far that leads is
/// seen by the CPU's own two precisions.
fn in_single(here: Device) -> Result<Verdict> {
    let spec = small();
    let mut double = spec.clone();
    double.train.precision = Precision::Float64;
    device::set_repeatable(&spec, here)?;
    device::set_arithmetic(&spec, here)?;
    let [mut cpu, mut other] = [Trainer::new(&spec, Device::Cpu)?, Trainer::new(&spec, here)?];
    let mut exact = Trainer::new(&double, Device::Cpu)?;
    let (mut passed, mut measured) = (true, Vec::new());
    for stage in 0..spec.model.condense_factor {
        exact.adopt(&cpu)?;
        other.adopt(&cpu)?;
        exact.host_step(stage)?;
        cpu.host_step(stage)?;
        other.device_steps(stage, 1, true)?;
        let [(off, at), (own, _)] = [difference(&exact, &other)?, difference(&exact, &cpu)?];
        passed &= off <= f64::max(1e-4, 4.0 * own);
        measured.push(format!("{off:.1e} in {at} (the CPU's own: {own:.1e})"));
    }
    Ok((passed, measured.join(", ")))
}

fn evaluation(here: Device) -> Result<Verdict> {
    let spec = small();
    device::set_arithmetic(&spec, here)?;
    let [mut cpu, mut other] = [Trainer::new(&spec, Device::Cpu)?, Trainer::new(&spec, here)?];
    cpu.host_step(0)?;
    other.adopt(&cpu)?;
    let (cpu, other) = (cpu.evaluate()?, other.evaluate()?);
    let off = (cpu.loss - other.loss).abs() / cpu.loss;
    let same = (cpu.top1_error - other.top1_error).abs() < 1.0;
    Ok((
        off <= 1e-4 && same,
        format!(
            "loss {} and {}, top-1 error {} and {}",
            cpu.loss, other.loss, cpu.top1_error, other.top1_error
        ),
    ))
}

/// Three epochs at each condensing stage, whose last batch is smaller, in every precision and layout.
fn graph(here: Device) -> Result<Verdict> {
    if !here.is_cuda() {
        return Ok((true, "a CPU has none".to_owned()));
    }
    let mut compared = Vec::new();
    for precision in [Precision::Float32, Precision::Float64, Precision::Bfloat16] {
        // Without the group lasso weights enter otherwise in bfloat16.
        for (channels_last, lasso) in [(false, 1e-5), (true, 1e-5), (false, 0.0), (true, 0.0)] {
            let mut spec = small();
            spec.train.group_lasso = lasso;
            (spec.train.precision, spec.train.channels_last, spec.model.dropout) =
                (precision, channels_last, 0.1);
            let end = |captured: bool| -> Result<Trainer> {
                device::set_repeatable(&spec, here)?;
                let mut trainer = Trainer::new(&spec, here)?;
                for stage in 0..spec.model.condense_factor {
                    trainer.device_steps(stage, 3 * trainer.steps(), captured)?;
                }
                Ok(trainer)
            };
            let (off, name) = difference(&end(true)?, &end(false)?)?;
            compared.push((
                off,
                format!("{precision}, channels_last {channels_last}, lasso {lasso}: {off:.1e} in {name}"),
            ));
        }
    }
    let passed = compared.iter().all(|(off, _)| *off == 0.0);
    let worst = compared.into_iter().max_by(|a, b| a.0.total_cmp(&b.0));
    Ok((passed, worst.map_or_else(String::new, |(_, text)| text)))
}

fn repeats(here: Device) -> Result<Verdict> {
    let spec = small();
    device::set_repeatable(&spec, here)?;
    let end = || -> Result<Trainer> {
        let mut trainer = Trainer::new(&spec, here)?;
        trainer.device_steps(0, 10 * trainer.steps(), true)?;
        Ok(trainer)
    };
    let (off, name) = difference(&end()?, &end()?)?;
    Ok((off == 0.0, format!("furthest {off:.1e}, in {name}")))
}

/// Whether the loss falls in ten epochs.
fn trains(here: Device, change: impl Fn(&mut Spec)) -> Result<Verdict> {
    let mut spec = small();
    change(&mut spec);
    if spec.train.precision == Precision::Tf32 && !here.is_cuda() {
        return Ok((true, "a CPU has none".to_owned()));
    }
    device::set_arithmetic(&spec, here)?;
    device::set_repeatable(&spec, here)?;
    let mut trainer = Trainer::new(&spec, here)?;
    let before = trainer.evaluate()?.loss;
    trainer.device_steps(0, 10 * trainer.steps(), true)?;
    let after = trainer.evaluate()?.loss;
    device::set_arithmetic(&small(), here)?;
    Ok((after < before, format!("loss {before:.4}, after 10 epochs {after:.4}")))
}

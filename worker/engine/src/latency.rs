//! How long a network takes for one image.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cnx_proto::Spec;
use cnx_proto::architecture::Form;
use cnx_proto::v1::Latency;

use crate::{Error, Instructions, Model, Runner, peak, sample};

/// How long one network is run again and again, and how often at least.
const TIME: Duration = Duration::from_secs(3);
const LEAST_RUNS: usize = 7;
/// Before anything counts: memory is touched, caches are warm, the clock is up.
const WARM_UP: Duration = Duration::from_millis(500);
/// Of the weights and the image.
const SEED: u64 = 1;

/// The form of a network that is deployed, with random weights.
pub fn network(spec: &Spec) -> (Form, cnx_formats::StateDict) {
    let form = if spec.model.arch.condenses() { Form::Converted } else { Form::Large };
    (form, sample::state(spec, form, SEED))
}

/// An image of its size, normalised.
pub fn image(spec: &Spec) -> Vec<f32> {
    sample::images(spec, 1, SEED)
}

/// Times the network of a spec on this engine, in this process.
///
/// # Errors
/// When it is not of dense blocks, or a thread cannot be started.
pub fn native(spec: &Spec, threads: NonZeroUsize) -> Result<Latency, Error> {
    let (_, state) = network(spec);
    let image = image(spec);
    let mut runner = Runner::new(Arc::new(Model::new(spec, &state)?), threads);
    drop(state);
    measure(threads, || {
        runner.logits(&image).map(|logits| {
            std::hint::black_box(logits);
        })
    })
}

/// Times `run`, which takes one image through a network, and what the CPU can do at most beside it.
///
/// # Errors
/// Those of `run`, and when threads cannot be started.
pub fn measure<E: From<Error>>(
    threads: NonZeroUsize,
    mut run: impl FnMut() -> Result<(), E>,
) -> Result<Latency, E> {
    let multiply_adds_per_s = peak::multiply_adds_per_s(Instructions::Auto, threads)?;
    let mut turn = |time: Duration, least: usize| -> Result<Vec<f64>, E> {
        let (start, mut times) = (Instant::now(), Vec::new());
        while times.len() < least || start.elapsed() < time {
            let start = Instant::now();
            run()?;
            times.push(start.elapsed().as_secs_f64());
        }
        Ok(times)
    };
    turn(WARM_UP, 1)?;
    let mut times = turn(TIME, LEAST_RUNS)?;
    times.sort_by(f64::total_cmp);
    let share = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
    Ok(Latency {
        threads: threads.get() as u32,
        runs: times.len() as u64,
        median_s: share(0.5),
        tenth_s: share(0.1),
        ninetieth_s: share(0.9),
        peak_memory_bytes: peak_memory_bytes(),
        multiply_adds_per_s,
    })
}

/// The most memory that this process ever had; 0 where the system does not say.
fn peak_memory_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.map_or(0, |kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_counted_and_their_spread_is_in_order() {
        let mut count = 0;
        let timed: Result<Latency, Error> = measure(NonZeroUsize::MIN, || {
            count += 1;
            std::hint::black_box((0..1000).sum::<u64>());
            Ok(())
        });
        let timed = timed.unwrap();
        assert!(timed.runs >= LEAST_RUNS as u64 && timed.runs < count);
        assert!(
            0.0 < timed.tenth_s && timed.tenth_s <= timed.median_s && timed.median_s <= timed.ninetieth_s
        );
        assert!(timed.multiply_adds_per_s > 0.0);
        assert!(timed.peak_memory_bytes > 0 || !cfg!(target_os = "linux"));
    }

    #[test]
    fn what_fails_is_told() {
        let failed: Result<Latency, Error> =
            measure(NonZeroUsize::MIN, || Err(Error::Threads("none".to_owned())));
        assert!(failed.unwrap_err().to_string().contains("none"));
    }
}

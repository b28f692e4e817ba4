//! A seeded simulation: the real coordinator on a real database, many workers that follow the agent's protocol, their
//! children, the network between them, and people, in one process on a clock that is moved by hand. Everything that can
//! happen (messages late, twice, lost with their connection; crashes of either side, the coordinator's also before and
//! after each commit; stopped processes, jumping clocks, people who change their minds) comes from one seed, so a run
//! that failed is run again exactly.
//!
//!     CNX_SIM_SEEDS=10000 cargo test --release -p cnx-daemon --test simulation hold -- --nocapture   # that many seeds
//!     CNX_SIM_SEED=17 cargo test --release -p cnx-daemon --test simulation hold -- --nocapture       # this one, with its trace
//!
//! Read in this order: `world.rs` (time, and what happens next), `faults.rs` (what goes wrong), `network.rs`,
//! `daemon.rs` with `gate.rs` (the coordinator's process, held up at its commits), `worker.rs`, `attempt.rs` and
//! `child.rs` (what the agent does), `people.rs`, and `check.rs`: what must always hold. `mutate.rs` breaks the
//! coordinator on purpose.
// Messages grow new fields; what is built here leaves those at their defaults.
#![allow(clippy::needless_update)]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod attempt;
mod check;
mod child;
mod daemon;
mod faults;
mod gate;
mod mutate;
mod network;
mod people;
mod trace;
mod words;
mod worker;
mod world;

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use faults::Mutation;
use world::{Failure, Summary, World};

/// Seeds of a run that names none.
const SEEDS: u64 = 200;

/// Seeds within which each defect has to be found.
const SEEDS_TO_FIND: u64 = 2_000;

/// In memory where that is possible: no run depends on what survives a power cut.
fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir()
        && let Ok(folder) = tempfile::tempdir_in(memory)
    {
        return folder;
    }
    tempfile::tempdir().unwrap()
}

fn run(seed: u64, mutation: Option<Mutation>, traced: bool) -> Result<Summary, Failure> {
    let folder = folder();
    let mut world = World::new(seed, folder.path(), mutation);
    if traced {
        world.trace.print_all();
    }
    world.run()
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}: expected a number")))
}

/// Runs seeds on all cores until one fails; what they came to together, and the seed that failed.
fn run_all(seeds: std::ops::Range<u64>, mutation: Option<Mutation>) -> (Summary, Option<(u64, Failure)>) {
    let next = AtomicU64::new(seeds.start);
    let failed = Mutex::new(None::<(u64, Failure)>);
    let sum = Mutex::new(Summary::default());
    let work = || {
        while failed.lock().unwrap().is_none() {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            match run(seed, mutation, false) {
                Ok(summary) => sum.lock().unwrap().add(&summary),
                Err(failure) => {
                    let mut failed = failed.lock().unwrap();
                    if failed.as_ref().is_none_or(|(other, _)| seed < *other) {
                        *failed = Some((seed, failure));
                    }
                }
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        (0..threads).for_each(|_| drop(scope.spawn(work)));
    });
    (sum.into_inner().unwrap(), failed.into_inner().unwrap())
}

fn report(seed: u64, failure: &Failure) -> String {
    let Failure { what, tail, events } = failure;
    format!(
        "{tail}\nseed {seed}, after {events} events: {what}\nagain: CNX_SIM_SEED={seed} cargo test --release \
         -p cnx-daemon --test simulation hold -- --nocapture"
    )
}

#[test]
fn what_must_hold_holds_whatever_goes_wrong() {
    if let Some(seed) = number("CNX_SIM_SEED") {
        let started = Instant::now();
        match run(seed, None, true) {
            Ok(summary) => println!("seed {seed} in {:?}: {summary:?}", started.elapsed()),
            Err(failure) => panic!("{}", report(seed, &failure)),
        }
        return;
    }
    let first = number("CNX_SIM_FIRST").unwrap_or(0);
    let count = number("CNX_SIM_SEEDS").unwrap_or(SEEDS);
    let started = Instant::now();
    let (sum, failed) = run_all(first..first + count, None);
    if let Some((seed, failure)) = failed {
        panic!("{}", report(seed, &failure));
    }
    println!("{count} seeds from {first} in {:.1?}: {sum:?}", started.elapsed());
    // A simulation in which nothing happens proves nothing.
    assert!(count < 20 || (sum.crashes > 0 && sum.worker_crashes > 0 && sum.refused > 0), "{sum:?}");
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in [1, 7, 23] {
        let (first, second) = (run(seed, None, false), run(seed, None, false));
        let hash = |ran: Result<Summary, Failure>| ran.map(|s| (s.hash, s.events)).map_err(|f| f.what);
        assert_eq!(hash(first), hash(second), "seed {seed}");
    }
}

#[test]
fn every_defect_put_in_on_purpose_is_found() {
    for mutation in Mutation::ALL {
        let started = Instant::now();
        let (_, failed) = run_all(0..SEEDS_TO_FIND, Some(mutation));
        let (seed, failure) = failed.unwrap_or_else(|| panic!("{mutation:?} was not found"));
        println!("{mutation:?}: seed {seed}, {:.1?}: {}", started.elapsed(), failure.what);
    }
}

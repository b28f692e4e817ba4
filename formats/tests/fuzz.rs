//! No input makes the readers panic, abort, or take more memory than its size allows: real files, changed at random.
//!
//! Some thousand inputs in every run of the tests; as many as you like by
//!     PROPTEST_CASES=1000000 cargo test --release -p cnx-formats --test fuzz -- --nocapture

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod craft;
mod metered;

use std::cell::Cell;
use std::time::Instant;

use cnx_formats::check::{Listed, check};
use cnx_formats::{checkpoint, safetensors};
use craft::{fixture, spec_of_the_fixtures};
use metered::Meter;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

const CASES: u32 = 4000;

/// A change to a file. Places are shares of the file, so that they make sense for any length.
#[derive(Debug, Clone)]
enum Change {
    /// Other bytes in place of some.
    Overwrite(Place, Vec<u8>),
    /// Bytes between.
    Insert(Place, Vec<u8>),
    /// So many bytes less.
    Remove(Place, u16),
    /// So many bytes from one place, over those at another.
    Copy(Place, Place, u16),
    /// Nothing from here on.
    Cut(Place),
}

/// Where in a file: most of its structure is near its ends.
#[derive(Debug, Clone, Copy)]
enum Place {
    Anywhere(f64),
    FromStart(u16),
    FromEnd(u16),
}

impl Place {
    fn within(self, length: usize) -> usize {
        match self {
            Place::Anywhere(share) => (share * length as f64) as usize,
            Place::FromStart(bytes) => usize::from(bytes).min(length),
            Place::FromEnd(bytes) => length.saturating_sub(usize::from(bytes)),
        }
    }
}

impl Change {
    fn make(&self, bytes: &mut Vec<u8>) {
        let length = bytes.len();
        match self {
            Change::Overwrite(place, new) => {
                let at = place.within(length);
                let end = (at + new.len()).min(length);
                bytes[at..end].copy_from_slice(&new[..end - at]);
            }
            Change::Insert(place, new) => {
                let at = place.within(length);
                bytes.splice(at..at, new.iter().copied());
            }
            Change::Remove(place, count) => {
                let at = place.within(length);
                bytes.drain(at..(at + usize::from(*count)).min(length));
            }
            Change::Copy(from, to, count) => {
                let (from, to) = (from.within(length), to.within(length));
                let count = usize::from(*count).min(length - from).min(length - to);
                bytes.copy_within(from..from + count, to);
            }
            Change::Cut(place) => bytes.truncate(place.within(length)),
        }
    }
}

fn place() -> impl Strategy<Value = Place> {
    prop_oneof![
        (0.0..1.0).prop_map(Place::Anywhere),
        (0..600u16).prop_map(Place::FromStart),
        (0..20_000u16).prop_map(Place::FromStart),
        (0..3000u16).prop_map(Place::FromEnd),
    ]
}

/// Instructions of pickles, numbers that lengths and offsets trip over, and anything.
fn content() -> impl Strategy<Value = Vec<u8>> {
    let numbers =
        [0u64, 1, 127, 255, 65535, 1 << 31, u64::from(u32::MAX), 1 << 40, 1 << 63, u64::MAX - 1, u64::MAX];
    let instructions = b"N(.012QRabdehijlqrstuXUTBCGJKM)]}c\x80\x81\x85\x86\x87\x88\x8a\x8b\x8c\x8d\x8f\x90\x91\x92\x93\x94\x95\x96";
    prop_oneof![
        prop::sample::select(instructions.to_vec()).prop_map(|byte| vec![byte]),
        (prop::sample::select(numbers.to_vec()), prop::sample::select(vec![1usize, 2, 4, 8]))
            .prop_map(|(number, bytes)| number.to_le_bytes()[..bytes].to_vec()),
        prop::collection::vec(any::<u8>(), 1..8),
        (any::<u8>(), 1..5000usize).prop_map(|(byte, count)| vec![byte; count]),
    ]
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let change = prop_oneof![
        6 => (place(), content()).prop_map(|(at, new)| Change::Overwrite(at, new)),
        3 => (place(), content()).prop_map(|(at, new)| Change::Insert(at, new)),
        2 => (place(), 0..300u16).prop_map(|(at, count)| Change::Remove(at, count)),
        2 => (place(), place(), 0..300u16).prop_map(|(from, to, count)| Change::Copy(from, to, count)),
        1 => place().prop_map(Change::Cut),
    ];
    prop::collection::vec(change, 1..5)
}

fn seeds() -> Vec<Vec<u8>> {
    let names = [
        "condensenet-c4.zip.pth.tar",
        "condensenet-c4.legacy.pth.tar",
        "condensenet-c4.converted.legacy.pth.tar",
        "oddities.zip.pth",
        "oddities.legacy.pth",
        "oddities.protocol4.pth",
    ];
    let mut seeds: Vec<Vec<u8>> = names.iter().map(|name| fixture(name)).collect();
    // Without checksums, and compressed: what is changed gets further.
    for name in ["condensenet-c4.zip.pth.tar", "oddities.protocol4.pth"] {
        seeds.push(craft::repacked(&fixture(name)));
    }
    for name in ["condensenet-c4.converted.legacy.pth.tar", "oddities.zip.pth"] {
        seeds.push(safetensors::write(&checkpoint::read(&fixture(name)).unwrap().state).unwrap());
    }
    seeds
}

#[test]
fn no_change_of_a_real_file_makes_the_readers_panic_or_overspend() {
    let (meter, spec, seeds) = (Meter::alone(), spec_of_the_fixtures(), seeds());
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES);
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let (read, fitting, started) = (Cell::new(0u64), Cell::new(0u64), Instant::now());
    let result = runner.run(&(0..seeds.len(), changes()), |(seed, changes)| {
        let mut bytes = seeds[seed].clone();
        changes.iter().for_each(|change| change.make(&mut bytes));
        match meter.read(&bytes) {
            Ok(found) => {
                read.set(read.get() + 1);
                let report = check(&found.state, &spec);
                fitting.set(fitting.get() + u64::from(report.problems.is_empty()));
                let told = Listed(&report).to_string();
                prop_assert!(told.len() < 100_000, "a report of {} bytes", told.len());
            }
            Err(error) => {
                let told = error.to_string();
                prop_assert!(!told.is_empty() && told.len() < 2000, "a message of {} bytes", told.len());
            }
        }
        Ok::<(), TestCaseError>(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
    println!(
        "{cases} inputs in {:.0} s: {} read, of which {} fit their spec; {}",
        started.elapsed().as_secs_f64(),
        read.get(),
        fitting.get(),
        peak_memory()
    );
}

/// The most memory that the process has had.
fn peak_memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or("VmHWM: not known here");
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

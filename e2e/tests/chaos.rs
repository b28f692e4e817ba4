//! What `make chaos` does at length, in short: every victim and every kind of bad luck at least once.

#![allow(clippy::panic)]

use cnx_e2e::chaos::{Options, run};

#[test]
fn whatever_dies_stops_or_is_cut_off_the_results_are_those_of_an_undisturbed_run() {
    match run(Options { seed: 1, kills: 12 }) {
        Ok(report) => println!("{report}"),
        Err(why) => panic!("{why}"),
    }
}

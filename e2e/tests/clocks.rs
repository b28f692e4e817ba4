//! Somebody sets the wall clock while everything runs: leases and back-offs are none of its business.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use cnx_e2e::api::Api;
use cnx_e2e::{Pool, experiment, tiny_config, until};

const DAY_S: i64 = 24 * 60 * 60;

/// A pool whose processes see a wall clock that can be set.
struct Clocked {
    pool: Pool,
    offset: PathBuf,
}

impl Clocked {
    /// Needs a C compiler, as building does.
    fn new() -> Clocked {
        let mut pool = Pool::new();
        let (library, offset) = (pool.folder().join("wall_clock.so"), pool.folder().join("offset_s"));
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wall_clock.c");
        let compiled =
            Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).status();
        assert!(compiled.unwrap().success(), "cc {source}");
        pool.set("LD_PRELOAD", &library);
        pool.set("CNX_E2E_WALL_CLOCK", &offset);
        let clocked = Clocked { pool, offset };
        clocked.shift(0);
        clocked
    }

    /// Sets the clock so many seconds off, in one step.
    fn shift(&self, seconds: i64) {
        let beside = self.offset.with_extension("new");
        fs::write(&beside, seconds.to_string()).unwrap();
        fs::rename(&beside, &self.offset).unwrap();
    }
}

#[test]
fn a_wall_clock_that_jumps_ends_no_lease() {
    let mut clocked = Clocked::new();
    let config = clocked.pool.write("tiny.toml", &tiny_config("tiny", 100_000));
    clocked.pool.start_daemon_with(&["--lease-ttl", "30s", "--heartbeat", "300ms"]);
    clocked.pool.start_worker();
    clocked.pool.cnx_ok(&["submit", &config]);
    let mut epochs = 0;
    for (days, year) in
        [(0, None), (1, Some("tomorrow")), (-400, Some("last year")), (0, Some("today again"))]
    {
        clocked.shift(days * DAY_S);
        until(&clocked.pool, &format!("it trains on, {year:?}"), |s| {
            experiment(s, 1).epochs_done >= epochs + 2
        });
        epochs = Api::new(&clocked.pool.state()).status().map(|s| experiment(&s, 1).epochs_done).unwrap();
    }
    let events = Api::new(&clocked.pool.state()).describe(1).unwrap();
    let attempts: Vec<&str> = events.attempts.iter().map(|attempt| attempt.outcome.as_str()).collect();
    assert_eq!(attempts, ["running"], "{events:#?}");
    clocked.pool.cnx_ok(&["cancel", "1"]);
}

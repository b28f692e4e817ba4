//! What people do meanwhile, with the real `cnx`: they try again until the coordinator answers, and remember what it
//! acknowledged.

use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use cnx_proto::v1::State;
use serde_json::Value;

use super::record::Record;
use crate::pool::{Cli, PATIENCE};

/// Between two tries.
const TRY_AGAIN: Duration = Duration::from_millis(300);

/// Exit code of `cnx` when the coordinator cannot be reached.
const UNREACHABLE: i32 = 3;

/// Somebody with a command line.
#[derive(Clone)]
pub struct Person {
    /// Their `cnx`.
    pub cli: Cli,
    /// What they and others saw.
    pub record: Arc<Record>,
}

impl Person {
    /// Submits a sweep until it is acknowledged.
    pub fn submit(&self, file: &str) {
        let Some(answer) = self.ask(&["submit", "--json", file]) else {
            return self.record.broke(format!("{file} was refused"));
        };
        let ids: Vec<u64> = numbers(&answer["experiments"], "id");
        self.record.log(&format!("people: submitted {file}, acknowledged as {ids:?}"));
        self.record.acknowledge(&ids);
    }

    /// Pauses an experiment, and resumes it after a while.
    pub fn pause(&self, id: u64, lasts: Duration) {
        self.ask(&["pause", "--json", &id.to_string()]);
        sleep(lasts);
        self.ask(&["resume", "--json", &id.to_string()]);
        self.record.log(&format!("people: paused and resumed {id}"));
    }

    /// Cancels an experiment, and queues it anew once it is cancelled; unless it is done before.
    pub fn cancel_and_retry(&self, id: u64) {
        self.ask(&["cancel", "--json", &id.to_string()]);
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.record.seen(id) {
                Some((State::Cancelled, _)) => break,
                Some((state, _)) if state.is_final() => return,
                _ if Instant::now() > deadline => {
                    return self
                        .record
                        .broke(format!("experiment {id} was cancelled, and is not after {PATIENCE:?}"));
                }
                _ => sleep(TRY_AGAIN),
            }
        }
        let Some(answer) = self.ask(&["retry", "--json", &id.to_string()]) else { return };
        let ids = numbers(&answer["changes"], "new_id");
        self.record.log(&format!("people: cancelled {id}, queued it anew as {ids:?}"));
        if ids.is_empty() {
            self.record.broke(format!("experiment {id} was cancelled, and its retry is refused: {answer}"));
        }
        self.record.acknowledge(&ids);
    }

    /// Runs `cnx` until the coordinator answers; what it printed, if that is JSON.
    fn ask(&self, args: &[&str]) -> Option<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let output = self.cli.run(args);
            match output.status.code() {
                Some(0 | 1) => return serde_json::from_slice(&output.stdout).ok(),
                Some(UNREACHABLE) if Instant::now() < deadline => sleep(TRY_AGAIN),
                _ => {
                    let said = String::from_utf8_lossy(&output.stderr);
                    self.record.broke(format!("cnx {args:?} ended with {}: {said}", output.status));
                    return None;
                }
            }
        }
    }
}

fn numbers(list: &Value, key: &str) -> Vec<u64> {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(|entry| entry[key].as_u64())
        .filter(|&id| id > 0)
        .collect()
}

//! What all threads of a run share: what was done when, what the coordinator acknowledged and told, what was broken.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use cnx_proto::v1::State;

use super::ledger::Ledger;
use crate::api::Api;

/// Between two questions for the status.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// See the head of this file.
pub struct Record {
    began: Instant,
    schedule: Mutex<File>,
    acknowledged: Mutex<Vec<u64>>,
    ledger: Mutex<Ledger>,
    done: AtomicBool,
}

impl Record {
    /// With its schedule in this file.
    pub fn new(schedule: &Path) -> Record {
        Record {
            began: Instant::now(),
            schedule: Mutex::new(File::create(schedule).unwrap()),
            acknowledged: Mutex::default(),
            ledger: Mutex::default(),
            done: AtomicBool::new(false),
        }
    }

    /// Writes down what was done.
    pub fn log(&self, what: &str) {
        let mut schedule = self.schedule.lock().unwrap();
        let _ = writeln!(schedule, "{:8.2} s  {what}", self.began.elapsed().as_secs_f64());
    }

    /// Something that may not be.
    pub fn broke(&self, what: String) {
        self.log(&format!("BROKEN: {what}"));
        self.ledger.lock().unwrap().broken.push(what);
    }

    /// These were acknowledged: from now on they must be there.
    pub fn acknowledge(&self, ids: &[u64]) {
        self.acknowledged.lock().unwrap().extend(ids);
    }

    /// How many were acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    /// Looks at what was told.
    pub fn ledger<T>(&self, look: impl FnOnce(&Ledger) -> T) -> T {
        look(&self.ledger.lock().unwrap())
    }

    /// State and newest attempt of an experiment as last told.
    pub fn seen(&self, id: u64) -> Option<(State, u32)> {
        self.ledger(|ledger| ledger.seen(id))
    }

    /// Asks for the status again and again, until [`Record::finish`].
    pub fn follow(&self, mut api: Api) {
        while !self.done.load(Ordering::SeqCst) {
            // What is acknowledged while the coordinator answers may be in the answer or not.
            let acknowledged = self.acknowledged.lock().unwrap().clone();
            if let Ok(reply) = api.status() {
                self.ledger.lock().unwrap().told(&reply, &acknowledged);
            }
            sleep(ASK_AGAIN);
        }
    }

    /// Ends [`Record::follow`].
    pub fn finish(&self) {
        self.done.store(true, Ordering::SeqCst);
    }
}

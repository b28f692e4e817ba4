//! `cnx doctor`: looks over all that a coordinator keeps and depends on, and says what to do about what is wrong. Changes
//! nothing.
//!
//! One implementation for both cases: a running coordinator adds what only its memory knows ([`Live`]); without one, all
//! else is looked at just the same (`cnxd doctor`). The database is read from beside, on a connection of its own, so
//! that a coordinator that is stuck can be looked at too.

use std::path::Path;
use std::time::Duration;

use cnx_proto::state_dir::StateDir;
use cnx_proto::v1::Finding;

use crate::schedule::Capacity;
use crate::store::Inspector;
use finding::problem;

mod artifacts;
pub mod finding;
mod host;
mod leases;

pub use artifacts::highest_experiment;

/// What is to be looked at.
pub struct Patient {
    /// The state folder.
    pub state: StateDir,
    /// Where artifacts are kept.
    pub artifacts_url: String,
    /// Unix time.
    pub now_ms: u64,
    /// Asks a running coordinator what it knows besides.
    pub live: Option<Box<dyn Fn() -> Live + Send>>,
}

/// What only memory knows.
#[derive(Debug, Clone, Default)]
pub struct Live {
    /// Leases, by experiment.
    pub leases: Vec<LiveLease>,
    /// Connected workers.
    pub workers: Vec<LiveWorker>,
}

/// A lease that is held.
#[derive(Debug, Clone)]
pub struct LiveLease {
    /// The experiment.
    pub experiment: u64,
    /// Its worker.
    pub worker: String,
    /// For how long it was not renewed, if that is too long.
    pub silence: Option<Duration>,
    /// How long it lasts if it is not renewed.
    pub left: Duration,
}

/// A connected worker.
#[derive(Debug, Clone)]
pub struct LiveWorker {
    /// Its name.
    pub name: String,
    /// What it has.
    pub has: Capacity,
}

/// Looks at everything. Takes as long as reading the database and listing the artifacts does.
pub fn examine(patient: &Patient) -> Vec<Finding> {
    let mut findings = Vec::new();
    match Inspector::open(&patient.state.database()) {
        Ok(inspector) => {
            findings.extend(inspector.findings());
            findings.extend(leases::examine(patient, &inspector).unwrap_or_else(|e| vec![unreadable(&e)]));
            findings.extend(artifacts::examine(patient, &inspector).unwrap_or_else(|e| vec![unreadable(&e)]));
            findings.extend(host::clock(patient, &inspector));
        }
        Err(error) => findings.push(unreadable(&error)),
    }
    findings.extend(host::disk(patient));
    findings.extend(host::secrets(&patient.state));
    findings
}

fn unreadable(error: &crate::store::StoreError) -> Finding {
    let advice = "Look at the permissions and the disk; if the file itself is damaged, restore the newest backup: \
                  cnx restore FILE --force.";
    problem("database", format!("it cannot be read: {error}"), Vec::new(), advice)
}

/// The folder of a `file://` URL; none if it is another kind of place.
pub fn local_folder(url: &str) -> Option<std::path::PathBuf> {
    let url = url::Url::parse(url).ok()?;
    (url.scheme() == "file").then(|| url.to_file_path().ok()).flatten()
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

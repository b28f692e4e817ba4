//! A process a row: its memory is its own, and nothing that another row left behind is in its way.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use cnx_proto::Spec;
use cnx_proto::job::latency_from_json;
use cnx_proto::spec::Engine;
use cnx_proto::v1::Latency;

use super::table::Row;
use crate::failure::{Failure, Result};
use crate::programs;

/// The programs that hold the engines.
pub struct Engines {
    own: PathBuf,
    worker: Option<PathBuf>,
}

impl Engines {
    /// Those that the rows need.
    pub fn find(rows: &[Row]) -> Result<Engines> {
        let own = std::env::current_exe()
            .map_err(|error| Failure::refused(format!("this program cannot find itself: {error}")))?;
        let needs_worker = rows.iter().any(|row| row.job.run.engine == Engine::Libtorch);
        let without = |failure: Failure| Failure {
            message: format!(
                "{}\nlibtorch's rows need it; `--engine native` leaves them out",
                failure.message
            ),
            ..failure
        };
        let worker = if needs_worker { Some(programs::worker().map_err(without)?) } else { None };
        Ok(Engines { own, worker })
    }

    /// Times one network.
    pub fn time(&self, job: &Spec) -> Result<Latency> {
        let mut command = match &self.worker {
            Some(worker) if job.run.engine == Engine::Libtorch => {
                let mut command = Command::new(worker);
                command.args(["latency", "--spec", "-"]);
                command
            }
            _ => {
                let mut command = Command::new(&self.own);
                command.args(["bench", "row"]);
                command
            }
        };
        let program = PathBuf::from(command.get_program());
        let died = |what: String| Failure::refused(format!("{}: {}: {what}", job.name, program.display()));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| died(format!("it cannot be started: {error}")))?;
        // Dropped at once: the child reads to the end. One that ended early says why by its status.
        if let Some(mut input) = child.stdin.take() {
            let _ = input.write_all(job.to_json().as_bytes());
        }
        let output = child.wait_with_output().map_err(|error| died(error.to_string()))?;
        if !output.status.success() {
            return Err(died(format!("it ended with {}", output.status)));
        }
        let told = serde_json::from_slice(&output.stdout).ok().as_ref().and_then(latency_from_json);
        told.ok_or_else(|| died("it told no figures; is it of the same version as cnx?".to_owned()))
    }
}

//! What must always hold: what was promised is in the database, nothing final changes, attempts only rise, budgets hold,
//! one outcome counts, and at no instant two children compute the same experiment.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use rusqlite::{Connection, OpenFlags};

use cnx_daemon::lifecycle::Stopping;
use cnx_proto::Spec;
use cnx_proto::v1::{Report, SubmitRequest, ToWorker, report::Body, to_worker};

use crate::child::error_of;
use crate::worker::key;
use crate::world::World;

/// What the world remembers beside the database.
#[derive(Debug, Default)]
pub struct Ledger {
    /// By experiment: the children that compute, as (worker, attempt, child).
    pub computing: BTreeMap<u64, Vec<(usize, u32, u64)>>,
    /// By experiment: the newest checkpoint's epoch, as the artifact store has it.
    pub checkpoints: BTreeMap<u64, u32>,
    /// Children that were ever started.
    pub children: u64,
    ids: BTreeSet<u64>,
    promised: BTreeSet<String>,
    cancelled: BTreeSet<u64>,
    /// By experiment: the newest attempt that was assigned.
    assigned: BTreeMap<u64, u32>,
    /// By lease: sequence and body of what was acknowledged.
    told: BTreeMap<(u64, u32, String), BTreeMap<u64, Body>>,
    seen: BTreeMap<u64, Row>,
    database: OnceCell<Rc<Connection>>,
}

/// A row of `experiments`.
#[derive(Debug, Clone, PartialEq)]
struct Row {
    state: String,
    attempt: u32,
    tries: u32,
    max_attempts: u32,
    hash: String,
    seed: u64,
    epochs: u32,
}

impl Row {
    fn is_final(&self) -> bool {
        matches!(self.state.as_str(), "succeeded" | "failed" | "cancelled")
    }
}

impl Ledger {
    /// Experiments that people know of.
    pub fn ids(&self) -> Vec<u64> {
        self.ids.iter().copied().collect()
    }

    pub fn known(&mut self, id: u64) {
        self.ids.insert(id);
    }

    /// A submission was acknowledged.
    pub fn promised(&mut self, request: &SubmitRequest) {
        let hash = |json: &str| Spec::from_json(json).map(|spec| spec.hash()).unwrap_or_default();
        self.promised.extend(request.experiments.iter().map(|new| hash(&new.spec_json)));
    }

    /// A cancellation was acknowledged.
    pub fn cancelled(&mut self, id: u64) {
        self.cancelled.insert(id);
    }
}

impl World {
    /// What the coordinator answers to reports: what it acknowledges is a promise.
    pub fn told(&mut self, reports: &[Report], answers: &[to_worker::Message]) {
        let verdicts = answers.iter().filter_map(|answer| match answer {
            to_worker::Message::Acknowledge(told) => Some(told),
            _ => None,
        });
        let mut lines = Vec::new();
        for (report, verdict) in reports.iter().zip(verdicts) {
            let Some(lease) = &report.lease else { continue };
            lines.push(format!("{} accepted: {}", crate::words::report(report), verdict.accepted));
            if !verdict.accepted {
                self.summary.refused += 1;
                continue;
            }
            self.summary.acknowledged += 1;
            if let Some(body) = &report.body {
                self.ledger
                    .told
                    .entry(key(lease))
                    .or_default()
                    .entry(report.sequence)
                    .or_insert_with(|| body.clone());
            }
        }
        for line in lines {
            self.note(format_args!("{line}"));
        }
    }

    /// What the coordinator says: an attempt is newer than all before.
    pub fn said(&mut self, message: &ToWorker) {
        let Some(to_worker::Message::Assign(assign)) = &message.message else { return };
        let Some(lease) = &assign.lease else { return };
        let newest = self.ledger.assigned.insert(lease.experiment, lease.attempt).unwrap_or(0);
        if newest >= lease.attempt {
            self.wrong(format!("attempt {} of {} after attempt {newest}", lease.attempt, lease.experiment));
        }
    }

    /// At most one child computes an experiment.
    pub fn check_one_child(&mut self, experiment: u64) {
        let computing = self.ledger.computing.get(&experiment).cloned().unwrap_or_default();
        if computing.len() > 1 {
            self.wrong(format!(
                "experiment {experiment} is computed twice (worker, attempt, child): {computing:?}"
            ));
        }
    }

    /// Whether everything is final, and told.
    pub fn over(&mut self) -> bool {
        self.summary.events.is_multiple_of(64)
            && !self.people.wait()
            && self.workers.iter().all(|worker| worker.agent.as_ref().is_some_and(|a| a.entries.is_empty()))
            && self.open_experiments().is_empty()
    }

    /// What is not final.
    pub fn what_is_open(&mut self) -> String {
        let entries: Vec<String> = self
            .workers
            .iter()
            .filter_map(|w| w.agent.as_ref())
            .flat_map(|agent| agent.entries.values().map(|e| format!("{e:?}")))
            .collect();
        format!("experiments {:?}; at workers {entries:?}", self.open_experiments())
    }

    fn open_experiments(&mut self) -> Vec<u64> {
        self.rows().into_iter().filter(|(_, row)| !row.is_final()).map(|(id, _)| id).collect()
    }

    /// A reader of its own, beside the coordinator.
    pub fn database(&self) -> Rc<Connection> {
        let open = || {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            Rc::new(Connection::open_with_flags(&self.daemon.file, flags).unwrap())
        };
        Rc::clone(self.ledger.database.get_or_init(open))
    }

    fn rows(&self) -> BTreeMap<u64, Row> {
        let database = self.database();
        let mut statement = database
            .prepare_cached(
                "SELECT id, state, attempt, tries, max_attempts, spec_hash,
                     spec_json ->> '$.train.seed', spec_json ->> '$.train.epochs' FROM experiments",
            )
            .unwrap();
        let row = |row: &rusqlite::Row<'_>| {
            let (id, seed): (i64, i64) = (row.get(0)?, row.get(6)?);
            Ok((
                id as u64,
                Row {
                    state: row.get(1)?,
                    attempt: row.get(2)?,
                    tries: row.get(3)?,
                    max_attempts: row.get(4)?,
                    hash: row.get(5)?,
                    seed: seed as u64,
                    epochs: row.get(7)?,
                },
            ))
        };
        statement.query_map([], row).unwrap().map(Result::unwrap).collect()
    }

    /// Holds the database against what was promised and what was seen before; at the end, also all that it contains.
    pub fn check_database(&mut self, all: bool) {
        let rows = self.rows();
        self.check_rows(&rows);
        self.check_attempts(&rows);
        self.check_reports(&rows);
        if all {
            self.check_contents(&rows);
            self.summary.experiments = rows.len() as u64;
            self.summary.attempts = rows.values().map(|row| u64::from(row.attempt)).sum();
        }
        self.ledger.seen = rows;
    }

    /// Where nothing is under way, memory mirrors the disk.
    pub fn check_mirror(&mut self) {
        let Some(coordinator) = self.coordinator() else { return };
        let database = self.database();
        let mut running = database
            .prepare_cached(
                "SELECT id, attempt, cancelling FROM experiments WHERE state = 'running' ORDER BY id",
            )
            .unwrap();
        let on_disk: Vec<(u64, u32, bool)> = running
            .query_map([], |row| Ok((row.get::<_, i64>(0)? as u64, row.get(1)?, row.get(2)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        let pool = coordinator.pool();
        let mut in_memory: Vec<(u64, u32, bool)> = self
            .workers
            .iter()
            .flat_map(|worker| pool.leases_of(&worker.name))
            .filter_map(|lease| pool.held(lease.experiment))
            .map(|held| (held.lease.experiment, held.lease.attempt, held.stopping == Some(Stopping::Cancel)))
            .collect();
        drop(pool);
        in_memory.sort_unstable();
        if on_disk != in_memory {
            self.wrong(format!(
                "on disk run (experiment, attempt, cancelling) {on_disk:?}, in memory {in_memory:?}"
            ));
        }
    }

    fn check_rows(&mut self, rows: &BTreeMap<u64, Row>) {
        let mut wrong = Vec::new();
        for hash in &self.ledger.promised {
            if !rows.values().any(|row| row.hash == *hash) {
                wrong.push(format!("an acknowledged submission is lost: {hash}"));
            }
        }
        for id in &self.ledger.ids {
            if !rows.contains_key(id) {
                wrong.push(format!("experiment {id} was promised, and is not there"));
            }
        }
        for (id, before) in &self.ledger.seen {
            let Some(now) = rows.get(id) else {
                wrong.push(format!("experiment {id} is gone"));
                continue;
            };
            if before.is_final() && now != before {
                wrong.push(format!("experiment {id} was final: {before:?}, now {now:?}"));
            }
            if now.attempt < before.attempt || now.tries < before.tries {
                wrong.push(format!("experiment {id} went back: {before:?}, now {now:?}"));
            }
        }
        for (id, row) in rows {
            if row.tries > row.max_attempts {
                wrong.push(format!("experiment {id} had {} tries of {}", row.tries, row.max_attempts));
            }
        }
        wrong.into_iter().for_each(|what| self.wrong(what));
    }

    fn check_attempts(&mut self, rows: &BTreeMap<u64, Row>) {
        let database = self.database();
        let mut statement = database
            .prepare_cached(
                "SELECT experiment, attempt, outcome, ended_at_ms IS NULL FROM attempts ORDER BY 1, 2",
            )
            .unwrap();
        let attempts: Vec<(u64, u32, String, bool)> = statement
            .query_map([], |row| Ok((row.get::<_, i64>(0)? as u64, row.get(1)?, row.get(2)?, row.get(3)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        let mut wrong = Vec::new();
        for (id, row) in rows {
            let own: Vec<_> = attempts.iter().filter(|(experiment, ..)| experiment == id).collect();
            let numbers: Vec<u32> = own.iter().map(|(_, attempt, ..)| *attempt).collect();
            if numbers != (1..=row.attempt).collect::<Vec<_>>() {
                wrong.push(format!("experiment {id} has attempts {numbers:?}, and counts {}", row.attempt));
            }
            let running = own.iter().filter(|(.., running)| *running).count();
            if running != usize::from(row.state == "running") {
                wrong.push(format!("experiment {id} is {}, and {running} attempts run", row.state));
            }
            let succeeded = own.iter().filter(|(_, _, outcome, _)| outcome == "succeeded").count();
            if succeeded != usize::from(row.state == "succeeded") {
                wrong.push(format!("experiment {id} is {}, and {succeeded} attempts succeeded", row.state));
            }
            let tries = own.iter().filter(|(_, _, outcome, _)| costs_a_try(outcome)).count();
            if tries > row.max_attempts as usize {
                wrong.push(format!("experiment {id} failed {tries} times, and has {}", row.max_attempts));
            }
        }
        wrong.into_iter().for_each(|what| self.wrong(what));
    }

    /// What was acknowledged is there, and what ended an attempt is how it ended.
    fn check_reports(&mut self, _rows: &BTreeMap<u64, Row>) {
        let database = self.database();
        let mut attempt = database
            .prepare_cached("SELECT last_sequence, outcome FROM attempts WHERE experiment = ?1 AND attempt = ?2 AND token = ?3")
            .unwrap();
        let mut line =
            database.prepare_cached("SELECT count(*) FROM logs WHERE experiment = ?1 AND text = ?2").unwrap();
        let mut epoch = database
            .prepare_cached("SELECT top1_error FROM epochs WHERE experiment = ?1 AND epoch = ?2")
            .unwrap();
        let mut artifact = database.prepare_cached("SELECT count(*) FROM artifacts WHERE name = ?1").unwrap();
        let mut wrong = Vec::new();
        for ((id, number, token), told) in &self.ledger.told {
            let found: Result<(u64, String), _> = attempt.query_row((*id as i64, number, token), |row| {
                Ok((row.get::<_, i64>(0)? as u64, row.get(1)?))
            });
            let Ok((last, outcome)) = found else {
                wrong.push(format!("attempt {id}.{number} was believed, and is not there"));
                continue;
            };
            if let Some((newest, _)) = told.last_key_value().filter(|(newest, _)| **newest > last) {
                wrong.push(format!("report {newest} of {id}.{number} was acknowledged, on disk is {last}"));
            }
            if told.keys().zip(1..).any(|(sequence, expected)| *sequence != expected) {
                wrong.push(format!("of {id}.{number} were acknowledged only {:?}", told.keys()));
            }
            for body in told.values() {
                let kept = match body {
                    Body::Log(log) => {
                        line.query_row((*id as i64, &log.text), |row| row.get::<_, i64>(0)).unwrap() == 1
                    }
                    Body::Epoch(told) => epoch
                        .query_row((*id as i64, told.epoch), |row| row.get::<_, f64>(0))
                        .is_ok_and(|error| error == told.test_top1_error),
                    Body::Artifact(told) => {
                        artifact.query_row([&told.name], |row| row.get::<_, i64>(0)).unwrap() == 1
                    }
                    Body::Outcome(_) => outcome != "running",
                    _ => true,
                };
                if !kept {
                    wrong.push(format!("acknowledged of {id}.{number}, and not kept as told: {body:?}"));
                }
            }
        }
        drop((attempt, line, epoch, artifact));
        wrong.into_iter().for_each(|what| self.wrong(what));
    }

    /// At the end: whole, complete curves, nothing open, counts that are right.
    fn check_contents(&mut self, rows: &BTreeMap<u64, Row>) {
        let database = self.database();
        let integrity: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        let mut wrong = Vec::new();
        if integrity != "ok" {
            wrong.push(format!("the database is damaged: {integrity}"));
        }
        let orphans: i64 = database
            .query_row("SELECT count(*) FROM pragma_foreign_key_check", [], |row| row.get(0))
            .unwrap();
        if orphans != 0 {
            wrong.push(format!("{orphans} rows refer to nothing"));
        }
        let mut states = database.prepare_cached("SELECT state, count FROM state_counts").unwrap();
        let counts =
            states.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?))).unwrap();
        for (state, count) in counts.map(Result::unwrap) {
            let found = rows.values().filter(|row| row.state == state).count();
            if found as i64 != count {
                wrong.push(format!("{count} are counted as {state}, {found} are"));
            }
        }
        let mut curve = database
            .prepare_cached("SELECT epoch, top1_error FROM epochs WHERE experiment = ?1 ORDER BY epoch")
            .unwrap();
        let mut figures =
            database.prepare_cached("SELECT count(*) FROM figures WHERE experiment = ?1").unwrap();
        for (id, row) in rows {
            if !row.is_final() {
                wrong.push(format!("experiment {id} did not end: {row:?}"));
            }
            if self.ledger.cancelled.contains(id) && !matches!(row.state.as_str(), "cancelled" | "succeeded")
            {
                wrong.push(format!("experiment {id} was cancelled, and is {}", row.state));
            }
            if row.state != "succeeded" {
                continue;
            }
            let found: Vec<(u32, f64)> = curve
                .query_map([*id as i64], |row| Ok((row.get(0)?, row.get(1)?)))
                .unwrap()
                .map(Result::unwrap)
                .collect();
            let expected: Vec<_> = (1..=row.epochs).map(|epoch| (epoch, error_of(row.seed, epoch))).collect();
            if found != expected {
                wrong.push(format!("experiment {id} has the curve {found:?}, expected {expected:?}"));
            }
            if figures.query_row([*id as i64], |row| row.get::<_, i64>(0)).unwrap() != 1 {
                wrong.push(format!("experiment {id} succeeded without figures"));
            }
        }
        drop((states, curve, figures));
        wrong.into_iter().for_each(|what| self.wrong(what));
    }
}

fn costs_a_try(outcome: &str) -> bool {
    cnx_proto::v1::FailureClass::from_label(outcome).is_some_and(cnx_proto::v1::FailureClass::costs_a_try)
}

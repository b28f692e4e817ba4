//! Leases that hang, workers that are silent, and work that no worker can take.

use std::time::Duration;

use cnx_proto::v1::Finding;

use super::finding::{NAMED, counted, problem, well};
use super::{Live, Patient};
use crate::schedule::{Capacity, Demand};
use crate::store::{Inspector, Result, RunningRow, WaitingRow, WorkerRow};

const LEASES: &str = "leases";
const WORKERS: &str = "workers";

/// Memory follows a commit within milliseconds; on a busy machine within this.
const AFTER_A_COMMIT: Duration = Duration::from_secs(1);

pub(super) fn examine(patient: &Patient, inspector: &Inspector) -> Result<Vec<Finding>> {
    let running = inspector.running()?;
    // After the rows: what they know to run, memory knows by now, but for a moment after each commit.
    let live = patient.live.as_ref().map(|live| live());
    let known = inspector.workers()?;
    let waiting = inspector.waiting()?;
    let mut findings = match &live {
        Some(live) => {
            let unheld = live.without_lease(&running);
            let stuck = if unheld.is_empty() { unheld } else { still_without(patient, inspector, unheld)? };
            held(live, &stuck)
        }
        None => vec![resting(&running)],
    };
    findings.push(demands(live.as_ref(), &waiting, &known));
    findings.push(versions(live.as_ref(), &known));
    Ok(findings)
}

impl Live {
    fn without_lease(&self, running: &[RunningRow]) -> Vec<RunningRow> {
        let held = |row: &&RunningRow| self.leases.iter().any(|lease| lease.experiment == row.experiment);
        running.iter().filter(|row| !held(row)).cloned().collect()
    }
}

/// Those of which that is so a while later, too.
fn still_without(
    patient: &Patient,
    inspector: &Inspector,
    unheld: Vec<RunningRow>,
) -> Result<Vec<RunningRow>> {
    std::thread::sleep(AFTER_A_COMMIT);
    let running = inspector.running()?;
    let live = patient.live.as_ref().map(|live| live()).unwrap_or_default();
    let still = live.without_lease(&running);
    Ok(unheld.into_iter().filter(|row| still.contains(row)).collect())
}

fn resting(running: &[RunningRow]) -> Finding {
    let n = running.len() as u64;
    well(
        LEASES,
        match n {
            0 => "nothing runs".to_owned(),
            _ => format!(
                "{} run: their workers keep them, and attach when the coordinator is back",
                counted(n, "experiment")
            ),
        },
    )
}

/// What runs by the database has a lease in memory, and its worker is heard.
fn held(live: &Live, stuck: &[RunningRow]) -> Vec<Finding> {
    let stuck: Vec<String> =
        stuck.iter().map(|row| format!("experiment {} on {}", row.experiment, row.worker)).collect();
    let suspect: Vec<String> = live
        .leases
        .iter()
        .filter_map(|lease| {
            let (silence, left) = (lease.silence?.as_secs(), lease.left.as_secs());
            let (experiment, worker) = (lease.experiment, &lease.worker);
            Some(format!("experiment {experiment} on {worker}: silent for {silence} s, {left} s left"))
        })
        .collect();
    let mut findings = Vec::new();
    if !stuck.is_empty() {
        findings.push(problem(
            LEASES,
            format!("{} by the database, but nobody holds a lease", counted(stuck.len() as u64, "experiment runs")),
            first(stuck),
            "Restart the coordinator (cnx down --help; cnx up): it takes up every lease anew, and gives it away if nobody \
             renews it. Please report this, it is a defect.",
        ));
    }
    if !suspect.is_empty() {
        findings.push(problem(
            LEASES,
            format!("{} not renewed for three heartbeats", counted(suspect.len() as u64, "lease")),
            first(suspect),
            "See whether those workers and the network to them are alive. Nothing is started again until a lease has run \
             out; then it is, from its newest checkpoint, by itself.",
        ));
    }
    if findings.is_empty() {
        findings.push(well(
            LEASES,
            match live.leases.len() as u64 {
                0 => "nothing runs".to_owned(),
                n => format!("{} held, each renewed a moment ago", counted(n, "lease")),
            },
        ));
    }
    findings
}

/// Every experiment that is ready has a worker that could run it.
fn demands(live: Option<&Live>, waiting: &[WaitingRow], known: &[WorkerRow]) -> Finding {
    let count = waiting.iter().map(|row| row.count).sum();
    if known.is_empty() && count > 0 {
        let found = format!("{} ready to run, and no worker ever attached", counted(count, "experiment"));
        return problem(WORKERS, found, Vec::new(), "Start one: cnx up, or cnx-worker agent.");
    }
    let mut never = Vec::new();
    let mut away = Vec::new();
    for row in waiting {
        let words = format!("{} from {} on: {}", counted(row.count, "experiment"), row.oldest, row.demand);
        let connected = live.map(|live| met_by(&row.demand, live.workers.iter().map(|worker| &worker.has)));
        match connected {
            Some(true) => {}
            _ if !met_by(&row.demand, known.iter().map(|worker| &worker.has)) => never.push(words),
            Some(false) => away.push(words),
            None => {}
        }
    }
    if !never.is_empty() {
        return problem(
            WORKERS,
            "what waits needs a worker such as there never was",
            first(never),
            "Start one that has it (cnx up; cnx-worker agent --label), or cancel them and submit them with other [resources].",
        );
    }
    if !away.is_empty() {
        return problem(
            WORKERS,
            "what waits needs a worker that is not connected",
            first(away),
            "Start it again: cnx workers names those that were there, cnx up starts those of this machine.",
        );
    }
    well(
        WORKERS,
        match count {
            0 => "nothing waits for a worker".to_owned(),
            n => format!("there are workers for all that waits ({})", counted(n, "experiment")),
        },
    )
}

fn met_by<'a>(demand: &Demand, mut by: impl Iterator<Item = &'a Capacity>) -> bool {
    by.any(|has| demand.met_by(has))
}

fn versions(live: Option<&Live>, known: &[WorkerRow]) -> Finding {
    let own = env!("CARGO_PKG_VERSION");
    let counts = |worker: &&WorkerRow| match live {
        Some(live) => live.workers.iter().any(|connected| connected.name == worker.name),
        None => true,
    };
    let others: Vec<String> = known
        .iter()
        .filter(counts)
        .filter(|worker| worker.version != own)
        .map(|worker| format!("{} has {}", worker.name, worker.version))
        .collect();
    match others.is_empty() {
        true => well(WORKERS, format!("all are of the coordinator's version, {own}")),
        false => problem(
            WORKERS,
            format!("some are not of the coordinator's version, {own}"),
            first(others),
            "Install the same version everywhere, and restart those workers: what they run goes on from its checkpoint.",
        ),
    }
}

fn first(mut which: Vec<String>) -> Vec<String> {
    let more = which.len().saturating_sub(NAMED);
    which.truncate(NAMED);
    if more > 0 {
        which.push(format!("and {more} more"));
    }
    which
}

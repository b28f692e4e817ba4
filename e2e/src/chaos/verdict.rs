//! Whether a disturbed run came to what an undisturbed one comes to, and what it went through.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use cnx_proto::v1::{Artifact, ArtifactKind, EpochMetrics, ExperimentDetail, State};

use super::overlap::Findings;
use super::run::Options;
use crate::Pool;
use crate::api::Api;

/// What a run went through.
#[derive(Debug)]
pub struct Disturbance {
    /// Blows by victim and kind.
    pub counts: BTreeMap<(&'static str, String), u32>,
    /// Restarts by victim.
    pub restarts: BTreeMap<&'static str, u32>,
    /// Sweeps that were submitted.
    pub rounds: u32,
    /// Experiments that were acknowledged.
    pub acknowledged: usize,
    /// Answers of the coordinator that were held against each other.
    pub answers: u64,
    /// What the looks at the processes found.
    pub findings: Findings,
    /// How long it took.
    pub took: Duration,
}

/// A run that held.
#[derive(Debug)]
pub struct Report {
    options: Options,
    /// What it went through.
    pub disturbance: Disturbance,
    /// Attempts by how they ended.
    pub endings: BTreeMap<String, u32>,
    /// Attempts that went on from a checkpoint.
    pub resumed: u32,
    /// Leases that ran out at the coordinator.
    pub expired: u32,
    rows: usize,
    models: usize,
    epochs: usize,
}

/// Compares with `calm`, a pool that did the same work undisturbed.
pub fn judge(options: Options, pool: &Pool, calm: &Pool, disturbance: Disturbance) -> Result<Report, String> {
    if disturbance.findings.busy_looks == 0 {
        return Err("the looks at the processes never found two at work: they prove nothing".to_owned());
    }
    let details = details(pool)?;
    for detail in &details {
        check_attempts(detail)?;
    }
    let disturbed = Outcome::of(pool, &details);
    let attempts = || details.iter().flat_map(|detail| &detail.attempts);
    let mut endings = BTreeMap::new();
    for attempt in attempts() {
        *endings.entry(attempt.outcome.clone()).or_default() += 1;
    }
    let resumed = attempts().filter(|attempt| attempt.resumed_at_epoch > 0).count();
    let expired = attempts().filter(|attempt| attempt.message.starts_with("no heartbeat of worker")).count();

    let expected = Outcome::of(calm, &self::details(calm)?);
    expected.compare(&disturbed)?;
    Ok(Report {
        options,
        disturbance,
        endings,
        resumed: resumed as u32,
        expired: expired as u32,
        rows: expected.csv.lines().count() - 1,
        models: expected.models.len(),
        epochs: expected.epochs.values().map(Vec::len).sum(),
    })
}

fn details(pool: &Pool) -> Result<Vec<ExperimentDetail>, String> {
    let mut api = Api::new(&pool.state());
    let experiments = api.status()?.experiments;
    experiments.iter().map(|experiment| api.describe(experiment.id)).collect()
}

/// Attempts are numbered 1, 2, 3 …; each is over; only the last of what succeeded succeeded.
fn check_attempts(detail: &ExperimentDetail) -> Result<(), String> {
    let Some(experiment) = &detail.experiment else { return Err("an experiment without itself".to_owned()) };
    let id = experiment.id;
    let numbers: Vec<u32> = detail.attempts.iter().map(|attempt| attempt.attempt).collect();
    if numbers != (1..=experiment.attempt).collect::<Vec<_>>() {
        return Err(format!(
            "experiment {id} has the attempts {numbers:?}, and {} is its newest",
            experiment.attempt
        ));
    }
    if let Some(open) = detail.attempts.iter().find(|attempt| attempt.ended_at_ms == 0) {
        return Err(format!(
            "attempt {} of experiment {id}, which is {}, never ended",
            open.attempt,
            experiment.state()
        ));
    }
    let succeeded: Vec<u32> =
        detail.attempts.iter().filter(|a| a.outcome == "succeeded").map(|a| a.attempt).collect();
    let expected = if experiment.state() == State::Succeeded { vec![experiment.attempt] } else { Vec::new() };
    if succeeded != expected {
        return Err(format!(
            "of experiment {id}, which is {}, the attempts {succeeded:?} succeeded",
            experiment.state()
        ));
    }
    Ok(())
}

/// What is to be equal.
struct Outcome {
    csv: String,
    provenance: String,
    /// SHA-256 of the models, by what is known of them: spec, kind and epoch.
    models: BTreeMap<(String, String), String>,
    /// Figures of all epochs, by spec.
    epochs: BTreeMap<String, Vec<EpochMetrics>>,
}

impl Outcome {
    fn of(pool: &Pool, details: &[ExperimentDetail]) -> Outcome {
        let mut outcome = Outcome {
            csv: pool.cnx_ok(&["results", "--csv"]),
            provenance: without_counts(&pool.cnx_ok(&["results", "--csv", "--provenance"])),
            models: BTreeMap::new(),
            epochs: BTreeMap::new(),
        };
        for detail in details {
            let Some(experiment) = detail.experiment.as_ref().filter(|e| e.state() == State::Succeeded)
            else {
                continue;
            };
            let spec = &experiment.spec_json;
            for artifact in detail.artifacts.iter().filter(|artifact| is_final(artifact)) {
                let kind = artifact.kind().label();
                outcome.models.insert((spec.clone(), kind), artifact.sha256.clone());
            }
            let timeless = |m: &EpochMetrics| EpochMetrics { train_wall_s: 0.0, images_per_s: 0.0, ..*m };
            outcome.epochs.insert(spec.clone(), detail.epochs.iter().map(timeless).collect());
        }
        outcome
    }

    /// Says what differs.
    fn compare(&self, disturbed: &Outcome) -> Result<(), String> {
        for (what, expected, found) in [
            ("CSV", &self.csv, &disturbed.csv),
            ("CSV with provenance", &self.provenance, &disturbed.provenance),
        ] {
            if expected != found {
                return Err(format!("the {what} differs; undisturbed:\n{expected}\ndisturbed:\n{found}"));
            }
        }
        if self.epochs != disturbed.epochs {
            return Err("the figures of the epochs differ".to_owned());
        }
        let differs =
            |(model, sha256): &(&(String, String), &String)| disturbed.models.get(*model) != Some(sha256);
        if let Some(((spec, kind), _)) = self.models.iter().find(differs) {
            return Err(format!("the {kind} of this experiment differs, or is missing: {spec}"));
        }
        Ok(())
    }
}

fn is_final(artifact: &Artifact) -> bool {
    matches!(artifact.kind(), ArtifactKind::FinalModel | ArtifactKind::ConvertedModel)
}

/// Without the columns that count what happened on the way.
fn without_counts(csv: &str) -> String {
    let header: Vec<&str> = csv.lines().next().unwrap_or_default().split(',').collect();
    let kept = |name: &str| !matches!(name, "experiments" | "attempts");
    let line = |line: &str| {
        let fields = line.split(',').zip(&header).filter(|(_, name)| kept(name)).map(|(field, _)| field);
        fields.collect::<Vec<_>>().join(",")
    };
    csv.lines().map(line).collect::<Vec<_>>().join("\n")
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Disturbance { counts, restarts, rounds, acknowledged, answers, findings, took } =
            &self.disturbance;
        let Options { seed, kills } = self.options;
        writeln!(
            f,
            "chaos: seed {seed}, {kills} kills, {} blows in {:.0} s",
            counts.values().sum::<u32>(),
            took.as_secs_f64()
        )?;
        for ((victim, kind), times) in counts {
            writeln!(f, "  {victim:12} {kind:38} {times:4}")?;
        }
        let restarts: Vec<String> = restarts.iter().map(|(who, times)| format!("{who} {times}")).collect();
        writeln!(f, "restarts: {}", restarts.join(", "))?;
        let endings: Vec<String> = self.endings.iter().map(|(how, times)| format!("{how} {times}")).collect();
        writeln!(f, "experiments: {acknowledged}, {rounds} sweeps and what was retried")?;
        writeln!(f, "attempts: {} ({})", self.endings.values().sum::<u32>(), endings.join(", "))?;
        writeln!(f, "attempts that resumed from a checkpoint: {}", self.resumed)?;
        writeln!(f, "leases that ran out: {}", self.expired)?;
        writeln!(
            f,
            "{answers} answers held: nothing acknowledged was lost, attempts only rose, what was final stayed"
        )?;
        writeln!(
            f,
            "{} looks at the processes ({} with two or more at work): never two at one experiment",
            findings.looks, findings.busy_looks
        )?;
        write!(
            f,
            "verdict: equal to the undisturbed run: the CSV of {} rows byte for byte, {} epochs, {} models bit for bit",
            self.rows, self.epochs, self.models
        )
    }
}

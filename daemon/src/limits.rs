//! What a worker may say, and how much of it: pure. A broken or hostile worker must not fill memory or disk, nor put into
//! the record what steers a terminal or leads out of a folder.

use cnx_proto::escape::printable;
use cnx_proto::job::is_artifact_name;
use cnx_proto::v1::report::Body;
use cnx_proto::v1::{Artifact, Environment, Hello, Progress, Report};
use cnx_proto::validate::{self, MAX_EPOCHS};
use prost::Message;

/// More slots than this on one worker are a mistake.
const MAX_SLOTS: u32 = 1024;

/// Leases that a worker says it holds: what runs, and what it has yet to tell of earlier ones.
const MAX_HELD: usize = 4096;

/// Longest name of a host, device or version, in bytes.
const MAX_FACT_BYTES: usize = 256;

/// Older checkpoints that one artifact may make superfluous; there are two at a time.
const MAX_DELETED: usize = 64;

/// Log lines of one attempt that are kept, in bytes: four weeks of the most that an agent hands on would be more, what
/// people read is a thousandth.
pub const MAX_LOG_BYTES: u64 = 256 << 20;

/// All that one attempt may report, in bytes, log lines not included: a million epochs.
pub const MAX_REPORT_BYTES: u64 = 1 << 30;

/// Least that a report counts for: a row has a size of its own.
const ROW_BYTES: u64 = 64;

/// Whether a Hello can be worked with.
///
/// # Errors
/// What is wrong with it.
pub fn hello(hello: &Hello) -> Result<(), String> {
    if hello.worker.is_empty() || !validate::is_name(&hello.worker) {
        return Err(format!(
            "a worker's name is made of letters, digits and . _ + = - (not only digits), found {:?}",
            short(&hello.worker)
        ));
    }
    if !(1..=MAX_SLOTS).contains(&hello.slots) {
        return Err(format!("a worker has 1 to {MAX_SLOTS} slots, found {}", hello.slots));
    }
    if hello.labels.len() > validate::MAX_LABELS || !hello.labels.iter().all(|l| validate::is_label(l)) {
        return Err(format!(
            "a worker has at most {} labels of 1 to 64 letters, digits and . _ + = -, found {} such as {:?}",
            validate::MAX_LABELS,
            hello.labels.len(),
            hello.labels.iter().find(|l| !validate::is_label(l)).map_or("", |l| short(l))
        ));
    }
    for (what, text) in [("host", &hello.host), ("device", &hello.device), ("version", &hello.version)] {
        fact(what, text)?;
    }
    if hello.held.len() > MAX_HELD {
        return Err(format!("a worker holds at most {MAX_HELD} leases, found {}", hello.held.len()));
    }
    Ok(())
}

/// Whether a report may enter the record. How long a text may be that is cut rather than refused is the store's.
///
/// # Errors
/// What is wrong with it.
pub fn report(report: &Report) -> Result<(), String> {
    let Some(lease) = &report.lease else { return Ok(()) };
    match &report.body {
        Some(Body::Started(started)) => {
            if let Some(environment) = &started.environment {
                facts(environment)?;
            }
            match started.resumed_from.as_str() {
                "" => Ok(()),
                name => artifact_name(name),
            }
        }
        Some(Body::Epoch(metrics)) if !(1..=MAX_EPOCHS).contains(&metrics.epoch) => {
            Err(format!("epochs count from 1 to {MAX_EPOCHS}, found {}", metrics.epoch))
        }
        Some(Body::Artifact(artifact)) => of_artifact(artifact, lease.experiment),
        _ => Ok(()),
    }
}

fn of_artifact(artifact: &Artifact, experiment: u64) -> Result<(), String> {
    artifact_name(&artifact.name)?;
    let folder = format!("experiments/{experiment}/");
    if !artifact.name.starts_with(&folder) {
        return Err(format!(
            "an artifact of experiment {experiment} is below {folder}, found {:?}",
            artifact.name
        ));
    }
    let is_hash = artifact.sha256.len() == 64 && artifact.sha256.bytes().all(|b| b.is_ascii_hexdigit());
    if !artifact.sha256.is_empty() && !is_hash {
        return Err(format!("a SHA-256 has 64 hexadecimal digits, found {:?}", short(&artifact.sha256)));
    }
    if artifact.deleted.len() > MAX_DELETED {
        return Err(format!(
            "an artifact makes at most {MAX_DELETED} others superfluous, found {}",
            artifact.deleted.len()
        ));
    }
    artifact.deleted.iter().try_for_each(|name| artifact_name(name))
}

fn artifact_name(name: &str) -> Result<(), String> {
    match is_artifact_name(name) {
        true => Ok(()),
        false => Err(format!(
            "an artifact's name is a path such as experiments/12/final.safetensors, found {:?}",
            short(name)
        )),
    }
}

fn facts(environment: &Environment) -> Result<(), String> {
    let Environment { host, device, cnx_version, commit, libtorch_version, data_hash, .. } = environment;
    for (what, text) in [
        ("host", host),
        ("device", device),
        ("version of cnx", cnx_version),
        ("commit", commit),
        ("version of libtorch", libtorch_version),
        ("hash of the data", data_hash),
    ] {
        fact(what, text)?;
    }
    Ok(())
}

fn fact(what: &str, text: &str) -> Result<(), String> {
    if text.len() <= MAX_FACT_BYTES && printable(text) == text {
        return Ok(());
    }
    Err(format!(
        "a {what} has at most {MAX_FACT_BYTES} bytes and no control characters, found {} bytes: {:?}",
        text.len(),
        short(text)
    ))
}

/// As much of a text as an answer quotes.
fn short(text: &str) -> &str {
    let end = (0..=text.len().min(80)).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    &text[..end]
}

/// What one attempt has said so far, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Said {
    log: u64,
    other: u64,
}

impl Said {
    /// Counts a report. A log line that is too much is taken out of it: what is left is acknowledged, and not kept.
    ///
    /// # Errors
    /// When the attempt has said so much that nothing more is taken.
    pub fn admit(&mut self, report: &mut Report) -> Result<(), String> {
        let bytes = (report.encoded_len() as u64).max(ROW_BYTES);
        match &mut report.body {
            Some(Body::Log(line)) => {
                let before = self.log;
                self.log = self.log.saturating_add(bytes);
                if before > MAX_LOG_BYTES {
                    report.body = Some(Body::Progress(Progress::default()));
                } else if self.log > MAX_LOG_BYTES {
                    line.text = format!(
                        "(the log of this attempt ends here: {} MiB are kept of one)",
                        MAX_LOG_BYTES >> 20
                    );
                }
                Ok(())
            }
            // Whatever else was said: how it ended counts.
            Some(Body::Outcome(_)) => Ok(()),
            _ => {
                self.other = self.other.saturating_add(bytes);
                match self.other > MAX_REPORT_BYTES {
                    false => Ok(()),
                    true => Err(format!("one attempt reports at most {} MiB", MAX_REPORT_BYTES >> 20)),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use cnx_proto::v1::{EpochMetrics, Lease, LogLine, Started};

    use super::*;

    fn of(body: Body) -> Report {
        let lease = Some(Lease { experiment: 7, attempt: 1, token: "t".into() });
        Report { lease, sequence: 1, at_ms: 1, body: Some(body) }
    }

    fn artifact(name: &str) -> Artifact {
        Artifact { name: name.into(), ..Artifact::default() }
    }

    #[test]
    fn a_hello_of_absurd_length_or_with_control_characters_is_refused() {
        let fine = Hello { worker: "w".into(), slots: 1, device: "NVIDIA H200".into(), ..Hello::default() };
        hello(&fine).unwrap();
        for (wrong, said) in [
            (Hello { worker: "x".repeat(1 << 20), ..fine.clone() }, "name"),
            (Hello { host: "h".repeat(257), ..fine.clone() }, "a host has at most"),
            (Hello { device: "\x1b[2J".into(), ..fine.clone() }, "a device has"),
            (Hello { version: "1\n2".into(), ..fine.clone() }, "a version has"),
            (Hello { slots: u32::MAX, ..fine.clone() }, "slots"),
            (Hello { labels: vec!["l".repeat(1 << 20)], ..fine.clone() }, "labels"),
            (Hello { labels: vec!["l".into(); 10_000], ..fine.clone() }, "labels"),
            (Hello { held: vec![Lease::default(); 4097], ..fine.clone() }, "leases"),
        ] {
            let refusal = hello(&wrong).unwrap_err();
            assert!(refusal.contains(said) && refusal.len() < 1000, "{refusal}");
            assert_eq!(printable(&refusal), refusal);
        }
    }

    #[test]
    fn an_artifact_never_leads_out_of_its_experiments_folder() {
        report(&of(Body::Artifact(artifact("experiments/7/final-a1.safetensors")))).unwrap();
        for name in [
            "",
            "/etc/passwd",
            "experiments/7/../../etc/passwd",
            "experiments/8/final.safetensors",
            "experiments/70/final.safetensors",
            "experiments/7/",
            "experiments/7//x",
            "experiments/7/./x",
            "experiments/7/a\0b",
            "experiments/7/a\nb",
            "experiments/7",
            "../experiments/7/x",
        ] {
            assert!(report(&of(Body::Artifact(artifact(name)))).is_err(), "{name:?}");
            let deleted = Artifact { deleted: vec![name.into()], ..artifact("experiments/7/x") };
            let stays = name.starts_with("experiments/8") || name.starts_with("experiments/70");
            assert_eq!(report(&of(Body::Artifact(deleted))).is_err(), !stays, "{name:?}");
        }
        let flood = Artifact { deleted: vec!["experiments/7/y".into(); 65], ..artifact("experiments/7/x") };
        assert!(report(&of(Body::Artifact(flood))).is_err());
        let hash = Artifact { sha256: "=cmd".into(), ..artifact("experiments/7/x") };
        assert!(report(&of(Body::Artifact(hash))).is_err());
    }

    #[test]
    fn epochs_and_surroundings_are_held_to_what_they_can_be() {
        let epoch = |epoch| of(Body::Epoch(EpochMetrics { epoch, ..EpochMetrics::default() }));
        report(&epoch(1)).unwrap();
        assert!(report(&epoch(0)).is_err() && report(&epoch(u32::MAX)).is_err());
        let environment = Environment { device: "x".repeat(1000), ..Environment::default() };
        let started = Started { environment: Some(environment), ..Started::default() };
        assert!(report(&of(Body::Started(started))).unwrap_err().contains("device"));
        let started = Started { resumed_from: "../../x".into(), ..Started::default() };
        assert!(report(&of(Body::Started(started))).is_err());
    }

    #[test]
    fn a_log_without_end_is_acknowledged_and_not_kept() {
        let mut said = Said { log: MAX_LOG_BYTES - 10, other: 0 };
        let line = || of(Body::Log(LogLine { text: "x".repeat(100), ..LogLine::default() }));
        let mut last = line();
        said.admit(&mut last).unwrap();
        assert!(matches!(&last.body, Some(Body::Log(line)) if line.text.contains("ends here")), "{last:?}");
        let mut beyond = line();
        said.admit(&mut beyond).unwrap();
        assert!(matches!(beyond.body, Some(Body::Progress(_))), "{beyond:?}");
    }

    #[test]
    fn reports_without_end_are_refused_but_the_outcome_counts() {
        let mut said = Said { log: 0, other: MAX_REPORT_BYTES };
        assert!(said.admit(&mut of(Body::Artifact(artifact("experiments/7/x")))).is_err());
        said.admit(&mut of(Body::Outcome(cnx_proto::v1::Outcome::default()))).unwrap();
    }
}

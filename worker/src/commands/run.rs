//! `cnx-worker run`: one attempt. The agent starts it, and writes what to do to its standard input.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use cnx_proto::v1::{Assign, Lease, Report, outcome::Kind, report::Body};
use prost::Message;
use url::Url;

use super::{DeviceArguments, read_text};
use crate::data;
use crate::failure::{Failure, Result};
use crate::frame;
use crate::paths::Paths;
use crate::pipeline::{Surroundings, attempt, refuse};
use crate::reporter::{Reporter, Sink, frames};
use crate::stop::Stop;

/// The largest assignment that is accepted.
const MAX_ASSIGN_BYTES: usize = 16 << 20;

/// What a child that is killed loses of a long epoch, at most.
const CHECKPOINT_EVERY: &str = "5m";

/// `cnx-worker run`.
#[derive(Debug, Clone, Args)]
pub struct RunArguments {
    #[command(flatten)]
    device: DeviceArguments,
    /// Folder that holds the datasets [default: $CNX_DATA, or ~/.cache/cnx]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Time between two checkpoints in the middle of an epoch (0s: as many as the disk takes); after every epoch and when
    /// stopped there is one anyway
    #[arg(long, value_name = "DURATION", default_value = CHECKPOINT_EVERY, value_parser = duration)]
    checkpoint_every: Duration,
    /// Read only below the datasets, the artifacts, and what --allow-path names
    #[arg(long)]
    confined: bool,
    /// With --confined: a folder that may be read too
    #[arg(long = "allow-path", value_name = "DIR", requires = "confined")]
    allow_paths: Vec<PathBuf>,
    /// By hand, without an agent: the spec in JSON, or - for standard input
    #[arg(long, value_name = "FILE", requires = "out")]
    spec: Option<PathBuf>,
    /// With --spec: where checkpoints and models go
    #[arg(long, value_name = "DIR", requires = "spec")]
    out: Option<PathBuf>,
}

/// A duration, as people write it.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|e| format!("{e}; expected e.g. 90s, 5m, 1h"))
}

impl RunArguments {
    /// Which files a spec may name.
    fn paths(&self) -> Paths {
        if !self.confined {
            return Paths::default();
        }
        let mut roots = self.allow_paths.clone();
        roots.extend(data::folder(self.data.as_deref()));
        Paths::below(roots)
    }
}

/// Runs one attempt.
///
/// # Errors
/// When its outcome could not be told; by hand, also when it did not succeed.
pub fn run(arguments: &RunArguments) -> Result<()> {
    let stop = Stop::default();
    stop.on_signals()?;
    let (assign, sink): (Assign, Sink) = match (&arguments.spec, &arguments.out) {
        (Some(spec), Some(out)) => (by_hand(read_text(spec)?, out)?, Box::new(for_people)),
        _ => {
            let mut input = standard_input()?;
            let assign = read_assign(&mut input)?;
            stop.listen(input);
            (assign, frames(std::io::stdout()))
        }
    };
    let mut reporter = Reporter::new(sink, stop.clone());
    let outcome = match arguments.device.resolve() {
        Ok((device, threads)) => {
            let here = Surroundings {
                device,
                threads,
                data: arguments.data.clone(),
                paths: arguments.paths(),
                checkpoint_every: arguments.checkpoint_every,
            };
            attempt(&assign, &here, &mut reporter, &stop)?
        }
        Err(failure) => refuse(failure, &mut reporter)?,
    };
    reporter.finish()?;
    // The agent reads the outcome; a person's shell reads the exit status.
    if arguments.spec.is_some() && outcome.kind() != Kind::Succeeded {
        return Err(Failure::new(outcome.failure(), "the attempt did not succeed; its reason is above"));
    }
    Ok(())
}

/// Without a buffer, in which messages would be missed.
fn standard_input() -> Result<File> {
    let owned = std::io::stdin().as_fd().try_clone_to_owned();
    owned.map(File::from).map_err(|e| Failure::internal(format!("there is no standard input: {e}")))
}

/// The first message of the input.
fn read_assign(input: &mut impl Read) -> Result<Assign> {
    let malformed =
        |what: &str| Failure::internal(format!("expected an assignment on standard input: {what}"));
    let bytes = frame::read(input, MAX_ASSIGN_BYTES).map_err(|e| malformed(&e.to_string()))?;
    let bytes = bytes.ok_or_else(|| malformed("it is empty"))?;
    Assign::decode(bytes.as_slice()).map_err(|e| malformed(&e.to_string()))
}

fn by_hand(spec_json: String, out: &PathBuf) -> Result<Assign> {
    let folder = std::fs::create_dir_all(out).and_then(|()| out.canonicalize());
    let folder = folder.map_err(|error| Failure::file("make", out, &error))?;
    let url = Url::from_directory_path(&folder)
        .map_err(|()| Failure::internal(format!("{} is not a path that a URL can name", folder.display())))?;
    let lease = Lease { experiment: 1, attempt: 1, token: String::new() };
    Ok(Assign { lease: Some(lease), spec_json, lineage: vec![1], artifacts_url: url.into() })
}

/// By hand, the figures go to standard output; the epochs are in the log already.
fn for_people(report: &Report) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    match &report.body {
        Some(Body::Figures(figures)) => {
            let errors =
                [("final", &figures.r#final), ("best", &figures.best), ("converted", &figures.converted)];
            for (name, errors) in errors {
                let Some(errors) = errors else { continue };
                let (top1, top5) = (errors.top1_error, errors.top5_error);
                writeln!(
                    out,
                    "{name}: top-1 error {top1:.2} %, top-5 error {top5:.2} %, loss {:.4}",
                    errors.loss
                )?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assignment_is_read_and_what_follows_is_left() {
        let assign = Assign { spec_json: "x".repeat(300), lineage: vec![7], ..Assign::default() };
        let mut bytes = assign.encode_length_delimited_to_vec();
        bytes.push(42);
        let mut input = bytes.as_slice();
        assert_eq!(read_assign(&mut input).unwrap(), assign);
        assert_eq!(input, [42]);
    }

    #[test]
    fn input_that_is_no_assignment_is_refused() {
        for mut bytes in [&[][..], &[5, 1], &[1, 0xff], &[0xff; 20]] {
            let refused = read_assign(&mut bytes).unwrap_err().message;
            assert!(refused.contains("expected an assignment"), "{bytes:?}");
        }
    }
}

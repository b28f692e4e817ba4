//! `cnx-worker latency`: how long a network takes for one image. `cnx bench latency` runs it, a process a network.

use std::path::PathBuf;

use clap::Args;
use cnx_proto::Spec;
use cnx_proto::job::latency_json;

use super::read_text;
use crate::failure::{Failure, Result};

/// `cnx-worker latency`.
#[derive(Debug, Clone, Args)]
pub struct LatencyArguments {
    /// A spec in JSON whose run.steps is latency, or - for standard input
    #[arg(long, value_name = "FILE")]
    spec: PathBuf,
}

/// Times the network and prints the figures, as JSON.
///
/// # Errors
/// When there is no such spec, or the network cannot be run.
pub fn latency(arguments: &LatencyArguments) -> Result<()> {
    let file = arguments.spec.display();
    let spec = Spec::from_json(&read_text(&arguments.spec)?)
        .map_err(|problems| Failure::bad_spec(format!("{file}: {problems}")))?;
    if !spec.times() {
        return Err(Failure::bad_spec(format!("{file}: run.steps must be [\"latency\"]")));
    }
    let figures = crate::latency::measure(&spec, spec.resources.threads)?;
    println!("{}", latency_json(&figures));
    Ok(())
}

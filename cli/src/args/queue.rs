//! The verbs of the queue: what people change of it, and what they ask it.

use std::time::Duration;

use clap::Args;

/// Why an experiment waits, or what happened to it: a story with times, attempts and reasons
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cnx explain 12
  cnx explain last --json | jq -r '.why[]'")]
pub struct ExplainArgs {
    /// ID or name, or `last`; of several of one name the newest that runs, else the newest
    #[arg(value_name = "SELECTOR", default_value = "last")]
    pub selector: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Wait until experiments are final; exit 0 only if all succeeded
///
/// Outlives a restart of the coordinator. What is paused is waited for.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cnx wait cifar10 && cnx results cifar10 --csv > cifar10.csv
  cnx wait 12 13 --timeout 2h

Exit codes:
  0  all succeeded
  1  one failed or was cancelled
  3  the coordinator cannot be reached
  5  the time given with --timeout was over first")]
pub struct WaitArgs {
    /// IDs, names, sweep names, or `last`
    #[arg(required = true, value_name = "SELECTOR")]
    pub selectors: Vec<String>,
    /// Wait no longer than this, e.g. 90s, 15m, 2h, 3days
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub timeout: Option<Duration>,
}

/// Cancel experiments that wait, run or are paused
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cnx cancel 12 13
  cnx cancel cifar10     a whole sweep")]
pub struct CancelArgs {
    /// IDs, names, sweep names, or `last`
    #[arg(required = true, value_name = "SELECTOR")]
    pub selectors: Vec<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Queue anew what failed or was cancelled; it goes on from its checkpoints
///
/// What failed only because it was to run after one of these is queued anew with it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cnx retry 12
  cnx retry cifar10     all of a sweep that failed or was cancelled
  cnx retry --failed    all that failed and was not retried yet")]
pub struct RetryArgs {
    /// IDs, names, sweep names, or `last`
    #[arg(required_unless_present = "failed", value_name = "SELECTOR")]
    pub selectors: Vec<String>,
    /// All that failed and was not retried yet
    #[arg(long, conflicts_with = "selectors")]
    pub failed: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Hold experiments, sweeps, or the whole queue back
///
/// A running experiment is stopped by its worker after its step, writes a checkpoint and frees its slot; it loses no try, and
/// once resumed goes on from that step. With --queue nothing more is dispatched, and what runs goes on. Both hold through
/// restarts.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cnx pause 12
  cnx pause cifar10      all of a sweep that waits or runs
  cnx pause --queue      dispatch nothing more, let what runs finish")]
pub struct PauseArgs {
    /// IDs, names, sweep names, or `last`
    #[arg(required_unless_present = "queue", value_name = "SELECTOR")]
    pub selectors: Vec<String>,
    /// The whole queue
    #[arg(long, conflicts_with = "selectors")]
    pub queue: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Let what was paused go on: experiments, sweeps, or the whole queue
///
/// Experiments go back to the queue, in their old place. A paused queue and paused experiments are two things: each is
/// resumed by itself.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cnx resume 12
  cnx resume cifar10
  cnx resume --queue")]
pub struct ResumeArgs {
    /// IDs, names, sweep names, or `last`
    #[arg(required_unless_present = "queue", value_name = "SELECTOR")]
    pub selectors: Vec<String>,
    /// The whole queue
    #[arg(long, conflicts_with = "selectors")]
    pub queue: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Change the priority of what waits or is paused
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cnx priority 12 10
  cnx priority cifar10 -5     behind everything else")]
pub struct PriorityArgs {
    /// ID, name, sweep name, or `last`
    #[arg(value_name = "SELECTOR")]
    pub selector: String,
    /// Higher goes first; 0 where nothing was said
    #[arg(value_name = "N", allow_negative_numbers = true)]
    pub priority: i32,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

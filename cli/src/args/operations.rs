//! The verbs of whoever looks after a coordinator.

use std::path::PathBuf;

use clap::{Args, ValueHint};

/// Copy the coordinator's database: queue, figures, curves, logs; whether it runs or not
///
/// The copy is one moment of the database, looked over and on disk before it is there; the coordinator works on meanwhile.
/// It holds no access token, and no checkpoints or models: copy the artifacts folder for those. Runs on the coordinator's
/// machine, on its state folder.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cnx backup
  cnx backup -o /mnt/other-disk/cnx.db --force
  cnx --state /srv/cnx backup --json

Exit codes:
  0  the copy is on disk
  1  it is not; what was there before still is
  2  wrong usage")]
pub struct BackupArgs {
    /// File to write, or a folder to write it in [default: cnx-backup-DATE-TIME.db, in this folder]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,
    /// Replace FILE if it is there
    #[arg(long)]
    pub force: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Put a backup in the place of the coordinator's database, while the coordinator is stopped
///
/// What ran when the backup was taken goes back to the queue, and on from its newest checkpoint. IDs go on beyond all that
/// were given since. Where leases may be held that the backup does not know, the coordinator gives nothing out at first, until
/// they have run out (its --lease-ttl, 5 min unless told).
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cnx down && cnx restore cnx-backup-20260131-120000.db --force && cnx up
  cnx --state /srv/new restore cnx.db              on a new machine

Exit codes:
  0  it is restored
  1  it is not; nothing was changed
  2  wrong usage")]
pub struct RestoreArgs {
    /// Backup, as `cnx backup` wrote it
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Even if there is a database; it is kept beside, as cnx.db.before-restore-…
    #[arg(long)]
    pub force: bool,
    /// Where workers keep artifacts, if cnxd is started with --artifacts
    #[arg(long, value_name = "URL")]
    pub artifacts: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Look everything over: database, leases, workers, artifacts, disk, secrets, clock; and say what to do
///
/// Changes nothing. Works with a running coordinator, and without one on its state folder.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cnx doctor
  cnx doctor --json | jq '.findings[] | select(.verdict == \"problem\")'

Exit codes:
  0  all is well
  1  there are problems
  3  the coordinator named with --server cannot be reached
  4  not authorised")]
pub struct DoctorArgs {
    /// Where workers keep artifacts, if cnxd is started with --artifacts and does not run now
    #[arg(long, value_name = "URL")]
    pub artifacts: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

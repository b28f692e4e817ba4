//! What `cnxd` does besides serving: `cnx backup`, `cnx restore` and `cnx doctor` run it, since they must not know SQL. Each
//! tells what it did as a message of `cnx.proto`, encoded, on standard output.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Subcommand;
use prost::Message;

use cnx_proto::v1::{BackupReply, DoctorReply};

use crate::chance::Chance;
use crate::config::Config;
use crate::coordinator::millis;
use crate::doctor::{self, Patient};
use crate::folder::Folder;
use crate::store;

/// A task on a state folder.
#[derive(Debug, Clone, Subcommand)]
pub enum Task {
    /// Copy the database while it is in use (cnx backup runs this)
    Backup {
        /// File to write
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        /// Replace FILE if it is there
        #[arg(long)]
        force: bool,
    },
    /// Put a backup in the place of the database (cnx restore runs this)
    Restore {
        /// Backup
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Even if there is a database; it is kept beside
        #[arg(long)]
        force: bool,
    },
    /// Look over a state folder that no coordinator runs on (cnx doctor runs this)
    Doctor,
}

impl Task {
    /// Does it.
    ///
    /// # Errors
    /// When it cannot be done; nothing was changed then.
    pub async fn run(self, config: &Config) -> anyhow::Result<()> {
        // Bytes for cnx: a person who runs it by hand is better off there.
        if std::io::stdout().is_terminal() {
            bail!("this prints for programs; run cnx backup, cnx restore or cnx doctor");
        }
        let started = Instant::now();
        let told = match self {
            Task::Backup { output, force } => {
                let database = config.state.database();
                let file = std::path::absolute(&output).context("there is no working folder")?;
                let to = file.clone();
                let copied =
                    tokio::task::spawn_blocking(move || store::back_up(&database, &to, force)).await??;
                backup_reply(file, &copied, started.elapsed()).encode_to_vec()
            }
            Task::Restore { file, force } => restore(config, file, force, started).await?.encode_to_vec(),
            Task::Doctor => {
                if !config.state.database().exists() {
                    bail!(
                        "there is no database in {}: no coordinator ran there yet; name another folder with --state",
                        config.state.path().display()
                    );
                }
                look_over(config).await?.encode_to_vec()
            }
        };
        std::io::stdout().write_all(&told).context("cannot write the answer")
    }
}

async fn restore(
    config: &Config,
    file: PathBuf,
    force: bool,
    started: Instant,
) -> anyhow::Result<BackupReply> {
    // Held to the end: no coordinator may start meanwhile.
    let _folder = Folder::claim(&config.state)?;
    let database = config.state.database();
    let highest = doctor::highest_experiment(&config.artifacts_url);
    let restored = store::restore(&file, &database, highest, force, Chance::System.now()).await?;
    Ok(BackupReply {
        next_id: restored.next_id,
        interrupted: restored.interrupted,
        settled: restored.settled,
        moved_aside: restored.moved_aside.map(|path| path.display().to_string()).unwrap_or_default(),
        ..backup_reply(database, &restored.copied, started.elapsed())
    })
}

fn backup_reply(file: PathBuf, copied: &store::Copied, took: Duration) -> BackupReply {
    BackupReply {
        file: file.display().to_string(),
        bytes: copied.bytes,
        experiments: copied.experiments,
        wall_ms: millis(took),
        ..BackupReply::default()
    }
}

async fn look_over(config: &Config) -> anyhow::Result<DoctorReply> {
    let patient = Patient {
        state: config.state.clone(),
        artifacts_url: config.artifacts_url.clone(),
        now_ms: Chance::System.now_ms(),
        live: None,
    };
    let now_ms = patient.now_ms;
    let findings = tokio::task::spawn_blocking(move || doctor::examine(&patient)).await?;
    Ok(DoctorReply { findings, now_ms, version: env!("CARGO_PKG_VERSION").to_owned() })
}

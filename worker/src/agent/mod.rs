//! The agent: attaches to the coordinator, takes leases, and supervises one child process a lease.
//!
//! It does no training and calls no libtorch: an abort, a segfault or an out-of-memory kill there ends a child, and
//! the agent reports it. Read in this order: [`config`] and [`device`]; [`supervisor`] (the one decision maker) with [`attach`] (its
//! connection) and [`cnx_proto::lease_clock`] (how long a lease may be counted on, by [`boot_clock`]); [`attempt`] (one lease) with [`child`] and
//! [`log_lines`] (what the process says), [`outbox`] and [`spool`] (what is still to be told), [`outcome`] (what an
//! end means).
//!
//! What holds throughout:
//! - A report that the child made is on disk before it is sent, and stays there until the coordinator has it.
//! - The outcome is the last report, made only when the child was waited for; only then is its slot free.
//! - A child never outlives its agent, and computes nothing beyond its lease: it parks, and goes on if the lease is still its own.

use std::fs::{self, File, TryLockError};
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use cnx_proto::state_dir::StateDir;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

pub mod attach;
pub mod attempt;
pub mod boot_clock;
pub mod child;
pub mod config;
pub mod device;
pub mod log_lines;
pub mod outbox;
pub mod outcome;
mod refusal;
pub mod spool;
pub mod supervisor;

pub use config::{AgentArgs, Config};

use outbox::Outbox;
use spool::Spool;
use supervisor::Supervisor;

/// Between asking a child to stop and killing it.
const GRACE: Duration = Duration::from_secs(10);

/// `cnx-worker agent`.
///
/// # Errors
/// When the settings cannot work, another agent has this name, or the coordinator refuses the token.
pub fn main(args: AgentArgs) -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        // A line that cannot be written (the disk is full) is lost, and nothing else: saying so would fail, too.
        .log_internal_errors(false)
        .init();
    let config = settle(args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        let mut interrupts = signal(SignalKind::interrupt())?;
        let mut terminations = signal(SignalKind::terminate())?;
        let agent = run(config, stop.clone());
        tokio::pin!(agent);
        tokio::select! {
            result = &mut agent => return result,
            _ = interrupts.recv() => {}
            _ = terminations.recv() => {}
        }
        stop.cancel();
        tokio::select! {
            result = agent => result,
            () = second(&mut interrupts) => bail!("interrupted twice: the children were killed"),
        }
    })
}

async fn second(interrupts: &mut Signal) {
    if interrupts.recv().await.is_none() {
        std::future::pending().await
    }
}

/// Serves until `stop` is cancelled and everything is in order. Dropping it kills the children.
///
/// # Errors
/// As [`main`].
pub async fn run(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    config::check_name(&config.name).map_err(anyhow::Error::msg)?;
    let spool_folder = config.spool_folder();
    fs::create_dir_all(&spool_folder)
        .with_context(|| format!("cannot make the worker's folder {}", spool_folder.display()))?;
    let _lock = lock(&config.folder(), &config.name)?;
    tracing::info!(
        "worker {}: {} ({}), {} slots of {} threads, state in {}",
        config.name,
        config.device,
        config.device_name,
        config.slots,
        config.threads,
        config.state.path().display()
    );
    let mut supervisor =
        Supervisor::new(config, stop).context("cannot start the thread that starts children")?;
    take_over(&spool_folder, &mut supervisor)?;
    supervisor.run().await
}

/// Only one agent may use a worker's folder; the lock goes with the process.
fn lock(folder: &Path, name: &str) -> anyhow::Result<File> {
    let path = folder.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.with_context(|| format!("cannot open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            bail!(
                "a worker named {name} runs already (it holds {}); give this one another --name",
                path.display()
            )
        }
        Err(TryLockError::Error(error)) => {
            Err(anyhow!(error).context(format!("cannot lock {}", path.display())))
        }
    }
}

/// Goes through the spools of an agent that was killed. A complete one is told; an incomplete one belongs to a child
/// that died with the agent, and its attempt is told anew, from the last checkpoint, by the next one.
fn take_over(spool_folder: &Path, supervisor: &mut Supervisor) -> anyhow::Result<()> {
    for path in Spool::list(spool_folder)? {
        let (spool, content) = Spool::open(&path)?;
        if content.cut > 0 {
            tracing::warn!("{}: its last {} bytes were torn, and are cut off", path.display(), content.cut);
        }
        match content.lease {
            Some(lease) if content.complete => {
                tracing::info!("{}: its outcome is still to be told", attempt::name(&lease));
                supervisor.adopt(lease, Outbox::new(spool, content.first, content.last));
            }
            lease => {
                if let Some(lease) = lease {
                    tracing::info!("{}: died with the agent before; forgotten here", attempt::name(&lease));
                }
                spool.remove();
            }
        }
    }
    Ok(())
}

fn labels(mut labels: Vec<String>) -> anyhow::Result<Vec<String>> {
    labels.sort_unstable();
    labels.dedup();
    if labels.len() > cnx_proto::validate::MAX_LABELS {
        bail!("{} labels; expected at most {}", labels.len(), cnx_proto::validate::MAX_LABELS);
    }
    Ok(labels)
}

/// The folders that experiments may read: with their links resolved, so that a mistyped one is told now.
fn allowed(folders: Vec<PathBuf>) -> anyhow::Result<Vec<PathBuf>> {
    let resolved = |folder: PathBuf| {
        let found = fs::canonicalize(&folder);
        found.with_context(|| format!("--allow-path {}: there is no such folder", folder.display()))
    };
    folders.into_iter().map(resolved).collect()
}

/// Decides what the flags left open.
fn settle(args: AgentArgs) -> anyhow::Result<Config> {
    let state =
        StateDir::locate(args.state.as_deref(), |name| std::env::var_os(name)).map_err(anyhow::Error::msg)?;
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let device = device::find(&program, args.device.as_deref())?;
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let cores =
        std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1));
    Ok(Config {
        name: args.name.unwrap_or_else(|| config::default_name(&host, &device.id)),
        threads: args.threads.unwrap_or((cores / args.slots).max(1)),
        child: vec![program.into_os_string(), "run".into()],
        grace: GRACE,
        slots: args.slots,
        labels: labels(args.labels)?,
        memory_gib: args.memory.unwrap_or_else(config::machine_memory_gib),
        server: args.server.filter(|server| !server.is_empty()),
        tls: args.tls,
        allow_paths: allowed(args.allow_paths)?,
        data: args.data,
        checkpoint_every: args.checkpoint_every,
        state,
        host,
        device: device.id,
        device_name: device.name,
    })
}

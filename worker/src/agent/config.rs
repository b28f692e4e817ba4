//! What an agent is told when it starts.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use cnx_access::TlsArgs;
use cnx_proto::state_dir::StateDir;

/// `cnx-worker agent`: attach to a coordinator and run what it assigns.
#[derive(Debug, Clone, Args)]
pub struct AgentArgs {
    /// The state folder: where the coordinator's address, the worker-token (else $CNX_WORKER_TOKEN) and certificates are
    /// found, and unacknowledged reports are kept
    #[arg(long, value_name = "DIR", env = "CNX_STATE")]
    pub state: Option<PathBuf>,
    /// The coordinator's URL [default: what the coordinator wrote into the state folder]
    #[arg(long, value_name = "URL", env = "CNX_SERVER")]
    pub server: Option<String>,
    /// Whom to trust, and what to show.
    #[command(flatten)]
    pub tls: TlsArgs,
    /// This worker's name, unique in the pool [default: host name and device]
    #[arg(long)]
    pub name: Option<String>,
    /// Experiments at once
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub slots: u32,
    /// cpu, or cuda:N [default: the first GPU, else the CPU]
    #[arg(long, value_parser = device)]
    pub device: Option<String>,
    /// Threads of each experiment [default: the cores, shared by the slots]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub threads: Option<u32>,
    /// What experiments may ask for by [resources] labels; may be repeated
    #[arg(long = "label", value_name = "LABEL", value_parser = label)]
    pub labels: Vec<String>,
    /// Memory in GiB that experiments may ask for together by [resources] memory_gib [default: this machine's]
    #[arg(long, value_name = "GIB")]
    pub memory: Option<u32>,
    /// Where the datasets are, for experiments that don't say
    #[arg(long, value_name = "DIR", env = "CNX_DATA")]
    pub data: Option<PathBuf>,
    /// Time between two checkpoints in the middle of an epoch, e.g. 90s [default: 5m]; after every epoch and when stopped
    /// there is one anyway
    #[arg(long, value_name = "DURATION", value_parser = crate::commands::duration)]
    pub checkpoint_every: Option<Duration>,
    /// Experiments may read below this folder (data.root, run.from), besides --data and the artifacts, and nowhere else;
    /// may be repeated [default: all that this user can read where the coordinator serves this machine only, else nothing more]
    #[arg(long = "allow-path", value_name = "DIR")]
    pub allow_paths: Vec<PathBuf>,
}

fn device(text: &str) -> Result<String, String> {
    let index = text.strip_prefix("cuda:").map(str::parse::<u32>);
    match (text, index) {
        ("cuda", _) => Ok("cuda:0".to_owned()),
        ("cpu", _) | (_, Some(Ok(_))) => Ok(text.to_owned()),
        _ => Err("expected cpu or cuda:N, e.g. cuda:0".to_owned()),
    }
}

fn label(text: &str) -> Result<String, String> {
    match cnx_proto::validate::is_label(text) {
        true => Ok(text.to_owned()),
        false => Err("expected 1 to 64 letters, digits and . _ + = -, e.g. a100".to_owned()),
    }
}

/// This machine's main memory in whole GiB, to the nearest, as the kernel keeps some of it to itself; 0: not known.
pub fn machine_memory_gib() -> u32 {
    let Ok(text) = std::fs::read_to_string("/proc/meminfo") else { return 0 };
    total_gib(&text).unwrap_or(0)
}

fn total_gib(meminfo: &str) -> Option<u32> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    u32::try_from((kib + (1 << 19)) >> 20).ok()
}

/// An agent's settings, all decided.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the coordinator is found, and this worker's folder lies.
    pub state: StateDir,
    /// The coordinator's URL; `None`: as the state folder says at each attempt.
    pub server: Option<String>,
    /// Whom to trust, and what to show.
    pub tls: TlsArgs,
    /// This worker's name.
    pub name: String,
    /// This machine's name.
    pub host: String,
    /// What the child is told, e.g. `cuda:0`.
    pub device: String,
    /// What people read, e.g. `NVIDIA H200`; `cpu` without a GPU.
    pub device_name: String,
    /// Attempts at once.
    pub slots: u32,
    /// Threads of each.
    pub threads: u32,
    /// What experiments may ask for.
    pub labels: Vec<String>,
    /// Memory that experiments may count on together.
    pub memory_gib: u32,
    /// Where the datasets are; `None`: the child's default.
    pub data: Option<PathBuf>,
    /// Between two checkpoints in the middle of an epoch; `None`: the child's default.
    pub checkpoint_every: Option<Duration>,
    /// Folders that experiments may read besides the data and the artifacts; none: it depends on the coordinator.
    pub allow_paths: Vec<PathBuf>,
    /// The program of the child and the arguments before `--device …`.
    pub child: Vec<OsString>,
    /// Between asking a child to stop and killing it.
    pub grace: Duration,
}

impl Config {
    /// This worker's own folder.
    pub fn folder(&self) -> PathBuf {
        self.state.worker(&self.name)
    }

    /// Where its unacknowledged reports lie.
    pub fn spool_folder(&self) -> PathBuf {
        self.folder().join("spool")
    }

    /// The child's whole command line. `confined`: who submits experiments may be on another machine, so that they read only
    /// what was allowed here.
    pub fn child_command(&self, confined: bool) -> Vec<OsString> {
        let mut command = self.child.clone();
        command.extend(["--device".into(), (&self.device).into()]);
        command.extend(["--threads".into(), self.threads.to_string().into()]);
        if let Some(data) = &self.data {
            command.extend(["--data".into(), data.into()]);
        }
        if let Some(every) = self.checkpoint_every {
            let every = humantime::format_duration(every).to_string();
            command.extend(["--checkpoint-every".into(), every.into()]);
        }
        if confined || !self.allow_paths.is_empty() {
            command.push("--confined".into());
        }
        for path in &self.allow_paths {
            command.extend(["--allow-path".into(), path.into()]);
        }
        command
    }
}

/// Whether `name` can name a worker, and so a folder.
///
/// # Errors
/// What is wrong with it.
pub fn check_name(name: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.len() > 100 || name.starts_with('.') || !name.chars().all(allowed) {
        return Err(format!(
            "worker name {name:?}: expected 1 to 100 letters, digits, '-', '_' or '.', not starting with '.'; give \
             another --name"
        ));
    }
    Ok(())
}

/// The name of a worker that was not given one.
pub fn default_name(host: &str, device: &str) -> String {
    let short = host.split('.').next().unwrap_or_default();
    let safe: String = format!("{short}-{}", device.replace(':', ""))
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '-' })
        .collect();
    safe.trim_start_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_named_after_host_and_device() {
        assert_eq!(default_name("box.example.org", "cpu"), "box-cpu");
        assert_eq!(default_name("box", "cuda:1"), "box-cuda1");
        assert!(check_name(&default_name("", "cpu")).is_ok());
    }

    #[test]
    fn a_name_that_leads_out_of_its_folder_is_refused() {
        for name in ["", "..", ".hidden", "a/b", "a b", &"x".repeat(101)] {
            assert!(check_name(name).is_err(), "{name}");
        }
        assert!(check_name("box-cuda0.west_2").is_ok());
    }

    #[test]
    fn memory_is_told_in_whole_gib_to_the_nearest() {
        assert_eq!(total_gib("MemTotal:       65843208 kB\nMemFree: 1 kB\n"), Some(63));
        assert_eq!(total_gib("MemTotal: 32500000 kB\n"), Some(31));
        assert_eq!(total_gib("MemFree: 1 kB\n"), None);
    }

    #[test]
    fn a_label_is_one_word() {
        assert_eq!(label("a100-80g"), Ok("a100-80g".to_owned()));
        assert!(label("two words").is_err() && label("").is_err());
    }

    #[test]
    fn devices_are_cpu_or_a_numbered_gpu() {
        assert_eq!(device("cuda"), Ok("cuda:0".to_owned()));
        assert_eq!(device("cuda:3"), Ok("cuda:3".to_owned()));
        assert!(device("gpu").is_err() && device("cuda:x").is_err());
    }
}

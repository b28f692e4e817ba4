//! A state folder, an agent in it, and children that are shell scripts saying prepared reports.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use cnx_access::TlsArgs;
use cnx_proto::state_dir::StateDir;
use cnx_proto::v1::outcome::Kind;
use cnx_proto::v1::{
    EpochMetrics, FailureClass, Lease, Outcome, Phase, Progress, Report, Started, report::Body,
};
use cnx_worker::agent::{self, Config};
use prost::Message;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::coordinator::within;

pub struct World {
    pub folder: tempfile::TempDir,
    pub state: StateDir,
}

/// A running agent. Dropping it is what a crash is to everything but its process.
pub struct Agent {
    pub stop: CancellationToken,
    pub task: JoinHandle<anyhow::Result<()>>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl World {
    pub fn new() -> World {
        let folder = tempfile::tempdir().expect("a folder");
        let state = StateDir::locate(Some(&folder.path().join("state")), |_| None).expect("a state folder");
        let world = World { folder, state };
        world.prepare("started", Body::Started(Started::default()));
        world.prepare("progress", Body::Progress(Progress { step: 1, ..Progress::default() }));
        let parked = Progress { phase: Phase::Parked.into(), ..Progress::default() };
        world.prepare("parked", Body::Progress(parked));
        for epoch in 1..=3 {
            let metrics = EpochMetrics { epoch, ..EpochMetrics::default() };
            world.prepare(&format!("epoch{epoch}"), Body::Epoch(metrics));
        }
        let outcome = |kind: Kind, failure: FailureClass| {
            Body::Outcome(Outcome {
                kind: kind.into(),
                failure: failure.into(),
                message: "as told".to_owned(),
            })
        };
        world.prepare("succeeded", outcome(Kind::Succeeded, FailureClass::Unspecified));
        world.prepare("interrupted", outcome(Kind::Failed, FailureClass::Interrupted));
        world
    }

    /// A file that a script says with `say NAME`.
    fn prepare(&self, name: &str, body: Body) {
        let report = Report { at_ms: 1, body: Some(body), ..Report::default() };
        fs::write(self.path(&format!("{name}.report")), report.encode_length_delimited_to_vec())
            .expect("written");
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What a script waits for with `await NAME`.
    pub fn touch(&self, name: &str) {
        fs::write(self.path(name), "").expect("written");
    }

    pub fn config(&self, script: &str) -> Config {
        let here = self.folder.path().display();
        let script = format!(
            "cd '{here}'; say() {{ cat $1.report; }}; await() {{ until [ -e $1 ]; do sleep 0.02; done; }}\n\
             echo $$ > pid.new; mv pid.new pid\n{script}"
        );
        Config {
            state: self.state.clone(),
            server: None,
            tls: TlsArgs::default(),
            allow_paths: Vec::new(),
            name: "tester".to_owned(),
            host: "host".to_owned(),
            device: "cpu".to_owned(),
            device_name: "cpu".to_owned(),
            slots: 1,
            threads: 2,
            data: Some("/data".into()),
            checkpoint_every: Some(Duration::from_secs(90)),
            child: vec!["sh".into(), "-c".into(), script.into(), "child".into()],
            grace: Duration::from_secs(60),
            labels: Vec::new(),
            memory_gib: 0,
        }
    }

    pub fn start(&self, config: Config) -> Agent {
        let stop = CancellationToken::new();
        Agent { task: tokio::spawn(agent::run(config, stop.clone())), stop }
    }

    /// An agent whose children run `script`.
    pub fn agent(&self, script: &str) -> Agent {
        self.start(self.config(script))
    }

    /// The text of a file, as soon as it is there.
    pub async fn read(&self, name: &str) -> String {
        within(name, async {
            loop {
                if let Ok(text) = fs::read_to_string(self.path(name)) {
                    return text;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
    }

    /// The process ID of the child that started last.
    pub async fn pid(&self) -> u32 {
        self.read("pid").await.trim().parse().expect("a process ID")
    }

    /// Spool files that lie there.
    pub fn spools(&self) -> Vec<PathBuf> {
        let spool = self.state.worker("tester").join("spool");
        fs::read_dir(spool).expect("a spool folder").map(|entry| entry.expect("an entry").path()).collect()
    }

    pub async fn until_no_spool(&self) {
        within("the spool to be forgotten", async {
            while !self.spools().is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }
}

impl Agent {
    /// Stops it in good order.
    pub async fn shut_down(mut self) {
        self.stop.cancel();
        within("the agent's end", &mut self.task).await.expect("no panic").expect("in good order");
    }

    /// How it ends by itself.
    pub async fn end(mut self) -> anyhow::Result<()> {
        within("the agent's end", &mut self.task).await.expect("no panic")
    }
}

pub fn lease(experiment: u64) -> Lease {
    Lease { experiment, attempt: 1, token: format!("token-{experiment}") }
}

/// The state of a process, as the kernel says it: `T` is frozen, `Z` a zombie; none: there is no such process.
fn process_state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.trim_start().chars().next()
}

/// Whether a process is frozen. A shell that was about to start a program may be waiting (`D`) for it to begin, which it does not:
/// it is frozen itself.
fn frozen(pid: u32) -> bool {
    let started = || fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    match process_state(pid) {
        Some('T') => true,
        Some('D') => {
            started().split(' ').filter_map(|pid| pid.parse().ok()).any(|pid| process_state(pid) == Some('T'))
        }
        _ => false,
    }
}

/// Whether a process lives (a zombie does not).
pub fn lives(pid: u32) -> bool {
    process_state(pid).is_some_and(|state| state != 'Z')
}

pub async fn until_frozen(pid: u32) {
    within("the process to be frozen", async {
        while !frozen(pid) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

pub async fn until_dead(pid: u32) {
    within("the process to die", async {
        while lives(pid) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// A report in short: its sequence number and what it says.
pub fn short(report: &Report) -> String {
    let what = match report.body.as_ref().expect("a body") {
        Body::Started(_) => "started".to_owned(),
        Body::Progress(_) => "progress".to_owned(),
        Body::Epoch(epoch) => format!("epoch {}", epoch.epoch),
        Body::Log(line) => format!("log {}", line.text),
        Body::Outcome(outcome) if outcome.kind() == Kind::Failed => {
            outcome.failure().as_str_name().replace("FAILURE_CLASS_", "")
        }
        Body::Outcome(outcome) => outcome.kind().as_str_name().replace("KIND_", ""),
        other => format!("{other:?}"),
    };
    format!("{} {what}", report.sequence)
}

pub fn shorts(reports: &[Report]) -> Vec<String> {
    reports.iter().map(short).collect()
}

pub fn message(report: &Report) -> &str {
    match &report.body {
        Some(Body::Outcome(outcome)) => &outcome.message,
        other => panic!("no outcome: {other:?}"),
    }
}

//! A coordinator of our own, and what it is asked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cnx_proto::dashed::Dashed;
use cnx_proto::spec::{Arch, Dataset};
use cnx_proto::state_dir::{AUTHORIZATION, MAX_MESSAGE_BYTES};
use cnx_proto::v1::experiments_client::ExperimentsClient;
use cnx_proto::v1::{NewExperiment, SubmitRequest};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(120);

/// Specs in one request: far from the largest message.
const BATCH: usize = 10_000;

pub type Auth = Box<dyn FnMut(Request<()>) -> Result<Request<()>, Status> + Send + Sync>;
pub type People = ExperimentsClient<InterceptedService<Channel, Auth>>;

/// A running `cnxd`; killed when dropped, its folder removed.
pub struct Cnxd {
    child: Child,
    state: PathBuf,
    /// From its start to the first answer.
    pub started_in: Duration,
}

impl Cnxd {
    /// Starts one with an empty state folder below `folder`.
    pub async fn start(folder: &Path) -> Cnxd {
        let state = std::path::absolute(folder.join("queue-state")).expect("an absolute path");
        // A run that was interrupted left it.
        let _ = fs::remove_dir_all(&state);
        let (child, started_in) = spawn(&state).await;
        Cnxd { child, state, started_in }
    }

    /// Kills it as a power failure would, and starts it again on the same folder.
    pub async fn restart(&mut self) {
        self.kill();
        (self.child, self.started_in) = spawn(&self.state).await;
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub fn state(&self) -> &Path {
        &self.state
    }

    /// A new connection and the token for it, of a worker.
    pub async fn connect(&self) -> (Channel, Auth) {
        connect(&self.state, "worker-token").await.expect("cnxd answers")
    }

    pub async fn people(&self) -> People {
        people(&self.state).await.expect("cnxd answers")
    }

    /// Its memory in MiB: resident now, and at its highest.
    pub fn resident_mib(&self) -> (f64, f64) {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let of = |key: &str| {
            let line = status.lines().find(|line| line.starts_with(key)).expect("Linux tells it");
            line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
        };
        (of("VmRSS:"), of("VmHWM:"))
    }

    /// Processor time that it took so far, in seconds.
    pub fn cpu_s(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("it runs");
        // After the name in brackets: state, ten more, then the ticks of 10 ms in user mode and in the kernel's.
        let ticks = stat.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2);
        ticks.map(|n| n.parse::<f64>().unwrap()).sum::<f64>() / 100.0
    }

    /// Queues new experiments, numbered from `first`; the last belongs to a sweep of a few.
    pub async fn submit(&self, first: usize, count: usize) {
        let mut people = self.people().await;
        for start in (first..first + count).step_by(BATCH) {
            let end = (start + BATCH).min(first + count);
            people.submit(request(start..end)).await.expect("queued");
        }
    }
}

impl Drop for Cnxd {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.state);
    }
}

/// A request for experiments that differ in their seed.
pub fn request(seeds: std::ops::Range<usize>) -> SubmitRequest {
    let mut spec = cnx_proto::recipe::recipe(Arch::CondenseNet, Dataset::Synthetic);
    spec.name = "noop".to_owned();
    spec.model.stages = Dashed(vec![1, 1, 1]);
    spec.model.growth = Dashed(vec![4, 8, 16]);
    let experiment = |seed: usize| {
        spec.train.seed = seed as u64;
        NewExperiment { spec_json: spec.to_json() }
    };
    SubmitRequest { experiments: seeds.map(experiment).collect(), ..SubmitRequest::default() }
}

/// The folder of the binaries, this one's grandparent.
pub fn binary(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("an executable");
    let path = own.parent().and_then(Path::parent).unwrap().join(name);
    assert!(path.exists(), "{} is not built: run `make build` first", path.display());
    path
}

async fn spawn(state: &Path) -> (Child, Duration) {
    let _ = fs::remove_file(state.join("endpoint"));
    let started = Instant::now();
    let mut command = Command::new(binary("cnxd"));
    command.arg("--state").arg(state).args(["--listen", "127.0.0.1:0"]).env("RUST_LOG", "warn");
    let mut child = command.stdout(Stdio::null()).spawn().expect("cnxd starts");
    while people(state).await.is_none() {
        let gone = child.try_wait().expect("its state is known");
        assert!(gone.is_none() && started.elapsed() < PATIENCE, "cnxd does not answer");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    (child, started.elapsed())
}

async fn connect(state: &Path, token: &str) -> Option<(Channel, Auth)> {
    let url = fs::read_to_string(state.join("endpoint")).ok()?;
    let token = fs::read_to_string(state.join(token)).ok()?;
    let endpoint = Endpoint::from_shared(url.trim().to_owned()).ok()?.tcp_nodelay(true);
    let bearer: tonic::metadata::MetadataValue<_> = format!("Bearer {}", token.trim()).parse().ok()?;
    let auth: Auth = Box::new(move |mut request| {
        request.metadata_mut().insert(AUTHORIZATION, bearer.clone());
        Ok(request)
    });
    Some((endpoint.connect().await.ok()?, auth))
}

async fn people(state: &Path) -> Option<People> {
    let (channel, auth) = connect(state, "token").await?;
    let people = ExperimentsClient::with_interceptor(channel, auth);
    Some(people.max_decoding_message_size(MAX_MESSAGE_BYTES).max_encoding_message_size(MAX_MESSAGE_BYTES))
}

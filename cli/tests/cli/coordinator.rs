//! A coordinator that is played: it keeps experiments in memory, and tests move them along.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cnx_proto::Spec;
use cnx_proto::v1::experiments_server::{Experiments, ExperimentsServer};
use cnx_proto::v1::*;
use tokio::sync::{oneshot, watch};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};

pub const TOKEN: &str = "a-token-of-64-characters";

/// What it knows; shared with the test.
#[derive(Clone)]
pub struct Pool {
    experiments: Arc<Mutex<Vec<Experiment>>>,
    changed: Arc<watch::Sender<u64>>,
    pub logs: Arc<Mutex<Vec<LogLine>>>,
    pub results: Arc<Mutex<Vec<ResultRow>>>,
    /// What its doctor finds.
    pub findings: Arc<Mutex<Vec<Finding>>>,
    /// Below this URL, an experiment's artifacts besides its checkpoint.
    pub artifacts_url: Arc<Mutex<String>>,
    pub artifacts: Arc<Mutex<Vec<Artifact>>>,
    /// Workers are the files in here.
    workers: PathBuf,
}

/// A running coordinator; stops when dropped.
pub struct Coordinator {
    pub pool: Pool,
    pub address: SocketAddr,
    /// Its state folder, with token and endpoint.
    pub state: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Pool {
    pub fn new(workers: &Path) -> Pool {
        Pool {
            experiments: Arc::default(),
            changed: Arc::new(watch::channel(0).0),
            logs: Arc::default(),
            results: Arc::default(),
            findings: Arc::default(),
            artifacts_url: Arc::new(Mutex::new("file:///artifacts".into())),
            artifacts: Arc::default(),
            workers: workers.to_path_buf(),
        }
    }

    /// Changes the experiment of that ID, once there is one.
    pub fn change(&self, id: u64, change: impl Fn(&mut Experiment)) {
        let deadline = std::time::Instant::now() + Duration::from_secs(120);
        loop {
            if let Some(e) = self.experiments.lock().unwrap().iter_mut().find(|e| e.id == id) {
                change(e);
                break;
            }
            assert!(std::time::Instant::now() < deadline, "nobody submitted experiment {id}");
            std::thread::sleep(Duration::from_millis(5));
        }
        self.changed.send_modify(|n| *n += 1);
    }

    fn status(&self, selectors: &[String]) -> Result<StatusReply, Status> {
        let experiments = self.select(selectors)?;
        let coordinator = cnx_proto::v1::Coordinator { workers: 1, free_slots: 1, ..Default::default() };
        Ok(StatusReply { coordinator: Some(coordinator), experiments, ..StatusReply::default() })
    }

    fn select(&self, selectors: &[String]) -> Result<Vec<Experiment>, Status> {
        let all = self.experiments.lock().unwrap();
        let matches =
            |e: &Experiment, s: &String| e.id.to_string() == *s || e.name == *s || e.sweeps.contains(s);
        for s in selectors {
            if !all.iter().any(|e| matches(e, s)) {
                return Err(Status::not_found(format!("there is no experiment {s:?}")));
            }
        }
        let chosen = |e: &&Experiment| selectors.is_empty() || selectors.iter().any(|s| matches(e, s));
        Ok(all.iter().filter(chosen).cloned().collect())
    }
}

impl Pool {
    fn hold(&self, request: PauseRequest, what: &str, state: State) -> Result<Response<ChangeReply>, Status> {
        let change =
            |id: u64, name: String| Change { id, name, changed: true, message: what.into(), new_id: 0 };
        if request.queue {
            return Ok(Response::new(ChangeReply { changes: vec![change(0, "queue".into())] }));
        }
        let mut changes = Vec::new();
        for chosen in self.select(&request.selectors)? {
            self.change(chosen.id, |e| e.state = state as i32);
            changes.push(change(chosen.id, chosen.name));
        }
        Ok(Response::new(ChangeReply { changes }))
    }
}

impl Coordinator {
    /// Starts one on a port of its own.
    pub fn start() -> Coordinator {
        let state = tempfile::tempdir().unwrap();
        std::fs::create_dir(state.path().join("fake-workers")).unwrap();
        let pool = Pool::new(&state.path().join("fake-workers"));
        Coordinator::serve(pool, state, "127.0.0.1:0".parse().unwrap())
    }

    fn serve(pool: Pool, state: tempfile::TempDir, at: SocketAddr) -> Coordinator {
        let (tell_address, address) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let serving = pool.clone();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::bind(at).await.unwrap();
                tell_address.send(listener.local_addr().unwrap()).unwrap();
                let service = ExperimentsServer::with_interceptor(serving, authorise);
                let incoming = tonic::transport::server::TcpIncoming::from(listener);
                let server =
                    tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming);
                // Not gracefully: connections break, as they do when a coordinator is killed.
                tokio::select! { done = server => done.unwrap(), _ = stopped => {} }
            });
            runtime.shutdown_background();
        });
        let address = address.recv().unwrap();
        std::fs::write(state.path().join("endpoint"), format!("http://{address}\n")).unwrap();
        write_token(state.path(), TOKEN);
        Coordinator { pool, address, state, stop: Some(stop), thread: Some(thread) }
    }

    fn end(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }

    /// Kills it and starts it anew, elsewhere, with what it knew.
    pub fn restart(mut self) -> Coordinator {
        self.end();
        let state = std::mem::replace(&mut self.state, tempfile::tempdir().unwrap());
        Coordinator::serve(self.pool.clone(), state, "127.0.0.1:0".parse().unwrap())
    }

    /// `cnx` that finds this coordinator by its state folder.
    pub fn cnx(&self, args: &[&str]) -> std::process::Command {
        let mut command = crate::cnx(args);
        command.env("CNX_STATE", self.state.path());
        command
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        self.end();
    }
}

#[allow(clippy::result_large_err)] // tonic's signature
fn authorise(request: Request<()>) -> Result<Request<()>, Status> {
    let expected = format!("Bearer {TOKEN}");
    match request.metadata().get("authorization") {
        Some(token) if token.as_bytes() == expected.as_bytes() => Ok(request),
        _ => Err(Status::unauthenticated("the token is not the one in the state folder")),
    }
}

type Updates<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Experiments for Pool {
    async fn submit(&self, request: Request<SubmitRequest>) -> Result<Response<SubmitReply>, Status> {
        let request = request.into_inner();
        let mut all = self.experiments.lock().unwrap();
        let mut reply = SubmitReply { free_slots: 1, ..Default::default() };
        for new in &request.experiments {
            let spec = Spec::from_json(&new.spec_json).map_err(Status::invalid_argument)?;
            let known = all.iter().find(|e| e.spec_json == new.spec_json && !request.force);
            let (id, existing) = known.map_or((all.len() as u64 + 1, false), |e| (e.id, true));
            if !existing && !request.dry_run {
                all.push(Experiment {
                    id,
                    name: spec.name.clone(),
                    state: State::Queued as i32,
                    spec_json: new.spec_json.clone(),
                    message: "next free slot".into(),
                    sweeps: if request.sweep.is_empty() { Vec::new() } else { vec![request.sweep.clone()] },
                    ..Default::default()
                });
            }
            let id = if existing || !request.dry_run { id } else { 0 };
            let state = if existing { all[id as usize - 1].state } else { State::Queued as i32 };
            reply.experiments.push(Submitted { id, name: spec.name, existing, state });
        }
        Ok(Response::new(reply))
    }

    async fn submit_many(
        &self,
        request: Request<tonic::Streaming<SubmitRequest>>,
    ) -> Result<Response<SubmitReply>, Status> {
        let mut parts = request.into_inner();
        let mut whole = parts.message().await?.unwrap_or_default();
        while let Some(part) = parts.message().await? {
            whole.experiments.extend(part.experiments);
        }
        self.submit(Request::new(whole)).await
    }

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        self.status(&request.get_ref().selectors).map(Response::new)
    }

    type WatchStream = Updates<StatusReply>;

    async fn watch(&self, request: Request<StatusRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let (pool, selectors) = (self.clone(), request.into_inner().selectors);
        let changes = tokio_stream::wrappers::WatchStream::new(self.changed.subscribe());
        Ok(Response::new(Box::pin(changes.map(move |_| pool.status(&selectors)))))
    }

    async fn describe(
        &self,
        request: Request<DescribeRequest>,
    ) -> Result<Response<ExperimentDetail>, Status> {
        let experiment = self.select(&[request.into_inner().selector])?.into_iter().next();
        let epoch = |epoch: u32| EpochMetrics {
            epoch,
            test_top1_error: 90.0 / f64::from(epoch),
            ..Default::default()
        };
        let artifact = Artifact {
            kind: ArtifactKind::Checkpoint as i32,
            name: "experiments/1/checkpoint-0005-a1.safetensors".into(),
            sha256: "ab".repeat(32),
            bytes: 3_500_000,
            epoch: 5,
            deleted: Vec::new(),
        };
        let attempt = |attempt: u32, outcome: &str| Attempt {
            attempt,
            worker: "box-cpu".into(),
            started_at_ms: 1_000,
            ended_at_ms: 61_000,
            resumed_at_epoch: 3 * (attempt - 1),
            outcome: outcome.into(),
            ..Default::default()
        };
        Ok(Response::new(ExperimentDetail {
            experiment,
            attempts: vec![attempt(1, "worker-lost"), attempt(2, "succeeded")],
            epochs: (1..=5).map(epoch).collect(),
            artifacts: std::iter::once(artifact).chain(self.artifacts.lock().unwrap().clone()).collect(),
            events: vec![Event { at_ms: 1_000, attempt: 1, what: "leased to box-cpu".into() }],
            figures: Some(Figures {
                r#final: Some(Errors { loss: 0.5, top1_error: 18.0, top5_error: 2.0, images: 500 }),
                ..Default::default()
            }),
            artifacts_url: self.artifacts_url.lock().unwrap().clone(),
            why: vec!["All 1 slot of 1 worker are busy.".into()],
        }))
    }

    type LogsStream = Updates<LogLine>;

    async fn logs(&self, _request: Request<LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        let lines = self.logs.lock().unwrap().clone();
        Ok(Response::new(Box::pin(tokio_stream::iter(lines.into_iter().map(Ok)))))
    }

    async fn cancel(&self, request: Request<SelectRequest>) -> Result<Response<ChangeReply>, Status> {
        let mut changes = Vec::new();
        for chosen in self.select(&request.into_inner().selectors)? {
            let changed = !chosen.state().is_final();
            self.change(chosen.id, |e| {
                if changed {
                    e.state = State::Cancelled as i32
                }
            });
            let message = if changed { "cancelled" } else { "was final already" }.to_owned();
            changes.push(Change { id: chosen.id, name: chosen.name, changed, message, new_id: 0 });
        }
        Ok(Response::new(ChangeReply { changes }))
    }

    async fn retry(&self, request: Request<SelectRequest>) -> Result<Response<ChangeReply>, Status> {
        let change = |e: Experiment| Change {
            id: e.id,
            name: e.name,
            changed: true,
            message: "queued again as 9".into(),
            new_id: 9,
        };
        let changes = self.select(&request.into_inner().selectors)?.into_iter().map(change).collect();
        Ok(Response::new(ChangeReply { changes }))
    }

    async fn pause(&self, request: Request<PauseRequest>) -> Result<Response<ChangeReply>, Status> {
        self.hold(request.into_inner(), "paused", State::Paused)
    }

    async fn resume(&self, request: Request<PauseRequest>) -> Result<Response<ChangeReply>, Status> {
        self.hold(request.into_inner(), "resumed", State::Queued)
    }

    async fn set_priority(&self, request: Request<PriorityRequest>) -> Result<Response<ChangeReply>, Status> {
        let PriorityRequest { selectors, priority } = request.into_inner();
        let mut changes = Vec::new();
        for chosen in self.select(&selectors)? {
            self.change(chosen.id, |e| e.priority = priority);
            let message = format!("priority {} → {priority}", chosen.priority);
            changes.push(Change { id: chosen.id, name: chosen.name, changed: true, message, new_id: 0 });
        }
        Ok(Response::new(ChangeReply { changes }))
    }

    async fn results(&self, _request: Request<ResultsRequest>) -> Result<Response<ResultsReply>, Status> {
        Ok(Response::new(ResultsReply { rows: self.results.lock().unwrap().clone(), more: 0 }))
    }

    async fn doctor(&self, _request: Request<DoctorRequest>) -> Result<Response<DoctorReply>, Status> {
        let now_ms =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
        let findings = self.findings.lock().unwrap().clone();
        Ok(Response::new(DoctorReply { findings, now_ms, version: env!("CARGO_PKG_VERSION").into() }))
    }

    async fn list_workers(
        &self,
        _request: Request<ListWorkersRequest>,
    ) -> Result<Response<ListWorkersReply>, Status> {
        let files = std::fs::read_dir(&self.workers).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        let worker =
            |name| WorkerInfo { name, connected: true, slots: 1, device: "cpu".into(), ..Default::default() };
        Ok(Response::new(ListWorkersReply { workers: names.map(worker).collect() }))
    }
}

/// Puts a token into a state folder, as a coordinator does: its owner's alone.
pub fn write_token(state: &std::path::Path, token: &str) {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = std::fs::File::options();
    let file = file.write(true).create(true).truncate(true).mode(0o600).open(state.join("token"));
    writeln!(file.unwrap(), "{token}").unwrap();
}

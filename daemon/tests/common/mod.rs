//! A coordinator on a temporary folder, and a worker played by hand.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::VecDeque;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use cnx_access::Role;
use cnx_daemon::config::Config;
use cnx_daemon::folder::Folder;
use cnx_daemon::rpc::gate::Limits;
use cnx_proto::Spec;
use cnx_proto::dashed::Dashed;
use cnx_proto::spec::{Arch, Dataset};
use cnx_proto::state_dir::StateDir;
use cnx_proto::v1::experiments_client::ExperimentsClient;
use cnx_proto::v1::report::Body;
use cnx_proto::v1::workers_client::WorkersClient;
use cnx_proto::v1::{
    Acknowledge, Assign, Experiment, FromWorker, Heartbeat, HeartbeatReply, Hello, Lease, NewExperiment,
    Outcome, Report, State, StatusRequest, Stop, SubmitReply, SubmitRequest, ToWorker, Welcome, from_worker,
    outcome, to_worker,
};

/// Longest wait for anything; only a defect reaches it.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub type Auth = Box<dyn FnMut(Request<()>) -> Result<Request<()>, Status> + Send + Sync>;
pub type People = ExperimentsClient<InterceptedService<Channel, Auth>>;

/// Number of the heartbeat that answers Welcome.
const ANSWER: u64 = 0;

/// Fails the test rather than hang.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

pub struct Daemon {
    pub config: Config,
    pub channel: Channel,
    pub token: String,
    pub worker_token: String,
    pub channel_address: String,
    shutdown: CancellationToken,
    running: JoinHandle<anyhow::Result<()>>,
}

impl Daemon {
    pub async fn start(dir: &std::path::Path) -> Daemon {
        Daemon::with_ttl(dir, Duration::from_secs(300)).await
    }

    /// Workers that are played say nothing of themselves for a long time, and are not suspect for that.
    pub async fn with_ttl(dir: &std::path::Path, lease_ttl: Duration) -> Daemon {
        Daemon::with(dir, |config| config.lease_ttl = lease_ttl).await
    }

    /// One whose settings differ.
    pub async fn with(dir: &std::path::Path, change: impl FnOnce(&mut Config)) -> Daemon {
        let state = StateDir::locate(Some(dir), |_| None).unwrap();
        let folder = Folder::claim(&state).unwrap();
        let token = folder.secret(Role::Person).reveal().to_owned();
        let worker_token = folder.secret(Role::Worker).reveal().to_owned();
        let mut config = Config {
            state,
            lease_ttl: Duration::from_secs(300),
            heartbeat: Duration::from_secs(60),
            artifacts_url: "file:///artifacts".into(),
            tls: None,
            advertise: None,
            limits: Limits::default(),
        };
        change(&mut config);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(cnx_daemon::run(listener, folder, config.clone(), shutdown.clone()));
        let channel_address = url.trim_start_matches("http://").to_owned();
        let channel = Channel::from_shared(url).unwrap().connect().await.unwrap();
        Daemon { config, channel, token, worker_token, channel_address, shutdown, running }
    }

    /// A caller of one that runs as a program of its own, on this state folder.
    pub async fn of_running(dir: &std::path::Path) -> Daemon {
        let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap().trim().to_owned();
        let url = read("endpoint");
        let channel = Channel::from_shared(url.clone()).unwrap().connect().await.unwrap();
        let dir = dir.to_str().unwrap();
        let arguments =
            <cnx_daemon::config::Arguments as clap::Parser>::try_parse_from(["cnxd", "--state", dir]);
        Daemon {
            config: arguments.unwrap().config().unwrap(),
            channel,
            token: read("token"),
            worker_token: read("worker-token"),
            channel_address: url.trim_start_matches("http://").to_owned(),
            shutdown: CancellationToken::new(),
            running: tokio::spawn(async { Ok(()) }),
        }
    }

    /// Stops it in order.
    pub async fn stop(self) {
        self.shutdown.cancel();
        drop(self.channel);
        soon("the coordinator to stop", self.running).await.unwrap().unwrap();
    }

    pub fn people(&self) -> People {
        self.people_with(&self.token)
    }

    pub fn people_with(&self, token: &str) -> People {
        ExperimentsClient::with_interceptor(self.channel.clone(), auth(token))
    }

    pub async fn submit(&self, names: &[&str]) -> Vec<u64> {
        self.submit_specs(&names.iter().map(|n| spec(n)).collect::<Vec<_>>()).await
    }

    pub async fn submit_specs(&self, specs: &[Spec]) -> Vec<u64> {
        let reply = self.people().submit(request(specs)).await.unwrap().into_inner();
        reply.experiments.iter().map(|e| e.id).collect()
    }

    pub async fn try_submit(&self, request: SubmitRequest) -> Result<SubmitReply, Status> {
        self.people().submit(request).await.map(tonic::Response::into_inner)
    }

    pub async fn show(&self, id: u64) -> Experiment {
        let request = StatusRequest { selectors: vec![id.to_string()], ..Default::default() };
        self.people().status(request).await.unwrap().into_inner().experiments.remove(0)
    }

    /// Waits, by watching, until the experiment is as wanted.
    pub async fn until(&self, id: u64, wanted: impl Fn(&Experiment) -> bool) -> Experiment {
        let request = StatusRequest { selectors: vec![id.to_string()], ..Default::default() };
        let mut watch = self.people().watch(request).await.unwrap().into_inner();
        soon("an experiment to change", async {
            loop {
                let mut reply = watch.message().await.unwrap().expect("the watch ended");
                let experiment = reply.experiments.remove(0);
                if wanted(&experiment) {
                    return experiment;
                }
            }
        })
        .await
    }

    pub async fn until_state(&self, id: u64, state: State) -> Experiment {
        self.until(id, |e| e.state() == state).await
    }

    pub async fn worker(&self, name: &str) -> Worker {
        self.worker_holding(name, &[]).await
    }

    pub async fn worker_holding(&self, name: &str, held: &[Lease]) -> Worker {
        self.attach(Hello {
            worker: name.into(),
            host: "here".into(),
            device: "cpu".into(),
            slots: 1,
            version: "test".into(),
            held: held.to_vec(),
            ..Hello::default()
        })
        .await
    }

    pub async fn attach(&self, hello: Hello) -> Worker {
        let held = hello.held.clone();
        let (out, messages) = mpsc::channel(64);
        out.send(FromWorker { message: Some(from_worker::Message::Hello(hello)) }).await.unwrap();
        let mut client = WorkersClient::with_interceptor(self.channel.clone(), auth(&self.worker_token));
        let inbound = client.attach(ReceiverStream::new(messages)).await.unwrap().into_inner();
        let mut worker = Worker { out, inbound, early: VecDeque::new(), welcome: Welcome::default() };
        match worker.next().await {
            to_worker::Message::Welcome(welcome) => worker.welcome = welcome,
            other => panic!("expected Welcome, found {other:?}"),
        }
        // As the agent does at once: from now on it is attached.
        let answer = Heartbeat { number: ANSWER, leases: held, draining: false };
        let message = Some(from_worker::Message::Heartbeat(answer));
        worker.out.send(FromWorker { message }).await.unwrap();
        let mut early = VecDeque::new();
        loop {
            match worker.next().await {
                to_worker::Message::Heartbeat(HeartbeatReply { number: ANSWER, .. }) => break,
                message => early.push_back(message),
            }
        }
        worker.early = early;
        worker
    }
}

pub fn auth(token: &str) -> Auth {
    let value: tonic::metadata::MetadataValue<_> = format!("Bearer {token}").parse().unwrap();
    Box::new(move |mut request| {
        request.metadata_mut().insert("authorization", value.clone());
        Ok(request)
    })
}

/// A worker played by hand.
pub struct Worker {
    out: mpsc::Sender<FromWorker>,
    inbound: Streaming<ToWorker>,
    /// What came before the answer to its first heartbeat.
    early: VecDeque<to_worker::Message>,
    pub welcome: Welcome,
}

impl Worker {
    pub async fn next(&mut self) -> to_worker::Message {
        if let Some(message) = self.early.pop_front() {
            return message;
        }
        let message = soon("a message to the worker", self.inbound.message()).await;
        message.unwrap().expect("the stream ended").message.unwrap()
    }

    /// How the stream ended.
    pub async fn end(&mut self) -> Status {
        loop {
            match soon("the stream to end", self.inbound.message()).await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the stream ended without a reason"),
                Err(status) => return status,
            }
        }
    }

    pub async fn assigned(&mut self) -> Assign {
        match self.next().await {
            to_worker::Message::Assign(assign) => assign,
            other => panic!("expected Assign, found {other:?}"),
        }
    }

    /// The next lease, whatever else is said before.
    pub async fn next_assigned(&mut self) -> Lease {
        loop {
            if let to_worker::Message::Assign(assign) = self.next().await {
                return lease(&assign);
            }
        }
    }

    /// Reports and waits for the answer; what else is said meanwhile comes after.
    pub async fn reported(&mut self, lease: &Lease, sequence: u64, body: Body) -> Acknowledge {
        self.send(lease, sequence, body).await;
        let mut others = VecDeque::new();
        loop {
            match self.next().await {
                to_worker::Message::Acknowledge(acknowledge) => {
                    self.early.extend(others);
                    return acknowledge;
                }
                other => others.push_back(other),
            }
        }
    }

    pub async fn stopped(&mut self) -> Stop {
        match self.next().await {
            to_worker::Message::Stop(stop) => stop,
            other => panic!("expected Stop, found {other:?}"),
        }
    }

    pub async fn send(&self, lease: &Lease, sequence: u64, body: Body) {
        let report = Report { lease: Some(lease.clone()), sequence, at_ms: 1, body: Some(body) };
        let message = Some(from_worker::Message::Report(report));
        self.out.send(FromWorker { message }).await.unwrap();
    }

    pub async fn acknowledged(&mut self) -> Acknowledge {
        match self.next().await {
            to_worker::Message::Acknowledge(acknowledge) => acknowledge,
            other => panic!("expected Acknowledge, found {other:?}"),
        }
    }

    /// Reports and waits for the answer.
    pub async fn report(&mut self, lease: &Lease, sequence: u64, body: Body) -> Acknowledge {
        self.send(lease, sequence, body).await;
        let acknowledge = self.acknowledged().await;
        assert_eq!(acknowledge.sequence, sequence);
        acknowledge
    }

    /// Reports and waits for the refusal, whatever else is said meanwhile.
    pub async fn refusal(&mut self, lease: &Lease, sequence: u64, body: Body) -> String {
        self.send(lease, sequence, body).await;
        loop {
            if let to_worker::Message::Acknowledge(acknowledge) = self.next().await {
                assert!(!acknowledge.accepted);
                return acknowledge.reason;
            }
        }
    }

    pub async fn heartbeat(&mut self, leases: &[Lease]) -> HeartbeatReply {
        let message = Some(from_worker::Message::Heartbeat(Heartbeat {
            number: 1,
            leases: leases.to_vec(),
            draining: false,
        }));
        self.out.send(FromWorker { message }).await.unwrap();
        match self.next().await {
            to_worker::Message::Heartbeat(reply) => reply,
            other => panic!("expected HeartbeatReply, found {other:?}"),
        }
    }
}

pub fn lease(assign: &Assign) -> Lease {
    assign.lease.clone().unwrap()
}

/// A small valid spec; the name decides the seed, so that names differ in what they compute.
pub fn spec(name: &str) -> Spec {
    let mut spec = cnx_proto::recipe::recipe(Arch::CondenseNet, Dataset::Synthetic);
    spec.name = name.to_owned();
    spec.model.stages = Dashed(vec![2, 2, 2]);
    spec.model.growth = Dashed(vec![8, 16, 32]);
    spec.train.seed = name.bytes().fold(7, |hash, b| hash * 31 % 1_000_003 + u64::from(b));
    spec
}

pub fn request(specs: &[Spec]) -> SubmitRequest {
    SubmitRequest {
        experiments: specs.iter().map(|s| NewExperiment { spec_json: s.to_json() }).collect(),
        ..SubmitRequest::default()
    }
}

pub fn succeeded() -> Body {
    Body::Outcome(Outcome { kind: outcome::Kind::Succeeded.into(), ..Outcome::default() })
}

pub fn cancelled() -> Body {
    Body::Outcome(Outcome { kind: outcome::Kind::Cancelled.into(), ..Outcome::default() })
}

pub fn interrupted() -> Body {
    failed(cnx_proto::v1::FailureClass::Interrupted, "stopped as asked")
}

pub fn failed(class: cnx_proto::v1::FailureClass, message: &str) -> Body {
    Body::Outcome(Outcome {
        kind: outcome::Kind::Failed.into(),
        failure: class.into(),
        message: message.into(),
    })
}

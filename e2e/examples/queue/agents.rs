//! Simulated workers: each speaks the real protocol over a connection of its own, and every experiment succeeds at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cnx_proto::v1::report::Body;
use cnx_proto::v1::workers_client::WorkersClient;
use cnx_proto::v1::{
    FromWorker, Heartbeat, Hello, Lease, Outcome, Report, Started, ToWorker, Welcome, from_worker, outcome,
    to_worker,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::Cnxd;

/// What happens to an experiment at a worker.
pub enum News {
    /// It arrived.
    Assigned(Instant),
    /// Its outcome is acknowledged: on disk.
    Done(Instant),
}

/// Workers that are connected as long as this lives.
pub struct Agents {
    /// What happens, in the order in which it is heard.
    pub news: mpsc::UnboundedReceiver<News>,
    tasks: tokio::task::JoinSet<()>,
}

impl Agents {
    /// Connects so many workers of one slot, named after `name`.
    pub async fn connect(cnxd: &Cnxd, name: &str, count: usize) -> Agents {
        let (tell, news) = mpsc::unbounded_channel();
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..count {
            let agent = Agent::attach(cnxd, format!("{name}-{number}")).await;
            tasks.spawn(agent.work(tell.clone()));
        }
        Agents { news, tasks }
    }

    /// The next so many assignments and acknowledged outcomes.
    pub async fn done(&mut self, count: usize) -> (Vec<Instant>, Vec<Instant>) {
        let (mut assigned, mut done) = (Vec::new(), Vec::new());
        while done.len() < count {
            match self.news.recv().await.expect("workers are connected") {
                News::Assigned(at) => assigned.push(at),
                News::Done(at) => done.push(at),
            }
        }
        (assigned, done)
    }

    /// Disconnects them all.
    pub async fn leave(mut self) {
        self.tasks.shutdown().await;
    }
}

struct Agent {
    out: mpsc::Sender<FromWorker>,
    inbound: Streaming<ToWorker>,
    heartbeat: Duration,
}

impl Agent {
    async fn attach(cnxd: &Cnxd, worker: String) -> Agent {
        let (channel, auth) = cnxd.connect().await;
        let (out, messages) = mpsc::channel(64);
        let hello = Hello {
            worker,
            host: "here".into(),
            device: "cpu".into(),
            slots: 1,
            version: env!("CARGO_PKG_VERSION").into(),
            held: Vec::new(),
        };
        send(&out, from_worker::Message::Hello(hello)).await;
        let mut client = WorkersClient::with_interceptor(channel, auth);
        let mut inbound = client.attach(ReceiverStream::new(messages)).await.expect("attached").into_inner();
        let first = inbound.message().await.expect("a stream").and_then(|m| m.message);
        let Some(to_worker::Message::Welcome(Welcome { heartbeat_interval_ms, .. })) = first else {
            panic!("expected Welcome, found {first:?}");
        };
        Agent { out, inbound, heartbeat: Duration::from_millis(heartbeat_interval_ms.into()) }
    }

    async fn work(mut self, tell: mpsc::UnboundedSender<News>) {
        let mut beat = tokio::time::interval(self.heartbeat);
        let mut held: Option<Arc<Lease>> = None;
        loop {
            let message = tokio::select! {
                _ = beat.tick() => {
                    let leases = held.iter().map(|lease| Lease::clone(lease)).collect();
                    let beat = Heartbeat { leases, ..Heartbeat::default() };
                    send(&self.out, from_worker::Message::Heartbeat(beat)).await;
                    continue;
                }
                message = self.inbound.message() => message,
            };
            let Ok(Some(ToWorker { message: Some(message) })) = message else { return };
            match message {
                to_worker::Message::Assign(assign) => {
                    let _ = tell.send(News::Assigned(Instant::now()));
                    let lease = Arc::new(assign.lease.expect("a lease"));
                    self.report(&lease, 1, Body::Started(Started::default())).await;
                    let succeeded = Outcome { kind: outcome::Kind::Succeeded.into(), ..Outcome::default() };
                    self.report(&lease, 2, Body::Outcome(succeeded)).await;
                    held = Some(lease);
                }
                to_worker::Message::Acknowledge(answer) => {
                    assert!(answer.accepted, "refused: {}", answer.reason);
                    if answer.sequence == 2 {
                        let _ = tell.send(News::Done(Instant::now()));
                    }
                }
                _ => {}
            }
        }
    }

    async fn report(&self, lease: &Lease, sequence: u64, body: Body) {
        let report = Report { lease: Some(lease.clone()), sequence, at_ms: 1, body: Some(body) };
        send(&self.out, from_worker::Message::Report(report)).await;
    }
}

/// A worker whose coordinator has gone has nobody to tell.
async fn send(out: &mpsc::Sender<FromWorker>, message: from_worker::Message) {
    let _ = out.send(FromWorker { message: Some(message) }).await;
}

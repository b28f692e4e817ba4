//! Simulated workers: each speaks the real protocol over a connection of its own, and every experiment succeeds at once.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use cnx_proto::v1::report::Body;
use cnx_proto::v1::workers_client::WorkersClient;
use cnx_proto::v1::{
    EpochMetrics, FromWorker, Heartbeat, Hello, Lease, Outcome, Progress, Report, Started, ToWorker, Welcome,
    from_worker, outcome, to_worker,
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
    /// An epoch's metrics are, so long after they were sent.
    Acknowledged(Duration),
    /// Progress was sent.
    Sent,
}

/// What a worker does with an experiment.
#[derive(Clone, Copy)]
pub enum Work {
    /// Nothing: it succeeds at once.
    Noop,
    /// It reports progress ten times a second, in memory only, and never ends.
    Progress,
    /// It reports an epoch's metrics ten times a second, each to be acknowledged, and never ends.
    Metrics,
}

/// Reports of [`Work::Progress`] and [`Work::Metrics`].
const EVERY: Duration = Duration::from_millis(100);

/// Workers that are connected as long as this lives.
pub struct Agents {
    /// What happens, in the order in which it is heard.
    pub news: mpsc::UnboundedReceiver<News>,
    tasks: tokio::task::JoinSet<()>,
}

impl Agents {
    /// Connects so many workers of one slot, named after `name`.
    pub async fn connect(cnxd: &Cnxd, name: &str, count: usize, work: Work) -> Agents {
        let (tell, news) = mpsc::unbounded_channel();
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..count {
            let agent = Agent::attach(cnxd, format!("{name}-{number}")).await;
            let tell = tell.clone();
            match work {
                Work::Noop => tasks.spawn(agent.noops(tell)),
                Work::Progress | Work::Metrics => tasks.spawn(agent.reports(tell, work)),
            };
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
                News::Acknowledged(_) | News::Sent => {}
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
            ..Hello::default()
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

    async fn noops(mut self, tell: mpsc::UnboundedSender<News>) {
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

    /// Reports on one experiment for ever. What of progress is shown as its loss is when it was sent, in seconds since the
    /// benchmark began.
    async fn reports(mut self, tell: mpsc::UnboundedSender<News>, work: Work) {
        let mut beat = tokio::time::interval(self.heartbeat);
        let mut next = tokio::time::interval(EVERY);
        let mut held: Option<Lease> = None;
        let mut sent: VecDeque<Instant> = VecDeque::new();
        let mut epoch = 0;
        loop {
            tokio::select! {
                _ = beat.tick() => {
                    let beat = Heartbeat { leases: held.iter().cloned().collect(), ..Heartbeat::default() };
                    send(&self.out, from_worker::Message::Heartbeat(beat)).await;
                }
                _ = next.tick() => {
                    let Some(lease) = &held else { continue };
                    epoch += 1;
                    if matches!(work, Work::Metrics) {
                        sent.push_back(Instant::now());
                        let metrics = EpochMetrics { epoch, test_top1_error: 50.0, ..EpochMetrics::default() };
                        self.report(lease, u64::from(epoch) + 1, Body::Epoch(metrics)).await;
                    } else {
                        let loss = began().elapsed().as_secs_f64();
                        let progress = Progress { step: epoch.into(), loss, ..Progress::default() };
                        self.report(lease, 0, Body::Progress(progress)).await;
                        let _ = tell.send(News::Sent);
                    }
                }
                message = self.inbound.message() => match message {
                    Ok(Some(ToWorker { message: Some(to_worker::Message::Assign(assign)) })) => {
                        let _ = tell.send(News::Assigned(Instant::now()));
                        let lease = assign.lease.expect("a lease");
                        self.report(&lease, 1, Body::Started(Started::default())).await;
                        held = Some(lease);
                    }
                    Ok(Some(ToWorker { message: Some(to_worker::Message::Acknowledge(answer)) })) => {
                        assert!(answer.accepted, "refused: {}", answer.reason);
                        if answer.sequence > 1 {
                            let at = sent.pop_front().expect("it was sent");
                            let _ = tell.send(News::Acknowledged(at.elapsed()));
                        }
                    }
                    Ok(Some(_)) => {}
                    _ => return,
                },
            }
        }
    }

    async fn report(&self, lease: &Lease, sequence: u64, body: Body) {
        let report = Report { lease: Some(lease.clone()), sequence, at_ms: 1, body: Some(body) };
        send(&self.out, from_worker::Message::Report(report)).await;
    }
}

/// When the benchmark began.
pub fn began() -> Instant {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    *BEGAN.get_or_init(Instant::now)
}

/// A worker whose coordinator has gone has nobody to tell.
async fn send(out: &mpsc::Sender<FromWorker>, message: from_worker::Message) {
    let _ = out.send(FromWorker { message: Some(message) }).await;
}

//! A coordinator for tests: real gRPC, and every answer given by the test.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use cnx_proto::state_dir::{AUTHORIZATION, StateDir};
use cnx_proto::v1::workers_server::{Workers, WorkersServer};
use cnx_proto::v1::{
    Acknowledge, Assign, FromWorker, HeartbeatReply, Hello, Lease, Report, Stop, StopReason, ToWorker,
    Welcome, from_worker, report::Body, to_worker,
};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

pub const TOKEN: &str = "secret";

/// Long enough for a loaded machine; nothing waits so long when all is well.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(60), future).await {
        Ok(value) => value,
        Err(_) => panic!("waited in vain for {what}"),
    }
}

/// A listening coordinator. Dropping it closes the port; its streams end with their sessions.
pub struct Coordinator {
    pub address: SocketAddr,
    sessions: mpsc::Receiver<Session>,
    server: JoinHandle<()>,
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// One worker's stream.
pub struct Session {
    pub hello: Hello,
    inbound: Streaming<FromWorker>,
    outbound: mpsc::Sender<Result<ToWorker, Status>>,
    /// Heartbeats that came, in the order they came.
    pub heartbeats: Vec<cnx_proto::v1::Heartbeat>,
}

struct Service(mpsc::Sender<Session>);

#[tonic::async_trait]
impl Workers for Service {
    type AttachStream = ReceiverStream<Result<ToWorker, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<FromWorker>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let bearer = request.metadata().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        if bearer != Some(&format!("Bearer {TOKEN}")) {
            return Err(Status::unauthenticated("wrong token"));
        }
        let mut inbound = request.into_inner();
        let first = inbound.message().await?.and_then(|first| first.message);
        let Some(from_worker::Message::Hello(hello)) = first else {
            return Err(Status::invalid_argument("expected Hello"));
        };
        let (outbound, stream) = mpsc::channel(64);
        let session = Session { hello, inbound, outbound, heartbeats: vec![] };
        self.0.send(session).await.map_err(|_| Status::unavailable("gone"))?;
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

impl Coordinator {
    /// Listens on a port of its own, and says so in the state folder.
    pub async fn start(state: &StateDir) -> Coordinator {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        fs::create_dir_all(state.path()).expect("a folder");
        fs::write(state.worker_token(), format!("{TOKEN}\n")).expect("a token");
        fs::write(state.endpoint(), format!("http://{address}\n")).expect("an endpoint");
        let (found, sessions) = mpsc::channel(8);
        let service = tonic::transport::Server::builder().add_service(WorkersServer::new(Service(found)));
        let server = tokio::spawn(async move {
            service.serve_with_incoming(TcpListenerStream::new(listener)).await.expect("serving");
        });
        Coordinator { address, sessions, server }
    }

    /// The next worker that attaches.
    pub async fn session(&mut self) -> Session {
        within("a worker", self.sessions.recv()).await.expect("a session")
    }

    /// The next worker that attaches, welcomed with a long lease.
    pub async fn welcomed(&mut self) -> Session {
        let session = self.session().await;
        session.welcome(Duration::from_secs(600), vec![]).await;
        session
    }
}

impl Session {
    pub async fn say(&self, message: to_worker::Message) {
        let _ = self.outbound.send(Ok(ToWorker { message: Some(message) })).await;
    }

    pub async fn welcome(&self, ttl: Duration, stale: Vec<Lease>) {
        let lease_ttl_ms = u64::try_from(ttl.as_millis()).expect("short");
        self.say(to_worker::Message::Welcome(Welcome {
            heartbeat_interval_ms: 50,
            lease_ttl_ms,
            stale,
            artifacts_url: "file:///nowhere".to_owned(),
        }))
        .await;
    }

    pub async fn assign(&self, lease: &Lease) {
        self.say(to_worker::Message::Assign(Assign {
            lease: Some(lease.clone()),
            spec_json: "{}".to_owned(),
            lineage: vec![lease.experiment],
            artifacts_url: "file:///nowhere".to_owned(),
        }))
        .await;
    }

    pub async fn stop(&self, lease: &Lease, reason: StopReason) {
        self.say(to_worker::Message::Stop(Stop { lease: Some(lease.clone()), reason: reason.into() })).await;
    }

    pub async fn acknowledge(&self, report: &Report, accepted: bool) {
        self.say(to_worker::Message::Acknowledge(Acknowledge {
            lease: report.lease.clone(),
            sequence: report.sequence,
            accepted,
            reason: if accepted { String::new() } else { "overtaken".to_owned() },
        }))
        .await;
    }

    /// The next report, durable or not; heartbeats are answered on the way. `None` when the worker hung up.
    pub async fn any_report(&mut self) -> Option<Report> {
        loop {
            let message = within("a report", self.inbound.message()).await.ok().flatten()?;
            match message.message {
                Some(from_worker::Message::Report(report)) => return Some(report),
                Some(from_worker::Message::Heartbeat(heartbeat)) => {
                    let number = heartbeat.number;
                    self.heartbeats.push(heartbeat);
                    self.say(to_worker::Message::Heartbeat(HeartbeatReply { number, stale: vec![] })).await;
                }
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    /// The next durable report.
    pub async fn report(&mut self) -> Report {
        loop {
            let report = self.any_report().await.expect("the worker hung up");
            if report.sequence > 0 {
                return report;
            }
            assert!(matches!(report.body, Some(Body::Progress(_))), "volatile: {report:?}");
        }
    }

    /// Takes and acknowledges durable reports up to the outcome; all of them.
    pub async fn all_reports(&mut self) -> Vec<Report> {
        let mut reports = vec![];
        loop {
            let report = self.report().await;
            self.acknowledge(&report, true).await;
            let last = matches!(report.body, Some(Body::Outcome(_)));
            reports.push(report);
            if last {
                return reports;
            }
        }
    }

    /// Answers heartbeats until the worker hangs up.
    pub async fn until_hang_up(&mut self) {
        while self.any_report().await.is_some() {}
    }
}

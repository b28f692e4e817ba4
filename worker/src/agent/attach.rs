//! One connection to the coordinator: find it, say Hello, hear its welcome; and when to try again.

use std::error::Error as _;
use std::time::Duration;

use cnx_access::explain::{self, chain};
use cnx_access::{AccessError, Place, Role, Trust};
use cnx_proto::escape::printable;
use cnx_proto::lease_clock::SinceBoot;
use cnx_proto::state_dir::{AUTHORIZATION, MAX_ORDER_BYTES, MAX_WORKER_MESSAGE_BYTES};
use cnx_proto::v1::from_worker::Message;
use cnx_proto::v1::workers_client::WorkersClient;
use cnx_proto::v1::{FromWorker, Hello, Lease, ToWorker, Welcome, to_worker};
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, Streaming};

use super::boot_clock;
use super::config::Config;

/// How long each step of attaching may take.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);

/// Reports on their way to the network; a slow coordinator leaves the rest in the spools.
const QUEUE: usize = 64;

/// A stream that the coordinator welcomed.
#[derive(Debug)]
pub struct Connection {
    /// Where the coordinator is.
    pub url: String,
    /// It is another machine's, or may serve others: what it assigns reads only below this worker's roots.
    pub confined: bool,
    /// For reports. Waits when the coordinator is slow.
    pub reports: mpsc::Sender<FromWorker>,
    /// For heartbeats, which reports never hold up.
    pub heartbeats: mpsc::Sender<FromWorker>,
    /// What it says.
    pub inbound: Streaming<ToWorker>,
    /// Its first word.
    pub welcome: Welcome,
    /// The leases that Hello named.
    pub held: Vec<Lease>,
    /// When Hello was sent.
    pub hello_at: SinceBoot,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The token is wrong, or the certificate cannot be trusted: asking again does not help.
    #[error("{0}")]
    Refused(String),
    /// Anything that may be better later.
    #[error("{0}")]
    Unreachable(String),
}

use AttachError::{Refused, Unreachable};

/// Attaches, naming the leases in `held`.
///
/// # Errors
/// When no coordinator can be reached, or it does not want us.
pub async fn attach(config: &Config, held: Vec<Lease>) -> Result<Connection, AttachError> {
    let place = Place::find(config.server.as_deref(), Some(&config.state))?;
    let trust = Trust::find(&config.tls, Some(&config.state))?;
    let token = Role::Worker.token(Some(&config.state))?;
    if let Some(mended) = &token.mended {
        tracing::warn!("{mended}");
    }
    let bearer =
        token.secret.bearer().ok_or_else(|| Refused(format!("{} does not hold a token", token.from)))?;
    let url = place.url().to_owned();
    let hello_at = boot_clock::now();
    let endpoint = trust
        .endpoint(&place)?
        .connect_timeout(STEP_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20))
        .keep_alive_while_idle(true);
    let connected = endpoint.connect().await;
    let channel = connected.map_err(|error| match explain::tls(&error, &place, &trust) {
        Some(why) => Refused(format!("the coordinator at {} {why}", place.shown())),
        None => Unreachable(format!("{url}: {}", chain(&error))),
    })?;
    let mut client = WorkersClient::new(channel)
        .max_decoding_message_size(MAX_ORDER_BYTES)
        .max_encoding_message_size(MAX_WORKER_MESSAGE_BYTES);

    let (reports, outbound) = mpsc::channel(QUEUE);
    let (heartbeats, beats) = mpsc::channel(4);
    let hello = FromWorker { message: Some(Message::Hello(hello(config, held.clone()))) };
    let outbound =
        tokio_stream::once(hello).chain(ReceiverStream::new(beats).merge(ReceiverStream::new(outbound)));
    let mut request = Request::new(outbound);
    request.metadata_mut().insert(AUTHORIZATION, bearer);

    let silent = |_| Unreachable(format!("{url} did not answer within {STEP_TIMEOUT:?}"));
    let said = |status: Status| {
        if let Some(why) = status.source().and_then(|cause| explain::tls(cause, &place, &trust)) {
            return Refused(format!("the coordinator at {} {why}", place.shown()));
        }
        match status.code() {
            Code::Unauthenticated | Code::PermissionDenied => Refused(format!(
                "the coordinator at {url} refused the token from {}: {}",
                token.from,
                one_line(status.message())
            )),
            _ => Unreachable(format!("{url}: {}", explain(&status))),
        }
    };
    let response = tokio::time::timeout(STEP_TIMEOUT, client.attach(request)).await.map_err(silent)?;
    let mut inbound = response.map_err(said)?.into_inner();
    let first = tokio::time::timeout(STEP_TIMEOUT, inbound.message()).await.map_err(silent)?;
    match first.map_err(said)?.and_then(|first| first.message) {
        Some(to_worker::Message::Welcome(welcome)) => {
            let confined = place.secure;
            Ok(Connection { url, confined, reports, heartbeats, inbound, welcome, held, hello_at })
        }
        _ => Err(Unreachable(format!(
            "{url} answered Hello with something else than Welcome; is its version ours?"
        ))),
    }
}

impl From<AccessError> for AttachError {
    fn from(error: AccessError) -> AttachError {
        match error {
            AccessError::Usage(_) | AccessError::Certificate(_) => Refused(error.to_string()),
            // It may come back, on another port too.
            AccessError::Nowhere(_) => Unreachable(format!("{error} (`cnx up` starts one)")),
            AccessError::Token(_) | AccessError::File(_) => Unreachable(error.to_string()),
        }
    }
}

fn hello(config: &Config, held: Vec<Lease>) -> Hello {
    Hello {
        worker: config.name.clone(),
        host: config.host.clone(),
        device: config.device_name.clone(),
        slots: config.slots,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        held,
        memory_gib: config.memory_gib,
        labels: config.labels.clone(),
    }
}

/// What the coordinator said, as one line of our log can hold it.
fn one_line(said: &str) -> String {
    printable(said).into_owned()
}

/// What a stream's end means, in words.
pub fn explain(status: &Status) -> String {
    match status.code() {
        // The transport's own words tell of frames and bodies; its cause is what counts.
        _ if status.source().is_some() => {
            let source = status.source().map(chain).unwrap_or_default();
            format!("the connection broke ({})", source.rsplit(": ").next().unwrap_or_default())
        }
        Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Aborted => one_line(status.message()),
        code => format!("{}: {}", code.description(), one_line(status.message())),
    }
}

/// Waits between attempts that double from 50 ms to 5 s, each shortened by up to a half at random: many workers do
/// not come back in step.
#[derive(Debug, Default)]
pub struct Backoff {
    attempts: u32,
}

impl Backoff {
    const FIRST_MS: u64 = 50;
    const LONGEST_MS: u64 = 5_000;

    /// The next wait; `random` is in 0 … 1.
    pub fn next(&mut self, random: f64) -> Duration {
        let full = (Self::FIRST_MS << self.attempts.min(16)).min(Self::LONGEST_MS);
        self.attempts = self.attempts.saturating_add(1);
        Duration::from_millis(full).mul_f64(1.0 - random.clamp(0.0, 1.0) / 2.0)
    }

    /// It worked: the next failure starts small again.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_five_seconds_and_start_again() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..9).map(|_| backoff.next(0.0).as_millis()).collect();
        assert_eq!(waits, [50, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        for _ in 0..1000 {
            assert_eq!(backoff.next(1.0), Duration::from_millis(2500));
        }
        backoff.reset();
        assert_eq!(backoff.next(0.0), Duration::from_millis(50));
    }
}

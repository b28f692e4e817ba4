//! One connection to the coordinator: find it, say Hello, hear its welcome; and when to try again.

use std::error::Error as _;
use std::fs;
use std::time::Duration;

use cnx_proto::lease_clock::SinceBoot;
use cnx_proto::state_dir::{AUTHORIZATION, MAX_MESSAGE_BYTES};
use cnx_proto::v1::from_worker::Message;
use cnx_proto::v1::workers_client::WorkersClient;
use cnx_proto::v1::{FromWorker, Hello, Lease, ToWorker, Welcome, to_worker};
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::transport::Endpoint;
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
    /// The token is wrong.
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
    let url = find(config)?;
    let token_file = config.state.token();
    let token = fs::read_to_string(&token_file)
        .map_err(|error| Unreachable(format!("no token at {}: {error}", token_file.display())))?;
    let hello_at = boot_clock::now();
    let unreachable = |error: tonic::transport::Error| Unreachable(format!("{url}: {}", chain(&error)));
    let endpoint = Endpoint::from_shared(url.clone())
        .map_err(unreachable)?
        .connect_timeout(STEP_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20))
        .keep_alive_while_idle(true);
    let channel = endpoint.connect().await.map_err(unreachable)?;
    let mut client = WorkersClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);

    let (reports, outbound) = mpsc::channel(QUEUE);
    let (heartbeats, beats) = mpsc::channel(4);
    let hello = FromWorker { message: Some(Message::Hello(hello(config, held.clone()))) };
    let outbound =
        tokio_stream::once(hello).chain(ReceiverStream::new(beats).merge(ReceiverStream::new(outbound)));
    let mut request = Request::new(outbound);
    let bearer = MetadataValue::try_from(format!("Bearer {}", token.trim()))
        .map_err(|_| Refused(format!("{} does not hold a token", token_file.display())))?;
    request.metadata_mut().insert(AUTHORIZATION, bearer);

    let silent = |_| Unreachable(format!("{url} did not answer within {STEP_TIMEOUT:?}"));
    let said = |status: Status| match status.code() {
        Code::Unauthenticated => Refused(format!(
            "the coordinator at {url} refused the token in {}: {}",
            token_file.display(),
            status.message()
        )),
        _ => Unreachable(format!("{url}: {}", explain(&status))),
    };
    let response = tokio::time::timeout(STEP_TIMEOUT, client.attach(request)).await.map_err(silent)?;
    let mut inbound = response.map_err(said)?.into_inner();
    let first = tokio::time::timeout(STEP_TIMEOUT, inbound.message()).await.map_err(silent)?;
    match first.map_err(said)?.and_then(|first| first.message) {
        Some(to_worker::Message::Welcome(welcome)) => {
            Ok(Connection { url, reports, heartbeats, inbound, welcome, held, hello_at })
        }
        _ => Err(Unreachable(format!(
            "{url} answered Hello with something else than Welcome; is its version ours?"
        ))),
    }
}

/// Where the coordinator is now: it may come back on another port.
fn find(config: &Config) -> Result<String, AttachError> {
    if let Some(url) = &config.server {
        return Ok(url.clone());
    }
    let file = config.state.endpoint();
    let url = fs::read_to_string(&file).map_err(|error| {
        Unreachable(format!("no coordinator: {}: {error} (`cnx up` starts one)", file.display()))
    })?;
    Ok(url.trim().to_owned())
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

/// What a stream's end means, in words.
pub fn explain(status: &Status) -> String {
    match status.code() {
        // The transport's own words tell of frames and bodies; its cause is what counts.
        _ if status.source().is_some() => {
            let source = status.source().map(chain).unwrap_or_default();
            format!("the connection broke ({})", source.rsplit(": ").next().unwrap_or_default())
        }
        Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Aborted => status.message().to_owned(),
        code => format!("{}: {}", code.description(), status.message()),
    }
}

/// An error and its causes on one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
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

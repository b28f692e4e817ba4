//! How many connections there are, and how long one may take to show a token.
//!
//! Whoever connects is a stranger until one of its calls carried a token. Strangers have few places and little time:
//! somebody who opens connections and says nothing, or says it a byte at a time, before TLS, in it or after it, takes
//! nothing away from those who are known. Where the places of strangers run out, the one that came first goes: a caller
//! with a token shows it within milliseconds.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::transport::server::Connected;

/// How many, how long.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections that have shown a token. A worker has one, a command one for as long as it runs. The next one's call is
    /// refused with the reason.
    pub known: usize,
    /// Connections that have not yet. A thousand workers that come back at once need some hundreds for a moment. For the
    /// next one the oldest is closed.
    pub strangers: usize,
    /// How long a connection may take to show one; then it is closed. TLS over a slow line takes a second.
    pub prove_within: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { known: 4096, strangers: 512, prove_within: Duration::from_secs(20) }
    }
}

/// Between two lines of the log about connections that were closed.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// How long to leave the listener alone after it failed: most likely the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections that were accepted, as the server takes them.
pub type Incoming = ReceiverStream<io::Result<Connection>>;

/// Accepts until the server takes no more.
pub fn incoming(listener: TcpListener, limits: Limits) -> Incoming {
    let (hand_over, accepted) = mpsc::channel(1);
    let gate = Arc::new(Gate { limits, places: Mutex::default() });
    tokio::spawn(async move {
        loop {
            let stream = tokio::select! {
                () = hand_over.closed() => return,
                stream = listener.accept() => stream,
            };
            match stream {
                Ok((stream, _)) => {
                    // Small answers go at once; where that cannot be set they go a little later.
                    let _ = stream.set_nodelay(true);
                    if hand_over.send(Ok(gate.enter(stream))).await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    gate.places().tell(&format!("a connection could not be accepted: {error}"));
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    });
    ReceiverStream::new(accepted)
}

/// Counts connections.
#[derive(Debug)]
struct Gate {
    limits: Limits,
    places: Mutex<Places>,
}

#[derive(Debug, Default)]
struct Places {
    /// By number, so by age; each with what closes it.
    strangers: BTreeMap<u64, CancellationToken>,
    known: usize,
    numbers: u64,
    /// Lines that were not told since the last one.
    untold: u64,
    told_at: Option<Instant>,
}

impl Places {
    /// One line in the log now and then, however many connections it is about.
    fn tell(&mut self, what: &str) {
        self.untold += 1;
        if self.told_at.is_some_and(|at| at.elapsed() < TELL_EVERY) {
            return;
        }
        tracing::warn!("{what} ({} times since this was last told)", self.untold);
        (self.untold, self.told_at) = (0, Some(Instant::now()));
    }
}

impl Gate {
    fn places(&self) -> MutexGuard<'_, Places> {
        // What happens while it is held cannot leave half a change.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(self: &Arc<Gate>, stream: TcpStream) -> Connection {
        let mut places = self.places();
        if places.strangers.len() >= self.limits.strangers
            && let Some((_, oldest)) = places.strangers.pop_first()
        {
            oldest.cancel();
            let most = self.limits.strangers;
            places.tell(&format!("a connection without a token was closed: there are {most} of them"));
        }
        places.numbers += 1;
        let (number, closed) = (places.numbers, CancellationToken::new());
        places.strangers.insert(number, closed.clone());
        drop(places);
        let visitor = Arc::new(Visitor { gate: Arc::clone(self), number, known: AtomicBool::new(false) });
        let within = self.limits.prove_within;
        let patience = Box::pin(async move {
            tokio::select! {
                () = closed.cancelled() => "too many connections without a token",
                () = tokio::time::sleep(within) => "no token was shown in time",
            }
        });
        Connection { stream, visitor, patience: Some(patience) }
    }
}

/// One connection's place.
#[derive(Debug)]
pub struct Visitor {
    gate: Arc<Gate>,
    number: u64,
    known: AtomicBool,
}

impl Visitor {
    /// It has shown a token: from now on it may stay.
    ///
    /// # Errors
    /// When there are as many of those as there may be.
    #[allow(clippy::result_large_err)] // tonic's signature
    pub fn prove(&self) -> Result<(), Status> {
        if self.known.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut places = self.gate.places();
        // Two calls of one connection may come here at once.
        if self.known.load(Ordering::Acquire) {
            return Ok(());
        }
        let most = self.gate.limits.known;
        if places.known >= most {
            places.tell(&format!("a connection with a token was refused: there are {most} of them"));
            return Err(Status::resource_exhausted(format!(
                "the coordinator has {most} connections, as many as it takes; try again later"
            )));
        }
        places.strangers.remove(&self.number);
        places.known += 1;
        self.known.store(true, Ordering::Release);
        Ok(())
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        let mut places = self.gate.places();
        match self.known.load(Ordering::Acquire) {
            true => places.known = places.known.saturating_sub(1),
            false => drop(places.strangers.remove(&self.number)),
        }
    }
}

/// A connection whose place is counted, and that ends by itself unless it shows a token.
pub struct Connection {
    stream: TcpStream,
    visitor: Arc<Visitor>,
    /// Over when it has to go, and why. None: it is known.
    patience: Option<Pin<Box<dyn Future<Output = &'static str> + Send>>>,
}

/// Who is connected, as every request tells.
#[derive(Debug, Clone)]
pub struct Connectee(pub Arc<Visitor>);

impl Connected for Connection {
    type ConnectInfo = Connectee;

    fn connect_info(&self) -> Connectee {
        Connectee(Arc::clone(&self.visitor))
    }
}

impl Connection {
    /// Whether it may go on. Whoever serves it always waits for something to read, so this is asked whenever time is up.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Some(patience) = &mut self.patience else { return Ok(()) };
        if self.visitor.known.load(Ordering::Acquire) {
            self.patience = None;
            return Ok(());
        }
        match patience.as_mut().poll(cx) {
            Poll::Pending => Ok(()),
            Poll::Ready(why) => Err(io::Error::new(io::ErrorKind::TimedOut, why)),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Err(error) = self.poll_patience(cx) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }
}

//! The way of one agent to the coordinator, and all that can happen on it.
//!
//! TCP is cut as networks cut it: nothing is ever lost from the middle of a stream. What a black hole holds back arrives
//! late, after it, unless the connection was given up.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::plan::Fault;

/// How late everything comes under [`Fault::Delay`].
const DELAY: Duration = Duration::from_millis(150);

/// How connections are ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Cut,
    Reset,
    HalfOpen,
}

/// What holds for all connections just now.
#[derive(Debug, Clone, Copy, Default)]
struct Weather {
    hold_up: bool,
    hold_down: bool,
    refuse: bool,
    delay: Duration,
    /// Counts the endings so far, and tells the newest.
    ended: (u64, Option<End>),
    /// Ends the agent's half of what is half open.
    half_open: bool,
}

/// Forwards connections to the coordinator of a state folder, wherever it listens.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    weather: watch::Sender<Weather>,
    _runtime: Runtime,
}

impl Proxy {
    /// Listens on a free port of this machine.
    pub fn start(state: &Path) -> Proxy {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let weather = watch::Sender::new(Weather::default());
        runtime.spawn(accept(listener, state.join("endpoint"), weather.subscribe()));
        Proxy { address, weather, _runtime: runtime }
    }

    /// Where agents are to call.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on, until [`Proxy::heal`].
    pub fn suffer(&self, fault: Fault) {
        self.weather.send_modify(|weather| {
            let mut end = |how| weather.ended = (weather.ended.0 + 1, Some(how));
            match fault {
                Fault::Cut => end(End::Cut),
                Fault::Reset => end(End::Reset),
                Fault::HalfOpen => {
                    end(End::HalfOpen);
                    weather.half_open = true;
                }
                Fault::Refuse => {
                    end(End::Cut);
                    weather.refuse = true;
                }
                Fault::HoleUp => weather.hold_up = true,
                Fault::HoleDown => weather.hold_down = true,
                Fault::HoleBoth => (weather.hold_up, weather.hold_down) = (true, true),
                Fault::Delay => weather.delay = DELAY,
            }
        });
    }

    /// All is well again.
    pub fn heal(&self) {
        self.weather.send_modify(|weather| *weather = Weather { ended: weather.ended, ..Weather::default() });
    }
}

async fn accept(listener: TcpListener, endpoint: PathBuf, weather: watch::Receiver<Weather>) {
    while let Ok((agent, _)) = listener.accept().await {
        tokio::spawn(forward(agent, endpoint.clone(), weather.clone()));
    }
}

async fn forward(mut agent: TcpStream, endpoint: PathBuf, mut weather: watch::Receiver<Weather>) {
    let then = *weather.borrow_and_update();
    if then.refuse {
        return;
    }
    let Some(mut coordinator) = call(&endpoint).await else { return };
    let _ = (agent.set_nodelay(true), coordinator.set_nodelay(true));
    let how = {
        let (from_agent, to_agent) = agent.split();
        let (from_coordinator, to_coordinator) = coordinator.split();
        tokio::select! {
            // Who hangs up, hangs up: the other side hears of it at once.
            () = pass(from_agent, to_coordinator, weather.clone(), |weather| weather.hold_up) => End::Cut,
            () = pass(from_coordinator, to_agent, weather.clone(), |weather| weather.hold_down) => End::Cut,
            how = ended(&mut weather, then.ended.0) => how,
        }
    };
    match how {
        End::Cut => {}
        End::Reset => {
            let _ = (agent.set_zero_linger(), coordinator.set_zero_linger());
        }
        End::HalfOpen => {
            drop(coordinator);
            let _ = weather.wait_for(|weather| !weather.half_open).await;
        }
    }
}

async fn ended(weather: &mut watch::Receiver<Weather>, before: u64) -> End {
    let how = weather.wait_for(|weather| weather.ended.0 > before).await;
    how.ok().and_then(|weather| weather.ended.1).unwrap_or(End::Cut)
}

async fn call(endpoint: &Path) -> Option<TcpStream> {
    let url = tokio::fs::read_to_string(endpoint).await.ok()?;
    TcpStream::connect(url.trim().strip_prefix("http://")?).await.ok()
}

async fn pass(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut weather: watch::Receiver<Weather>,
    held: fn(&Weather) -> bool,
) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let Ok(count @ 1..) = from.read(&mut buffer).await else { return };
        let Ok(now) = weather.wait_for(|w| !held(w)).await.map(|w| *w) else { return };
        tokio::time::sleep(now.delay).await;
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

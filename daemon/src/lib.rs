//! The coordinator of cnx: queues experiments, leases them to workers, keeps what they report.
//!
//! A map, in the order in which a request meets the code:
//!
//! - [`config`]: the command line; [`folder`]: the state folder, its lock, tokens and endpoint; [`tls`]: certificates.
//! - [`rpc`]: the two services of `cnx.proto`: decode, call the store, encode. `rpc/experiments.rs` is what people
//!   say, `rpc/attach.rs` a worker's stream ([`session`]: what is said on it; [`limits`]: what may be), `rpc/gate.rs` who may connect, `rpc/auth.rs` the
//!   tokens and their rights, `rpc/error.rs` the one map to status codes.
//! - [`lifecycle`] and [`schedule`]: the decisions, pure.
//! - [`store`]: all SQL, one transaction a method; the tables are told in `migrations/`.
//! - [`pool`]: who is connected and who holds what, in memory; [`dispatch`]: the loop that gives and takes leases.
//! - [`doctor`]: a look over all of it. [`task`]: what the program does besides serving.
//! - [`coordinator`]: what these share. [`chance`]: clock and randomness.
//!
//! The invariant behind it: the disk changes first, then memory, then others are told. A crash anywhere in between
//! leaves a database from which a restart goes on as if nothing had happened.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub mod chance;
pub mod config;
pub mod coordinator;
pub mod dispatch;
pub mod doctor;
pub mod folder;
pub mod lifecycle;
pub mod limits;
pub mod pool;
pub mod rpc;
pub mod schedule;
pub mod session;
pub mod store;
pub mod task;
pub mod tls;

use chance::Chance;
use config::Config;
use coordinator::Coordinator;
use folder::Folder;
use store::Store;

/// How long calls under way may take to finish once it stops.
const DRAIN: Duration = Duration::from_secs(5);

/// Serves on `listener` until `shutdown`, then drains: calls under way finish, the database is closed in order.
/// Workers go on training and attach again later.
///
/// # Errors
/// When the state folder is taken or cannot be used, or the database cannot be opened.
pub async fn run(
    listener: TcpListener,
    folder: Folder,
    config: Config,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let address = listener.local_addr().context("the listener has no address")?;
    let store = Store::open(&config.state.database()).await?;
    let resumed = Coordinator::resume(config, store.clone(), Chance::System, address, shutdown.clone()).await;
    let coordinator = Arc::new(resumed.context("the leases could not be read")?);
    let url = coordinator.config.url(address)?;
    folder.announce(&url)?;
    let state = coordinator.config.state.path().display();
    tracing::info!("listening on {address} ({url}), state in {state}");

    let dispatcher = tokio::spawn({
        let coordinator = Arc::clone(&coordinator);
        async move { dispatch::run(&coordinator).await }
    });
    let server = rpc::serve(listener, &folder, Arc::clone(&coordinator));
    let overdue = async {
        shutdown.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    let served = tokio::select! {
        served = server => served,
        () = overdue => {
            tracing::warn!("some connections did not close in time; leaving them");
            Ok(())
        }
    };
    shutdown.cancel();
    folder.withdraw();
    if let Err(error) = dispatcher.await {
        tracing::error!("the dispatcher ended badly: {error}");
    }
    store.close().await;
    tracing::info!("stopped");
    served
}

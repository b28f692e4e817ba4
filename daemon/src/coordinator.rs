//! What all parts of a running coordinator share, and the order in which disk and memory change.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use cnx_proto::v1::FailureClass;

use crate::chance::Chance;
use crate::config::Config;
use crate::lifecycle::Failure;
use crate::pool::{Held, Pool};
use crate::store::{Granted, Store, StoreError};

/// A running coordinator.
#[derive(Debug)]
pub struct Coordinator {
    /// How it was started.
    pub config: Config,
    /// Its database.
    pub store: Store,
    /// Its clock and randomness.
    pub chance: Chance,
    /// Where it listens.
    pub address: SocketAddr,
    /// Since when, Unix time.
    pub started_at_ms: u64,
    /// Cancelled when it stops.
    pub stopping: CancellationToken,
    pool: Mutex<Pool>,
    /// Counts changes; whoever watches waits for the next.
    changes: watch::Sender<u64>,
    /// Rung when something was queued, a slot became free, or a deadline moved nearer.
    bell: Notify,
}

impl Coordinator {
    /// Takes up where the database left off: every running attempt keeps its lease, for a full time to live from
    /// now, since the coordinator's own absence must not count against its workers.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn resume(
        config: Config,
        store: Store,
        chance: Chance,
        address: SocketAddr,
        stopping: CancellationToken,
    ) -> Result<Coordinator, StoreError> {
        let coordinator = Coordinator {
            config,
            address,
            started_at_ms: chance.now_ms(),
            stopping,
            pool: Mutex::default(),
            changes: watch::Sender::new(0),
            bell: Notify::new(),
            store,
            chance,
        };
        for granted in coordinator.store.leases().await? {
            coordinator.pool().hold(coordinator.held(&granted));
        }
        Ok(coordinator)
    }

    /// The workers and leases. Never held across an await.
    pub fn pool(&self) -> MutexGuard<'_, Pool> {
        // A panic while it was held left no invariant broken: every change in there is one map operation.
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something changed that people may be watching.
    pub fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// Hears of every change from now on.
    pub fn watch(&self) -> watch::Receiver<u64> {
        let mut changes = self.changes.subscribe();
        changes.borrow_and_update();
        changes
    }

    /// Something changed that the dispatcher should look at.
    pub fn ring(&self) {
        self.bell.notify_one();
        self.changed();
    }

    /// Waits for [`Coordinator::ring`]; a ring that came before is not missed.
    pub async fn rung(&self) {
        self.bell.notified().await;
    }

    /// A lease on disk as the pool holds it.
    pub fn held(&self, granted: &Granted) -> Held {
        Held {
            lease: granted.lease.clone(),
            worker: granted.worker.clone(),
            deadline: self.chance.instant() + self.config.lease_ttl,
            stopping: granted.stopping,
            room_for: None,
            since_ms: granted.since_ms,
            standing: granted.standing,
            progress: None,
            ending: false,
        }
    }
}

/// The failure of a lease that ended without an outcome.
pub fn worker_lost(message: String) -> Failure {
    Failure { class: FailureClass::WorkerLost, message }
}

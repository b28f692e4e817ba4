//! Leases on a clock that is moved by hand: silence, standstill, restarts, and a wall clock that jumps.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

use cnx_daemon::chance::{Chance, Manual};
use cnx_daemon::config::Config;
use cnx_daemon::coordinator::Coordinator;
use cnx_daemon::dispatch;
use cnx_daemon::pool::{Held, Pool};
use cnx_daemon::rpc::experiments::Service;
use cnx_daemon::rpc::gate::Limits;
use cnx_daemon::session::Session;
use cnx_daemon::store::{NewExperiment, Standing, Store, Submission};
use cnx_proto::lease_clock::LeaseClock;
use cnx_proto::state_dir::StateDir;
use cnx_proto::v1::experiments_server::Experiments;
use cnx_proto::v1::{
    Experiment, FailureClass, FromWorker, Heartbeat, Hello, Lease, Report, State, StatusRequest, ToWorker,
    from_worker, to_worker,
};
use common::{failed, soon, spec};

const TTL: Duration = Duration::from_secs(300);
const HEARTBEAT: Duration = Duration::from_secs(5);
const HOUR_MS: u64 = 3_600_000;
const START_MS: u64 = 1_000_000 * HOUR_MS;

/// A coordinator without a network, on a clock that stands still until it is moved.
struct Stage {
    coordinator: Arc<Coordinator>,
    clock: Arc<Manual>,
}

impl Stage {
    async fn open(dir: &Path) -> Stage {
        Stage::on(dir, Manual::new(1, START_MS)).await
    }

    /// The same machine, perhaps in a later life of the coordinator.
    async fn on(dir: &Path, clock: Arc<Manual>) -> Stage {
        Stage::with_heartbeat(dir, clock, HEARTBEAT).await
    }

    async fn with_heartbeat(dir: &Path, clock: Arc<Manual>, heartbeat: Duration) -> Stage {
        let state = StateDir::locate(Some(dir), |_| None).unwrap();
        let store = Store::open(&state.database()).await.unwrap();
        let config = Config {
            state,
            lease_ttl: TTL,
            heartbeat,
            artifacts_url: "file:///artifacts".into(),
            tls: None,
            advertise: None,
            limits: Limits::default(),
        };
        let chance = Chance::Manual(Arc::clone(&clock));
        let address = "127.0.0.1:1".parse().unwrap();
        let stopping = CancellationToken::new();
        let coordinator = Coordinator::resume(config, store, chance, address, stopping).await.unwrap();
        Stage { coordinator: Arc::new(coordinator), clock }
    }

    async fn close(self) -> Arc<Manual> {
        self.coordinator.store.close().await;
        self.clock
    }

    async fn submit(&self, name: &str) -> u64 {
        let experiments = vec![NewExperiment::from(&spec(name))];
        let submission = Submission { experiments, ..Submission::default() };
        self.coordinator.store.submit(submission, self.coordinator.chance.now()).await.unwrap()[0].id
    }

    async fn worker(&self, held: &[Lease]) -> Played {
        let hello = Hello {
            worker: "w".into(),
            device: "cpu".into(),
            slots: 1,
            held: held.to_vec(),
            ..Hello::default()
        };
        let (outbound, messages) = mpsc::channel(64);
        let session = Session::open(&self.coordinator, hello, outbound);
        let mut worker = Played { session, messages };
        worker.heartbeat(self, held).await;
        worker
    }

    async fn round(&self) -> Option<Instant> {
        dispatch::round(&self.coordinator).await.unwrap()
    }

    async fn show(&self, id: u64) -> Experiment {
        let request = StatusRequest { selectors: vec![id.to_string()], ..StatusRequest::default() };
        let service = Service::new(Arc::clone(&self.coordinator));
        service.status(Request::new(request)).await.unwrap().into_inner().experiments.remove(0)
    }
}

/// A worker without a network.
struct Played {
    session: Session,
    messages: mpsc::Receiver<Result<ToWorker, Status>>,
}

impl Played {
    async fn heartbeat(&mut self, stage: &Stage, leases: &[Lease]) {
        let heartbeat = Heartbeat { number: 1, leases: leases.to_vec(), draining: false };
        self.say(stage, from_worker::Message::Heartbeat(heartbeat)).await;
    }

    async fn say(&mut self, stage: &Stage, message: from_worker::Message) -> Vec<to_worker::Message> {
        self.session.handle(&stage.coordinator, vec![FromWorker { message: Some(message) }]).await.unwrap()
    }

    /// The lease that it was given, if any.
    fn assigned(&mut self) -> Option<Lease> {
        while let Ok(message) = self.messages.try_recv() {
            if let Some(to_worker::Message::Assign(assign)) = message.unwrap().message {
                return assign.lease;
            }
        }
        None
    }

    async fn fail(&mut self, stage: &Stage, lease: &Lease, class: FailureClass) {
        let body = Some(failed(class, "bad luck"));
        let report = Report { lease: Some(lease.clone()), sequence: 1, at_ms: 1, body };
        self.say(stage, from_worker::Message::Report(report)).await;
    }
}

#[tokio::test]
async fn a_silent_worker_is_suspect_long_before_its_lease_runs_out_and_loses_it_only_then() {
    let dir = tempfile::tempdir().unwrap();
    let stage = Stage::open(dir.path()).await;
    let id = stage.submit("a").await;
    let mut worker = stage.worker(&[]).await;
    stage.round().await;
    let lease = worker.assigned().unwrap();
    stage.clock.advance(HEARTBEAT * 3 - Duration::from_millis(1));
    assert_eq!((stage.show(id).await.suspect_since_ms, stage.show(id).await.message.as_str()), (0, ""));

    stage.clock.advance(Duration::from_millis(1));
    stage.round().await;
    let suspect = stage.show(id).await;
    assert_eq!((suspect.state(), suspect.attempt, suspect.suspect_since_ms), (State::Running, 1, START_MS));
    assert!(suspect.message.contains("worker w is suspect: not heard for 15s"), "{}", suspect.message);
    assert!(suspect.message.contains("keeps its lease for 4m 45s"), "{}", suspect.message);

    // Heard again: no trace of it. Then silent for as long as a lease lasts, less a moment.
    worker.heartbeat(&stage, std::slice::from_ref(&lease)).await;
    assert_eq!((stage.show(id).await.suspect_since_ms, stage.show(id).await.message.as_str()), (0, ""));
    worker.session.close(&stage.coordinator).await;
    stage.clock.advance(TTL - Duration::from_millis(1));
    let next = stage.round().await.unwrap();
    assert_eq!(next - stage.coordinator.chance.instant(), Duration::from_millis(1));
    assert_eq!((stage.show(id).await.state(), stage.show(id).await.attempt), (State::Running, 1));
    stage.clock.advance(Duration::from_millis(1));
    stage.round().await;
    let lost = stage.show(id).await;
    assert_eq!((lost.state(), lost.attempt, lost.suspect_since_ms), (State::Queued, 1, 0));
}

#[tokio::test]
async fn a_suspect_worker_is_given_nothing_until_it_is_heard_again() {
    let dir = tempfile::tempdir().unwrap();
    let stage = Stage::open(dir.path()).await;
    let mut worker = stage.worker(&[]).await;
    stage.clock.advance(HEARTBEAT * 3);
    let id = stage.submit("a").await;
    stage.round().await;
    assert!(worker.assigned().is_none());
    let waits = stage.show(id).await.message;
    assert!(waits.contains("those that fit are silent"), "{waits}");
    while tokio::time::timeout(Duration::ZERO, stage.coordinator.rung()).await.is_ok() {}
    worker.heartbeat(&stage, &[]).await;
    soon("the dispatcher to be woken", stage.coordinator.rung()).await;
    stage.round().await;
    assert_eq!(worker.assigned().unwrap().experiment, id);
}

#[tokio::test]
async fn the_time_between_two_lives_of_the_coordinator_does_not_count() {
    let dir = tempfile::tempdir().unwrap();
    let stage = Stage::open(dir.path()).await;
    let id = stage.submit("a").await;
    let mut worker = stage.worker(&[]).await;
    stage.round().await;
    let lease = worker.assigned().unwrap();
    let clock = stage.close().await;
    clock.advance(TTL * 100);

    let stage = Stage::on(dir.path(), clock).await;
    stage.round().await;
    assert_eq!(stage.show(id).await.state(), State::Running);
    stage.clock.advance(TTL - Duration::from_millis(1));
    stage.round().await;
    let mut worker = stage.worker(std::slice::from_ref(&lease)).await;
    worker.heartbeat(&stage, &[lease]).await;
    stage.clock.advance(TTL - Duration::from_millis(1));
    stage.round().await;
    assert_eq!((stage.show(id).await.state(), stage.show(id).await.attempt), (State::Running, 1));
}

#[tokio::test]
async fn time_in_which_the_coordinator_stood_still_does_not_count() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Manual::new(1, START_MS);
    let stage = Stage::with_heartbeat(dir.path(), clock, Duration::from_millis(20)).await;
    let id = stage.submit("a").await;
    let mut worker = stage.worker(&[]).await;
    stage.round().await;
    worker.assigned().unwrap();
    let dispatcher = tokio::spawn({
        let coordinator = Arc::clone(&stage.coordinator);
        async move { dispatch::run(&coordinator).await }
    });
    // The dispatcher's own clock runs on while this one stands: it has looked at it.
    tokio::time::sleep(Duration::from_millis(50)).await;
    stage.clock.advance(TTL * 10);
    stage.coordinator.ring();
    soon("the leases to last longer", async {
        loop {
            let deadline = stage.coordinator.pool().held(id).expect("the lease was ended").deadline;
            if deadline > stage.coordinator.chance.instant() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    stage.coordinator.stopping.cancel();
    soon("the dispatcher to end", dispatcher).await.unwrap();
    assert_eq!((stage.show(id).await.state(), stage.show(id).await.attempt), (State::Running, 1));
}

#[tokio::test]
async fn a_wall_clock_that_jumps_ends_no_lease() {
    let dir = tempfile::tempdir().unwrap();
    let stage = Stage::open(dir.path()).await;
    let id = stage.submit("a").await;
    let mut worker = stage.worker(&[]).await;
    stage.round().await;
    worker.assigned().unwrap();
    for unix_ms in [START_MS + 10_000 * HOUR_MS, 0, START_MS - 5 * HOUR_MS] {
        stage.clock.set_unix_ms(unix_ms);
        stage.round().await;
        let shown = stage.show(id).await;
        assert_eq!((shown.state(), shown.attempt, shown.message.as_str()), (State::Running, 1, ""));
    }
    stage.clock.advance(TTL);
    stage.round().await;
    assert_eq!(stage.show(id).await.state(), State::Queued);
}

#[tokio::test]
async fn a_wall_clock_that_jumps_neither_holds_a_retry_up_nor_loses_it() {
    for jump in [-10 * HOUR_MS as i64, -60_000, 60_000, 10_000 * HOUR_MS as i64] {
        let dir = tempfile::tempdir().unwrap();
        let stage = Stage::open(dir.path()).await;
        let id = stage.submit("a").await;
        let mut worker = stage.worker(&[]).await;
        stage.round().await;
        let lease = worker.assigned().unwrap();
        worker.fail(&stage, &lease, FailureClass::Device).await;
        stage.round().await;
        assert!(worker.assigned().is_none(), "it backs off");
        stage.clock.set_unix_ms(START_MS.saturating_add_signed(jump));
        // The longest back-off is five minutes; a clock that was set back by less than that adds as much.
        let mut waited = Duration::ZERO;
        let again = loop {
            let next = stage.round().await;
            if let Some(lease) = worker.assigned() {
                break lease;
            }
            let now = stage.coordinator.chance.instant();
            let wait = next.expect("nothing will ever wake the dispatcher").saturating_duration_since(now);
            stage.clock.advance(wait);
            waited += wait;
            assert!(waited < Duration::from_secs(600), "after a jump by {jump} ms it waits for {waited:?}");
            worker.heartbeat(&stage, &[]).await;
        };
        assert_eq!((again.experiment, again.attempt), (id, 2));
    }
}

proptest! {
    /// Whatever is late or lost on the way, the worker has stopped, by force if need be, before the coordinator may give
    /// the lease away.
    #[test]
    fn the_worker_lets_go_before_the_coordinator_does(
        grant_ms in 0..2_000_u64,
        beats in prop::collection::vec((1..20_000_u64, 0..400_000_u64, prop::option::of(0..400_000_u64)), 0..20),
    ) {
        let (zero, mut pool, mut clock) = (Instant::now(), Pool::default(), LeaseClock::default());
        let at = |ms| zero + Duration::from_millis(ms);
        let lease = Lease { experiment: 1, attempt: 1, token: "t".into() };
        // Welcome was answered; some time after that the coordinator gave the lease.
        clock.welcomed(Duration::ZERO, TTL, &[]);
        let (granted, deadline) = (at(grant_ms), at(grant_ms) + TTL);
        pool.hold(Held {
            lease: lease.clone(),
            worker: "w".into(),
            renewed: granted,
            deadline,
            stopping: None,
            room_for: None,
            since_ms: 0,
            standing: Standing::default(),
            progress: None,
            ending: false,
        });
        clock.granted(lease.clone());
        // Everything in the order of its time: sendings, arrivals, acknowledgements.
        let mut happens: BTreeMap<(u64, usize), (u8, usize)> = BTreeMap::new();
        let mut sent_ms = grant_ms;
        for (i, (gap, there, back)) in beats.iter().enumerate() {
            sent_ms += gap;
            happens.insert((sent_ms, 3 * i), (0, i));
            happens.insert((sent_ms + there, 3 * i + 1), (1, i));
            if let Some(back) = back {
                happens.insert((sent_ms + there + back, 3 * i + 2), (2, i));
            }
        }
        let mut numbers = vec![0; beats.len()];
        let mut renewed = vec![false; beats.len()];
        for ((ms, _), (what, i)) in happens {
            for held in pool.expired(at(ms)) {
                pool.release(&held.lease);
            }
            match what {
                0 => numbers[i] = clock.sent(Duration::from_millis(ms), vec![lease.clone()]),
                1 => renewed[i] = pool.renew("w", std::slice::from_ref(&lease), at(ms), TTL).is_empty(),
                // Of one that is stale the worker hears that, and stops.
                _ if renewed[i] => clock.acknowledged(numbers[i]),
                _ => return Ok(()),
            }
            let holds = clock.holds(&lease).unwrap();
            match pool.held(1) {
                Some(held) => prop_assert!(zero + holds.forced_at < held.deadline),
                None => prop_assert!(holds.forced_at < Duration::from_millis(ms)),
            }
        }
    }
}

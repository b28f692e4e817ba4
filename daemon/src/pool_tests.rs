//! Who holds what, through attaching, silence and taking over.

use super::*;

const TTL: Duration = Duration::from_secs(10);

fn hello(worker: &str, held: &[Lease]) -> Hello {
    Hello { worker: worker.into(), device: "cpu".into(), slots: 2, held: held.to_vec(), ..Hello::default() }
}

fn lease(experiment: u64, attempt: u32) -> Lease {
    Lease { experiment, attempt, token: format!("t{experiment}-{attempt}") }
}

fn held(lease: Lease, worker: &str, deadline: Instant) -> Held {
    let worker = worker.to_owned();
    Held {
        lease,
        worker,
        renewed: deadline,
        deadline,
        stopping: None,
        room_for: None,
        since_ms: 0,
        standing: Standing::default(),
        progress: None,
        ending: false,
    }
}

fn join(pool: &mut Pool, name: &str) -> (u64, CancellationToken, mpsc::Receiver<Result<ToWorker, Status>>) {
    let (outbound, inbound) = mpsc::channel(8);
    let cut = CancellationToken::new();
    let stream = pool.open();
    assert!(pool.claim(&hello(name, &[]), stream).is_some());
    assert!(pool.join(&hello(name, &[]), stream, outbound, cut.clone(), Instant::now()));
    (stream, cut, inbound)
}

#[test]
fn claims_are_kept_stale_or_lost() {
    let (mut pool, now) = (Pool::default(), Instant::now());
    pool.hold(held(lease(1, 2), "a", now));
    pool.hold(held(lease(2, 1), "a", now));
    pool.hold(held(lease(3, 1), "b", now));
    let hello = hello("a", &[lease(1, 2), lease(3, 1), lease(9, 1)]);
    assert_eq!(pool.renew("a", &hello.held, now, TTL), [lease(3, 1), lease(9, 1)]);
    assert_eq!(pool.claim(&hello, 1), Some(vec![lease(2, 1)]));
    assert_eq!(pool.held(1).unwrap().deadline, now + TTL);
}

#[test]
fn an_overtaken_attempt_is_lost_and_its_claim_stale() {
    let (mut pool, now) = (Pool::default(), Instant::now());
    pool.hold(held(lease(1, 2), "a", now));
    let hello = hello("a", &[lease(1, 1)]);
    let stale = pool.renew("a", &hello.held, now, TTL);
    assert_eq!((stale, pool.claim(&hello, 1)), (vec![lease(1, 1)], Some(vec![lease(1, 2)])));
}

#[test]
fn a_newer_stream_takes_over_and_the_older_cannot_disconnect_it() {
    let mut pool = Pool::default();
    let (first, cut, _inbound) = join(&mut pool, "a");
    let (_second, _cut, _inbound) = join(&mut pool, "a");
    assert!(cut.is_cancelled());
    assert!(!pool.leave("a", first));
    assert!(pool.is_connected("a"));
}

#[test]
fn heartbeats_keep_a_lease_alive_past_its_time() {
    let (mut pool, start) = (Pool::default(), Instant::now());
    pool.hold(held(lease(1, 1), "a", start + TTL));
    for beat in 1..10 {
        let now = start + beat * TTL / 2;
        assert!(pool.expired(now).is_empty());
        assert!(pool.renew("a", &[lease(1, 1)], now, TTL).is_empty());
        assert_eq!(pool.next_deadline(), Some(now + TTL));
    }
}

#[test]
fn a_lease_that_ran_out_cannot_be_renewed() {
    let (mut pool, now) = (Pool::default(), Instant::now());
    pool.hold(held(lease(1, 1), "a", now + TTL));
    assert!(pool.expired(now).is_empty());
    assert_eq!(pool.expired(now + TTL).len(), 1);
    assert_eq!(pool.renew("a", &[lease(1, 1)], now + TTL, TTL), [lease(1, 1)]);
    assert!(pool.expired(now + TTL).is_empty(), "told twice");
}

#[test]
fn leases_of_a_worker_take_its_slots_even_while_it_is_away() {
    let (mut pool, now) = (Pool::default(), Instant::now());
    pool.hold(held(lease(1, 1), "a", now + TTL));
    assert!(pool.free().is_empty());
    let _stream = join(&mut pool, "a");
    assert_eq!(pool.free()[0].free_slots, 1);
}

#[test]
fn a_draining_worker_gets_nothing_more() {
    let mut pool = Pool::default();
    let (stream, _cut, _inbound) = join(&mut pool, "a");
    pool.drain("a", stream + 1);
    assert_eq!(pool.summary().free_slots, 2);
    pool.drain("a", stream);
    assert!(pool.free().is_empty() && pool.summary().free_slots == 0);
}

#[test]
fn a_worker_that_reads_nothing_is_cut_off_not_waited_for() {
    let mut pool = Pool::default();
    let (_, cut, _inbound) = join(&mut pool, "a");
    let flooded = (0..100).take_while(|_| pool.send("a", to_worker::Message::Stop(Stop::default()))).count();
    assert!(flooded < 100 && cut.is_cancelled() && !pool.is_connected("a"));
}

#[test]
fn who_is_stopped_between_the_commit_of_its_lease_and_its_being_held_is_stopped() {
    let (mut pool, now) = (Pool::default(), Instant::now());
    pool.hold(held(lease(2, 1), "a", now));
    pool.granting([1, 2, 3]);
    pool.ask_to_stop(1, Stopping::Cancel);
    pool.ask_to_stop(2, Stopping::Cancel);
    for lease in [lease(1, 1), lease(2, 2), lease(3, 1)] {
        pool.hold(held(lease, "a", now));
    }
    pool.granted();
    let stopping = |id| pool.held(id).unwrap().stopping;
    assert_eq!(
        [stopping(1), stopping(2), stopping(3)],
        [Some(Stopping::Cancel), Some(Stopping::Cancel), None]
    );
}

#[test]
fn what_a_worker_said_on_a_stream_that_it_gave_up_comes_too_late() {
    let (mut pool, now) = (Pool::default(), Instant::now());
    let (given_up, between) = (pool.open(), pool.open());
    assert!(pool.claim(&hello("a", &[]), between).is_some());
    let (newest, _cut, _inbound) = join(&mut pool, "a");
    pool.hold(held(lease(1, 1), "a", now));
    assert_eq!(pool.claim(&hello("a", &[]), given_up), None);
    let (outbound, _messages) = mpsc::channel(8);
    assert!(!pool.join(&hello("a", &[]), between, outbound, CancellationToken::new(), Instant::now()));
    assert!(pool.leave("a", newest));
    assert_eq!(pool.claim(&hello("a", &[]), given_up), None, "also when the newest is gone");
}

//! The order of the queue, who makes room, and that the reasons given are the schedule's own.

use proptest::prelude::*;

use super::*;

fn candidate(experiment: u64) -> Candidate {
    let demand = Arc::new(Demand::default());
    Candidate { experiment, priority: 0, share: 0, demand, avoid: None }
}

fn needing(experiment: u64, demand: Demand) -> Candidate {
    Candidate { demand: Arc::new(demand), ..candidate(experiment) }
}

fn a_gpu() -> Demand {
    Demand { gpus: 1, ..Demand::default() }
}

fn worker(name: &str, gpu: bool, slots: u32) -> Worker {
    let has = Capacity { gpu, memory_gib: 64, labels: Vec::new() };
    Worker {
        name: name.into(),
        has,
        slots,
        free_slots: slots,
        free_memory_gib: 64,
        draining: false,
        suspect: false,
    }
}

fn pairs(matches: &[Match]) -> Vec<(u64, &str)> {
    matches.iter().map(|m| (m.experiment, m.worker.as_str())).collect()
}

fn assigned(candidates: &[Candidate], workers: &[Worker]) -> Vec<u64> {
    assign(candidates, workers, &Shares::new()).iter().map(|m| m.experiment).collect()
}

#[test]
fn the_oldest_goes_first_and_work_spreads() {
    let queue = [candidate(3), candidate(1), candidate(2)];
    let found = assign(&queue, &[worker("a", false, 2), worker("b", false, 1)], &Shares::new());
    assert_eq!(pairs(&found), [(1, "a"), (2, "a"), (3, "b")]);
}

#[test]
fn a_higher_priority_goes_before_an_older_one() {
    let queue =
        [candidate(1), Candidate { priority: 5, ..candidate(2) }, Candidate { priority: -1, ..candidate(3) }];
    assert_eq!(assigned(&queue, &[worker("a", false, 3)]), [2, 1, 3]);
}

#[test]
fn sweeps_take_turns_by_what_they_run_and_singles_are_one_sweep_together() {
    let of = |experiment, share| Candidate { share, ..candidate(experiment) };
    let queue = [of(1, 7), of(2, 7), of(3, 7), of(4, 8), of(5, 8), of(6, 0), of(7, 0)];
    assert_eq!(assigned(&queue, &[worker("a", false, 7)]), [1, 4, 6, 2, 5, 7, 3]);
    let found = assign(&queue, &[worker("a", false, 3)], &Shares::from([(7, 2), (8, 1)]));
    assert_eq!(found.iter().map(|m| m.experiment).collect::<Vec<_>>(), [6, 4, 7]);
}

#[test]
fn a_sweep_that_runs_much_at_one_priority_waits_at_another() {
    let of = |experiment, share, priority| Candidate { share, priority, ..candidate(experiment) };
    let queue = [of(1, 7, 9), of(2, 7, 9), of(3, 7, 0), of(4, 8, 0)];
    assert_eq!(assigned(&queue, &[worker("a", false, 3)]), [1, 2, 4]);
}

#[test]
fn one_that_needs_a_gpu_does_not_hold_up_the_others() {
    let queue = [needing(1, a_gpu()), candidate(2)];
    assert_eq!(assigned(&queue, &[worker("a", false, 1)]), [2]);
}

#[test]
fn gpus_are_left_to_those_that_need_them() {
    let free = [worker("cpu", false, 1), worker("gpu", true, 1)];
    let found = assign(&[candidate(1), needing(2, a_gpu())], &free, &Shares::new());
    assert_eq!(pairs(&found), [(1, "cpu"), (2, "gpu")]);
}

#[test]
fn labels_are_all_needed_and_memory_is_set_aside() {
    let mut labelled = worker("a", false, 4);
    labelled.has.labels = vec!["big".into(), "fast".into()];
    let demand = |memory_gib, labels: &[&str]| Demand {
        memory_gib,
        labels: labels.iter().map(|l| (*l).to_owned()).collect(),
        ..Demand::default()
    };
    let queue = [
        needing(1, demand(40, &["big"])),
        needing(2, demand(40, &["fast"])),
        needing(3, demand(0, &["big", "far"])),
        needing(4, demand(24, &["big", "fast"])),
    ];
    assert_eq!(assigned(&queue, &[labelled, worker("b", false, 4)]), [1, 4]);
}

#[test]
fn a_worker_where_it_failed_is_avoided_while_another_is_free() {
    let queue = [Candidate { avoid: Some("a".into()), ..candidate(1) }];
    let (a, b) = (worker("a", false, 9), worker("b", false, 1));
    assert_eq!(pairs(&assign(&queue, &[a.clone(), b], &Shares::new())), [(1, "b")]);
    assert_eq!(pairs(&assign(&queue, &[a], &Shares::new())), [(1, "a")]);
}

#[test]
fn fair_slots_fill_up_those_that_run_least() {
    assert_eq!(fair_slots(&[10, 0], 10), [0, 10]);
    assert_eq!(fair_slots(&[0, 0, 0], 4), [2, 1, 1]);
    assert_eq!(fair_slots(&[], 4), [0; 0]);
}

fn runs(experiment: u64, priority: i32, on: &str, since_ms: u64) -> Holding {
    Holding {
        experiment,
        priority,
        worker: on.into(),
        memory_gib: 0,
        since_ms,
        stopping: false,
        room_for: None,
    }
}

fn full(name: &str, gpu: bool) -> Worker {
    Worker { free_slots: 0, ..worker(name, gpu, 2) }
}

fn stopped(wanting: &[Candidate], workers: &[Worker], running: &[Holding]) -> Vec<u64> {
    preempt(wanting, workers, running).iter().map(|p| p.experiment).collect()
}

#[test]
fn of_the_lowest_priority_the_newest_makes_room() {
    let wanting = [Candidate { priority: 5, ..candidate(9) }];
    let running = [runs(1, 1, "a", 10), runs(2, 0, "a", 10), runs(3, 0, "a", 20)];
    assert_eq!(stopped(&wanting, &[full("a", false)], &running), [3]);
}

#[test]
fn equals_are_left_alone_and_so_is_who_runs_where_the_other_does_not_fit() {
    let running = [runs(1, 5, "a", 10), runs(2, 0, "b", 10)];
    let gpu = [Candidate { priority: 5, ..needing(9, a_gpu()) }];
    assert_eq!(stopped(&gpu, &[full("a", true), full("b", false)], &running), [0; 0]);
}

#[test]
fn one_that_waits_frees_one_slot_however_often_it_is_asked() {
    let wanting = [Candidate { priority: 5, ..candidate(9) }];
    let mut running = vec![runs(1, 0, "a", 10), runs(2, 0, "a", 20)];
    assert_eq!(stopped(&wanting, &[full("a", false)], &running), [2]);
    running[1] = Holding { stopping: true, room_for: Some(9), ..running[1].clone() };
    assert_eq!(stopped(&wanting, &[full("a", false)], &running), [0; 0]);
    // Nor does it need one where a slot is free, or becomes free for whatever reason.
    let free = Worker { free_slots: 1, ..full("a", false) };
    assert_eq!(stopped(&wanting, &[free], &running[..1]), [0; 0]);
    running[1].room_for = None;
    assert_eq!(stopped(&wanting, &[full("a", false)], &running), [0; 0]);
}

fn demands() -> impl Strategy<Value = Demand> {
    (0..2u32, 0..3u32, any::<[bool; 2]>()).prop_map(|(gpus, memory, labels)| Demand {
        gpus,
        memory_gib: memory * 40,
        labels: ["x", "y"].iter().zip(labels).filter(|(_, on)| *on).map(|(l, _)| (*l).to_owned()).collect(),
    })
}

fn workers() -> impl Strategy<Value = Vec<Worker>> {
    let one = (any::<bool>(), 0..4u32, 0..4u32, any::<[bool; 2]>(), any::<bool>());
    proptest::collection::vec(one, 0..5).prop_map(|all| {
        let worker =
            |(i, (gpu, free, busy, labels, draining)): (usize, (bool, u32, u32, [bool; 2], bool))| {
                let labels =
                    ["x", "y"].iter().zip(labels).filter(|(_, on)| *on).map(|(l, _)| (*l).to_owned());
                Worker {
                    has: Capacity { gpu, memory_gib: 64, labels: labels.collect() },
                    free_slots: if draining { 0 } else { free },
                    free_memory_gib: 64_u32.saturating_sub(busy * 20),
                    draining,
                    ..worker(&format!("w{i}"), gpu, free + busy)
                }
            };
        all.into_iter().enumerate().map(worker).collect()
    })
}

proptest! {
    #[test]
    fn what_is_assigned_fits_and_nothing_idles_beside_work_it_could_do(
        queue in proptest::collection::vec((demands(), -1..2i32, 0..3u64), 0..20), workers in workers(),
    ) {
        let queue: Vec<Candidate> = queue.into_iter().enumerate().map(|(i, (demand, priority, share))| {
            Candidate { priority, share, ..needing(i as u64 + 1, demand) }
        }).collect();
        let mut left = workers.clone();
        let matches = assign(&queue, &workers, &Shares::new());
        for m in &matches {
            let demand = &queue[m.experiment as usize - 1].demand;
            let worker = left.iter_mut().find(|w| w.name == m.worker).unwrap();
            prop_assert!(worker.has_room_for(demand));
            worker.free_slots -= 1;
            worker.free_memory_gib -= demand.memory_gib;
        }
        let mut once: Vec<_> = matches.iter().map(|m| m.experiment).collect();
        once.sort_unstable();
        once.dedup();
        prop_assert_eq!(once.len(), matches.len());
        for waiting in queue.iter().filter(|c| once.binary_search(&c.experiment).is_err()) {
            prop_assert!(!left.iter().any(|w| w.has_room_for(&waiting.demand)));
        }
    }

    #[test]
    fn the_reason_given_is_the_schedules_own(
        demand in demands(), workers in workers(), paused in any::<bool>(), not_before_ms in 0..20u64,
    ) {
        let waiting = Waiting { paused, after: &[], not_before_ms, demand: &demand };
        let why = why(&waiting, Queue { now_ms: 10, ..Queue::default() }, &workers);
        let ready = !paused && not_before_ms <= 10;
        let leased = ready && !assign(&[needing(1, demand.clone())], &workers, &Shares::new()).is_empty();
        prop_assert_eq!(why == Why::Next, leased, "{:?}", why);
        match why {
            Why::NoWorker => prop_assert!(workers.is_empty()),
            Why::NobodyFits(missing) => {
                prop_assert!(!workers.iter().any(|w| demand.met_by(&w.has)));
                prop_assert!(!missing.is_empty());
            }
            Why::Leaving | Why::Busy { .. } => prop_assert!(workers.iter().any(|w| demand.met_by(&w.has))),
            Why::Paused => prop_assert!(paused),
            Why::BackOff(until) => prop_assert!(until > 10),
            Why::Next => {}
            Why::After(_) | Why::QueuePaused(_) | Why::Restored(_) | Why::Silent => prop_assert!(false),
        }
    }

    #[test]
    fn who_makes_room_has_a_lower_priority_and_nobody_frees_more_than_is_wanted(
        wanting in proptest::collection::vec((demands(), 0..4i32), 0..6),
        running in proptest::collection::vec((0..4i32, 0..5usize, any::<bool>()), 0..8),
        workers in workers(),
    ) {
        let mut wanting: Vec<Candidate> = wanting.into_iter().enumerate().map(|(i, (demand, priority))| {
            Candidate { priority, ..needing(i as u64 + 100, demand) }
        }).collect();
        wanting.sort_by_key(|c| (-c.priority, c.experiment));
        let running: Vec<Holding> = running.into_iter().enumerate().map(|(i, (priority, on, stopping))| {
            Holding { stopping, ..runs(i as u64 + 1, priority, &format!("w{on}"), i as u64) }
        }).collect();
        let preemptions = preempt(&wanting, &workers, &running);
        for p in &preemptions {
            let holding = running.iter().find(|h| h.experiment == p.experiment).unwrap();
            let waiting = wanting.iter().find(|c| c.experiment == p.room_for).unwrap();
            prop_assert!(!holding.stopping && holding.priority < waiting.priority);
        }
        // Asked again while those stop, nobody has a second one stopped for it.
        let asked: Vec<Holding> = running.iter().map(|h| {
            let made = preemptions.iter().find(|p| p.experiment == h.experiment);
            let room_for = made.map(|p| p.room_for);
            Holding { stopping: h.stopping || made.is_some(), room_for, ..h.clone() }
        }).collect();
        for again in preempt(&wanting, &workers, &asked) {
            prop_assert!(preemptions.iter().all(|p| p.room_for != again.room_for));
        }
    }
}

#[test]
fn reasons_read_as_sentences() {
    let demand = a_gpu();
    let waiting = Waiting { paused: false, after: &[], not_before_ms: 0, demand: &demand };
    let told = |workers: &[Worker], place| {
        why(&waiting, Queue::default(), workers).sentences(&demand, place).join(" ")
    };
    assert_eq!(told(&[], None), "No worker is connected: start one with cnx up.");
    assert_eq!(
        told(&[worker("a", false, 1)], None),
        "No connected worker has a GPU (cnx workers shows what there is)."
    );
    let place = Place { higher: 2, before: 12, sweeps: 1 };
    assert_eq!(
        told(&[full("a", true)], Some(place)),
        "All 2 slots of 1 worker that fit are busy. Ahead of it: 2 of higher priority, 12 queued before it; \
         it takes turns with 1 other sweep of its priority."
    );
    let after = [Awaited { experiment: 12, state: cnx_proto::v1::State::Running }];
    let waiting = Waiting { after: &after, ..waiting };
    let why = why(&waiting, Queue::default(), &[]);
    assert_eq!(why.sentences(&demand, None), ["It runs after 12, which is running (cnx explain 12)."]);
    assert_eq!(why.short(&demand), "waits for 12");
}

//! Properties of the lifecycle, checked against a model small enough to be read at a glance.

use proptest::prelude::*;

use super::*;

fn classes() -> impl Strategy<Value = FailureClass> {
    (1..=11).prop_map(|n| FailureClass::try_from(n).unwrap())
}

fn failures() -> impl Strategy<Value = Failure> {
    classes().prop_map(|class| Failure { class, message: "boom".into() })
}

fn events() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => Just(Event::Leased),
        1 => Just(Event::Ended(Ending::Succeeded)),
        4 => failures().prop_map(|f| Event::Ended(Ending::Failed(f))),
        1 => Just(Event::Ended(Ending::Cancelled)),
        1 => Just(Event::CancelRequested),
        2 => Just(Event::PauseRequested),
        4 => Just(Event::ResumeRequested),
        2 => Just(Event::PreemptRequested),
        1 => failures().prop_map(Event::DependencyFailed),
    ]
}

fn stopping() -> impl Strategy<Value = Option<Stopping>> {
    proptest::sample::select(vec![None, Some(Stopping::Yield), Some(Stopping::Pause), Some(Stopping::Cancel)])
}

fn states() -> impl Strategy<Value = State> {
    prop_oneof![
        (0..5u32, 0..5u32, 0..5000u64, proptest::option::of(failures())).prop_map(
            |(attempt, tries, not_before_ms, last)| State::Queued { attempt, tries, not_before_ms, last }
        ),
        (1..5u32, 0..5u32, stopping()).prop_map(|(attempt, tries, stopping)| State::Running {
            attempt,
            tries,
            stopping
        }),
        (0..5u32, 0..5u32, proptest::option::of(failures()))
            .prop_map(|(attempt, tries, last)| { State::Paused { attempt, tries, last } }),
        Just(State::Succeeded),
        failures().prop_map(State::Failed),
        Just(State::Cancelled),
    ]
}

/// The lifecycle as a table of names: what may become of what.
fn admitted(state: &State, event: &Event, now_ms: u64) -> &'static [v1::State] {
    use v1::State::{Cancelled, Failed, Paused, Queued, Running, Succeeded};
    match (state, event) {
        (State::Queued { not_before_ms, .. }, Event::Leased) if *not_before_ms <= now_ms => &[Running],
        (State::Queued { .. } | State::Paused { .. }, Event::CancelRequested) => &[Cancelled],
        (State::Queued { .. } | State::Paused { .. }, Event::DependencyFailed(_)) => &[Failed],
        (State::Queued { .. }, Event::PauseRequested) => &[Paused],
        (State::Paused { .. }, Event::ResumeRequested) => &[Queued],
        (State::Running { .. }, Event::CancelRequested) => &[Running],
        (State::Running { stopping: None | Some(Stopping::Yield), .. }, Event::PauseRequested) => &[Running],
        (State::Running { stopping: Some(Stopping::Pause), .. }, Event::ResumeRequested) => &[Running],
        (State::Running { stopping: None, .. }, Event::PreemptRequested) => &[Running],
        (State::Running { .. }, Event::Ended(Ending::Succeeded)) => &[Succeeded],
        (State::Running { stopping: Some(Stopping::Cancel), .. }, Event::Ended(_)) => &[Cancelled],
        (State::Running { stopping: None, .. }, Event::Ended(Ending::Cancelled)) => &[Cancelled],
        (State::Running { stopping: Some(Stopping::Pause), .. }, Event::Ended(_)) => &[Paused, Failed],
        (State::Running { .. }, Event::Ended(_)) => &[Queued, Failed],
        _ => &[],
    }
}

proptest! {
    #[test]
    fn every_state_and_event_is_decided_as_the_table_says(
        state in states(), event in events(), now_ms in 0..5000u64, jitter in 0.0..1.0f64, max_attempts in 1..5u32,
    ) {
        let around = Surroundings { now_ms, jitter, max_attempts };
        let table = admitted(&state, &event, now_ms);
        match state.apply(event.clone(), around) {
            Ok(next) => prop_assert!(table.contains(&next.wire()), "{state:?} {event:?} {next:?}"),
            Err(refusal) => {
                prop_assert!(table.is_empty(), "{refusal}");
                prop_assert_eq!(refusal, Refusal { state, event });
            }
        }
    }

    #[test]
    fn a_life_keeps_its_budget_and_its_attempts_increase(
        life in proptest::collection::vec((events(), 0.0..1.0f64), 1..60), max_attempts in 1..5u32,
    ) {
        let (mut state, mut now_ms) = (State::NEW, 0);
        let (mut newest, mut spent) = (0, 0);
        for (event, jitter) in life {
            now_ms += 400_000; // past every back-off
            let before = state.clone();
            let Ok(next) = state.apply(event.clone(), Surroundings { now_ms, jitter, max_attempts }) else {
                continue;
            };
            prop_assert!(!before.wire().is_final(), "left a final state: {before:?}");
            if event == Event::Leased {
                let State::Running { attempt, .. } = next else { panic!("leased, not running") };
                prop_assert_eq!(attempt, newest + 1);
                newest = attempt;
                prop_assert!(spent < max_attempts, "a try too many");
            }
            if let Event::Ended(Ending::Failed(failure)) = &event {
                spent += u32::from(failure.class.costs_a_try());
            }
            match &next {
                State::Queued { attempt, tries, not_before_ms, .. } => {
                    prop_assert_eq!((*attempt, *tries), (newest, spent));
                    prop_assert!(*not_before_ms <= now_ms + MAX_BACKOFF_MS);
                }
                State::Paused { attempt, tries, .. } | State::Running { attempt, tries, .. } => {
                    prop_assert_eq!((*attempt, *tries), (newest, spent));
                }
                State::Succeeded | State::Failed(_) | State::Cancelled => {}
            }
            // A request to stop is kept until the attempt ends, and only a cancellation replaces a pause for good.
            if let (State::Running { stopping: Some(Stopping::Cancel), .. }, State::Running { stopping, .. }) =
                (&before, &next)
            {
                prop_assert_eq!(*stopping, Some(Stopping::Cancel));
            }
            state = next;
        }
    }

    #[test]
    fn backoff_doubles_within_its_bounds(class in classes(), tries in 1..40u32, jitter in 0.0..1.0f64) {
        let wait = backoff_ms(class, tries, jitter);
        let longest = backoff_ms(class, tries, 0.0);
        prop_assert!(wait <= longest && wait >= longest / 2);
        prop_assert!(longest <= MAX_BACKOFF_MS);
        prop_assert!(backoff_ms(class, tries + 1, 0.0) == MAX_BACKOFF_MS.min(2 * longest));
    }
}

#[test]
fn a_lost_worker_is_replaced_within_a_second() {
    assert!(backoff_ms(FailureClass::WorkerLost, 1, 0.0) <= 1000);
    assert!(backoff_ms(FailureClass::Signal, 1, 0.0) <= 1000);
}

#[test]
fn an_interruption_costs_no_try_and_no_wait() {
    let running = State::Running { attempt: 3, tries: 2, stopping: None };
    let failure = Failure { class: FailureClass::Interrupted, message: "the worker stops".into() };
    let around = Surroundings { now_ms: 7, jitter: 0.5, max_attempts: 3 };
    let next = running.apply(Event::Ended(Ending::Failed(failure.clone())), around).unwrap();
    assert_eq!(next, State::Queued { attempt: 3, tries: 2, not_before_ms: 0, last: Some(failure) });
}

#[test]
fn pausing_what_runs_costs_no_try_and_resuming_it_goes_on_behind_no_back_off() {
    let around = Surroundings { now_ms: 7, jitter: 0.5, max_attempts: 1 };
    let failure = Failure { class: FailureClass::Interrupted, message: "stopped".into() };
    let running = State::Running { attempt: 3, tries: 0, stopping: None };
    let pausing = running.apply(Event::PauseRequested, around).unwrap();
    let paused = pausing.apply(Event::Ended(Ending::Failed(failure.clone())), around).unwrap();
    assert_eq!(paused, State::Paused { attempt: 3, tries: 0, last: Some(failure.clone()) });
    let resumed = paused.apply(Event::ResumeRequested, around).unwrap();
    assert_eq!(resumed, State::Queued { attempt: 3, tries: 0, not_before_ms: 0, last: Some(failure) });
    // Of an older worker, which takes every request to stop for a cancellation.
    let paused = pausing.apply(Event::Ended(Ending::Cancelled), around).unwrap();
    assert!(matches!(paused, State::Paused { attempt: 3, tries: 0, .. }), "{paused:?}");
}

#[test]
fn a_pause_does_not_hide_a_failure_that_is_final() {
    let around = Surroundings { now_ms: 7, jitter: 0.5, max_attempts: 3 };
    let failure = Failure { class: FailureClass::Diverged, message: "NaN".into() };
    for stopping in [Stopping::Pause, Stopping::Yield] {
        let running = State::Running { attempt: 1, tries: 0, stopping: Some(stopping) };
        let ended = running.apply(Event::Ended(Ending::Failed(failure.clone())), around).unwrap();
        assert_eq!(ended, State::Failed(failure.clone()));
    }
}

#[test]
fn a_refusal_names_state_and_event() {
    let around = Surroundings { now_ms: 0, jitter: 0.0, max_attempts: 1 };
    let refusal = State::Succeeded.apply(Event::CancelRequested, around).unwrap_err();
    assert_eq!(refusal.to_string(), "an experiment that succeeded cannot be cancelled");
}

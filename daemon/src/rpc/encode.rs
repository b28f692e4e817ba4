//! What the database and the pool know, put together as people see it.

use std::time::Duration;

use serde::Deserialize;
use tonic::Status;

use cnx_proto::v1::{self, Experiment, State, StatusReply, StatusRequest, StopReason};

use crate::coordinator::{Coordinator, millis};
use crate::lifecycle::Stopping;
use crate::pool::{Held, Pool};
use crate::schedule::{self, Awaited, Demand, Place, Queue, Running, Waiting, Why};
use crate::store::{Page, Part, Selection};

use super::page;

/// The coordinator, its queue, and the selected experiments.
pub async fn status(coordinator: &Coordinator, request: &StatusRequest) -> Result<StatusReply, Status> {
    let store = &coordinator.store;
    let selection = store.select(&request.selectors).await?;
    let part = request.after.map_or(Part::Before(request.before), Part::After);
    let mut page = store.page(&selection, part, request.limit).await?;
    let mut experiments = store.status(&Selection::Ids(std::mem::take(&mut page.ids)), 0).await?;
    let counts = store.counts().await?;
    let queue = queue(coordinator).await?;
    let summary = {
        let pool = coordinator.pool();
        let workers = pool.workers();
        for experiment in &mut experiments {
            enrich(experiment, coordinator, &pool, queue, &workers);
        }
        pool.summary()
    };
    page::fit(&mut experiments, part, |left_out| {
        let unfinished = left_out.iter().filter(|e| !e.state().is_final()).count();
        page.left_out(left_out.len() as u64, unfinished as u64);
    });
    let coordinator = v1::Coordinator {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        address: coordinator.address.to_string(),
        started_at_ms: coordinator.started_at_ms,
        workers: summary.workers,
        busy_slots: summary.busy_slots,
        free_slots: summary.free_slots,
        queued: counts.queued,
        running: counts.running,
        paused: counts.paused,
        queue_paused_since_ms: queue.paused_since_ms.unwrap_or(0),
    };
    let Page { more, more_unfinished, .. } = page;
    Ok(StatusReply { coordinator: Some(coordinator), experiments, more, more_unfinished })
}

/// One experiment, and in sentences what there is to know of its waiting or running.
pub async fn explained(
    coordinator: &Coordinator,
    experiment: &mut Experiment,
) -> Result<Vec<String>, Status> {
    let store = &coordinator.store;
    let queue = queue(coordinator).await?;
    let after = store.states(&experiment.after).await?;
    let after: Vec<Awaited> =
        after.into_iter().map(|(experiment, state)| Awaited { experiment, state }).collect();
    let demand = demand(&experiment.spec_json);
    let waits = matches!(experiment.state(), State::Queued | State::Paused);
    let (why, message) = {
        let pool = coordinator.pool();
        let workers = pool.workers();
        let why = waits.then(|| schedule::why(&waiting(experiment, &after, &demand), queue, &workers));
        enrich(experiment, coordinator, &pool, queue, &workers);
        (why, experiment.message.clone())
    };
    let Some(why) = why else {
        let runs = experiment.state() == State::Running && !message.is_empty();
        return Ok(if runs { vec![message] } else { Vec::new() });
    };
    let place: Option<Place> = match why {
        Why::Busy { .. } | Why::Next | Why::NoWorker | Why::QueuePaused(_) => {
            Some(store.place(experiment.id).await?)
        }
        _ => None,
    };
    Ok(why.sentences(&demand, place))
}

async fn queue(coordinator: &Coordinator) -> Result<Queue, Status> {
    let paused_since_ms = coordinator.store.queue_paused_since_ms().await?;
    let (now, now_ms) = (coordinator.chance.instant(), coordinator.chance.now_ms());
    let left = coordinator.unsettled_until().map(|until| until.saturating_duration_since(now));
    Ok(Queue { paused_since_ms, unsettled_until_ms: left.map(|left| now_ms + millis(left)), now_ms })
}

/// Adds what only memory knows: progress of what runs, and why the rest waits.
fn enrich(
    experiment: &mut Experiment,
    coordinator: &Coordinator,
    pool: &Pool,
    queue: Queue,
    workers: &[schedule::Worker],
) {
    match experiment.state() {
        State::Queued | State::Paused => {
            experiment.message = why_it_waits(experiment, queue, workers);
            experiment.failure = v1::FailureClass::Unspecified.into();
        }
        State::Running => {
            let held = pool.held(experiment.id).filter(|held| held.lease.attempt == experiment.attempt);
            experiment.progress = held.and_then(|held| held.progress);
            how_it_runs(experiment, held, coordinator, pool);
        }
        _ => {}
    }
}

fn waiting<'a>(experiment: &Experiment, after: &'a [Awaited], demand: &'a Demand) -> Waiting<'a> {
    Waiting {
        paused: experiment.state() == State::Paused,
        after,
        not_before_ms: experiment.waits_until_ms,
        demand,
    }
}

fn why_it_waits(experiment: &mut Experiment, queue: Queue, workers: &[schedule::Worker]) -> String {
    let demand = demand(&experiment.spec_json);
    let awaited = |&experiment| Awaited { experiment, state: State::Unspecified };
    let after: Vec<Awaited> = experiment.after.iter().map(awaited).collect();
    let why = schedule::why(&waiting(experiment, &after, &demand), queue, workers);
    if !matches!(why, Why::BackOff(_)) {
        experiment.waits_until_ms = 0;
        return why.short(&demand);
    }
    let class = experiment.failure();
    let after = format!("{}; attempt {} ended: {class}", why.short(&demand), experiment.attempt);
    match experiment.message.as_str() {
        "" => after,
        message => format!("{after}: {message}"),
    }
}

/// Reads only this of a spec: it was validated when it was submitted, and a status may show thousands.
fn demand(spec_json: &str) -> Demand {
    #[derive(Deserialize)]
    struct Spec {
        resources: cnx_proto::spec::Resources,
    }
    serde_json::from_str::<Spec>(spec_json).map(|spec| Demand::from(&spec.resources)).unwrap_or_default()
}

fn how_it_runs(experiment: &mut Experiment, held: Option<&Held>, coordinator: &Coordinator, pool: &Pool) {
    let now = coordinator.chance.instant();
    let silence = held.map(|held| now.saturating_duration_since(held.renewed));
    experiment.suspect_since_ms = coordinator.suspect_since_ms(silence).unwrap_or(0);
    let stopping = match (experiment.cancelling, experiment.stopping()) {
        (true, _) => Some(Stopping::Cancel),
        (false, StopReason::Paused) => Some(Stopping::Pause),
        (false, StopReason::Preempted) => Some(Stopping::Yield),
        _ => None,
    };
    let running = Running {
        worker: &experiment.worker,
        connected: pool.is_connected(&experiment.worker),
        stopping,
        silence: silence.filter(|_| experiment.suspect_since_ms > 0),
        left: held.map_or(Duration::ZERO, |held| held.deadline.saturating_duration_since(now)),
    };
    experiment.message = running.words();
}

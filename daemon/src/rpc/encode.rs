//! What the database and the pool know, put together as people see it.

use serde::Deserialize;
use tonic::Status;

use cnx_proto::v1::{self, Experiment, State, StatusReply, StatusRequest};

use crate::coordinator::Coordinator;
use crate::pool::{Pool, Summary};
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
    let now_ms = coordinator.chance.now_ms();
    let summary = {
        let pool = coordinator.pool();
        let summary = pool.summary();
        for experiment in &mut experiments {
            enrich(experiment, &pool, summary, now_ms);
        }
        summary
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
    };
    let Page { more, more_unfinished, .. } = page;
    Ok(StatusReply { coordinator: Some(coordinator), experiments, more, more_unfinished })
}

/// Adds what only memory knows: progress of what runs, and why the rest waits.
pub fn enrich(experiment: &mut Experiment, pool: &Pool, summary: Summary, now_ms: u64) {
    match experiment.state() {
        State::Queued => {
            experiment.message = why_it_waits(experiment, summary, now_ms);
            experiment.failure = v1::FailureClass::Unspecified.into();
        }
        State::Running => {
            let held = pool.held(experiment.id).filter(|held| held.lease.attempt == experiment.attempt);
            experiment.progress = held.and_then(|held| held.progress);
            experiment.message = how_it_runs(experiment, pool);
        }
        _ => {}
    }
}

fn why_it_waits(experiment: &mut Experiment, summary: Summary, now_ms: u64) -> String {
    if experiment.waits_until_ms > now_ms {
        let class = experiment.failure();
        let after = format!("waits before it tries again; attempt {} ended: {class}", experiment.attempt);
        return match experiment.message.as_str() {
            "" => after,
            message => format!("{after}: {message}"),
        };
    }
    experiment.waits_until_ms = 0;
    if summary.workers == 0 {
        return "no worker is connected: start one with cnx up".to_owned();
    }
    match gpus(&experiment.spec_json) {
        0 => "waits for a free slot".to_owned(),
        1 if summary.gpu_workers == 0 => "waits for a worker with a GPU".to_owned(),
        n if summary.gpu_workers == 0 => format!("waits for a worker with {n} GPUs"),
        _ => "waits for a free GPU".to_owned(),
    }
}

/// Reads only this of a spec: it was validated when it was submitted, and a status may show thousands.
fn gpus(spec_json: &str) -> u32 {
    #[derive(Deserialize)]
    struct Spec {
        resources: Resources,
    }
    #[derive(Deserialize)]
    struct Resources {
        gpus: u32,
    }
    serde_json::from_str::<Spec>(spec_json).map_or(0, |spec| spec.resources.gpus)
}

fn how_it_runs(experiment: &Experiment, pool: &Pool) -> String {
    match (experiment.cancelling, pool.is_connected(&experiment.worker)) {
        (true, true) => "being cancelled: waits for the worker to stop it".to_owned(),
        (true, false) => {
            format!("being cancelled: worker {} hears of it when it attaches again", experiment.worker)
        }
        (false, true) => String::new(),
        (false, false) => format!("worker {} is not connected; it may be training on", experiment.worker),
    }
}

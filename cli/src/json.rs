//! The JSON that `--json` prints: version 1. Names are those of `cnx.proto`; enums are their labels, times Unix
//! milliseconds, errors per cent. What is not known is null. Keys are only ever added within a version.

use cnx_proto::v1::{
    Artifact, ArtifactKind, Attempt, Coordinator, Environment, EpochMetrics, Errors, Event, Experiment,
    ExperimentDetail, FailureClass, Figures, Phase, Progress, State, StopReason, WorkerInfo,
};
use serde_json::{Value, json};

/// Raised when a key goes or changes its meaning.
pub const VERSION: u32 = 1;

/// Zero stands for "none" on the wire.
fn some(n: u64) -> Option<u64> {
    (n != 0).then_some(n)
}

fn text(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// The spec as JSON; null where it is not.
pub fn spec(json: &str) -> Value {
    serde_json::from_str(json).unwrap_or_default()
}

pub fn state(state: i32) -> String {
    State::try_from(state).unwrap_or_default().label()
}

pub fn coordinator(c: &Coordinator) -> Value {
    json!({
        "version": c.version, "address": c.address, "started_at_ms": c.started_at_ms, "workers": c.workers,
        "busy_slots": c.busy_slots, "free_slots": c.free_slots, "queued": c.queued, "running": c.running,
        "paused": c.paused, "queue_paused_since_ms": some(c.queue_paused_since_ms),
    })
}

pub fn experiment(e: &Experiment) -> Value {
    let failure = FailureClass::try_from(e.failure).unwrap_or_default();
    json!({
        "id": e.id, "name": e.name, "state": state(e.state), "spec": spec(&e.spec_json), "attempt": e.attempt,
        "retry_of": some(e.retry_of), "worker": text(&e.worker), "submitted_at_ms": e.submitted_at_ms,
        "started_at_ms": some(e.started_at_ms), "finished_at_ms": some(e.finished_at_ms),
        "epochs_done": e.epochs_done, "top1_error": e.top1_error, "progress": e.progress.as_ref().map(progress),
        "resumed_at_epoch": e.resumed_at_epoch, "message": text(&e.message), "cancelling": e.cancelling,
        "failure": (failure != FailureClass::Unspecified).then(|| failure.label()),
        "suspect_since_ms": some(e.suspect_since_ms),
        "sweeps": e.sweeps, "waits_until_ms": some(e.waits_until_ms), "priority": e.priority, "after": e.after,
        "stopping": match e.stopping() {
            StopReason::Paused => Some("paused"),
            StopReason::Preempted => Some("preempted"),
            _ => None,
        },
    })
}

fn progress(p: &Progress) -> Value {
    json!({
        "phase": Phase::try_from(p.phase).unwrap_or_default().label(), "epoch": p.epoch, "epochs": p.epochs,
        "step": p.step, "steps": p.steps, "loss": p.loss, "learning_rate": p.learning_rate,
        "train_top1_error": p.train_top1_error, "images_per_s": p.images_per_s, "condensing_stage": p.condensing_stage,
        "condensing_stages": p.condensing_stages,
    })
}

/// What the detail of one experiment adds to it.
pub fn detail(d: &ExperimentDetail) -> Value {
    json!({
        "attempts": d.attempts.iter().map(attempt).collect::<Vec<_>>(),
        "epochs": d.epochs.iter().map(epoch).collect::<Vec<_>>(),
        "artifacts": d.artifacts.iter().map(artifact).collect::<Vec<_>>(),
        "artifacts_url": text(&d.artifacts_url),
        "events": d.events.iter().map(event).collect::<Vec<_>>(),
        "figures": d.figures.as_ref().map(figures),
    })
}

pub fn attempt(a: &Attempt) -> Value {
    json!({
        "attempt": a.attempt, "worker": a.worker, "started_at_ms": a.started_at_ms,
        "ended_at_ms": some(a.ended_at_ms), "resumed_at_epoch": a.resumed_at_epoch,
        "environment": a.environment.as_ref().map(environment), "outcome": a.outcome, "message": text(&a.message),
    })
}

fn epoch(m: &EpochMetrics) -> Value {
    json!({
        "epoch": m.epoch, "steps": m.steps, "learning_rate": m.learning_rate, "train_loss": m.train_loss,
        "train_top1_error": m.train_top1_error, "lasso": m.lasso, "test_loss": m.test_loss,
        "test_top1_error": m.test_top1_error, "test_top5_error": m.test_top5_error,
        "condensing_stage": m.condensing_stage, "density": m.density, "train_wall_s": m.train_wall_s,
        "images_per_s": m.images_per_s,
    })
}

pub fn artifact(a: &Artifact) -> Value {
    let kind = ArtifactKind::try_from(a.kind).unwrap_or_default();
    json!({ "kind": kind.label(), "name": a.name, "sha256": a.sha256, "bytes": a.bytes, "epoch": a.epoch })
}

pub fn event(e: &Event) -> Value {
    json!({ "at_ms": e.at_ms, "attempt": some(e.attempt.into()), "what": e.what })
}

pub fn environment(e: &Environment) -> Value {
    json!({
        "host": e.host, "device": e.device, "cnx_version": e.cnx_version, "commit": e.commit,
        "libtorch_version": e.libtorch_version, "threads": e.threads, "data_hash": e.data_hash,
    })
}

pub fn figures(f: &Figures) -> Value {
    json!({
        "final": f.r#final.as_ref().map(errors), "best": f.best.as_ref().map(errors),
        "best_epoch": some(f.best_epoch.into()), "converted": f.converted.as_ref().map(errors),
        "latency": f.latency.as_ref().map(cnx_proto::job::latency_json),
    })
}

fn errors(e: &Errors) -> Value {
    json!({ "loss": e.loss, "top1_error": e.top1_error, "top5_error": e.top5_error, "images": e.images })
}

pub fn worker(w: &WorkerInfo) -> Value {
    let lease = |l: &cnx_proto::v1::Lease| json!({ "experiment": l.experiment, "attempt": l.attempt });
    json!({
        "name": w.name, "connected": w.connected, "last_seen_ms": w.last_seen_ms, "host": w.host,
        "device": w.device, "slots": w.slots, "version": w.version, "memory_gib": w.memory_gib,
        "labels": w.labels, "suspect_since_ms": some(w.suspect_since_ms),
        "leases": w.leases.iter().map(lease).collect::<Vec<_>>(),
    })
}

//! `cnx doctor` on a running coordinator.

use std::sync::Arc;

use tonic::{Response, Status};

use cnx_proto::v1::DoctorReply;

use crate::coordinator::Coordinator;
use crate::doctor::{self, Live, LiveLease, LiveWorker, Patient};

/// Looks at everything, beside the coordinator's own work.
pub async fn doctor(coordinator: Arc<Coordinator>) -> Result<Response<DoctorReply>, Status> {
    let live = Arc::clone(&coordinator);
    let patient = Patient {
        state: coordinator.config.state.clone(),
        artifacts_url: coordinator.config.artifacts_url.clone(),
        now_ms: coordinator.chance.now_ms(),
        live: Some(Box::new(move || what_memory_knows(&live))),
    };
    let now_ms = patient.now_ms;
    let findings = tokio::task::spawn_blocking(move || doctor::examine(&patient)).await;
    let findings = findings.map_err(|error| Status::internal(format!("a defect in cnxd: {error}")))?;
    Ok(Response::new(DoctorReply { findings, now_ms, version: env!("CARGO_PKG_VERSION").to_owned() }))
}

fn what_memory_knows(coordinator: &Coordinator) -> Live {
    let now = coordinator.chance.instant();
    let pool = coordinator.pool();
    let lease = |held: &crate::pool::Held| {
        let silence = now.saturating_duration_since(held.renewed);
        LiveLease {
            experiment: held.lease.experiment,
            worker: held.worker.clone(),
            silence: (silence >= coordinator.suspect_after()).then_some(silence),
            left: held.deadline.saturating_duration_since(now),
        }
    };
    let leases = pool.all_held().map(lease).collect();
    let workers =
        pool.workers().into_iter().map(|worker| LiveWorker { name: worker.name, has: worker.has }).collect();
    Live { leases, workers }
}

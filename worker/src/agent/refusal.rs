//! Handing back what is assigned to an agent that is stopping already.

use cnx_proto::v1::from_worker::Message;
use cnx_proto::v1::outcome::Kind;
use cnx_proto::v1::{FailureClass, FromWorker, Lease, Outcome, Report, report::Body};
use tokio::sync::mpsc;

use super::attempt::{name, unix_ms};

/// Assignments that one agent hands back; a coordinator that goes on regardless has to notice that we are gone.
const MOST: u32 = 16;

/// Reports that `lease` was interrupted before it began, so that another worker gets it at once. Best effort: it is
/// also lost, and found to be, when this agent detaches.
pub fn hand_back(lease: &Lease, refused: &mut u32, reports: &mpsc::Sender<FromWorker>) {
    *refused += 1;
    if *refused > MOST {
        return;
    }
    tracing::info!("{}: assigned while stopping; handing it back", name(lease));
    let outcome = Outcome {
        kind: Kind::Failed.into(),
        failure: FailureClass::Interrupted.into(),
        message: "the worker was stopping when it was assigned".to_owned(),
    };
    let report = Report {
        lease: Some(lease.clone()),
        sequence: 1,
        at_ms: unix_ms(),
        body: Some(Body::Outcome(outcome)),
    };
    // A full queue: the coordinator hears of it when the stream ends.
    let _ = reports.try_send(FromWorker { message: Some(Message::Report(report)) });
}

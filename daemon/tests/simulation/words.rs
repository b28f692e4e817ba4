//! Messages in the trace: short, and without what a seed does not decide.

use cnx_proto::v1::{Lease, Report, from_worker, report::Body, to_worker};

use crate::network::Packet;

/// A packet.
pub fn packet(packet: &Packet) -> String {
    match packet {
        Packet::Up(up) => up.message.as_ref().map_or("nothing".to_owned(), from_worker),
        Packet::Down(down) => down.message.as_ref().map_or("nothing".to_owned(), to_worker),
        Packet::Over => "end".to_owned(),
    }
}

/// A lease.
pub fn lease(lease: &Lease) -> String {
    format!("{}.{}", lease.experiment, lease.attempt)
}

fn leases(all: &[Lease]) -> String {
    all.iter().map(lease).collect::<Vec<_>>().join(" ")
}

fn from_worker(message: &from_worker::Message) -> String {
    match message {
        from_worker::Message::Hello(hello) => {
            format!("hello of {} with [{}]", hello.worker, leases(&hello.held))
        }
        from_worker::Message::Heartbeat(beat) => {
            format!("heartbeat {} [{}]", beat.number, leases(&beat.leases))
        }
        from_worker::Message::Report(told) => report(told),
        #[allow(unreachable_patterns)]
        _ => "something newer".to_owned(),
    }
}

/// A report.
pub fn report(report: &Report) -> String {
    let of = report.lease.as_ref().map_or_else(String::new, lease);
    let what = match &report.body {
        Some(Body::Started(started)) => format!("started at {}", started.resumed_at_epoch),
        Some(Body::Progress(_)) => "progress".to_owned(),
        Some(Body::Epoch(epoch)) => format!("epoch {}", epoch.epoch),
        Some(Body::Log(_)) => "log".to_owned(),
        Some(Body::Artifact(artifact)) => format!("artifact {}", artifact.name),
        Some(Body::Figures(_)) => "figures".to_owned(),
        Some(Body::Outcome(outcome)) => format!("outcome {:?} {}", outcome.kind(), outcome.failure()),
        _ => "nothing".to_owned(),
    };
    format!("report {of} #{}: {what}", report.sequence)
}

fn to_worker(message: &to_worker::Message) -> String {
    let known = |of: &Option<Lease>| of.as_ref().map_or_else(String::new, lease);
    match message {
        to_worker::Message::Welcome(welcome) => format!("welcome, stale [{}]", leases(&welcome.stale)),
        to_worker::Message::Assign(assign) => format!("assign {}", known(&assign.lease)),
        to_worker::Message::Stop(stop) => format!("stop {}: {:?}", known(&stop.lease), stop.reason()),
        to_worker::Message::Acknowledge(told) => {
            let verdict = if told.accepted { "accepted" } else { "refused" };
            format!("{verdict} {} #{} {}", known(&told.lease), told.sequence, told.reason)
        }
        to_worker::Message::Heartbeat(reply) => {
            format!("heartbeat {} stale [{}]", reply.number, leases(&reply.stale))
        }
        #[allow(unreachable_patterns)]
        _ => "something newer".to_owned(),
    }
}

//! Defects put in on purpose, at the seams between the coordinator and the world: the checks have to find them.

use cnx_daemon::coordinator::worker_lost;
use cnx_daemon::store::Interrupted;
use cnx_proto::v1::{Acknowledge, FromWorker, Lease, Report, ToWorker, from_worker, to_worker};

use crate::daemon::{Done, LineId};
use crate::faults::Mutation;
use crate::network::Packet;
use crate::world::World;

impl World {
    /// A coordinator that does not look at attempt and token believes every report as if it were the running attempt's.
    pub fn mutate_report(&mut self, mut message: FromWorker) -> FromWorker {
        let skips = self.mutation == Some(Mutation::SkipsTheFence);
        let Some(from_worker::Message::Report(report)) = message.message.as_mut().filter(|_| skips) else {
            return message;
        };
        let Some(lease) = &mut report.lease else { return message };
        let running = self.database().query_row(
            "SELECT attempt, token, last_sequence FROM attempts WHERE experiment = ?1 AND ended_at_ms IS NULL",
            [lease.experiment as i64],
            |row| Ok((row.get::<_, u32>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?)),
        );
        if let Ok((attempt, token, last)) = running
            && attempt != lease.attempt
        {
            (lease.attempt, lease.token) = (attempt, token);
            report.sequence = last as u64 + 1;
        }
        message
    }

    /// A coordinator that believes in half the time to live tells the whole.
    pub fn mutate_answer(&mut self, mut message: ToWorker) -> ToWorker {
        if let (Some(Mutation::ExpiresEarly), Some(to_worker::Message::Welcome(welcome))) =
            (self.mutation, &mut message.message)
        {
            welcome.lease_ttl_ms *= 2;
            welcome.heartbeat_interval_ms *= 2;
        }
        message
    }

    /// A coordinator that gives a worker's leases to others as soon as its connection is over.
    pub fn relaunch_early(&mut self, line: LineId) {
        if self.mutation != Some(Mutation::RelaunchesTheSilent) {
            return;
        }
        let Some(coordinator) = self.coordinator() else { return };
        let Some(name) = self.network.worker(line).map(|worker| self.workers[worker].name.clone()) else {
            return;
        };
        self.begin(async move {
            let leases = coordinator.pool().leases_of(&name);
            let lost =
                |lease: &Lease| Interrupted { lease: lease.clone(), failure: worker_lost(String::new()) };
            let lost: Vec<_> = leases.iter().map(lost).collect();
            if coordinator.store.interrupt(&lost, coordinator.chance.now()).await.is_ok() {
                leases.iter().for_each(|lease| coordinator.pool().release(lease));
                coordinator.ring();
            }
            Done::Relaunched
        });
    }

    /// A worker that counts from when it heard the answer to a heartbeat, and to the very end.
    pub fn count_from_the_answer(&mut self, worker: usize) {
        let now = self.workers[worker].since_boot(self.now);
        let Some(agent) = &mut self.workers[worker].agent else { return };
        let (ttl, held) = (self.weather.lease_ttl, agent.held());
        if self.mutation == Some(Mutation::CountsFromTheAnswer) {
            agent.clock.welcomed(now + ttl / 9, ttl, &held);
        }
    }

    /// A coordinator that answers before it commits.
    pub fn acknowledge_early(&mut self, line: LineId, reports: &[Report]) {
        let early = |report: &Report| {
            to_worker::Message::Acknowledge(Acknowledge {
                lease: report.lease.clone(),
                sequence: report.sequence,
                accepted: true,
                ..Acknowledge::default()
            })
        };
        let answers: Vec<_> = reports.iter().map(early).collect();
        self.told(reports, &answers);
        for answer in answers {
            self.send(line, Packet::Down(ToWorker { message: Some(answer) }));
        }
    }
}

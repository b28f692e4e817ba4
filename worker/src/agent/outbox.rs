//! What is still to be told of one lease: the spool, how far it was sent, and how far it was acknowledged.
//!
//! Reports are read back from the disk when they are sent, so memory stays small however long no coordinator
//! answers. On a connection they go out in order, at most a window of them unacknowledged; a new connection starts
//! again behind the last acknowledged one.

use std::collections::{BTreeSet, VecDeque};
use std::io;

use cnx_proto::v1::Report;

use super::spool::Spool;

/// Durable reports on the road at once, a lease.
const WINDOW: u64 = 64;

/// The durable reports of one lease.
#[derive(Debug, Default)]
pub struct Outbox {
    /// `None` where no file could be made.
    spool: Option<Spool>,
    /// Reports that the disk did not take: at most the last outcome.
    unspooled: VecDeque<Report>,
    /// Sequence number of the newest report.
    last: u64,
    /// All up to here are acknowledged.
    acknowledged: u64,
    /// Acknowledged out of order, beyond `acknowledged`.
    ahead: BTreeSet<u64>,
    /// All up to here were sent on this connection.
    sent: u64,
    /// Where in the spool the report behind `sent` lies.
    position: u64,
    /// Positions behind the reports that were sent and are not acknowledged.
    sent_ends: VecDeque<(u64, u64)>,
    /// Where in the spool the report behind `acknowledged` lies.
    acknowledged_position: u64,
}

impl Outbox {
    /// Of a spool that holds the reports `first ..= last` (nothing: 1 and 0).
    pub fn new(spool: Spool, first: u64, last: u64) -> Outbox {
        Outbox {
            spool: Some(spool),
            unspooled: VecDeque::new(),
            last,
            acknowledged: first.saturating_sub(1),
            ahead: BTreeSet::new(),
            sent: first.saturating_sub(1),
            position: 0,
            sent_ends: VecDeque::new(),
            acknowledged_position: 0,
        }
    }

    /// Stamps the reports with their sequence numbers and keeps them on the disk. Blocks on it.
    ///
    /// # Errors
    /// When the disk did not take them: none is kept then.
    pub fn push(&mut self, reports: &mut [Report]) -> io::Result<()> {
        for (report, sequence) in reports.iter_mut().zip(self.last + 1..) {
            report.sequence = sequence;
        }
        let missing = || io::Error::new(io::ErrorKind::NotFound, "there is no spool");
        self.spool.as_mut().ok_or_else(missing)?.append(reports)?;
        self.last += reports.len() as u64;
        Ok(())
    }

    /// Keeps a report in memory only, because the disk does not take it.
    pub fn push_unspooled(&mut self, mut report: Report) {
        self.last += 1;
        report.sequence = self.last;
        self.unspooled.push_back(report);
    }

    /// Whether a report may be sent now.
    pub fn has_next(&self) -> bool {
        self.sent < self.last && self.sent < self.acknowledged + WINDOW
    }

    /// The next report to send, as sent.
    ///
    /// # Errors
    /// When the spool cannot be read, or is damaged under our hands.
    pub fn next_report(&mut self) -> io::Result<Report> {
        if let Some(spool) = self.spool.as_ref().filter(|spool| self.position < spool.end()) {
            let damaged = || io::Error::new(io::ErrorKind::InvalidData, "the spool is damaged");
            let (report, end) = spool.read(self.position)?.ok_or_else(damaged)?;
            self.position = end;
            self.sent = report.sequence;
            self.sent_ends.push_back((report.sequence, end));
            return Ok(report);
        }
        let report = self.unspooled.iter().find(|report| report.sequence > self.sent);
        let report = report.cloned().ok_or_else(|| io::Error::other("no report to send"))?;
        self.sent = report.sequence;
        Ok(report)
    }

    /// A new connection: whatever is not acknowledged is to be sent again, in order.
    pub fn rewind(&mut self) {
        self.sent = self.acknowledged;
        self.position = self.acknowledged_position;
        self.sent_ends.clear();
        self.ahead.clear();
    }

    /// The coordinator has report `sequence` on its disk.
    pub fn acknowledge(&mut self, sequence: u64) {
        if sequence <= self.acknowledged || sequence > self.sent {
            return;
        }
        self.ahead.insert(sequence);
        while self.ahead.remove(&(self.acknowledged + 1)) {
            self.acknowledged += 1;
        }
        while self.sent_ends.front().is_some_and(|(sequence, _)| *sequence <= self.acknowledged) {
            if let Some((_, end)) = self.sent_ends.pop_front() {
                self.acknowledged_position = end;
            }
        }
        self.unspooled.retain(|report| report.sequence > self.acknowledged);
        if self.acknowledged == self.last && self.acknowledged_position > 0 {
            if let Some(spool) = &mut self.spool {
                spool.clear();
            }
            self.position = 0;
            self.acknowledged_position = 0;
        }
    }

    /// Whether everything was acknowledged.
    pub fn is_empty(&self) -> bool {
        self.acknowledged == self.last
    }

    /// How many reports are not acknowledged.
    pub fn waiting(&self) -> u64 {
        self.last - self.acknowledged
    }

    /// Deletes the spool.
    pub fn remove(self) {
        if let Some(spool) = self.spool {
            spool.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cnx_proto::v1::{Lease, Outcome, report::Body};
    use proptest::prelude::*;

    fn outbox(folder: &std::path::Path) -> Outbox {
        let lease = Lease { experiment: 1, attempt: 1, token: "t".into() };
        Outbox::new(Spool::create(folder, &lease).expect("created"), 1, 0)
    }

    fn reports(count: usize) -> Vec<Report> {
        vec![Report { body: Some(Body::Outcome(Outcome::default())), ..Report::default() }; count]
    }

    #[test]
    fn a_window_of_reports_is_on_the_road_and_acknowledgements_open_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut outbox = outbox(folder.path());
        outbox.push(&mut reports(100)).expect("kept");
        let mut sent = 0;
        while outbox.has_next() {
            sent = outbox.next_report().expect("a report").sequence;
        }
        assert_eq!(sent, WINDOW);
        outbox.acknowledge(2);
        assert!(!outbox.has_next(), "the first is not acknowledged yet");
        outbox.acknowledge(1);
        assert_eq!(outbox.next_report().expect("a report").sequence, WINDOW + 1);
        assert_eq!(outbox.waiting(), 98);
    }

    #[test]
    fn what_the_disk_did_not_take_follows_what_it_took() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut outbox = outbox(folder.path());
        outbox.push(&mut reports(1)).expect("kept");
        outbox.push_unspooled(Report::default());
        for _ in 0..2 {
            assert_eq!(outbox.next_report().expect("a report").sequence, 1);
            assert_eq!(outbox.next_report().expect("a report").sequence, 2);
            assert!(!outbox.has_next());
            outbox.rewind();
        }
        while outbox.has_next() {
            let sequence = outbox.next_report().expect("a report").sequence;
            outbox.acknowledge(sequence);
        }
        assert!(outbox.is_empty());
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push(usize),
        Send,
        Acknowledge,
        Reconnect,
    }

    proptest! {
        // Whatever happens, the coordinator sees 1, 2, 3 … on each connection from the first that it did not
        // acknowledge, and in the end it has them all.
        #[test]
        fn nothing_is_lost_and_nothing_is_out_of_order(steps in prop::collection::vec(prop_oneof![
            (1usize..4).prop_map(Step::Push), Just(Step::Send), Just(Step::Acknowledge), Just(Step::Reconnect)
        ], 1..60)) {
            let folder = tempfile::tempdir().expect("a folder");
            let mut outbox = outbox(folder.path());
            let (mut pushed, mut received, mut acknowledged) = (0, 0, 0);
            for step in steps {
                match step {
                    Step::Push(count) => {
                        outbox.push(&mut reports(count)).expect("kept");
                        pushed += count as u64;
                    }
                    Step::Send if outbox.has_next() => {
                        prop_assert_eq!(outbox.next_report().expect("a report").sequence, received + 1);
                        received += 1;
                    }
                    Step::Send => prop_assert!(received == pushed || received - acknowledged >= WINDOW),
                    Step::Acknowledge if acknowledged < received => {
                        acknowledged += 1;
                        outbox.acknowledge(acknowledged);
                    }
                    Step::Acknowledge => {}
                    Step::Reconnect => {
                        outbox.rewind();
                        received = acknowledged;
                    }
                }
                prop_assert_eq!(outbox.waiting(), pushed - acknowledged);
            }
            while outbox.has_next() {
                let sequence = outbox.next_report().expect("a report").sequence;
                prop_assert_eq!(sequence, received + 1);
                received += 1;
                outbox.acknowledge(sequence);
            }
            prop_assert!(outbox.is_empty() || acknowledged < received);
        }
    }
}

//! How long this worker may count on a lease: pure arithmetic over times since boot.
//!
//! A lease lives by its heartbeats. The coordinator counts its time to live from when it *received* the last one;
//! the worker counts from when it *sent* the last one that was acknowledged, and stops computing a margin earlier. So
//! the worker always stops first, whatever the network did, and no experiment ever has two children that compute. A
//! lease that ran out here may still be ours: when the coordinator says so, its child goes on.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::v1::{Hold, Lease};

/// A point in time: the duration since the machine booted, suspend included.
pub type SinceBoot = Duration;

/// The share of the time to live that is given up to be safe: one in so many.
const MARGIN: u32 = 10;

/// Heartbeats on the road whose acknowledgement still counts.
const MAX_IN_FLIGHT: usize = 64;

/// The leases that are held, and until when.
#[derive(Debug, Default)]
pub struct LeaseClock {
    ttl: Duration,
    /// When the newest acknowledged heartbeat (or Hello) was sent.
    confirmed_at: SinceBoot,
    held: HashMap<Lease, Held>,
    in_flight: BTreeMap<u64, (SinceBoot, Vec<Lease>)>,
    last_number: u64,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    renewed_at: SinceBoot,
    /// Told by [`LeaseClock::take_expired`], and not renewed since.
    expired: bool,
}

/// When what works under a lease must stop.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Holds {
    /// It computes nothing from then on.
    pub until: SinceBoot,
    /// If it has not stopped by itself, it is made to.
    pub forced_at: SinceBoot,
}

impl From<Holds> for Hold {
    fn from(holds: Holds) -> Hold {
        let us = |at: SinceBoot| u64::try_from(at.as_micros()).unwrap_or(u64::MAX);
        Hold { until_us: us(holds.until), forced_at_us: us(holds.forced_at) }
    }
}

impl From<Hold> for Holds {
    fn from(hold: Hold) -> Holds {
        let at = Duration::from_micros;
        Holds { until: at(hold.until_us), forced_at: at(hold.forced_at_us) }
    }
}

impl LeaseClock {
    /// The coordinator welcomed a Hello that was sent at `sent_at` and named `held`.
    pub fn welcomed(&mut self, sent_at: SinceBoot, ttl: Duration, held: &[Lease]) {
        self.ttl = ttl;
        self.confirmed_at = sent_at;
        self.in_flight.clear();
        for lease in held {
            let expired = self.held.get(lease).is_some_and(|held| held.expired);
            self.held.insert(lease.clone(), Held { renewed_at: sent_at, expired });
        }
    }

    /// A lease was granted. Its grant lies somewhere after the last acknowledged heartbeat was sent, so that is
    /// where its time starts here.
    pub fn granted(&mut self, lease: Lease) {
        self.held.insert(lease, Held { renewed_at: self.confirmed_at, expired: false });
    }

    /// A lease is over: its time does not matter any more.
    pub fn ended(&mut self, lease: &Lease) {
        self.held.remove(lease);
    }

    /// A heartbeat naming `leases` is sent now; this is its number.
    pub fn sent(&mut self, now: SinceBoot, leases: Vec<Lease>) -> u64 {
        self.last_number += 1;
        self.in_flight.insert(self.last_number, (now, leases));
        while self.in_flight.len() > MAX_IN_FLIGHT {
            self.in_flight.pop_first();
        }
        self.last_number
    }

    /// Heartbeat `number` was acknowledged: the leases that it named are renewed as of its sending. An earlier one
    /// that is still on the road is forgotten.
    pub fn acknowledged(&mut self, number: u64) {
        let Some((sent_at, leases)) = self.in_flight.remove(&number) else { return };
        self.in_flight = self.in_flight.split_off(&number);
        self.confirmed_at = self.confirmed_at.max(sent_at);
        for lease in leases {
            if let Some(held) = self.held.get_mut(&lease) {
                held.renewed_at = held.renewed_at.max(sent_at);
            }
        }
    }

    /// Since when the coordinator owes an answer; `None` when it owes none.
    pub fn unanswered_since(&self) -> Option<SinceBoot> {
        self.in_flight.first_key_value().map(|(_, (sent_at, _))| *sent_at)
    }

    /// When the first of the held leases runs out; `None` when none does.
    pub fn next_deadline(&self) -> Option<SinceBoot> {
        let running = self.held.values().filter(|held| !held.expired);
        running.map(|held| held.renewed_at + self.usable()).min()
    }

    /// How long a lease holds; `None` when it is not held.
    pub fn holds(&self, lease: &Lease) -> Option<Holds> {
        let until = self.held.get(lease)?.renewed_at + self.usable();
        Some(Holds { until, forced_at: until + self.ttl / MARGIN / 2 })
    }

    /// The leases that have run out since the last time, by experiment and attempt. They are still held: the coordinator
    /// may yet renew them.
    pub fn take_expired(&mut self, now: SinceBoot) -> Vec<Lease> {
        self.turn(|held, usable| !held.expired && held.renewed_at + usable <= now)
    }

    /// The leases that had run out and were renewed since the last time, by experiment and attempt.
    pub fn take_revived(&mut self, now: SinceBoot) -> Vec<Lease> {
        self.turn(|held, usable| held.expired && held.renewed_at + usable > now)
    }

    fn turn(&mut self, which: impl Fn(&Held, Duration) -> bool) -> Vec<Lease> {
        let usable = self.usable();
        let mut turned = Vec::new();
        for (lease, held) in self.held.iter_mut().filter(|(_, held)| which(held, usable)) {
            held.expired = !held.expired;
            turned.push(lease.clone());
        }
        turned.sort_by_key(|lease| (lease.experiment, lease.attempt));
        turned
    }

    fn usable(&self) -> Duration {
        self.ttl - self.ttl / MARGIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(100);

    fn at(seconds: u64) -> SinceBoot {
        Duration::from_secs(seconds)
    }

    fn lease(experiment: u64) -> Lease {
        Lease { experiment, attempt: 1, token: "t".into() }
    }

    #[test]
    fn a_lease_counts_from_the_sending_of_the_acknowledged_heartbeat_less_a_margin() {
        let mut clock = LeaseClock::default();
        clock.welcomed(at(1000), TTL, &[lease(1)]);
        let number = clock.sent(at(1010), vec![lease(1)]);
        assert_eq!(clock.next_deadline(), Some(at(1090)), "not acknowledged yet");
        clock.acknowledged(number);
        assert_eq!(clock.next_deadline(), Some(at(1100)));
        assert!(clock.take_expired(at(1099)).is_empty());
        assert_eq!(clock.take_expired(at(1100)), [lease(1)]);
        assert_eq!(clock.next_deadline(), None);
    }

    #[test]
    fn a_lease_that_ran_out_is_told_once_and_again_when_it_holds_again() {
        let mut clock = LeaseClock::default();
        clock.welcomed(at(0), TTL, &[lease(1), lease(2)]);
        let number = clock.sent(at(60), vec![lease(1)]);
        assert_eq!(clock.take_expired(at(90)), [lease(1), lease(2)]);
        assert!(clock.take_expired(at(95)).is_empty() && clock.take_revived(at(95)).is_empty());
        clock.acknowledged(number);
        assert_eq!(clock.take_revived(at(100)), [lease(1)]);
        assert!(clock.take_revived(at(100)).is_empty());
        assert_eq!(clock.next_deadline(), Some(at(150)));
        clock.welcomed(at(120), TTL, &[lease(1), lease(2)]);
        assert_eq!(clock.take_revived(at(121)), [lease(2)]);
    }

    #[test]
    fn an_acknowledgement_that_comes_too_late_revives_nothing() {
        let mut clock = LeaseClock::default();
        clock.welcomed(at(0), TTL, &[lease(1)]);
        let number = clock.sent(at(10), vec![lease(1)]);
        assert_eq!(clock.take_expired(at(90)), [lease(1)]);
        clock.acknowledged(number);
        assert!(clock.take_revived(at(100)).is_empty());
        assert_eq!(clock.holds(&lease(1)), Some(Holds { until: at(100), forced_at: at(105) }));
        assert_eq!(clock.holds(&lease(2)), None);
    }

    #[test]
    fn a_heartbeat_renews_only_what_it_named() {
        let mut clock = LeaseClock::default();
        clock.welcomed(at(0), TTL, &[lease(1)]);
        let number = clock.sent(at(50), vec![lease(1)]);
        clock.granted(lease(2));
        clock.acknowledged(number);
        assert_eq!(clock.take_expired(at(90)), [lease(2)]);
        assert_eq!(clock.next_deadline(), Some(at(140)));
        clock.ended(&lease(2));
        assert_eq!(clock.holds(&lease(2)), None);
    }

    #[test]
    fn a_late_or_unknown_acknowledgement_never_moves_a_deadline_back() {
        let mut clock = LeaseClock::default();
        clock.welcomed(at(0), TTL, &[lease(1)]);
        let first = clock.sent(at(10), vec![lease(1)]);
        let second = clock.sent(at(20), vec![lease(1)]);
        clock.acknowledged(second);
        clock.acknowledged(first);
        clock.acknowledged(99);
        assert_eq!(clock.next_deadline(), Some(at(110)));
        assert_eq!(clock.unanswered_since(), None);
    }

    #[test]
    fn the_heartbeats_on_the_road_are_bounded() {
        let mut clock = LeaseClock::default();
        clock.welcomed(at(0), TTL, &[]);
        for second in 0..1000 {
            clock.sent(at(second), vec![]);
        }
        assert_eq!(clock.in_flight.len(), MAX_IN_FLIGHT);
    }
}

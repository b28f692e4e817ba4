//! What lies between workers and coordinator. Within one direction of one connection it keeps what TCP promises: order,
//! and nothing lost in the middle. Everything else goes: delays differ by message, heartbeats overtake reports and the
//! other way round, a message may come twice, a direction may go silent for good, a connection may break at any moment,
//! an old connection's messages may come after a new one's, and a worker may be cut off for any time.

use std::collections::BTreeMap;
use std::time::Duration;

use cnx_proto::v1::{FromWorker, ToWorker, from_worker, to_worker};

use crate::world::{Event, World};

/// A direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// From worker to coordinator.
    Up,
    /// From coordinator to worker.
    Down,
}

/// What travels.
#[derive(Debug, Clone)]
pub enum Packet {
    Up(FromWorker),
    Down(ToWorker),
    /// The other end hung up, or the connection broke.
    Over,
}

/// All connections that ever were; the two ends know them by number.
#[derive(Debug, Default)]
pub struct Network {
    connections: BTreeMap<u64, Connection>,
    opened: u64,
}

#[derive(Debug)]
struct Connection {
    worker: usize,
    /// When the last packet of each lane arrives.
    latest: [Duration; 3],
    /// A direction that lost something delivers nothing any more.
    silent: [bool; 2],
    over: bool,
}

impl Network {
    /// A new connection of a worker.
    pub fn open(&mut self, worker: usize) -> u64 {
        self.opened += 1;
        let connection = Connection { worker, latest: [Duration::ZERO; 3], silent: [false; 2], over: false };
        self.connections.insert(self.opened, connection);
        self.opened
    }

    /// The worker at one end.
    pub fn worker(&self, connection: u64) -> Option<usize> {
        self.connections.get(&connection).map(|c| c.worker)
    }

    /// Connections that are not over.
    pub fn open_ones(&self) -> Vec<u64> {
        self.connections.iter().filter(|(_, c)| !c.over).map(|(number, _)| *number).collect()
    }
}

/// Packets of one lane arrive in order; heartbeats have one of their own, as in the agent.
fn lane(packet: &Packet) -> Option<usize> {
    match packet {
        Packet::Up(FromWorker { message: Some(from_worker::Message::Heartbeat(_)) }) => Some(0),
        Packet::Up(_) => Some(1),
        Packet::Down(_) => Some(2),
        Packet::Over => None,
    }
}

/// What may come twice without TCP's doing: what a report or its acknowledgement means does not change by saying it again.
fn may_repeat(packet: &Packet) -> bool {
    match packet {
        Packet::Up(up) => !matches!(up.message, Some(from_worker::Message::Hello(_))),
        Packet::Down(down) => matches!(
            down.message,
            Some(
                to_worker::Message::Acknowledge(_)
                    | to_worker::Message::Heartbeat(_)
                    | to_worker::Message::Stop(_)
            )
        ),
        Packet::Over => false,
    }
}

impl World {
    /// Sends a packet; it may never arrive.
    pub fn send(&mut self, connection: u64, packet: Packet) {
        let way = match packet {
            Packet::Down(_) => Way::Down,
            _ => Way::Up,
        };
        let (lost, twice) = (self.weather.lost, self.weather.twice);
        let cut_off = self.is_cut_off(connection);
        let loses = !self.is_calm() && (cut_off || self.chance(lost));
        let Some(open) = self.network.connections.get_mut(&connection).filter(|c| !c.over) else { return };
        open.silent[way as usize] |= loses;
        if open.silent[way as usize] {
            self.note(format_args!("lost on {connection}: {}", crate::words::packet(&packet)));
            return;
        }
        let copies = 1 + u32::from(may_repeat(&packet) && !self.is_calm() && self.chance(twice));
        for _ in 0..copies {
            let delay = self.delay();
            let mut at = self.now + delay;
            if let (Some(lane), Some(open)) = (lane(&packet), self.network.connections.get_mut(&connection)) {
                // One microsecond apart, so that what was sent first is there first.
                at = at.max(open.latest[lane] + Duration::from_micros(1));
                open.latest[lane] = at;
            }
            self.at(at, Event::Arrive(connection, way, packet.clone()));
        }
    }

    fn delay(&mut self) -> Duration {
        let slow = !self.is_calm() && self.chance(self.weather.slow);
        if slow { self.between(1, self.weather.slowest_ms) } else { self.between(0, 3) }
    }

    /// Whether a worker's packets go nowhere now.
    fn is_cut_off(&self, connection: u64) -> bool {
        self.network.worker(connection).is_some_and(|worker| self.workers[worker].cut_off)
    }

    /// The connection breaks, or one end hangs up: both hear of it, unless they are cut off from each other.
    pub fn break_off(&mut self, connection: u64) {
        let cut_off = self.is_cut_off(connection);
        let Some(open) = self.network.connections.get_mut(&connection).filter(|c| !c.over) else { return };
        open.over = true;
        let dead = cut_off || open.silent[0] || open.silent[1];
        self.note(format_args!("connection {connection} breaks"));
        for way in [Way::Up, Way::Down] {
            // Keep-alive finds out in the end even where no packet comes through.
            let delay = if dead { self.between(1, 40_000) } else { self.delay() };
            let latest = self.network.connections[&connection].latest;
            let after = if way == Way::Up { latest[0].max(latest[1]) } else { latest[2] };
            let at = if self.chance(50_000) { (self.now + delay).max(after) } else { self.now + delay };
            self.at(at, Event::Arrive(connection, way, Packet::Over));
        }
    }

    /// A packet is there.
    pub fn arrive(&mut self, connection: u64, way: Way, packet: Packet) {
        match (way, packet) {
            (Way::Up, packet) if self.daemon.stopped => {
                self.daemon.deferred.push(Event::Arrive(connection, way, packet));
            }
            (Way::Up, Packet::Up(message)) => self.daemon_hears(connection, message),
            (Way::Up, _) => self.daemon_loses(connection),
            (Way::Down, packet) => {
                let Some(worker) = self.network.worker(connection) else { return };
                if self.workers[worker].stopped {
                    self.workers[worker].deferred.push(Event::Arrive(connection, way, packet));
                    return;
                }
                match packet {
                    Packet::Down(message) => self.worker_hears(worker, connection, message),
                    _ => self.worker_loses(worker, connection),
                }
            }
        }
    }
}

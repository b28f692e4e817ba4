//! Why an experiment waits: the schedule's own rules, told in words.

use std::fmt;

use cnx_proto::v1;

use super::{Demand, Worker};
use crate::lifecycle::backs_off;

/// A queued or paused experiment.
#[derive(Debug, Clone, Copy)]
pub struct Waiting<'a> {
    /// Somebody paused it.
    pub paused: bool,
    /// What it runs after, as far as that has not succeeded.
    pub after: &'a [Awaited],
    /// Not leased before this Unix time; 0: no back-off.
    pub not_before_ms: u64,
    /// What it needs.
    pub demand: &'a Demand,
}

/// Another experiment that has to succeed first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Awaited {
    /// Its ID.
    pub experiment: u64,
    /// Where it stands.
    pub state: v1::State,
}

/// The queue as a whole.
#[derive(Debug, Clone, Copy, Default)]
pub struct Queue {
    /// Since when it is paused, Unix time.
    pub paused_since_ms: Option<u64>,
    /// Until when nothing is given out because the database was restored from a backup, Unix time.
    pub unsettled_until_ms: Option<u64>,
    /// Unix time.
    pub now_ms: u64,
}

/// What goes before an experiment, of those that need the same. Counting stops at [`Place::MOST`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Place {
    /// Experiments of higher priority.
    pub higher: u64,
    /// Experiments of its priority and its sweep that were queued before it.
    pub before: u64,
    /// Other sweeps of its priority, with which it takes turns.
    pub sweeps: u64,
}

impl Place {
    /// More than so many are not counted.
    pub const MOST: u64 = 1000;
}

/// What keeps an experiment waiting: the first of these that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// Somebody paused it.
    Paused,
    /// Others have to succeed first.
    After(Vec<Awaited>),
    /// The whole queue is paused, since this Unix time.
    QueuePaused(u64),
    /// The database was restored from a backup; leases that it does not know have run out in so many milliseconds.
    Restored(u64),
    /// Its last attempt failed a moment ago; it waits until this Unix time.
    BackOff(u64),
    /// There is no worker.
    NoWorker,
    /// No connected worker has what it needs; this is missing.
    NobodyFits(String),
    /// Those that have it are stopping.
    Leaving,
    /// Those that have it and are not stopping were not heard for too long.
    Silent,
    /// So many workers with so many slots have what it needs; all of it is taken.
    Busy {
        /// Workers.
        workers: u32,
        /// Their slots.
        slots: u32,
        /// Whether a slot is free, but not enough memory beside what runs there.
        memory: bool,
    },
    /// Nothing: a worker is free for it, and its turn is near.
    Next,
}

/// Decides what keeps it waiting.
pub fn why(waiting: &Waiting<'_>, queue: Queue, workers: &[Worker]) -> Why {
    if waiting.paused {
        return Why::Paused;
    }
    if !waiting.after.is_empty() {
        return Why::After(waiting.after.to_vec());
    }
    if let Some(since_ms) = queue.paused_since_ms {
        return Why::QueuePaused(since_ms);
    }
    if let Some(until_ms) = queue.unsettled_until_ms {
        return Why::Restored(until_ms.saturating_sub(queue.now_ms));
    }
    if backs_off(waiting.not_before_ms, queue.now_ms) {
        return Why::BackOff(waiting.not_before_ms);
    }
    if workers.is_empty() {
        return Why::NoWorker;
    }
    let fitting = || workers.iter().filter(|w| waiting.demand.met_by(&w.has));
    if fitting().next().is_none() {
        return Why::NobodyFits(lacking(waiting.demand, workers));
    }
    if fitting().all(|w| w.draining) {
        return Why::Leaving;
    }
    if fitting().all(|w| w.draining || w.suspect) {
        return Why::Silent;
    }
    if fitting().any(|w| w.has_room_for(waiting.demand)) {
        return Why::Next;
    }
    Why::Busy {
        workers: fitting().count() as u32,
        slots: fitting().map(|w| w.slots).fold(0, u32::saturating_add),
        memory: fitting().any(|w| w.free_slots > 0),
    }
}

/// What no worker has; or, if each thing is there, that no worker has all of it.
fn lacking(demand: &Demand, workers: &[Worker]) -> String {
    let mut missing = Vec::new();
    if demand.gpus > 0 && !workers.iter().any(|w| w.has.gpu) {
        missing.push(match demand.gpus {
            1 => "a GPU".to_owned(),
            n => format!("{n} GPUs"),
        });
    }
    let most_gib = workers.iter().map(|w| w.has.memory_gib).max().unwrap_or(0);
    if demand.memory_gib > most_gib {
        missing.push(format!("{} GiB of memory (the largest has {most_gib})", demand.memory_gib));
    }
    let nowhere = |label: &&String| !workers.iter().any(|w| w.has.labels.contains(label));
    missing.extend(demand.labels.iter().filter(nowhere).map(|label| format!("the label {label}")));
    if missing.is_empty() { demand.to_string() } else { missing.join(" and ") }
}

impl fmt::Display for Demand {
    /// Completes "a worker with …".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gpus = match self.gpus {
            0 => None,
            1 => Some("a GPU".to_owned()),
            n => Some(format!("{n} GPUs")),
        };
        let memory = (self.memory_gib > 0).then(|| format!("{} GiB of memory", self.memory_gib));
        let labels = self.labels.iter().map(|label| format!("the label {label}"));
        let all: Vec<String> = gpus.into_iter().chain(memory).chain(labels).collect();
        if all.is_empty() { f.write_str("a free slot") } else { f.write_str(&all.join(" and ")) }
    }
}

impl Why {
    /// In a few words, for a row of a table.
    pub fn short(&self, demand: &Demand) -> String {
        match self {
            Why::Paused => "cnx resume lets it go on".to_owned(),
            Why::After(others) => format!("waits for {}", ids(others)),
            Why::QueuePaused(_) => "the queue is paused".to_owned(),
            Why::Restored(_) => "waits: the database was restored".to_owned(),
            Why::BackOff(_) => "waits before it tries again".to_owned(),
            Why::NoWorker => "no worker is connected: start one with cnx up".to_owned(),
            Why::NobodyFits(missing) => format!("waits for a worker with {missing}"),
            Why::Leaving => "waits for a worker: those that fit are stopping".to_owned(),
            Why::Silent => "waits for a worker: those that fit are silent".to_owned(),
            Why::Busy { memory: true, .. } => format!("waits for {} GiB of free memory", demand.memory_gib),
            Why::Busy { .. } if demand.gpus > 0 => "waits for a free GPU".to_owned(),
            Why::Busy { .. } => "waits for a free slot".to_owned(),
            Why::Next => "is next".to_owned(),
        }
    }

    /// In sentences. `place` counts where it is known.
    pub fn sentences(&self, demand: &Demand, place: Option<Place>) -> Vec<String> {
        let mut said = Vec::new();
        match self {
            Why::Paused => {
                said.push("It is paused: it waits until somebody resumes it (cnx resume).".to_owned())
            }
            Why::After(others) => {
                said.extend(others.iter().map(|other| {
                    let how = match other.state {
                        v1::State::Running => "is running",
                        v1::State::Paused => "is paused (cnx resume)",
                        _ => "is queued",
                    };
                    format!("It runs after {0}, which {how} (cnx explain {0}).", other.experiment)
                }));
            }
            Why::QueuePaused(_) => {
                said.push(
                    "The whole queue is paused: nothing is dispatched (cnx resume --queue).".to_owned(),
                );
            }
            Why::Restored(left_ms) => said.push(format!(
                "The database was restored from a backup: nothing is dispatched for another {} s, until leases that it does \
                 not know have run out.",
                left_ms.div_ceil(1000)
            )),
            Why::BackOff(_) => {
                said.push("Its last attempt failed; it waits a while before the next.".to_owned())
            }
            Why::NoWorker => said.push("No worker is connected: start one with cnx up.".to_owned()),
            Why::NobodyFits(missing) => {
                said.push(format!("No connected worker has {missing} (cnx workers shows what there is)."));
            }
            Why::Silent => said.push(
                "The workers that fit were not heard for three heartbeats: they get nothing until they are (cnx workers)."
                    .to_owned(),
            ),
            Why::Leaving => said.push("The workers that fit are stopping, and take nothing more.".to_owned()),
            Why::Busy { workers, slots, memory } => {
                let fitting = if *demand == Demand::default() { "" } else { " that fit" };
                let workers = counted(u64::from(*workers), "worker");
                said.push(match memory {
                    true => format!(
                        "It needs {demand}; {workers}{fitting}, but what runs there leaves too little memory."
                    ),
                    false => {
                        format!("All {} of {workers}{fitting} are busy.", counted(u64::from(*slots), "slot"))
                    }
                });
            }
            Why::Next => {
                said.push("A worker is free for it: it is leased as soon as its turn comes.".to_owned())
            }
        }
        if let (Why::Busy { .. } | Why::Next | Why::NoWorker | Why::QueuePaused(_), Some(place)) =
            (self, place)
        {
            said.push(place.to_string());
        }
        said
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let most = |n: u64| if n >= Place::MOST { format!("{n} or more") } else { n.to_string() };
        let mut ahead = Vec::new();
        if self.higher > 0 {
            ahead.push(format!("{} of higher priority", most(self.higher)));
        }
        if self.before > 0 {
            ahead.push(format!("{} queued before it", most(self.before)));
        }
        match ahead.as_slice() {
            [] => f.write_str("Nothing that needs the same goes before it")?,
            some => write!(f, "Ahead of it: {}", some.join(", "))?,
        }
        match self.sweeps {
            0 => f.write_str("."),
            n => write!(f, "; it takes turns with {} of its priority.", counted(n, "other sweep")),
        }
    }
}

fn counted(n: u64, thing: &str) -> String {
    if n == 1 { format!("1 {thing}") } else { format!("{n} {thing}s") }
}

fn ids(others: &[Awaited]) -> String {
    const SHOWN: usize = 3;
    let shown: Vec<String> = others.iter().take(SHOWN).map(|o| o.experiment.to_string()).collect();
    match others.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

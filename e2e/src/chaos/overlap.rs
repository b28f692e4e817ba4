//! Whether two processes compute one experiment at the same time, seen from outside: by the time on a CPU that the kernel
//! counts for each.
//!
//! Looks at all children again and again. If of two processes of one experiment each spent CPU time both in the window
//! before a look and in the window after it, both were at work at that look: no reading of logs, no trust in what they
//! say. A child that is stopped, or waits for its lease, spends none.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two looks. An overlap of three of them is found for sure, if each gets a fifth of a CPU.
const WINDOW: Duration = Duration::from_millis(250);

/// What counts as work in one window: more than writing down where it stopped and exiting. In hundredths of a second.
const BUSY_TICKS: u64 = 5;

/// A process, told from a later one with its number by when it started.
pub type Identity = (u32, u64);

/// A child as one look found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Which process.
    pub process: Identity,
    /// The attempt that it runs.
    pub lease: Lease,
    /// CPU time so far, in hundredths of a second.
    pub ticks: u64,
}

/// Experiment and attempt.
pub type Lease = (u64, u32);

/// Finds overlaps in what one look after the other saw: pure.
#[derive(Debug, Default)]
pub struct Overlaps {
    ticks: BTreeMap<Identity, u64>,
    busy: BTreeSet<Identity>,
}

impl Overlaps {
    /// Takes in a look; the pairs of attempts that computed one experiment when the look before was taken.
    pub fn look(&mut self, seen: &[Seen]) -> Vec<(Lease, Lease)> {
        let worked = |s: &Seen| {
            let before = self.ticks.get(&s.process).copied().unwrap_or(s.ticks);
            s.ticks.saturating_sub(before) >= BUSY_TICKS
        };
        let busy_now: Vec<&Seen> = seen.iter().filter(|s| worked(s)).collect();
        let both: Vec<&Seen> = busy_now.iter().copied().filter(|s| self.busy.contains(&s.process)).collect();
        let mut found = Vec::new();
        for (i, one) in both.iter().enumerate() {
            for other in both[i + 1..].iter().filter(|other| other.lease.0 == one.lease.0) {
                found.push((one.lease, other.lease));
            }
        }
        self.busy = busy_now.iter().map(|s| s.process).collect();
        self.ticks = seen.iter().map(|s| (s.process, s.ticks)).collect();
        found
    }
}

/// What the looks found so far.
#[derive(Debug, Default, Clone)]
pub struct Findings {
    /// Looks taken.
    pub looks: u64,
    /// Looks at which more than one child computed: where an overlap could have shown.
    pub busy_looks: u64,
    /// Two children at work on one experiment.
    pub overlaps: Vec<String>,
}

/// Looks at the children of a pool until it is dropped.
pub struct Watcher {
    findings: Arc<Mutex<Findings>>,
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Of the processes that `owns` claims, with what these agents' logs say of which attempt each runs.
    pub fn start(owns: impl Fn(u32) -> bool + Send + 'static, agent_logs: Vec<PathBuf>) -> Watcher {
        let (findings, done) = (Arc::<Mutex<Findings>>::default(), Arc::<AtomicBool>::default());
        let thread = std::thread::spawn({
            let (findings, done) = (findings.clone(), done.clone());
            move || {
                let (mut children, mut overlaps, began) =
                    (Children::new(owns, agent_logs), Overlaps::default(), Instant::now());
                while !done.load(Ordering::SeqCst) {
                    let seen = children.look();
                    let found = overlaps.look(&seen);
                    let mut findings = findings.lock().unwrap();
                    findings.looks += 1;
                    findings.busy_looks += u64::from(overlaps.busy.len() > 1);
                    for ((experiment, one), (_, other)) in found {
                        let at = began.elapsed().as_secs_f64();
                        findings.overlaps.push(format!(
                            "at {at:.1} s attempts {one} and {other} of experiment {experiment} computed at the same time"
                        ));
                    }
                    drop(findings);
                    std::thread::sleep(WINDOW);
                }
            }
        });
        Watcher { findings, done, thread: Some(thread) }
    }

    /// What was found so far.
    pub fn findings(&self) -> Findings {
        self.findings.lock().unwrap().clone()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.done.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What a process was found to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// None of this pool's.
    Foreign,
    /// An agent, a coordinator, or a child that has not become its program yet.
    Other,
    /// A child whose agent did not tell yet what it runs.
    Child,
    Runs(Lease),
}

/// Finds the children of a pool and what each runs.
struct Children<O> {
    owns: O,
    agent_logs: Vec<PathBuf>,
    known: BTreeMap<Identity, Known>,
    /// How often each number was told to have been started when it was last looked up: numbers come again.
    told: BTreeMap<u32, usize>,
}

impl<O: Fn(u32) -> bool> Children<O> {
    fn new(owns: O, agent_logs: Vec<PathBuf>) -> Children<O> {
        Children { owns, agent_logs, known: BTreeMap::new(), told: BTreeMap::new() }
    }

    fn look(&mut self) -> Vec<Seen> {
        let processes = processes();
        self.known.retain(|process, _| processes.contains_key(process));
        for &process in processes.keys() {
            let known = self.known.entry(process).or_insert(Known::Other);
            if *known == Known::Other {
                *known = match ((self.owns)(process.0), is_child(process.0)) {
                    (false, _) => Known::Foreign,
                    (true, false) => Known::Other,
                    (true, true) => Known::Child,
                };
            }
        }
        if self.known.values().any(|known| *known == Known::Child) {
            let started = started(&self.agent_logs);
            for ((pid, _), known) in self.known.iter_mut().filter(|(_, known)| **known == Known::Child) {
                let Some(&(times, lease)) = started.get(pid) else { continue };
                if times > self.told.get(pid).copied().unwrap_or(0) {
                    self.told.insert(*pid, times);
                    *known = Known::Runs(lease);
                }
            }
        }
        let seen = |(&process, &ticks): (&Identity, &u64)| match self.known.get(&process) {
            Some(&Known::Runs(lease)) => Some(Seen { process, lease, ticks }),
            _ => None,
        };
        processes.iter().filter_map(seen).collect()
    }
}

/// All processes and their CPU time.
fn processes() -> BTreeMap<Identity, u64> {
    let entries = fs::read_dir("/proc").unwrap();
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        // Counted from the third field on: the state, …, utime (14) and stime (15), …, the start (22).
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(((pid, number(22)?), number(14)? + number(15)?))
    })
    .collect()
}

/// Whether it is a `cnx-worker run`.
fn is_child(pid: u32) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut words = line.split(|&b| b == 0);
    words.next().is_some_and(|program| program.ends_with(b"cnx-worker")) && words.next() == Some(b"run")
}

/// By process number, of what the agents said they started: how many there were of that number, and which attempt the
/// newest runs.
pub fn started(agent_logs: &[PathBuf]) -> BTreeMap<u32, (usize, Lease)> {
    let mut started = BTreeMap::<u32, (usize, Lease)>::new();
    for text in agent_logs.iter().map(|log| fs::read_to_string(log).unwrap_or_default()) {
        for (pid, lease) in text.lines().filter_map(parse_started) {
            let times = started.get(&pid).map_or(0, |(times, _)| *times);
            started.insert(pid, (times + 1, lease));
        }
    }
    started
}

/// `… experiment 3, attempt 2: started as process 1234`
fn parse_started(line: &str) -> Option<(u32, Lease)> {
    let (_, rest) = line.split_once("experiment ")?;
    let (experiment, rest) = rest.split_once(", attempt ")?;
    let (attempt, pid) = rest.split_once(": started as process ")?;
    Some((pid.trim().parse().ok()?, (experiment.parse().ok()?, attempt.parse().ok()?)))
}

/// The processes of a pool that live, by what `owns` claims, agents and children.
pub fn alive(owns: impl Fn(u32) -> bool) -> Vec<u32> {
    processes().into_keys().map(|(pid, _)| pid).filter(|&pid| owns(pid)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(pid: u32, lease: Lease, ticks: u64) -> Seen {
        Seen { process: (pid, 0), lease, ticks }
    }

    /// The looks at which an overlap showed, of the ticks of two processes of the experiments 1 and `other`.
    fn overlaps_of(looks: &[(u64, u64)], other: u64) -> Vec<usize> {
        let mut overlaps = Overlaps::default();
        let found = |(i, &(a, b)): (usize, &(u64, u64))| {
            let found = overlaps.look(&[seen(1, (1, 1), a), seen(2, (other, 2), b)]);
            (!found.is_empty()).then_some(i)
        };
        looks.iter().enumerate().filter_map(found).collect()
    }

    #[test]
    fn two_that_compute_one_experiment_are_found() {
        assert_eq!(overlaps_of(&[(0, 0), (20, 10), (40, 20), (60, 30)], 1), [2, 3]);
    }

    #[test]
    fn two_of_two_experiments_are_not() {
        assert_eq!(overlaps_of(&[(0, 0), (20, 10), (40, 20), (60, 30)], 2), Vec::<usize>::new());
    }

    #[test]
    fn one_that_begins_when_the_other_ends_is_not_even_in_one_window() {
        assert_eq!(overlaps_of(&[(0, 0), (20, 0), (30, 15), (30, 40), (30, 60)], 1), Vec::<usize>::new());
    }

    #[test]
    fn one_that_is_parked_may_be_there() {
        assert_eq!(overlaps_of(&[(0, 0), (20, 0), (21, 20), (22, 40), (23, 60)], 1), Vec::<usize>::new());
    }

    #[test]
    fn the_line_of_an_agents_log_tells_which_attempt_a_process_runs() {
        let line = "2026-01-01T00:00:00Z  INFO experiment 12, attempt 3: started as process 4711";
        assert_eq!(parse_started(line), Some((4711, (12, 3))));
        assert_eq!(parse_started("experiment 12, attempt 3: assigned"), None);
    }
}

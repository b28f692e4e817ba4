//! A child: computes epoch after epoch, checkpoints each, and ends in one of many ways. It computes nothing beyond the
//! time until which it was told that its lease holds.

use std::time::Duration;

use cnx_proto::Spec;
use cnx_proto::v1::outcome::Kind;
use cnx_proto::v1::{
    Artifact, ArtifactKind, Assign, EpochMetrics, FailureClass, Figures, LogLine, Outcome, Started,
    report::Body,
};

use crate::faults::{Fault, Mutation};
use crate::worker::Key;
use crate::world::{Event, World};

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Code,
    Signal,
    NotStarted,
}

/// What becomes of a child if nobody interferes.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Succeeds,
    Fails(FailureClass, u32),
    /// Killed by a signal.
    Dies(u32),
    /// Does nothing any more until somebody stops it, or the world calms.
    Hangs(u32),
    /// Ends without a word.
    Vanishes(u32),
}

/// A process.
#[derive(Debug)]
pub struct Child {
    pub number: u64,
    fate: Fate,
    seed: u64,
    epoch: u32,
    epochs: u32,
    lines: u32,
    /// What it wrote and nobody read so far.
    pub said: Vec<Body>,
    /// Until when its lease holds, by its machine's clock.
    pub until: Duration,
    computes: bool,
    /// A step is planned.
    busy: bool,
    /// SIGSTOP.
    stopped: bool,
    hangs: bool,
    terminated: bool,
    dying: bool,
    pub exit: Option<Exit>,
}

/// A child asked to stop that does not is killed after this.
const GRACE: Duration = Duration::from_secs(10);

/// The test error that epoch `epoch` of a spec with this seed comes to, in whichever attempt.
pub fn error_of(seed: u64, epoch: u32) -> f64 {
    ((seed.wrapping_mul(31) + u64::from(epoch)) % 9_973) as f64 / 100.0
}

impl World {
    pub fn spawn(&mut self, worker: usize, key: Key, assign: &Assign, until: Duration) {
        let spec = match Spec::from_json(&assign.spec_json) {
            Ok(spec) => spec,
            Err(why) => return self.wrong(format!("an assignment's spec cannot be read: {why}")),
        };
        let epochs = spec.train.epochs.clamp(1, 6);
        let checkpoint = assign.lineage.iter().find_map(|of| self.ledger.checkpoints.get(of).copied());
        let resumed_at = checkpoint.unwrap_or(0).min(epochs);
        let fate = self.draw_fate(resumed_at, epochs);
        self.ledger.children += 1;
        let number = self.ledger.children;
        let started = Started {
            resumed_at_epoch: resumed_at,
            resumed_from: "experiments/1/checkpoint-0001-a1.safetensors".into(),
            ..Started::default()
        };
        let mut said = vec![Body::Started(started)];
        // After a resume all earlier epochs are told again.
        let seed = spec.train.seed;
        said.extend((1..=resumed_at).map(|epoch| Body::Epoch(metrics(seed, epoch))));
        let child = Child {
            number,
            fate,
            seed,
            epoch: resumed_at,
            epochs,
            lines: 0,
            said,
            until,
            computes: false,
            busy: false,
            stopped: false,
            hangs: false,
            terminated: false,
            dying: false,
            exit: None,
        };
        self.note(format_args!(
            "w{worker} {}.{} child {number} starts at {resumed_at}: {fate:?}",
            key.0, key.1
        ));
        self.workers[worker].children.insert(key.clone(), child);
        self.go_on(worker, &key);
        self.take_in(worker, &key);
    }

    fn draw_fate(&mut self, from: u32, epochs: u32) -> Fate {
        let at = from + self.random.u32(0..=(epochs - from));
        let fails = if self.is_calm() { self.weather.fails.min(10) } else { self.weather.fails };
        if self.random.u32(..100) >= fails {
            return Fate::Succeeds;
        }
        match self.random.u32(..10) {
            0 => Fate::Fails(FailureClass::Diverged, at),
            1 => Fate::Fails(FailureClass::DataMissing, at),
            2 | 3 => Fate::Fails(FailureClass::DiskFull, at),
            4 | 5 => Fate::Fails(FailureClass::Device, at),
            6 | 7 => Fate::Dies(at),
            8 if !self.is_calm() => Fate::Hangs(at),
            _ => Fate::Vanishes(at),
        }
    }

    /// Computes, if its lease holds and nothing keeps it from it.
    fn go_on(&mut self, worker: usize, key: &Key) {
        let now = self.workers[worker].since_boot(self.now);
        let works_on = self.mutation == Some(Mutation::WorksOn);
        let Some(child) = self.workers[worker].children.get_mut(key) else { return };
        if child.stopped || child.exit.is_some() || child.computes || (now >= child.until && !works_on) {
            return;
        }
        child.computes = true;
        let (number, plans) = (child.number, !child.busy && !child.hangs && !child.dying);
        child.busy |= plans;
        self.ledger.computing.entry(key.0).or_default().push((worker, key.1, number));
        self.check_one_child(key.0);
        if plans {
            let step = self.between(1, self.weather.epoch_ms);
            self.after(step, Event::Step(worker, key.clone(), number));
        }
        self.watch_lease(worker, key);
    }

    /// It looks at its lease after each batch, so it stops a little after its end.
    fn watch_lease(&mut self, worker: usize, key: &Key) {
        let Some(child) = self.workers[worker].children.get(key) else { return };
        let (until, number) = (child.until, child.number);
        let ends = self.workers[worker].true_time(until) + self.between(0, 50);
        self.at(ends, Event::Lapse(worker, key.clone(), number));
    }

    /// It is told until when its lease holds.
    pub fn lease_holds(&mut self, worker: usize, key: &Key, until: Duration) {
        let Some(child) = self.workers[worker].children.get_mut(key) else { return };
        if until > child.until {
            child.until = until;
            self.go_on(worker, key);
            self.watch_lease(worker, key);
        }
    }

    /// Its lease may have run out.
    pub fn child_lapses(&mut self, worker: usize, key: &Key, number: u64) {
        let now = self.workers[worker].since_boot(self.now);
        let Some(child) = self.workers[worker].children.get(key) else { return };
        if child.number == number && now >= child.until && self.mutation != Some(Mutation::WorksOn) {
            self.computes_no_more(worker, key);
        }
    }

    /// It is parked, stopped or gone.
    pub fn computes_no_more(&mut self, worker: usize, key: &Key) {
        let Some(child) = self.workers[worker].children.get_mut(key) else { return };
        if std::mem::take(&mut child.computes) {
            let number = child.number;
            if let Some(computing) = self.ledger.computing.get_mut(&key.0) {
                computing.retain(|(_, _, other)| *other != number);
            }
        }
    }

    /// Its next step is done.
    pub fn child_step(&mut self, worker: usize, key: &Key, number: u64) {
        let Some(child) = self.workers[worker].children.get_mut(key).filter(|c| c.number == number) else {
            return;
        };
        child.busy = false;
        if !child.computes {
            // Parked or stopped in the middle of it; `go_on` plans it anew.
            return;
        }
        if child.dying {
            return;
        }
        match child.fate {
            Fate::Fails(class, at) if at == child.epoch => {
                let message = "simulated".to_owned();
                let outcome = Outcome { kind: Kind::Failed.into(), failure: class.into(), message };
                child.said.push(Body::Outcome(outcome));
                self.ends(worker, key, Exit::Code);
            }
            Fate::Dies(at) if at == child.epoch => self.ends(worker, key, Exit::Signal),
            Fate::Vanishes(at) if at == child.epoch => self.ends(worker, key, Exit::Code),
            Fate::Hangs(at) if at == child.epoch && self.now < self.weather.calm_at => {
                self.workers[worker].children.entry(key.clone()).and_modify(|child| child.hangs = true);
            }
            _ if child.epoch == child.epochs => {
                child.said.push(Body::Figures(Figures { best_epoch: child.epochs, ..Figures::default() }));
                let outcome = Outcome { kind: Kind::Succeeded.into(), ..Outcome::default() };
                child.said.push(Body::Outcome(outcome));
                self.ends(worker, key, Exit::Code);
            }
            _ => self.epoch(worker, key),
        }
        self.take_in(worker, key);
    }

    fn epoch(&mut self, worker: usize, key: &Key) {
        let step = self.between(1, self.weather.epoch_ms);
        let Some(child) = self.workers[worker].children.get_mut(key) else { return };
        child.epoch += 1;
        child.lines += 1;
        child.busy = true;
        let (epoch, number) = (child.epoch, child.number);
        let text = format!("child {number} line {}", child.lines);
        child.said.push(Body::Log(LogLine { text, ..LogLine::default() }));
        child.said.push(Body::Epoch(metrics(child.seed, epoch)));
        child.said.push(Body::Artifact(Artifact {
            kind: ArtifactKind::Checkpoint.into(),
            name: format!("experiments/{}/checkpoint-{epoch:04}-a{}.safetensors", key.0, key.1),
            sha256: format!("{epoch:064}"),
            bytes: 1,
            epoch,
            ..Artifact::default()
        }));
        let newest = self.ledger.checkpoints.entry(key.0).or_default();
        *newest = (*newest).max(epoch);
        self.after(step, Event::Step(worker, key.clone(), number));
    }

    /// It said its last word, or died; the process is gone a moment later.
    fn ends(&mut self, worker: usize, key: &Key, exit: Exit) {
        let Some(child) = self.workers[worker].children.get_mut(key) else { return };
        let number = child.number;
        child.dying = true;
        let linger_ms = if self.random.bool() { 9_000 } else { 1_000 };
        let linger = if exit == Exit::Signal { Duration::ZERO } else { self.between(0, linger_ms) };
        self.after(linger, Event::Gone(worker, key.clone(), number, exit));
    }

    /// SIGTERM: it ends in good order, unless it cannot.
    pub fn terminate(&mut self, worker: usize, key: &Key) {
        let wait = self.between(0, 3_000);
        let Some(child) = self.workers[worker].children.get_mut(key) else { return };
        if std::mem::replace(&mut child.terminated, true) {
            return;
        }
        let (number, able) = (child.number, child.computes && !child.hangs && !child.dying);
        let (wait, exit) = if able { (wait, Exit::Code) } else { (GRACE, Exit::Signal) };
        if able {
            child.dying = true;
            let failure = FailureClass::Interrupted.into();
            let outcome = Outcome { kind: Kind::Failed.into(), failure, message: "asked to stop".into() };
            child.said.push(Body::Outcome(outcome));
        }
        self.after(wait, Event::Gone(worker, key.clone(), number, exit));
    }

    /// SIGKILL.
    pub fn kill(&mut self, worker: usize, key: &Key) {
        let soon = self.between(0, 5);
        let Some(child) = self.workers[worker].children.get(key) else { return };
        let number = child.number;
        self.after(soon, Event::Gone(worker, key.clone(), number, Exit::Signal));
    }

    /// The process is gone.
    pub fn child_gone(&mut self, worker: usize, key: &Key, number: u64, exit: Exit) {
        let Some(child) = self.workers[worker].children.get_mut(key).filter(|c| c.number == number) else {
            return;
        };
        child.exit.get_or_insert(exit);
        self.computes_no_more(worker, key);
        self.take_in(worker, key);
    }

    fn some_child(&mut self, worker: usize) -> Option<Key> {
        let keys: Vec<Key> = self.workers[worker].children.keys().cloned().collect();
        if keys.is_empty() { None } else { Some(keys[self.random.usize(..keys.len())].clone()) }
    }

    pub fn kill_some_child(&mut self, worker: usize) {
        if let Some(key) = self.some_child(worker) {
            self.kill(worker, &key);
        }
    }

    pub fn stop_some_child(&mut self, worker: usize) {
        let Some(key) = self.some_child(worker) else { return };
        self.computes_no_more(worker, &key);
        self.workers[worker].children.entry(key).and_modify(|child| child.stopped = true);
        self.mend_later(Fault::ChildStops(worker));
    }

    /// SIGCONT for all children of a worker; once it is calm, also what hangs goes on.
    pub fn children_go_on(&mut self, worker: usize) {
        let calm = self.is_calm();
        let keys: Vec<Key> = self.workers[worker].children.keys().cloned().collect();
        for key in keys {
            self.workers[worker].children.entry(key.clone()).and_modify(|child| {
                child.stopped = false;
                child.hangs &= !calm;
            });
            if calm {
                self.computes_no_more(worker, &key);
            }
            self.go_on(worker, &key);
        }
    }
}

fn metrics(seed: u64, epoch: u32) -> EpochMetrics {
    EpochMetrics { epoch, test_top1_error: error_of(seed, epoch), ..EpochMetrics::default() }
}

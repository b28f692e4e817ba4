//! Threads that take an image through the network together.
//!
//! Between two calls they look out for the next for some microseconds, then sleep: a caller that goes on at once finds them awake,
//! and one that is idle costs nothing.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use crate::barrier::Broken;
use crate::pass::{Member, Pass};
use crate::{Error, Model};

/// Turns of looking out for the next call before a thread sleeps: some tens of microseconds.
const TURNS: u32 = 1024;

/// The call that ends a team.
const END: usize = usize::MAX;

/// A pass, and the threads that make it together with the caller's.
#[derive(Debug)]
pub(crate) struct Team {
    shared: Arc<Shared>,
    /// The caller's place.
    member: Member,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    model: Arc<Model>,
    pass: Pass,
    /// Calls so far.
    calls: AtomicUsize,
    asleep: Mutex<()>,
    wake: Condvar,
}

impl Team {
    /// # Errors
    /// When the threads cannot be started.
    pub fn new(model: &Arc<Model>, threads: usize) -> Result<Team, Error> {
        let shared = Arc::new(Shared {
            model: model.clone(),
            pass: Pass::new(&model.packed, threads),
            calls: AtomicUsize::new(0),
            asleep: Mutex::new(()),
            wake: Condvar::new(),
        });
        let mut team = Team { shared, member: Member::new(0), threads: Vec::new() };
        for number in 1..threads {
            let shared = team.shared.clone();
            let started = thread::Builder::new()
                .name(format!("cnx-engine-{number}"))
                .spawn(move || shared.work(number));
            team.threads.push(started.map_err(|error| Error::Threads(error.to_string()))?);
        }
        Ok(team)
    }

    /// The logits of an image.
    ///
    /// # Errors
    /// When a thread has died.
    pub fn logits(&mut self, image: &[f32], logits: &mut [f32]) -> Result<(), Error> {
        let Shared { model, pass, .. } = &*self.shared;
        self.shared.call(|calls| calls.wrapping_add(1) % END);
        let ran = pass.run(&model.packed, model.vectors, &mut self.member, Some(image));
        ran.map_err(|Broken| Error::Threads("one of them has died".to_owned()))?;
        pass.logits(logits);
        Ok(())
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.call(|_| END);
        for thread in self.threads.drain(..) {
            // What it died of has been told.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn call(&self, next: impl Fn(usize) -> usize) {
        let _awake = self.asleep.lock().unwrap_or_else(PoisonError::into_inner);
        self.calls.store(next(self.calls.load(Ordering::Relaxed)), Ordering::Release);
        self.wake.notify_all();
    }

    /// The next call after `seen`.
    fn next(&self, seen: usize) -> usize {
        for _ in 0..TURNS {
            let calls = self.calls.load(Ordering::Acquire);
            if calls != seen {
                return calls;
            }
            spin_loop();
        }
        let mut asleep = self.asleep.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let calls = self.calls.load(Ordering::Acquire);
            if calls != seen {
                return calls;
            }
            asleep = self.wake.wait(asleep).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A thread's life.
    fn work(&self, number: usize) {
        // Whatever ends it, nobody waits for it any more.
        let _last = Last(&self.pass);
        let mut member = Member::new(number);
        let mut seen = 0;
        loop {
            seen = self.next(seen);
            if seen == END
                || self.pass.run(&self.model.packed, self.model.vectors, &mut member, None).is_err()
            {
                return;
            }
        }
    }
}

struct Last<'a>(&'a Pass);

impl Drop for Last<'_> {
    fn drop(&mut self) {
        self.0.break_up();
    }
}

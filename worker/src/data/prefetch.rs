//! Prepares numbered jobs ahead on threads, and hands their results out in order.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// An iterator over the results of jobs 0 … n − 1, whatever thread makes them and whenever. Bounded: results that are ready or
/// under way are never more than was said. When it is dropped, the threads end with the job they are at.
pub(super) struct Prefetch<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    /// A result was taken: there is room for another job.
    room: Condvar,
    /// A result is there, or none will come.
    ready: Condvar,
    jobs: usize,
}

struct State<T> {
    /// The results of the jobs from `taken` on, as far as jobs were started; none yet of those under way.
    results: VecDeque<Option<T>>,
    taken: usize,
    /// A job panicked, or nobody wants results any more.
    over: bool,
}

impl<T: Send + 'static> Prefetch<T> {
    /// `ahead`: how many results may be ready or under way; at least one a thread.
    pub(super) fn new(
        jobs: usize,
        threads: usize,
        ahead: usize,
        job: impl Fn(usize) -> T + Send + Sync + 'static,
    ) -> Self {
        let threads = threads.clamp(1, jobs.max(1));
        let ahead = ahead.max(threads);
        let state = State { results: VecDeque::with_capacity(ahead), taken: 0, over: false };
        let (room, ready) = (Condvar::new(), Condvar::new());
        let shared = Arc::new(Shared { state: Mutex::new(state), room, ready, jobs });
        let job = Arc::new(job);
        for _ in 0..threads {
            let (shared, job) = (Arc::clone(&shared), Arc::clone(&job));
            thread::spawn(move || {
                while let Some(number) = shared.start(ahead) {
                    let guard = EndsWhenJobPanics(&shared);
                    let result = job(number);
                    std::mem::forget(guard);
                    shared.finish(number, result);
                }
            });
        }
        Prefetch { shared }
    }
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for room and takes the next job; none when all are taken.
    fn start(&self, ahead: usize) -> Option<usize> {
        let mut state = self.lock();
        loop {
            let next = state.taken + state.results.len();
            if state.over || next == self.jobs {
                return None;
            }
            if state.results.len() < ahead {
                state.results.push_back(None);
                return Some(next);
            }
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn finish(&self, number: usize, result: T) {
        let mut state = self.lock();
        let place = number - state.taken;
        if let Some(slot) = state.results.get_mut(place) {
            *slot = Some(result);
        }
        if place == 0 {
            self.ready.notify_one();
        }
    }

    fn end(&self) {
        self.lock().over = true;
        self.room.notify_all();
        self.ready.notify_all();
    }
}

/// Dropped only while a job's panic unwinds: who waits for its result must hear that none comes.
struct EndsWhenJobPanics<'a, T>(&'a Shared<T>);

impl<T> Drop for EndsWhenJobPanics<'_, T> {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl<T> Iterator for Prefetch<T> {
    type Item = T;

    /// Ends early only where a job panicked.
    fn next(&mut self) -> Option<T> {
        let mut state = self.shared.lock();
        loop {
            if state.taken == self.shared.jobs {
                return None;
            }
            if let Some(Some(_)) = state.results.front() {
                state.taken += 1;
                self.shared.room.notify_one();
                return state.results.pop_front().flatten();
            }
            if state.over {
                return None;
            }
            state = self.shared.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<T> Drop for Prefetch<T> {
    fn drop(&mut self) {
        self.shared.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn results_come_in_order_whatever_the_threads_and_the_room() {
        for (threads, ahead) in [(1, 1), (2, 2), (3, 7), (7, 3), (100, 1000)] {
            let results: Vec<usize> = Prefetch::new(50, threads, ahead, |n| n * n).collect();
            assert_eq!(results, (0..50).map(|n| n * n).collect::<Vec<_>>());
        }
        assert_eq!(Prefetch::new(0, 2, 2, |n| n).count(), 0);
    }

    #[test]
    fn no_more_is_prepared_than_the_bound() {
        let started = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&started);
        let prefetch = Prefetch::new(1000, 2, 6, move |n| {
            counter.fetch_add(1, Ordering::SeqCst);
            n
        });
        for (taken, n) in prefetch.enumerate() {
            assert_eq!(n, taken);
            assert!(started.load(Ordering::SeqCst) <= taken + 1 + 6);
        }
    }

    #[test]
    fn one_slow_job_does_not_keep_the_other_threads_from_working_ahead() {
        // Job 0 ends only once job 5 has begun: it takes the room that the bound gives, and no thread of its own.
        let (sender, receiver) = std::sync::mpsc::channel();
        let receiver = Mutex::new(receiver);
        let sender = Mutex::new(sender);
        let job = move |n: usize| {
            match n {
                0 => receiver.lock().unwrap().recv().unwrap(),
                5 => sender.lock().unwrap().send(()).unwrap(),
                _ => {}
            }
            n
        };
        assert_eq!(Prefetch::new(8, 2, 6, job).collect::<Vec<_>>(), (0..8).collect::<Vec<_>>());
    }

    #[test]
    fn a_panic_in_a_job_ends_the_results_and_nobody_waits_for_ever() {
        let results: Vec<usize> =
            Prefetch::new(20, 2, 4, |n| if n == 7 { panic!("a defect") } else { n }).collect();
        assert_eq!(results, (0..7).collect::<Vec<_>>());
    }
}

//! Prepares numbered jobs ahead on threads, and hands their results out in order.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

/// Results that each thread may have ready and not yet taken.
const AHEAD: usize = 2;

/// An iterator over the results of jobs 0 … n − 1. Bounded: it never holds more than a few results a thread. When it is
/// dropped, the threads end at their next result.
pub(super) struct Prefetch<T> {
    /// Thread t makes the results t, t + threads, t + 2·threads, …
    threads: Vec<Receiver<T>>,
    next: usize,
    jobs: usize,
}

impl<T: Send + 'static> Prefetch<T> {
    pub(super) fn new(jobs: usize, threads: usize, job: impl Fn(usize) -> T + Send + Sync + 'static) -> Self {
        let job = Arc::new(job);
        let threads = threads.clamp(1, jobs.max(1));
        let start = |first: usize| {
            let (sender, receiver) = sync_channel(AHEAD);
            let job = Arc::clone(&job);
            thread::spawn(move || {
                for number in (first..jobs).step_by(threads) {
                    if sender.send(job(number)).is_err() {
                        break;
                    }
                }
            });
            receiver
        };
        Prefetch { threads: (0..threads).map(start).collect(), next: 0, jobs }
    }
}

impl<T> Iterator for Prefetch<T> {
    type Item = T;

    /// Ends early only where a job panicked.
    fn next(&mut self) -> Option<T> {
        if self.next == self.jobs {
            return None;
        }
        let result = self.threads[self.next % self.threads.len()].recv().ok()?;
        self.next += 1;
        Some(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_whatever_the_threads() {
        for threads in [1, 2, 3, 7, 100] {
            let results: Vec<usize> = Prefetch::new(20, threads, |n| n * n).collect();
            assert_eq!(results, (0..20).map(|n| n * n).collect::<Vec<_>>());
        }
        assert_eq!(Prefetch::new(0, 2, |n| n).count(), 0);
    }

    #[test]
    fn no_more_is_prepared_than_the_bound() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        let made = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&made);
        let mut prefetch = Prefetch::new(1000, 2, move |n| {
            counter.fetch_add(1, Ordering::SeqCst);
            n
        });
        assert_eq!(prefetch.next(), Some(0));
        drop(prefetch);
        assert!(made.load(Ordering::SeqCst) <= 1 + 2 * (AHEAD + 1));
    }
}

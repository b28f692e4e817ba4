//! Threads, each of which takes a part of the batch, always the same.

use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};

/// Threads that wait for work.
#[derive(Debug)]
pub struct Threads {
    pool: rayon::ThreadPool,
    count: usize,
}

impl Threads {
    /// So many threads, at least one.
    ///
    /// # Errors
    /// When they cannot be started.
    pub fn new(count: usize) -> Result<Threads, String> {
        let count = count.max(1);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(count).build();
        let pool = pool.map_err(|e| format!("cannot start {count} threads: {e}"))?;
        Ok(Threads { pool, count })
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Images that each thread takes of a batch; the last takes what is left.
    pub fn share(&self, images: usize) -> usize {
        images.div_ceil(self.count).max(1)
    }

    /// Does each part on a thread of its own, and returns when all are done.
    pub fn run<P: Send>(&self, parts: Vec<P>, work: impl Fn(P) + Send + Sync) {
        match parts.len() {
            0 => {}
            1 => parts.into_iter().for_each(work),
            _ => self.pool.install(|| parts.into_par_iter().with_max_len(1).for_each(work)),
        }
    }
}

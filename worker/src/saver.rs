//! Writes checkpoints off the training path: the training copies itself to the host between two steps and goes on, and a thread
//! encodes, hashes, syncs and renames.
//!
//! Whoever hears of an epoch can rely on its checkpoint: it is told of once that is on the disk, in order. Bounded: one is being
//! written and at most one waits, so only a training whose epochs are shorter than a checkpoint's writing waits for the disk.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender, SyncSender, TryRecvError, channel, sync_channel};
use std::thread::{Builder, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use cnx_proto::v1::{Artifact, EpochMetrics, report::Body};

use crate::checkpoint::{Keeper, Snapshot};
use crate::failure::{Failure, Result};
use crate::record::Position;
use crate::reporter::{Reporter, log};

/// Snapshots that wait while one is being written.
const WAITING: usize = 1;

/// The thread that writes, as the training sees it.
#[derive(Debug)]
pub struct Saver<'scope> {
    snapshots: SyncSender<Snapshot>,
    saved: Receiver<Result<Vec<Artifact>>>,
    thread: ScopedJoinHandle<'scope, ()>,
    /// What is to be told once each snapshot that was handed over is on the disk, the oldest first.
    under_way: VecDeque<Option<EpochMetrics>>,
    epochs: u32,
    /// Between two checkpoints in the middle of an epoch.
    every: Duration,
    last: Instant,
    position: Position,
}

impl<'scope> Saver<'scope> {
    /// Starts the thread, for a training that stands at `position`, from which it can be gone on from already.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn start(
        scope: &'scope Scope<'scope, '_>,
        keeper: &'scope Keeper,
        every: Duration,
        position: Position,
    ) -> Result<Saver<'scope>> {
        let (snapshots, inbox) = sync_channel(WAITING);
        let (tell, saved) = channel();
        let thread = Builder::new().name("checkpoints".to_owned());
        let thread = thread
            .spawn_scoped(scope, move || write(keeper, &inbox, &tell))
            .map_err(|error| Failure::internal(format!("cannot start the thread that saves: {error}")))?;
        let (under_way, epochs, last) = (VecDeque::new(), keeper.spec().train.epochs, Instant::now());
        Ok(Saver { snapshots, saved, thread, under_way, epochs, every, last, position })
    }

    /// Whether it is time for a checkpoint, in the middle of an epoch. Never while one is under way: a slow disk
    /// gets fewer of them.
    pub fn is_due(&self) -> bool {
        self.under_way.is_empty() && self.last.elapsed() >= self.every
    }

    /// Whether a training at `position` has been saved already, or handed over.
    pub fn has(&self, position: Position) -> bool {
        self.position == position
    }

    /// Hands a snapshot over. With `epoch`, that is told of once it is on the disk.
    ///
    /// # Errors
    /// What went wrong with this or an earlier one.
    pub fn save(
        &mut self,
        snapshot: Snapshot,
        epoch: Option<EpochMetrics>,
        reporter: &mut Reporter,
    ) -> Result<()> {
        (self.last, self.position) = (Instant::now(), snapshot.position());
        if self.snapshots.send(snapshot).is_err() {
            // The thread has ended: with an error, which it left for us.
            self.await_all(reporter)?;
            return Err(died());
        }
        self.under_way.push_back(epoch);
        Ok(())
    }

    /// Tells of what is on the disk by now.
    ///
    /// # Errors
    /// What went wrong with a snapshot, or when nobody listens any more.
    pub fn take_in(&mut self, reporter: &mut Reporter) -> Result<()> {
        while !self.under_way.is_empty() {
            match self.saved.try_recv() {
                Ok(saved) => self.tell(saved?, reporter)?,
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Err(died()),
            }
        }
        Ok(())
    }

    /// Waits until all is on the disk, and tells of it.
    ///
    /// # Errors
    /// As [`Saver::take_in`].
    pub fn await_all(&mut self, reporter: &mut Reporter) -> Result<()> {
        while !self.under_way.is_empty() {
            let saved = self.saved.recv().map_err(|_| died())?;
            self.tell(saved?, reporter)?;
        }
        Ok(())
    }

    /// Ends the thread, once all is on the disk and told of.
    ///
    /// # Errors
    /// As [`Saver::take_in`].
    pub fn end(mut self, reporter: &mut Reporter) -> Result<()> {
        let all = self.await_all(reporter);
        drop(self.snapshots);
        self.thread.join().map_err(|_| died())?;
        all
    }

    fn tell(&mut self, saved: Vec<Artifact>, reporter: &mut Reporter) -> Result<()> {
        if let Some(metrics) = self.under_way.pop_front().flatten() {
            let EpochMetrics { epoch, train_loss, test_top1_error, images_per_s, .. } = metrics;
            log(format!(
                "epoch {epoch} of {}: loss {train_loss:.4}, test top-1 error {test_top1_error:.2} %, {images_per_s:.0} images/s",
                self.epochs
            ));
            reporter.tell(Body::Epoch(metrics))?;
        }
        saved.into_iter().try_for_each(|artifact| reporter.tell(Body::Artifact(artifact)))
    }
}

/// Until nobody hands over any more, or something goes wrong.
fn write(keeper: &Keeper, inbox: &Receiver<Snapshot>, tell: &Sender<Result<Vec<Artifact>>>) {
    for snapshot in inbox {
        let saved = keeper.save(snapshot);
        let failed = saved.is_err();
        if tell.send(saved).is_err() || failed {
            break;
        }
    }
}

fn died() -> Failure {
    Failure::internal("the thread that saves checkpoints died")
}

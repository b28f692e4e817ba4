//! Sums the figures of an epoch's steps.

use std::time::Instant;

use cnx_proto::v1::FailureClass;
use tch::{Kind, Tensor};

use crate::failure::{Failure, Result};
use crate::model::state::to_host;
use crate::record::UnderWay;
use crate::step::StepFigures;

/// The sums of one epoch. Figures stay on the device until they are read, so that no step waits for it; they are added one by
/// one in the order of the steps, so that the sums do not depend on when that is.
#[derive(Debug)]
pub struct Meter {
    first_step: u64,
    steps: u64,
    images: u64,
    /// The images of each step that was not read.
    pending: Vec<usize>,
    waiting: Waiting,
    /// Of the steps that were read.
    sums: UnderWay,
    /// Since when the clock runs.
    running: Option<Instant>,
}

/// Where the figures of steps that were not read wait.
#[derive(Debug)]
enum Waiting {
    /// One by one.
    Steps(Vec<StepFigures>),
    /// In the rows of a table, a row for each step of the epoch: loss, images that were right, lasso.
    Table(Tensor),
}

impl Meter {
    /// Of the epoch whose first step (from 0 over all epochs) this is, going on from where an earlier attempt left it.
    pub fn new(first_step: u64, under_way: Option<UnderWay>) -> Meter {
        let sums = under_way.unwrap_or_default();
        let UnderWay { steps, images, .. } = sums;
        let (pending, waiting) = (Vec::new(), Waiting::Steps(Vec::new()));
        Meter { first_step, steps, images, pending, waiting, sums, running: None }
    }

    /// From now on figures are found in a table [steps of the epoch, 3], which steps fill on the device.
    pub fn read_from(&mut self, table: &Tensor) {
        self.waiting = Waiting::Table(table.shallow_clone());
    }

    /// Counts time from now on.
    pub fn start_clock(&mut self) {
        self.running.get_or_insert_with(Instant::now);
    }

    /// Counts no more time.
    pub fn stop_clock(&mut self) {
        self.sums.train_wall_s = self.wall_s();
        self.running = None;
    }

    /// Steps done.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The step that comes next, from 0 over all epochs.
    pub fn next_step(&self) -> u64 {
        self.first_step + self.steps
    }

    /// Takes the figures of a step over some images.
    pub fn add(&mut self, figures: StepFigures, images: usize) {
        if let Waiting::Steps(waiting) = &mut self.waiting {
            waiting.push(figures);
        }
        self.add_noted(images);
    }

    /// Counts a step over some images, whose figures are in the table.
    pub fn add_noted(&mut self, images: usize) {
        self.pending.push(images);
        self.steps += 1;
        self.images += images as u64;
    }

    /// Fetches the figures of the steps since the last time.
    ///
    /// # Errors
    /// DIVERGED when one is not finite, with the step that made it.
    pub fn read(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let values = match &mut self.waiting {
            Waiting::Steps(waiting) => fetch(&std::mem::take(waiting))?,
            Waiting::Table(table) => {
                to_host(&table.f_narrow(0, self.sums.steps as i64, self.pending.len() as i64)?)?
            }
        };
        let first = self.next_step() - self.pending.len() as u64;
        for (step, (figures, images)) in (first..).zip(values.chunks_exact(3).zip(self.pending.drain(..))) {
            let [loss, right, lasso] = [figures[0], figures[1], figures[2]];
            if !loss.is_finite() || !lasso.is_finite() {
                return Err(diverged(loss, step));
            }
            self.sums.loss += loss * images as f64;
            self.sums.right += right;
            self.sums.lasso += lasso;
        }
        (self.sums.steps, self.sums.images) = (self.steps, self.images);
        Ok(())
    }

    /// The sums over all steps so far, for a checkpoint.
    ///
    /// # Errors
    /// As [`Meter::read`].
    pub fn under_way(&mut self) -> Result<UnderWay> {
        self.read()?;
        Ok(UnderWay { train_wall_s: self.wall_s(), ..self.sums })
    }

    /// Mean cross-entropy, an image.
    pub fn mean_loss(&self) -> f64 {
        self.sums.loss / self.images.max(1) as f64
    }

    /// Mean Σ of the group lasso, a step.
    pub fn mean_lasso(&self) -> f64 {
        self.sums.lasso / self.steps.max(1) as f64
    }

    /// Per cent of the images whose class was wrong.
    pub fn top1_error(&self) -> f64 {
        100.0 * (self.images as f64 - self.sums.right) / self.images.max(1) as f64
    }

    /// Seconds that the steps took, in all attempts.
    pub fn wall_s(&self) -> f64 {
        self.sums.train_wall_s + self.running.map_or(0.0, |since| since.elapsed().as_secs_f64())
    }

    /// Images a second.
    pub fn images_per_s(&self) -> f64 {
        self.images as f64 / self.wall_s().max(1e-9)
    }
}

/// Loss, images that were right and lasso of each step, in one copy from the device.
fn fetch(steps: &[StepFigures]) -> Result<Vec<f64>> {
    let mut tensors = Vec::new();
    for StepFigures { loss, right, lasso } in steps {
        tensors.push(loss.f_to_kind(Kind::Double)?);
        tensors.push(right.shallow_clone());
        tensors.push(match lasso {
            Some(lasso) => lasso.f_to_kind(Kind::Double)?,
            None => right.f_zeros_like()?,
        });
    }
    to_host(&Tensor::f_stack(&tensors, 0)?)
}

fn diverged(loss: f64, step: u64) -> Failure {
    let what = if loss.is_nan() { "NaN" } else { "infinite" };
    let message = format!("{what} loss at step {} (from 1): the training diverged; lower train.lr", step + 1);
    Failure::new(FailureClass::Diverged, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(loss: f64) -> StepFigures {
        let tensor = |x: f64| Tensor::from(x);
        StepFigures { loss: tensor(loss), right: tensor(3.0), lasso: Some(tensor(loss / 7.0)) }
    }

    #[test]
    fn sums_that_went_through_a_checkpoint_have_the_same_bits() {
        let mut whole = Meter::new(10, None);
        let mut cut = Meter::new(10, None);
        for step in 0..50 {
            let loss = 1.0 / f64::from(3 + step);
            whole.add(figures(loss), 7);
            cut = Meter::new(10, Some(cut.under_way().unwrap()));
            cut.add(figures(loss), 7);
        }
        let (whole_sums, cut_sums) = (whole.under_way().unwrap(), cut.under_way().unwrap());
        assert_eq!(whole_sums, cut_sums);
        assert_eq!((whole.next_step(), cut.next_step()), (60, 60));
        assert_eq!(whole.mean_lasso().to_bits(), cut.mean_lasso().to_bits());
    }

    #[test]
    fn figures_in_a_table_are_the_same_sums() {
        let losses = [0.5, 1.0 / 3.0, 0.1, 7.0];
        let rows: Vec<[f64; 3]> = losses.iter().map(|loss| [*loss, 3.0, loss / 7.0]).collect();
        let mut one_by_one = Meter::new(10, None);
        let mut table = Meter::new(10, None);
        table.read_from(&Tensor::from_slice2(&rows));
        for (i, loss) in losses.into_iter().enumerate() {
            one_by_one.add(figures(loss), 7);
            table.add_noted(7);
            if i == 1 {
                table.read().unwrap();
            }
        }
        assert_eq!(table.under_way().unwrap(), one_by_one.under_way().unwrap());
    }

    #[test]
    fn the_clock_counts_while_it_runs_and_what_earlier_attempts_took() {
        let mut meter = Meter::new(0, Some(UnderWay { train_wall_s: 100.0, ..UnderWay::default() }));
        assert_eq!(meter.wall_s(), 100.0);
        meter.start_clock();
        meter.stop_clock();
        let stopped = meter.wall_s();
        assert!(stopped >= 100.0);
        assert_eq!(meter.under_way().unwrap().train_wall_s, stopped);
    }

    #[test]
    fn a_loss_that_is_no_number_is_told_with_its_step() {
        let mut meter = Meter::new(10, None);
        meter.add(figures(1.0), 7);
        meter.add(figures(f64::NAN), 7);
        let failure = meter.under_way().unwrap_err();
        assert_eq!(failure.class, FailureClass::Diverged);
        assert!(failure.message.contains("NaN loss at step 12"), "{failure}");
    }
}

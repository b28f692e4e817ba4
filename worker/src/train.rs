//! Training: one loop over epochs and steps (paper, section 4.1). It can be stopped between any two steps, and in the evaluation
//! after an epoch: a checkpoint then holds all that the next attempt needs to go on from there.

use std::time::Duration;

use cnx_proto::Spec;
use cnx_proto::v1::{EpochMetrics, Errors, FailureClass, Phase, Progress};

use crate::checkpoint::{Keeper, Snapshot};
use crate::condensing;
use crate::cpu_step::CpuStep;
use crate::data::Data;
use crate::data::batches::{self, Batch, Batches, Normalisation};
use crate::device_step::DeviceStep;
use crate::evaluate::evaluate;
use crate::failure::{Failure, Result};
use crate::learning_rate::learning_rate;
use crate::meter::Meter;
use crate::model::Network;
use crate::optimizer::Sgd;
use crate::record::Record;
use crate::reporter::{Reporter, log};
use crate::saver::Saver;
use crate::step::{StepFigures, StepSettings, train_step};
use crate::stop::Stop;

/// Those that an attempt works with.
pub struct Bench<'a> {
    /// What to compute.
    pub spec: &'a Spec,
    /// From what.
    pub data: &'a Data,
    /// Where files go.
    pub keeper: &'a Keeper,
    /// Between two checkpoints in the middle of an epoch.
    pub checkpoint_every: Duration,
    /// Who is told.
    pub reporter: &'a mut Reporter,
    /// Who may interrupt.
    pub stop: &'a Stop,
}

impl Bench<'_> {
    /// What follows an interruption, once nothing would be lost by the end of this process. Where only the lease ran out, it waits
    /// until that holds again.
    ///
    /// # Errors
    /// The interruption, where a stop was asked for, before or meanwhile.
    pub fn park(&mut self, interrupted: Failure) -> Result<()> {
        if self.stop.is_requested() {
            return Err(interrupted);
        }
        log("parked: the lease ran out, and no coordinator answered");
        self.reporter.parked()?;
        self.stop.wait_for_lease()?;
        log("going on: the lease holds again");
        Ok(())
    }
}

/// Trains from where `record` stands to the last epoch, with a checkpoint an epoch, in the middle of long ones, and when
/// interrupted. All of them are on the disk and told of when this returns.
///
/// # Errors
/// DIVERGED when the loss is not finite, INTERRUPTED when asked to stop, and whatever libtorch or the disk says.
pub fn train(
    bench: &mut Bench<'_>,
    network: &mut Network,
    optimizer: &mut Sgd,
    record: &mut Record,
) -> Result<()> {
    let normalisation = Normalisation::new(bench.spec, network.state().kind(), network.state().device())?;
    let pace = Pace::new(bench.spec, bench.data.train.len());
    let kernels = CpuStep::new(bench.spec, network)?;
    let device_step = DeviceStep::new(bench.spec, &bench.data.train, network, optimizer)?;
    let (keeper, every) = (bench.keeper, bench.checkpoint_every);
    std::thread::scope(|scope| {
        let saver = Saver::start(scope, keeper, every, record.position())?;
        let mut training =
            Training { bench, network, optimizer, record, kernels, device_step, normalisation, pace, saver };
        let trained = training.epochs();
        let Training { bench, saver, .. } = training;
        let saved = saver.end(bench.reporter);
        match trained {
            // Whoever hears of an interruption relies on the checkpoint, too.
            Err(failure) if failure.class == FailureClass::Interrupted => saved.and(Err(failure)),
            trained => trained.and(saved),
        }
    })
}

/// A training under way.
struct Training<'t, 'b, 'scope> {
    bench: &'t mut Bench<'b>,
    network: &'t mut Network,
    optimizer: &'t mut Sgd,
    /// The epochs that are done.
    record: &'t mut Record,
    /// Take the steps where they can; else libtorch does.
    kernels: Option<CpuStep>,
    /// Takes them, and the images too, where there is one.
    device_step: Option<DeviceStep>,
    normalisation: Normalisation,
    pace: Pace<'b>,
    saver: Saver<'scope>,
}

impl Training<'_, '_, '_> {
    fn epochs(&mut self) -> Result<()> {
        while self.record.epochs_done < self.bench.spec.train.epochs {
            let epoch = self.record.epochs_done;
            let first_step = self.pace.steps_per_epoch * u64::from(epoch);
            let mut meter = Meter::new(first_step, self.record.under_way.take());
            let metrics = loop {
                match self.epoch(epoch, &mut meter) {
                    Err(failure) if failure.class == FailureClass::Interrupted => {
                        self.interrupted(failure, &mut meter)?;
                    }
                    done => break done?,
                }
            };
            self.keep_epoch(metrics)?;
        }
        Ok(())
    }

    /// Has all put on the disk as it stands; then it ends or, if only the lease ran out, goes on from there later.
    fn interrupted(&mut self, failure: Failure, meter: &mut Meter) -> Result<()> {
        meter.stop_clock();
        self.keep_middle(meter)?;
        self.saver.await_all(self.bench.reporter)?;
        self.bench.park(failure)
    }

    /// An epoch (from 0), from the step at which the meter stands to its evaluation. When interrupted, it stands between two steps.
    fn epoch(&mut self, epoch: u32, meter: &mut Meter) -> Result<EpochMetrics> {
        meter.start_clock();
        let mut batches = self.start_epoch(epoch, meter)?;
        while meter.steps() < self.pace.steps_per_epoch {
            self.between_steps(meter)?;
            self.network.condense_to(self.pace.stage(meter.next_step()))?;
            self.next_step(&mut batches, meter)?;
            if self.bench.reporter.progress_is_due() {
                let progress = self.pace.progress(epoch, meter)?;
                self.bench.reporter.progress(progress);
            }
        }
        meter.read()?;
        meter.stop_clock();
        self.finish_epoch(epoch, meter)
    }

    /// The batches of the steps that are left of an epoch; none where the device has them already.
    fn start_epoch(&mut self, epoch: u32, meter: &mut Meter) -> Result<Option<Batches>> {
        let Bench { spec, data, .. } = *self.bench;
        let Some(device_step) = &mut self.device_step else {
            let device = self.network.state().device();
            let done = meter.steps() as usize;
            return Ok(Some(batches::training_from(&data.train, spec, epoch, done, device)));
        };
        device_step.start_epoch(spec, epoch, meter.steps(), &self.pace.learning_rates(epoch))?;
        meter.read_from(device_step.figures());
        Ok(None)
    }

    fn next_step(&mut self, batches: &mut Option<Batches>, meter: &mut Meter) -> Result<()> {
        let train = &self.bench.spec.train;
        if let Some(device_step) = &mut self.device_step {
            meter.add_noted(device_step.step(self.network, self.optimizer, train)?);
            return Ok(());
        }
        let died = || Failure::internal("a thread that prepares batches died while training");
        let batch = batches.as_mut().and_then(Iterator::next).ok_or_else(died)??;
        let step = meter.next_step();
        let settings = StepSettings { step, learning_rate: self.pace.learning_rate(step), train };
        meter.add(self.step(&batch, &settings)?, batch.len());
        Ok(())
    }

    fn step(&mut self, batch: &Batch, settings: &StepSettings<'_>) -> Result<StepFigures> {
        let Training { kernels, network, optimizer, normalisation, .. } = self;
        match kernels {
            Some(kernels) => kernels.step(network, optimizer, normalisation, batch, settings),
            None => train_step(network, optimizer, normalisation, batch, settings),
        }
    }

    /// Where a training can be interrupted, and where it takes the time for a checkpoint of a long epoch.
    fn between_steps(&mut self, meter: &mut Meter) -> Result<()> {
        self.bench.stop.check()?;
        self.saver.take_in(self.bench.reporter)?;
        if self.saver.is_due() { self.keep_middle(meter) } else { Ok(()) }
    }

    /// Evaluates after an epoch, and puts its figures together.
    fn finish_epoch(&mut self, epoch: u32, meter: &Meter) -> Result<EpochMetrics> {
        let Bench { spec, data, stop, .. } = *self.bench;
        let test = evaluate(self.network, &data.test, spec, stop, &mut |_, _| {})?;
        if !test.loss.is_finite() {
            let message = format!("the test loss is {} after epoch {}; lower train.lr", test.loss, epoch + 1);
            return Err(Failure::new(FailureClass::Diverged, message));
        }
        let last_step = meter.next_step() - 1;
        Ok(EpochMetrics {
            epoch: epoch + 1,
            steps: meter.next_step(),
            learning_rate: self.pace.learning_rate(last_step),
            train_loss: meter.mean_loss(),
            train_top1_error: meter.top1_error(),
            lasso: meter.mean_lasso(),
            test_loss: test.loss,
            test_top1_error: test.top1_error,
            test_top5_error: test.top5_error,
            condensing_stage: self.pace.stage(last_step),
            density: self.network.density()?,
            train_wall_s: meter.wall_s(),
            images_per_s: meter.images_per_s(),
        })
    }

    /// Has an epoch put on the disk and then told of.
    fn keep_epoch(&mut self, metrics: EpochMetrics) -> Result<()> {
        let errors = Errors {
            loss: metrics.test_loss,
            top1_error: metrics.test_top1_error,
            top5_error: metrics.test_top5_error,
            images: self.bench.data.test.len() as u64,
        };
        let is_best = self.record.add(metrics, errors);
        let snapshot = Snapshot::take(self.network, self.optimizer, self.record.clone(), is_best)?;
        self.saver.save(snapshot, Some(metrics), self.bench.reporter)
    }

    /// Has an epoch under way put on the disk, unless it is there, just as it stands.
    fn keep_middle(&mut self, meter: &mut Meter) -> Result<()> {
        let under_way = Some(meter.under_way()?).filter(|under_way| under_way.steps > 0);
        let record = Record { under_way, ..self.record.clone() };
        if self.saver.has(record.position()) {
            return Ok(());
        }
        let snapshot = Snapshot::take(self.network, self.optimizer, record, false)?;
        self.saver.save(snapshot, None, self.bench.reporter)
    }
}

/// Steps and what follows from them.
struct Pace<'a> {
    spec: &'a Spec,
    steps_per_epoch: u64,
    steps: u64,
}

impl<'a> Pace<'a> {
    fn new(spec: &'a Spec, images: usize) -> Pace<'a> {
        let steps_per_epoch = batches::steps_per_epoch(images, spec.train.batch_size);
        Pace { spec, steps_per_epoch, steps: steps_per_epoch * u64::from(spec.train.epochs) }
    }

    fn stage(&self, step: u64) -> u32 {
        condensing::stage(step, self.steps, self.spec.model.condense_factor)
    }

    fn learning_rate(&self, step: u64) -> f64 {
        learning_rate(&self.spec.train, step, self.steps_per_epoch)
    }

    /// Those of all steps of an epoch.
    fn learning_rates(&self, epoch: u32) -> Vec<f64> {
        let first = self.steps_per_epoch * u64::from(epoch);
        (first..first + self.steps_per_epoch).map(|step| self.learning_rate(step)).collect()
    }

    fn progress(&self, epoch: u32, meter: &mut Meter) -> Result<Progress> {
        meter.read()?;
        let step = meter.next_step();
        Ok(Progress {
            phase: Phase::Train.into(),
            epoch: epoch + 1,
            epochs: self.spec.train.epochs,
            step,
            steps: self.steps,
            loss: meter.mean_loss(),
            learning_rate: self.learning_rate(step.saturating_sub(1)),
            images_per_s: meter.images_per_s(),
            condensing_stage: self.stage(step.saturating_sub(1)),
            condensing_stages: self.spec.model.condense_factor.saturating_sub(1),
            train_top1_error: meter.top1_error(),
        })
    }
}

//! Training: one loop over epochs and steps (paper, section 4.1). It can be stopped between any two steps, and in the evaluation
//! after an epoch: a checkpoint then holds all that the next attempt needs to go on from there.

use std::time::Duration;

use cnx_proto::Spec;
use cnx_proto::v1::{EpochMetrics, Errors, FailureClass, Phase, Progress};
use tch::{Kind, Reduction, Tensor};

use crate::checkpoint::{Keeper, Snapshot};
use crate::condensing;
use crate::cpu_step::CpuStep;
use crate::data::Data;
use crate::data::batches::{self, Batch, Normalisation};
use crate::evaluate::evaluate;
use crate::failure::{Failure, Result};
use crate::learning_rate::learning_rate;
use crate::meter::Meter;
use crate::model::{Mode, Network};
use crate::optimizer::Sgd;
use crate::record::Record;
use crate::reporter::{Reporter, log};
use crate::saver::Saver;
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
    let (keeper, every) = (bench.keeper, bench.checkpoint_every);
    std::thread::scope(|scope| {
        let saver = Saver::start(scope, keeper, every, record.position())?;
        let mut training =
            Training { bench, network, optimizer, record, kernels, normalisation, pace, saver };
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
        let Bench { spec, data, .. } = *self.bench;
        let device = self.network.state().device();
        meter.start_clock();
        for batch in batches::training_from(&data.train, spec, epoch, meter.steps() as usize, device) {
            self.between_steps(meter)?;
            let (batch, step) = (batch?, meter.next_step());
            self.network.condense_to(self.pace.stage(step))?;
            let learning_rate = self.pace.learning_rate(step);
            let settings = StepSettings { step, learning_rate, train: &spec.train };
            meter.add(self.step(&batch, &settings)?, batch.len());
            if self.bench.reporter.progress_is_due() {
                let progress = self.pace.progress(epoch, meter)?;
                self.bench.reporter.progress(progress);
            }
        }
        if meter.steps() != self.pace.steps_per_epoch {
            return Err(Failure::internal("a thread that prepares batches died while training"));
        }
        meter.read()?;
        meter.stop_clock();
        self.finish_epoch(epoch, meter)
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

/// What decides a step besides network and batch.
#[derive(Debug, Clone, Copy)]
pub struct StepSettings<'a> {
    /// The step, from 0.
    pub step: u64,
    /// Its learning rate.
    pub learning_rate: f64,
    /// The rest.
    pub train: &'a cnx_proto::spec::Train,
}

/// Figures of a step, still on the device.
#[derive(Debug)]
pub struct StepFigures {
    /// Mean cross-entropy of the batch before the update, lasso not included.
    pub loss: Tensor,
    /// Images whose class was right.
    pub right: Tensor,
    /// Σ of the group lasso, before λ; none once condensing is over, or without λ.
    pub lasso: Option<Tensor>,
}

/// Forward, loss, lasso, backward, update.
///
/// # Errors
/// When libtorch fails.
pub fn train_step(
    network: &mut Network,
    optimizer: &mut Sgd,
    normalisation: &Normalisation,
    batch: &Batch,
    settings: &StepSettings<'_>,
) -> Result<StepFigures> {
    let StepSettings { step, learning_rate, train } = *settings;
    let images = normalisation.apply(&batch.images)?;
    let logits = network.forward(&images, Mode::Train { seed: train.seed, step })?;
    let loss = logits.f_cross_entropy_loss(&batch.labels, None::<&Tensor>, Reduction::Mean, -100, 0.0)?;
    let lasso = if train.group_lasso > 0.0 { network.lasso()? } else { None };
    let objective = match &lasso {
        Some(lasso) => loss.f_add(&lasso.f_mul_scalar(train.group_lasso)?)?,
        None => loss.shallow_clone(),
    };
    optimizer.step(&objective, learning_rate)?;
    let right = logits.f_argmax(1, false)?.f_eq_tensor(&batch.labels)?.f_sum(Kind::Double)?;
    Ok(StepFigures { loss: loss.f_detach()?, right, lasso: lasso.map(|lasso| lasso.f_detach()).transpose()? })
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

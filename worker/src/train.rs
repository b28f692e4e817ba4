//! Training: one loop over epochs and steps (paper, section 4.1).

use std::time::Instant;

use cnx_proto::Spec;
use cnx_proto::v1::{EpochMetrics, FailureClass, Phase, Progress, report::Body};
use tch::{Kind, Reduction, Tensor};

use crate::checkpoint::{Keeper, Record};
use crate::condensing;
use crate::data::Data;
use crate::data::batches::{self, Batch, Normalisation};
use crate::evaluate::evaluate;
use crate::failure::{Failure, Result};
use crate::learning_rate::learning_rate;
use crate::model::state::to_host;
use crate::model::{Mode, Network};
use crate::optimizer::Sgd;
use crate::reporter::{Reporter, log};
use crate::stop::Stop;

/// Those that an attempt works with.
pub struct Bench<'a> {
    /// What to compute.
    pub spec: &'a Spec,
    /// From what.
    pub data: &'a Data,
    /// Where files go.
    pub keeper: &'a Keeper,
    /// Who is told.
    pub reporter: &'a mut Reporter,
    /// Who may interrupt.
    pub stop: &'a Stop,
}

/// Trains from where `record` stands to the last epoch, with a checkpoint an epoch.
///
/// # Errors
/// DIVERGED when the loss is not finite, INTERRUPTED when asked to stop, and whatever libtorch or the disk says.
pub fn train(
    bench: &mut Bench<'_>,
    network: &mut Network,
    optimizer: &mut Sgd,
    record: &mut Record,
) -> Result<()> {
    let Bench { spec, data, stop, .. } = *bench;
    let device = network.state().device();
    let normalisation = Normalisation::new(spec, network.state().kind(), device)?;
    let pace = Pace::new(spec, data.train.len());

    for epoch in record.epochs_done..spec.train.epochs {
        let mut meter = Meter::new(pace.steps_per_epoch * u64::from(epoch));
        for batch in batches::training(&data.train, spec, epoch, device) {
            stop.check()?;
            let (batch, step) = (batch?, meter.next_step());
            network.condense_to(pace.stage(step))?;
            let settings = StepSettings { step, learning_rate: pace.learning_rate(step), train: &spec.train };
            meter.add(train_step(network, optimizer, &normalisation, &batch, &settings)?, batch.len());
            if bench.reporter.progress_is_due() {
                let progress = pace.progress(epoch, &mut meter)?;
                bench.reporter.progress(progress);
            }
        }
        if meter.steps != pace.steps_per_epoch {
            return Err(Failure::internal("a thread that prepares batches died while training"));
        }
        let metrics = finish_epoch(bench, network, &pace, epoch, &mut meter)?;
        keep_epoch(bench, network, optimizer, record, metrics)?;
    }
    Ok(())
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
        })
    }
}

/// Evaluates after an epoch, and puts its figures together.
fn finish_epoch(
    bench: &mut Bench<'_>,
    network: &mut Network,
    pace: &Pace<'_>,
    epoch: u32,
    meter: &mut Meter,
) -> Result<EpochMetrics> {
    meter.read()?;
    let (train_wall_s, images_per_s) = (meter.started.elapsed().as_secs_f64(), meter.images_per_s());
    let test = evaluate(network, &bench.data.test, bench.spec, bench.stop, &mut |_, _| {})?;
    if !test.loss.is_finite() {
        let message = format!("the test loss is {} after epoch {}; lower train.lr", test.loss, epoch + 1);
        return Err(Failure::new(FailureClass::Diverged, message));
    }
    let last_step = meter.next_step() - 1;
    Ok(EpochMetrics {
        epoch: epoch + 1,
        steps: meter.next_step(),
        learning_rate: pace.learning_rate(last_step),
        train_loss: meter.mean_loss(),
        train_top1_error: 100.0 * (meter.images as f64 - meter.right) / meter.images as f64,
        lasso: meter.lasso / meter.steps as f64,
        test_loss: test.loss,
        test_top1_error: test.top1_error,
        test_top5_error: test.top5_error,
        condensing_stage: pace.stage(last_step),
        density: network.density()?,
        train_wall_s,
        images_per_s,
    })
}

/// Puts an epoch on disk, then tells of it: whoever hears of an epoch can rely on its checkpoint.
fn keep_epoch(
    bench: &mut Bench<'_>,
    network: &Network,
    optimizer: &Sgd,
    record: &mut Record,
    metrics: EpochMetrics,
) -> Result<()> {
    let errors = cnx_proto::v1::Errors {
        loss: metrics.test_loss,
        top1_error: metrics.test_top1_error,
        top5_error: metrics.test_top5_error,
        images: bench.data.test.len() as u64,
    };
    let best = record.add(metrics, errors).then(|| bench.keeper.best(network, metrics.epoch)).transpose()?;
    let checkpoint = bench.keeper.checkpoint(network, optimizer, record)?;
    log(format!(
        "epoch {} of {}: loss {:.4}, test top-1 error {:.2} %, {:.0} images/s",
        metrics.epoch,
        bench.spec.train.epochs,
        metrics.train_loss,
        metrics.test_top1_error,
        metrics.images_per_s
    ));
    bench.reporter.tell(Body::Epoch(metrics))?;
    for artifact in best.into_iter().chain([checkpoint]) {
        bench.reporter.tell(Body::Artifact(artifact))?;
    }
    Ok(())
}

/// Sums the figures of an epoch's steps. They stay on the device until they are read, so that no step waits for it.
struct Meter {
    first_step: u64,
    steps: u64,
    images: u64,
    pending: Vec<(StepFigures, usize)>,
    loss: f64,
    right: f64,
    lasso: f64,
    started: Instant,
}

impl Meter {
    fn new(first_step: u64) -> Meter {
        Meter {
            first_step,
            steps: 0,
            images: 0,
            pending: Vec::new(),
            loss: 0.0,
            right: 0.0,
            lasso: 0.0,
            started: Instant::now(),
        }
    }

    /// The step that comes next, from 0 over all epochs.
    fn next_step(&self) -> u64 {
        self.first_step + self.steps
    }

    fn add(&mut self, figures: StepFigures, images: usize) {
        self.pending.push((figures, images));
        self.steps += 1;
        self.images += images as u64;
    }

    /// Fetches the figures of the steps since the last time.
    fn read(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let mut tensors = Vec::new();
        for (figures, _) in &self.pending {
            tensors.push(figures.loss.f_to_kind(Kind::Double)?);
            tensors.push(figures.right.shallow_clone());
            tensors.push(match &figures.lasso {
                Some(lasso) => lasso.f_to_kind(Kind::Double)?,
                None => figures.right.f_zeros_like()?,
            });
        }
        let values = to_host(&Tensor::f_stack(&tensors, 0)?)?;
        let first = self.next_step() - self.pending.len() as u64;
        for (step, (figures, (_, images))) in
            (first..).zip(values.chunks_exact(3).zip(self.pending.drain(..)))
        {
            let [loss, right, lasso] = [figures[0], figures[1], figures[2]];
            if !loss.is_finite() || !lasso.is_finite() {
                return Err(diverged(loss, step));
            }
            self.loss += loss * images as f64;
            self.right += right;
            self.lasso += lasso;
        }
        Ok(())
    }

    fn mean_loss(&self) -> f64 {
        self.loss / self.images.max(1) as f64
    }

    fn images_per_s(&self) -> f64 {
        self.images as f64 / self.started.elapsed().as_secs_f64().max(1e-9)
    }
}

fn diverged(loss: f64, step: u64) -> Failure {
    let what = if loss.is_nan() { "NaN" } else { "infinite" };
    let message = format!("{what} loss at step {} (from 1): the training diverged; lower train.lr", step + 1);
    Failure::new(FailureClass::Diverged, message)
}

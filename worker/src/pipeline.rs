//! One attempt: data → model → train → evaluate → convert → evaluate the converted. A job is given its model, and trains
//! none.

use std::path::PathBuf;
use std::time::Duration;

use cnx_proto::Spec;
use cnx_proto::spec::{Engine, Step};
use cnx_proto::v1::report::Body;
use cnx_proto::v1::{
    ArtifactKind, Assign, Environment, Errors, FailureClass, Figures, Outcome, Phase, Progress, Started,
    outcome,
};
use tch::Device;

use crate::checkpoint::Keeper;
use crate::convert::convert;
use crate::data::{self, Data};
use crate::device;
use crate::evaluate::evaluate;
use crate::failure::{Failure, Result};
use crate::latency;
use crate::model::{Form, Network};
use crate::model_file::ModelFile;
use crate::optimizer::Sgd;
use crate::paths::Paths;
use crate::record::{Position, Record};
use crate::reporter::{Reporter, log};
use crate::stop::Stop;
use crate::train::{Bench, train};

/// What this machine gives to an attempt.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The device that computes.
    pub device: Device,
    /// CPU threads for the arithmetic.
    pub threads: u32,
    /// Where datasets are, unless the spec says otherwise.
    pub data: Option<PathBuf>,
    /// Which files a spec may name.
    pub paths: Paths,
    /// Between two checkpoints in the middle of an epoch.
    pub checkpoint_every: Duration,
}

/// Runs an attempt and tells all of it, the outcome last.
///
/// # Errors
/// Only when the outcome could not be told.
pub fn attempt(
    assign: &Assign,
    here: &Surroundings,
    reporter: &mut Reporter,
    stop: &Stop,
) -> Result<Outcome> {
    if let Ok(spec) = Spec::from_json(&assign.spec_json)
        && spec.times()
    {
        return time(&spec, here, reporter);
    }
    let prepared = prepare(assign, here, reporter);
    reporter.tell(Body::Started(started(here, prepared.as_ref().ok())))?;
    end(prepared.and_then(|prepared| carry_out(prepared, reporter, stop)), reporter)
}

/// Tells that an attempt cannot even be started here.
///
/// # Errors
/// Only when that could not be told.
pub fn refuse(failure: Failure, reporter: &mut Reporter) -> Result<Outcome> {
    reporter.tell(Body::Started(Started::default()))?;
    end(Err(failure), reporter)
}

/// Times the network of a spec: there is neither data nor a model.
fn time(spec: &Spec, here: &Surroundings, reporter: &mut Reporter) -> Result<Outcome> {
    let threads = threads(spec, here);
    let environment = Environment { device: device::name(Device::Cpu), threads, ..environment(here) };
    reporter.tell(Body::Started(Started { environment: Some(environment), ..Started::default() }))?;
    reporter.progress(phase(spec, Phase::Evaluate, 0, 0));
    let timed = latency::measure(spec, threads);
    let told = timed.and_then(|latency| {
        reporter.tell(Body::Figures(Figures { latency: Some(latency), ..Figures::default() }))
    });
    end(told, reporter)
}

/// CPU threads for the arithmetic.
fn threads(spec: &Spec, here: &Surroundings) -> u32 {
    if spec.resources.threads > 0 { spec.resources.threads } else { here.threads }
}

fn end(result: Result<()>, reporter: &mut Reporter) -> Result<Outcome> {
    let outcome = outcome(result);
    reporter.tell(Body::Outcome(outcome.clone()))?;
    Ok(outcome)
}

/// All that an attempt works with, as far as earlier attempts have come.
struct Prepared {
    spec: Spec,
    threads: u32,
    checkpoint_every: Duration,
    data: Data,
    network: Network,
    keeper: Keeper,
    /// None of a job.
    training: Option<Training>,
}

/// What only a training needs.
struct Training {
    optimizer: Sgd,
    record: Record,
    resumed_from: String,
}

fn prepare(assign: &Assign, here: &Surroundings, reporter: &mut Reporter) -> Result<Prepared> {
    let spec = Spec::from_json(&assign.spec_json)
        .map_err(|problems| Failure::bad_spec(format!("this worker cannot run the spec: {problems}")))?;
    here.paths.check(&spec, &assign.artifacts_url)?;
    reporter.progress(phase(&spec, Phase::Prepare, 0, 0));
    let threads = threads(&spec, here);
    tch::set_num_threads(threads as i32);
    device::set_arithmetic(&spec, here.device)?;
    match ModelFile::given(assign, &spec)? {
        Some(file) => prepare_job(assign, spec, threads, here, &file),
        None => prepare_training(assign, spec, threads, here),
    }
}

fn prepare_training(assign: &Assign, spec: Spec, threads: u32, here: &Surroundings) -> Result<Prepared> {
    device::set_repeatable(&spec, here.device)?;
    let data = data::load(&spec, here.data.as_deref())?;
    let mut network = Network::new(&spec, Form::Large, here.device)?;
    let mut optimizer = Sgd::new(network.state(), &spec.train)?;
    let keeper = Keeper::open(assign, &spec)?;
    let (mut record, mut resumed_from) = (Record::default(), String::new());
    if let Some(checkpoint) = keeper.newest_checkpoint(&mut |line| log(line))? {
        network.load(&checkpoint.tensors)?;
        optimizer.load(&checkpoint.tensors)?;
        (record, resumed_from) = (checkpoint.record, checkpoint.name);
        let Position { epochs_done, steps } = record.position();
        let of_next = if steps > 0 { format!(" and {steps} steps of the next") } else { String::new() };
        log(format!("resumed from {resumed_from}, after epoch {epochs_done}{of_next}"));
    }
    let training = Some(Training { optimizer, record, resumed_from });
    let checkpoint_every = here.checkpoint_every;
    Ok(Prepared { spec, threads, checkpoint_every, data, network, keeper, training })
}

fn prepare_job(
    assign: &Assign,
    spec: Spec,
    threads: u32,
    here: &Surroundings,
    file: &ModelFile,
) -> Result<Prepared> {
    // The engine without libtorch runs on the CPU, wherever the worker trains.
    let device = if spec.run.engine == Engine::Native { Device::Cpu } else { here.device };
    let network = file.network(&spec, device)?;
    file.check_steps(network.form(), &spec.run.steps)?;
    // Converting needs no images.
    let data = if spec.measures() { data::load_test(&spec, here.data.as_deref())? } else { Data::default() };
    let keeper = Keeper::open(assign, &file.spec_of_model(&spec))?;
    let checkpoint_every = here.checkpoint_every;
    Ok(Prepared { spec, threads, checkpoint_every, data, network, keeper, training: None })
}

fn started(here: &Surroundings, prepared: Option<&Prepared>) -> Started {
    let mut environment = environment(here);
    let Some(prepared) = prepared else {
        return Started { environment: Some(environment), ..Started::default() };
    };
    (environment.threads, environment.data_hash) = (prepared.threads, prepared.data.hash.clone());
    let (resumed_at_epoch, resumed_from) = match &prepared.training {
        Some(training) => (training.record.epochs_done, training.resumed_from.clone()),
        None => Default::default(),
    };
    Started { environment: Some(environment), resumed_at_epoch, resumed_from }
}

fn carry_out(prepared: Prepared, reporter: &mut Reporter, stop: &Stop) -> Result<()> {
    let Prepared { spec, checkpoint_every, data, mut network, keeper, training, .. } = prepared;
    let mut bench = Bench { spec: &spec, data: &data, keeper: &keeper, checkpoint_every, reporter, stop };
    let record = match training {
        Some(training) => trained(&mut bench, &mut network, training)?,
        None => Record::default(),
    };
    let figures = figures(&mut bench, &mut network, &record)?;
    reporter.tell(Body::Figures(figures))
}

/// Trains, and keeps the model.
fn trained(bench: &mut Bench<'_>, network: &mut Network, training: Training) -> Result<Record> {
    let Training { mut optimizer, mut record, .. } = training;
    for epoch in &record.history {
        bench.reporter.tell(Body::Epoch(*epoch))?;
    }
    train(bench, network, &mut optimizer, &mut record)?;
    let final_model = bench.keeper.model(ArtifactKind::FinalModel, network, record.epochs_done)?;
    bench.reporter.tell(Body::Artifact(final_model))?;
    Ok(record)
}

/// Evaluates, converts and evaluates the converted model, as far as the spec asks.
fn figures(bench: &mut Bench<'_>, network: &mut Network, record: &Record) -> Result<Figures> {
    let Bench { spec, keeper, .. } = *bench;
    let asked = |step| spec.run.steps.contains(&step);
    let mut figures = Figures { best: record.best, best_epoch: record.best_epoch, ..Figures::default() };
    if asked(Step::Evaluate) {
        figures.r#final = Some(measure(bench, network, Phase::Evaluate)?);
    }
    if asked(Step::Convert) {
        bench.reporter.progress(phase(spec, Phase::Convert, 0, 0));
        let mut converted = convert(network, spec)?;
        let artifact = keeper.model(ArtifactKind::ConvertedModel, &converted, record.epochs_done)?;
        bench.reporter.tell(Body::Artifact(artifact))?;
        if asked(Step::EvaluateConverted) {
            figures.converted = Some(measure(bench, &mut converted, Phase::EvaluateConverted)?);
        }
    } else if asked(Step::EvaluateConverted) {
        // A job's model, converted already.
        figures.converted = Some(measure(bench, network, Phase::EvaluateConverted)?);
    }
    Ok(figures)
}

fn measure(bench: &mut Bench<'_>, network: &mut Network, which: Phase) -> Result<Errors> {
    let Bench { spec, data, stop, .. } = *bench;
    loop {
        let measured = evaluate(network, &data.test, spec, stop, &mut |step, steps| {
            if bench.reporter.progress_is_due() {
                bench.reporter.progress(phase(spec, which, step, steps));
            }
        });
        match measured {
            Err(failure) if failure.class == FailureClass::Interrupted => bench.park(failure)?,
            measured => return measured,
        }
    }
}

fn phase(spec: &Spec, phase: Phase, step: u64, steps: u64) -> Progress {
    let told = Progress { phase: phase.into(), step, steps, ..Progress::default() };
    if spec.is_job() {
        return told;
    }
    let condensing_stages = spec.model.condense_factor.saturating_sub(1);
    let epochs = spec.train.epochs;
    let (epoch, condensing_stage) =
        if phase == Phase::Prepare { (0, 0) } else { (epochs, condensing_stages) };
    Progress { epoch, epochs, condensing_stage, condensing_stages, ..told }
}

fn outcome(result: Result<()>) -> Outcome {
    match result {
        Ok(()) => Outcome { kind: outcome::Kind::Succeeded.into(), ..Outcome::default() },
        Err(Failure { class, message }) => {
            if class != FailureClass::Interrupted {
                log(&message);
            }
            Outcome { kind: outcome::Kind::Failed.into(), failure: class.into(), message }
        }
    }
}

/// What is known of the surroundings before the data are.
fn environment(here: &Surroundings) -> Environment {
    Environment {
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        device: device::name(here.device),
        cnx_version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: env!("CNX_COMMIT").to_owned(),
        libtorch_version: env!("CNX_LIBTORCH").to_owned(),
        threads: here.threads,
        data_hash: String::new(),
    }
}

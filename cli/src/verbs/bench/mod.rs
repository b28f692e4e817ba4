//! `cnx bench latency`: the paper's third table, of this machine's CPU: [`measure`] has a process a row, [`table`] the forms.

mod measure;
mod table;

use std::io::{Read, Write};
use std::num::NonZeroUsize;

use cnx_proto::Spec;
use cnx_proto::job::latency_json;
use cnx_proto::spec::Engine;

use crate::args::{BenchVerb, LatencyArgs};
use crate::client::Client;
use crate::context::{Context, print_json, stdout};
use crate::failure::{Failure, Result};
use crate::term::screen;
use crate::verbs::results::published::tables::{self, Name};
use crate::verbs::status::{self, Display};
use crate::verbs::submit::{self, Batch, Terms};
use table::{Row, Timed};

/// The sweep of the jobs.
const SWEEP: &str = "latency";

pub async fn run(context: &Context, verb: &BenchVerb) -> Result {
    match verb {
        BenchVerb::Latency(args) if args.queue.queue => queued(context, args).await,
        BenchVerb::Latency(args) => here(context, args),
        BenchVerb::Row(_) => one(),
    }
}

/// The rows, in the paper's order; a network that both engines run has two.
fn rows(args: &LatencyArgs, threads: u32) -> Result<Vec<Row>> {
    let lines = tables::table(Name::Inference)?.lines.into_iter();
    let rows = lines.flat_map(|line| {
        let engines: Vec<Engine> = Engine::ALL
            .iter()
            .copied()
            .filter(|&engine| args.engine.is_none_or(|asked| asked == engine))
            .filter(|&engine| engine == Engine::Libtorch || line.specs[0].model.arch.is_dense())
            .collect();
        engines
            .into_iter()
            .map(move |engine| Row { job: line.specs[0].latency_job(engine, threads), line: line.clone() })
    });
    Ok(rows.collect())
}

fn here(context: &Context, args: &LatencyArgs) -> Result {
    let threads = super::predict::threads(args.threads);
    let rows = rows(args, threads.get() as u32)?;
    let engines = measure::Engines::find(&rows)?;
    let mut timed = Vec::new();
    for row in rows {
        context.talk(format!("{}, {} …", row.line.label, row.job.run.engine));
        let latency = engines.time(&row.job)?;
        timed.push(Timed { row, latency });
    }
    if args.csv {
        stdout().write_all(&table::csv(&timed)?)?;
        return Ok(());
    }
    if args.json {
        return print_json(&table::json(&timed));
    }
    Ok(stdout().write_all(table::people(&timed, screen::width()).as_bytes())?)
}

async fn queued(context: &Context, args: &LatencyArgs) -> Result {
    let threads = args.threads.map_or(0, |threads| threads.get() as u32);
    let jobs: Vec<Spec> = rows(args, threads)?.into_iter().map(|row| row.job).collect();
    let mut client = Client::connect(context).await?;
    let mut batches = [Batch::new(Some(SWEEP.to_owned()), jobs)];
    let terms = Terms { force: args.queue.force, ..Terms::default() };
    submit::offer(&mut client, &terms, &mut batches).await?;
    submit::show(context, &batches, false, args.json)?;
    if !args.queue.wait {
        return Ok(());
    }
    let ids: Vec<String> =
        batches.iter().flat_map(Batch::submitted).map(|submitted| submitted.id.to_string()).collect();
    let display = (!args.json && !context.is_quiet()).then(Display::beside_data);
    status::wait(context, &ids, display).await
}

/// In a process of its own: the row that stands on standard input.
fn one() -> Result {
    let mut json = String::new();
    std::io::stdin()
        .read_to_string(&mut json)
        .map_err(|error| Failure::refused(format!("cannot read standard input: {error}")))?;
    let spec = Spec::from_json(&json).map_err(Failure::usage)?;
    let threads = NonZeroUsize::new(spec.resources.threads as usize).unwrap_or(NonZeroUsize::MIN);
    let latency = cnx_engine::latency::native(&spec, threads)
        .map_err(|error| Failure::refused(format!("{}: {error}", spec.name)))?;
    Ok(writeln!(stdout(), "{}", latency_json(&latency))?)
}

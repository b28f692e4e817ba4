//! `cnx`, the command line. Read on in [`args`] (the verbs and their flags), then `verbs/`, one file a verb. [`client`]
//! finds the coordinator, [`follow`] watches it, `term/` is how things look. Data goes to standard output, talk to
//! standard error.

mod args;
mod background;
mod client;
mod configs;
mod context;
mod failure;
mod follow;
mod groups;
mod job;
mod json;
mod pages;
mod programs;
mod source;
mod term;
mod verbs;
mod view;
mod whole_file;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Verb};
use context::Context;
use failure::{Failure, Result};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let context = Context::new(&cli.global);
    match run(&context, cli.verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                let label = term::style::paint(term::style::BAD.bold(), "error:");
                context::warn(format_args!("{label} {}", term::escape::printable_lines(&failure.message)));
            }
            ExitCode::from(failure.code as u8)
        }
    }
}

fn run(context: &Context, verb: Verb) -> Result {
    match verb {
        Verb::Submit(args) => wait_for(verbs::submit::run(context, &args)),
        Verb::Status(args) => wait_for(verbs::status::run(context, &args)),
        Verb::Logs(args) => wait_for(verbs::logs::run(context, &args)),
        Verb::Explain(args) => wait_for(verbs::explain::run(context, &args)),
        Verb::Wait(args) => wait_for(verbs::wait::run(context, &args)),
        Verb::Cancel(args) => wait_for(verbs::cancel::run(context, &args)),
        Verb::Retry(args) => wait_for(verbs::retry::run(context, &args)),
        Verb::Pause(args) => wait_for(verbs::pause::run(context, &args)),
        Verb::Resume(args) => wait_for(verbs::resume::run(context, &args)),
        Verb::Priority(args) => wait_for(verbs::priority::run(context, &args)),
        Verb::Results(args) => wait_for(verbs::results::run(context, &args)),
        Verb::Workers(args) => wait_for(verbs::workers::run(context, &args)),
        Verb::Inspect(args) => verbs::inspect::run(&args),
        Verb::Import(args) => verbs::import::run(context, &args),
        Verb::Evaluate(args) => wait_for(verbs::evaluate::run(context, &args)),
        Verb::Convert(args) => wait_for(verbs::convert::run(context, &args)),
        Verb::Export(args) => wait_for(verbs::export::run(context, &args)),
        Verb::Predict(args) => wait_for(verbs::predict::run(context, &args)),
        Verb::Bench(verb) => wait_for(verbs::bench::run(context, &verb)),
        Verb::Data(verb) => verbs::data::run(context, &verb),
        Verb::Up(args) => wait_for(verbs::up::run(context, &args)),
        Verb::Down(args) => verbs::down::run(context, &args),
        Verb::Backup(args) => verbs::backup::run(context, &args),
        Verb::Restore(args) => verbs::restore::run(context, &args),
        Verb::Doctor(args) => wait_for(verbs::doctor::run(context, &args)),
        Verb::Completions(args) => verbs::completions::run(&args),
    }
}

/// One thread is enough, and starts at once.
fn wait_for(verb: impl Future<Output = Result>) -> Result {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::refused(format!("cannot start: {error}")))?.block_on(verb)
}

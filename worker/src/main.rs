//! `cnx-worker`: trains, evaluates and converts CondenseNets. Only wires.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use cnx_worker::failure::Failure;
use cnx_worker::{agent, commands};

/// The worker of cnx.
#[derive(Debug, Parser)]
#[command(name = "cnx-worker", version, about = "Trains, evaluates and converts CondenseNets for cnx")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Attach to the coordinator, and run what it assigns, each attempt in a child of its own
    ///
    /// While no coordinator answers, children train on and reports are kept on disk. When the lease of one runs out (the coordinator
    /// says how long they last: `cnxd --lease-ttl`), its child writes a checkpoint and is parked: it computes nothing, keeps its
    /// slot, and goes on by itself if the lease is still its own once the coordinator answers. SIGTERM or SIGINT stops all
    /// children after their step, with a checkpoint each; a second one kills them.
    Agent(agent::AgentArgs),
    /// Run one attempt, as the agent assigns it on standard input
    Run(commands::RunArguments),
    /// Print the errors of a model on its test images
    Evaluate(commands::EvaluateArguments),
    /// Convert a trained model to group convolutions
    Convert(commands::ConvertArguments),
    /// Print how long a network takes for one image on the CPU, as JSON
    Latency(commands::LatencyArguments),
    /// Print the name of each device, one a line: the GPUs, or cpu
    Device,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Agent(arguments) => {
            agent::main(arguments).map_err(|error| Failure::internal(format!("{error:#}")))
        }
        Command::Run(arguments) => commands::run(&arguments),
        Command::Evaluate(arguments) => commands::evaluate(&arguments),
        Command::Convert(arguments) => commands::convert(&arguments),
        Command::Latency(arguments) => commands::latency(&arguments),
        Command::Device => {
            commands::devices();
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            cnx_worker::reporter::log(format!("error: {failure}"));
            ExitCode::FAILURE
        }
    }
}

//! `cnxd`: parse, open, serve.

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use cnx_daemon::config::{Arguments, Command};
use cnx_daemon::folder::Folder;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        // A line that cannot be written (the disk is full) is lost, and nothing else: saying so would fail, too.
        .log_internal_errors(false)
        .init();
    match start(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn start(arguments: Arguments) -> anyhow::Result<()> {
    if let Some(Command::Tls(command)) = &arguments.command {
        println!("{}", command.run(&arguments.state().map_err(anyhow::Error::msg)?)?);
        return Ok(());
    }
    let config = arguments.config().map_err(anyhow::Error::msg)?;
    if let Some(Command::Task(task)) = arguments.command {
        return task.run(&config).await;
    }
    // Before listening: a second coordinator on the folder must hear of the folder, not of the port.
    let folder = Folder::claim(&config.state)?;
    let listener = TcpListener::bind(arguments.listen).await.with_context(|| {
        format!(
            "cannot listen on {}; if something else does, choose another port with --listen",
            arguments.listen
        )
    })?;
    let shutdown = CancellationToken::new();
    stop_on_signals(shutdown.clone())?;
    cnx_daemon::run(listener, folder, config, shutdown).await
}

fn stop_on_signals(shutdown: CancellationToken) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        shutdown.cancel();
    });
    Ok(())
}

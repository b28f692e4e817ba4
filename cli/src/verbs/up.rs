//! `cnx up`: a coordinator and workers on this machine, in the background.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use cnx_proto::v1::{ListWorkersRequest, StatusRequest};

use crate::args::UpArgs;
use crate::background::Background;
use crate::client::Client;
use crate::context::Context;
use crate::failure::{Code, Failure, Result};
use crate::programs;
use crate::term::format::count;

/// Under these names the pid files lie.
pub const COORDINATOR: &str = "cnxd";
const WORKER: &str = "worker-";

/// libtorch loads from a cold disk in that.
const START_TIMEOUT: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(50);

pub async fn run(context: &Context, args: &UpArgs) -> Result {
    if let Some(server) = &context.server {
        let message = format!(
            "a coordinator is named ({server}, by --server or CNX_SERVER), and cnx up would start another; leave it out"
        );
        return Err(Failure::usage(message));
    }
    let state = absolute(context.state()?.path())?;
    let background = Background::open(context.state()?)?;
    let mut client = coordinator(context, args, &background, &state).await?;

    let workers = plan(args.workers, &devices(args.cpu), &host());
    let mut started: Vec<(String, Child)> = Vec::new();
    for worker in &workers {
        let name = format!("{WORKER}{}", worker.name);
        if background.running(&name).is_some() {
            context.talk(format!("worker {} runs already", worker.name));
            continue;
        }
        let mut command = Command::new(programs::worker()?);
        command.arg("agent").arg("--state").arg(&state);
        command.args([
            "--name",
            &worker.name,
            "--device",
            &worker.device,
            "--slots",
            &args.slots.to_string(),
        ]);
        started.push((name.clone(), background.start(&name, command)?));
        context.talk(format!(
            "worker {} on {} started; log: {}",
            worker.name,
            worker.device,
            background.log(&name).display()
        ));
    }
    attached(&mut client, &background, &workers, &mut started).await?;
    let count = count(workers.len(), "worker");
    context.talk(format!(
        "up at {} with {count}; cnx submit FILE queues experiments, cnx down stops it all",
        client.address()
    ));
    Ok(())
}

/// Connects to the coordinator, and starts one where none answers.
async fn coordinator(
    context: &Context,
    args: &UpArgs,
    background: &Background,
    state: &Path,
) -> Result<Client> {
    match answer(context).await {
        Ok(client) => {
            context.talk(format!("coordinator runs already at {}", client.address()));
            return Ok(client);
        }
        // It is there and refuses us: a second one would not help.
        Err(failure) if failure.code == Code::Unauthorised && background.running(COORDINATOR).is_some() => {
            return Err(failure);
        }
        Err(_) => {}
    }
    let mut child = None;
    if background.running(COORDINATOR).is_none() {
        let mut command = Command::new(programs::daemon()?);
        command.arg("--state").arg(state).args(["--listen", &args.listen]);
        child = Some(background.start(COORDINATOR, command)?);
    }
    let log = background.log(COORDINATOR);
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        if let Ok(client) = answer(context).await {
            context.talk(format!("coordinator started at {}; log: {}", client.address(), log.display()));
            return Ok(client);
        }
        if let Some(child) = &mut child {
            ended(child, background, COORDINATOR)?;
        }
        if Instant::now() > deadline {
            let seconds = START_TIMEOUT.as_secs();
            return Err(Failure::refused(format!(
                "the coordinator does not answer after {seconds} s; its log: {}",
                log.display()
            )));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// A connection over which the coordinator has answered.
async fn answer(context: &Context) -> Result<Client> {
    let mut client = Client::connect(context).await?;
    let little = StatusRequest { limit: 1, ..StatusRequest::default() };
    client.rpc.status(little).await.map_err(|status| client.failure(&status))?;
    Ok(client)
}

/// Fails where a program that should run on has ended.
fn ended(child: &mut Child, background: &Background, name: &str) -> Result {
    match child.try_wait() {
        Ok(Some(status)) => {
            background.forget(name)?;
            let log = background.log(name);
            let said = background.tail(name);
            Err(Failure::refused(format!(
                "{name} ended at once ({status}); its log, {}, ends:{said}",
                log.display()
            )))
        }
        _ => Ok(()),
    }
}

/// Waits until all workers are attached.
async fn attached(
    client: &mut Client,
    background: &Background,
    workers: &[Worker],
    started: &mut [(String, Child)],
) -> Result {
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        let reply = client.rpc.list_workers(ListWorkersRequest {}).await;
        let there = reply.map_err(|status| client.failure(&status))?.into_inner().workers;
        let is_attached = |w: &&Worker| there.iter().any(|t| t.connected && t.name == w.name);
        let missing: Vec<&str> =
            workers.iter().filter(|w| !is_attached(w)).map(|w| w.name.as_str()).collect();
        if missing.is_empty() {
            return Ok(());
        }
        for (name, child) in started.iter_mut() {
            ended(child, background, name)?;
        }
        if Instant::now() > deadline {
            let (missing, seconds, folder) =
                (missing.join(", "), START_TIMEOUT.as_secs(), background.folder().display());
            return Err(Failure::refused(format!(
                "{missing} did not attach within {seconds} s; logs: {folder}"
            )));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// A worker to be.
#[derive(Debug, PartialEq, Eq)]
struct Worker {
    name: String,
    device: String,
}

/// `count` workers (else one a device), spread over the devices.
fn plan(count: Option<u32>, devices: &[String], host: &str) -> Vec<Worker> {
    let count = count.map_or(devices.len(), |n| n as usize);
    let worker = |i: usize| {
        let device = &devices[i % devices.len()];
        let share = match i / devices.len() {
            0 => String::new(),
            nth => format!("-{}", nth + 1),
        };
        Worker { name: format!("{host}-{}{share}", device.replace(':', "")), device: device.clone() }
    };
    (0..count).map(worker).collect()
}

/// The GPUs that the driver names, else the CPU. Never empty.
fn devices(cpu: bool) -> Vec<String> {
    let listed = if cpu { None } else { Command::new("nvidia-smi").arg("-L").output().ok() };
    let listed = listed.filter(|out| out.status.success());
    let gpus = listed.map_or(0, |out| count_gpus(&String::from_utf8_lossy(&out.stdout)));
    if gpus == 0 { vec!["cpu".to_owned()] } else { (0..gpus).map(|i| format!("cuda:{i}")).collect() }
}

/// Lines such as `GPU 0: NVIDIA H200 (UUID: GPU-…)`; those of MIG slices are indented.
fn count_gpus(listed: &str) -> usize {
    listed.lines().filter(|line| line.starts_with("GPU ")).count()
}

/// This machine's name, as it may stand in a worker's.
fn host() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let short = name.split('.').next().unwrap_or_default();
    let plain: String = short.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    if plain.is_empty() { "local".to_owned() } else { plain }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path)
        .map_err(|error| Failure::refused(format!("{} cannot be used: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_spread_over_the_devices() {
        let devices = ["cuda:0".to_owned(), "cuda:1".to_owned()];
        let names = |count| plan(count, &devices, "box").into_iter().map(|w| w.name).collect::<Vec<_>>();
        assert_eq!(names(None), ["box-cuda0", "box-cuda1"]);
        assert_eq!(names(Some(3)), ["box-cuda0", "box-cuda1", "box-cuda0-2"]);
        assert!(names(Some(0)).is_empty());
    }

    #[test]
    fn gpus_are_counted_and_their_slices_are_not() {
        let listed = "GPU 0: NVIDIA H200 (UUID: GPU-1)\n  MIG 1g.18gb Device 0: (UUID: MIG-1)\nGPU 1: NVIDIA H200 (UUID: GPU-2)\n";
        assert_eq!(count_gpus(listed), 2);
        assert_eq!(count_gpus("No devices found.\n"), 0);
    }
}

//! `cnx down`: ends what `cnx up` started.

use std::time::{Duration, Instant};

use crate::args::DownArgs;
use crate::background::{Background, Process};
use crate::context::Context;
use crate::failure::Result;
use crate::verbs::up::COORDINATOR;

const PAUSE: Duration = Duration::from_millis(50);

pub fn run(context: &Context, args: &DownArgs) -> Result {
    if !context.state()?.background().exists() {
        context.talk("nothing to stop");
        return Ok(());
    }
    let background = Background::open(context.state()?)?;
    let timeout = Duration::from_secs(args.timeout);
    // Workers first: they still have something to report.
    let (coordinator, workers): (Vec<String>, Vec<String>) =
        background.names().into_iter().partition(|name| name == COORDINATOR);
    let stopped =
        stop(context, &background, &workers, timeout)? + stop(context, &background, &coordinator, timeout)?;
    if stopped == 0 {
        context.talk("nothing to stop");
    }
    Ok(())
}

/// Asks all to end, waits, and ends those that do not. Returns how many ran.
fn stop(context: &Context, background: &Background, names: &[String], timeout: Duration) -> Result<usize> {
    let mut running: Vec<(&String, Process)> =
        names.iter().filter_map(|name| Some((name, background.running(name)?))).collect();
    let count = running.len();
    running.iter().for_each(|(_, process)| process.terminate());
    let mut deadline = Instant::now() + timeout;
    let mut killed = false;
    while !running.is_empty() {
        running.retain(|(name, process)| {
            let alive = process.is_alive();
            if !alive {
                context.talk(format!("{name} {}", if killed { "killed" } else { "stopped" }));
            }
            alive
        });
        if Instant::now() > deadline {
            if killed {
                // Not even SIGKILL: it hangs in the kernel (a dead disk or device). It keeps its pid file.
                let left: Vec<&str> = running.iter().map(|(name, _)| name.as_str()).collect();
                let message = format!("{} cannot be killed: the kernel holds it", left.join(", "));
                return Err(crate::failure::Failure::refused(message));
            }
            running.iter().for_each(|(_, process)| process.kill());
            (killed, deadline) = (true, Instant::now() + timeout);
        }
        std::thread::sleep(PAUSE);
    }
    names.iter().try_for_each(|name| background.forget(name))?;
    Ok(count)
}

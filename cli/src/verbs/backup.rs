//! `cnx backup`. The copying is `cnxd`'s, which knows SQL: `cnxd backup`.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cnx_proto::v1::BackupReply;
use prost::Message;
use serde_json::json;

use crate::args::BackupArgs;
use crate::context::{Context, print_json, stdout};
use crate::failure::{Code, Failure, Result};
use crate::json::VERSION;
use crate::programs;
use crate::term::format::{bytes, duration, now_ms, thousands, utc};

pub fn run(context: &Context, args: &BackupArgs) -> Result {
    let name = format!("cnx-backup-{}.db", stamp(now_ms()));
    let file = match &args.output {
        None => PathBuf::from(name),
        Some(folder) if folder.is_dir() => folder.join(name),
        Some(file) => file.clone(),
    };
    let mut arguments: Vec<OsString> = vec!["backup".into(), "--output".into(), file.into()];
    arguments.extend(args.force.then(|| "--force".into()));
    let reply: BackupReply = ask_daemon(context, &arguments)?;
    if args.json {
        return print_json(&json!({
            "version": VERSION, "file": reply.file, "bytes": reply.bytes, "experiments": reply.experiments,
            "wall_s": reply.wall_ms as f64 / 1000.0,
        }));
    }
    writeln!(stdout(), "{}", reply.file)?;
    context.talk(format_args!(
        "backed up {} in {}: {}, checked and on disk; cnx restore puts it back",
        experiments(reply.experiments),
        took(reply.wall_ms),
        bytes(reply.bytes)
    ));
    Ok(())
}

/// Runs a task of `cnxd` on the state folder, and reads what it tells.
pub fn ask_daemon<T: Message + Default>(context: &Context, arguments: &[OsString]) -> Result<T> {
    let state = context.state()?;
    if let Some(server) = &context.server {
        return Err(Failure::usage(format!(
            "this reads the state folder, not the coordinator at {server}: run it on the coordinator's machine, with --state \
             and without --server (or $CNX_SERVER)"
        )));
    }
    let program = programs::daemon()?;
    let output = Command::new(&program)
        .arg("--state")
        .arg(state.path())
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Failure::refused(format!("{} cannot be started: {error}", program.display())))?;
    let said = String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(0) => {
            T::decode(output.stdout.as_slice()).map_err(|error| other_version(&program, &error.to_string()))
        }
        Some(2) => Err(other_version(&program, said.trim())),
        Some(_) => {
            let lines = said.lines().filter_map(|line| line.strip_prefix("error: "));
            let message = lines.collect::<Vec<_>>().join("\n");
            let message = if message.is_empty() { said.trim().to_owned() } else { message };
            Err(Failure { code: Code::Refused, message })
        }
        None => Err(Failure::refused(format!("{} died: {}", program.display(), output.status))),
    }
}

fn other_version(program: &Path, said: &str) -> Failure {
    Failure::refused(format!(
        "{} does not know this task ({said}); are cnx and cnxd of the same version?",
        program.display()
    ))
}

/// `1 experiment`, `1,234 experiments`.
pub fn experiments(n: u64) -> String {
    if n == 1 { "1 experiment".to_owned() } else { format!("{} experiments", thousands(n)) }
}

/// `0.4 s`, or longer in words.
pub fn took(ms: u64) -> String {
    if ms < 60_000 { format!("{:.1} s", ms as f64 / 1000.0) } else { duration(ms) }
}

/// `20260131-120000`, UTC.
fn stamp(ms: u64) -> String {
    let digits: String = utc(ms).chars().filter(char::is_ascii_digit).collect();
    let (date, time) = digits.split_at(digits.len().min(8));
    format!("{date}-{time}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_is_named_after_its_time() {
        assert_eq!(stamp(86_400_000 + 3_661_000), "19700102-010101");
    }
}

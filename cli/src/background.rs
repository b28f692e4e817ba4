//! Programs that run on without us: started in a session of their own, found again by a file with their process ID.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use cnx_proto::state_dir::StateDir;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Result};

/// The end of a log that is shown when a program fails to start.
const TAIL_BYTES: i64 = 4000;
const TAIL_LINES: usize = 12;

/// The folder of pid files and logs.
pub struct Background {
    folder: PathBuf,
    /// One `cnx up` or `cnx down` at a time.
    _lock: File,
}

/// What a pid file says.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    pid: i32,
    /// Process IDs are used again; together with the start time they are not.
    started: String,
}

impl Background {
    pub fn open(state: &StateDir) -> Result<Background> {
        let folder = state.background();
        let failed =
            |error: io::Error| Failure::refused(format!("{} cannot be used: {error}", folder.display()));
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(failed)?;
        let lock =
            private().create(true).truncate(false).write(true).open(folder.join("lock")).map_err(failed)?;
        if lock.try_lock().is_err() {
            return Err(Failure::refused("another cnx up or cnx down is at work; wait for it"));
        }
        Ok(Background { folder, _lock: lock })
    }

    /// Where a program's output goes.
    pub fn log(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.log"))
    }

    fn pid_file(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.pid"))
    }

    /// The process started under that name, if it still runs.
    pub fn running(&self, name: &str) -> Option<Process> {
        let text = fs::read_to_string(self.pid_file(name)).ok()?;
        let record: Record = serde_json::from_str(&text).ok()?;
        let process = Process { pid: Pid::from_raw(record.pid)?, started: record.started };
        process.is_alive().then_some(process)
    }

    /// Names of all that has a pid file, ascending.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let name = |file: String| file.strip_suffix(".pid").map(str::to_owned);
        let mut names: Vec<String> =
            entries.filter_map(|entry| name(entry.file_name().into_string().ok()?)).collect();
        names.sort();
        names
    }

    /// Forgets a process that has ended.
    pub fn forget(&self, name: &str) -> Result {
        match fs::remove_file(self.pid_file(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Failure::refused(format!("{} cannot be removed: {error}", self.pid_file(name).display())))
            }
            _ => Ok(()),
        }
    }

    /// Starts a program that outlives us and our terminal.
    pub fn start(&self, name: &str, mut command: Command) -> Result<Child> {
        let log = self.log(name);
        let failed = |error: io::Error| Failure::refused(format!("{name} cannot be started: {error}"));
        let open = || private().create(true).append(true).open(&log);
        command.stdin(Stdio::null()).stdout(open().map_err(failed)?).stderr(open().map_err(failed)?);
        let new_session = || rustix::process::setsid().map(drop).map_err(io::Error::from);
        // SAFETY: between fork and exec only async-signal-safe calls are allowed; setsid(2) is one, and neither it
        // nor the conversion of its error allocates or locks.
        #[allow(unsafe_code)]
        unsafe {
            command.pre_exec(new_session);
        }
        let mut child = command.spawn().map_err(failed)?;
        let pid = child.id() as i32;
        let record = Record { pid, started: start_time(pid).unwrap_or_default() };
        let text = serde_json::to_string(&record).unwrap_or_default();
        if let Err(error) = fs::write(self.pid_file(name), text) {
            // Without its pid file nobody could stop it again.
            let _ = child.kill();
            return Err(failed(error));
        }
        Ok(child)
    }

    /// The last lines of a program's log.
    pub fn tail(&self, name: &str) -> String {
        let read = || -> io::Result<String> {
            let mut file = File::open(self.log(name))?;
            let size = file.metadata()?.len() as i64;
            file.seek(SeekFrom::End(-TAIL_BYTES.min(size)))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let text = read().unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].iter().map(|line| format!("\n  {line}")).collect()
    }

    /// The folder, for messages.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

/// A process that is still the one we started.
pub struct Process {
    pid: Pid,
    started: String,
}

impl Process {
    /// Whether it still runs; its ID may belong to another by now.
    pub fn is_alive(&self) -> bool {
        start_time(self.pid.as_raw_nonzero().get()).is_some_and(|started| started == self.started)
    }

    /// Asks it to end.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Ends it.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        // It may have ended in between: then there is nothing to do.
        if self.is_alive() {
            let _ = kill_process(self.pid, signal);
        }
    }
}

/// When a process started, as its system says it; none where it has ended (a zombie has).
fn start_time(pid: i32) -> Option<String> {
    if Path::new("/proc/self/stat").exists() {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, in parentheses, may hold anything; state is the first field after it, start time the 20th.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?;
        return (!matches!(state, "Z" | "X")).then(|| fields.nth(18).map(str::to_owned)).flatten();
    }
    let ps = Command::new("ps").args(["-o", "stat=,lstart=", "-p", &pid.to_string()]).output().ok()?;
    let said = String::from_utf8_lossy(&ps.stdout).trim().to_owned();
    let (state, started) = said.split_once(char::is_whitespace)?;
    (!state.starts_with('Z')).then(|| started.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn background() -> (tempfile::TempDir, Background) {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::locate(Some(folder.path()), |_| None).unwrap();
        let background = Background::open(&state).unwrap();
        (folder, background)
    }

    #[test]
    fn what_was_started_is_found_and_ended() {
        let (_folder, background) = background();
        let mut command = Command::new("sh");
        command.args(["-c", "echo here; exec sleep 600"]);
        let mut child = background.start("sleeper", command).unwrap();
        assert_eq!(background.names(), ["sleeper"]);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while !background.tail("sleeper").contains("here") {
            assert!(std::time::Instant::now() < deadline, "its output does not reach its log");
            std::thread::yield_now();
        }
        background.running("sleeper").expect("it runs").terminate();
        child.wait().unwrap();
        assert!(background.running("sleeper").is_none());
        background.forget("sleeper").unwrap();
        assert!(background.names().is_empty());
    }

    #[test]
    fn a_process_id_that_is_anothers_by_now_is_left_alone() {
        let (_folder, background) = background();
        let own = Record { pid: std::process::id() as i32, started: "long ago".into() };
        fs::write(background.pid_file("old"), serde_json::to_string(&own).unwrap()).unwrap();
        assert!(background.running("old").is_none());
    }

    #[test]
    fn a_zombie_has_ended() {
        let (_folder, background) = background();
        let mut child = background.start("short", Command::new("true")).unwrap();
        let pid = child.id() as i32;
        while start_time(pid).is_some() {
            std::thread::yield_now();
        }
        child.wait().unwrap();
    }

    #[test]
    fn only_one_up_or_down_at_a_time() {
        let (folder, _held) = background();
        let state = StateDir::locate(Some(folder.path()), |_| None).unwrap();
        assert!(Background::open(&state).err().unwrap().message.contains("another cnx up"));
    }
}

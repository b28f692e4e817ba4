//! `cnx up` and `cnx down`, with shell scripts in the roles of coordinator and worker.

use std::path::Path;
use std::process::Command;

use crate::coordinator::Coordinator;
use crate::{cnx, run, script};

/// A folder to play in: the coordinator that is played listens all the time, but the state folder learns of it only when
/// the script `cnxd` starts.
struct Stage {
    /// Listens until this is dropped.
    _coordinator: Coordinator,
    folder: tempfile::TempDir,
}

impl Stage {
    fn new(worker: &str) -> Stage {
        let (coordinator, folder) = (Coordinator::start(), tempfile::tempdir().unwrap());
        let played = coordinator.state.path().display().to_string();
        let daemon = format!(
            "[ \"$1\" = --state ] || exit 9; cp {played}/token {played}/endpoint \"$2\"; exec sleep 600"
        );
        script(&folder.path().join("cnxd"), &daemon);
        // Its arguments: agent --state DIR --name NAME …
        script(
            &folder.path().join("cnx-worker"),
            &worker.replace("ATTACH", &format!("touch {played}/fake-workers/$5")),
        );
        Stage { _coordinator: coordinator, folder }
    }

    fn cnx(&self, args: &[&str]) -> Command {
        let mut command = cnx(args);
        let at = |name: &str| self.folder.path().join(name);
        command
            .env("CNX_STATE", at("state"))
            .env("CNX_DAEMON", at("cnxd"))
            .env("CNX_WORKER", at("cnx-worker"));
        command
    }

    fn background(&self) -> std::path::PathBuf {
        self.folder.path().join("state/background")
    }

    fn pids(&self) -> Vec<u32> {
        let files = std::fs::read_dir(self.background()).unwrap().map(|file| file.unwrap().path());
        let pid_files = files.filter(|file| file.extension().is_some_and(|e| e == "pid"));
        let pid = |file| {
            serde_json::from_slice::<serde_json::Value>(&std::fs::read(file).unwrap()).unwrap()["pid"]
                .as_u64()
        };
        pid_files.map(|file| pid(file).unwrap() as u32).collect()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = self.cnx(&["down", "-q", "--timeout", "1"]).status();
    }
}

/// Alive, and not a zombie that nobody has collected.
fn is_alive(pid: u32) -> bool {
    let state = Command::new("ps").args(["-o", "stat=", "-p", &pid.to_string()]).output().unwrap().stdout;
    !state.is_empty() && !state.starts_with(b"Z")
}

#[test]
fn up_starts_what_does_not_run_and_down_ends_it() {
    let stage = Stage::new("ATTACH; exec sleep 600");
    let up = run(&mut stage.cnx(&["up", "--cpu", "--workers", "2"]));
    assert_eq!(up.code, 0, "{}", up.err);
    assert!(up.err.contains("with 2 workers"), "{}", up.err);
    let pids = stage.pids();
    assert!(pids.len() == 3 && pids.iter().all(|&pid| is_alive(pid)), "{pids:?}");

    let again = run(&mut stage.cnx(&["up", "--cpu", "--workers", "2"]));
    assert_eq!(again.code, 0, "{}", again.err);
    assert_eq!(again.err.matches("runs already").count(), 3, "{}", again.err);
    assert_eq!(stage.pids(), pids);

    let down = run(&mut stage.cnx(&["down"]));
    assert_eq!(down.code, 0, "{}", down.err);
    assert_eq!(down.err.matches("stopped").count(), 3, "{}", down.err);
    assert!(pids.iter().all(|&pid| !is_alive(pid)));
    assert!(run(&mut stage.cnx(&["down"])).err.contains("nothing to stop"));
}

#[test]
fn what_does_not_heed_a_request_is_killed() {
    let stage = Stage::new("trap '' TERM; ATTACH; while :; do sleep 600; done");
    assert_eq!(run(&mut stage.cnx(&["up", "--cpu"])).code, 0);
    let down = run(&mut stage.cnx(&["down", "--timeout", "1"]));
    assert_eq!(down.code, 0, "{}", down.err);
    assert!(down.err.contains("killed") && down.err.contains("cnxd stopped"), "{}", down.err);
}

#[test]
fn a_worker_that_cannot_start_is_shown_with_the_end_of_its_log() {
    let stage = Stage::new("echo libtorch is missing >&2; exit 1");
    let up = run(&mut stage.cnx(&["up", "--cpu"]));
    assert_eq!(up.code, 1);
    assert!(up.err.contains("ended at once") && up.err.contains("libtorch is missing"), "{}", up.err);
}

#[test]
fn logs_and_pid_files_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let stage = Stage::new("ATTACH; exec sleep 600");
    run(&mut stage.cnx(&["up", "--cpu"]));
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&stage.background()), 0o700);
    assert_eq!(mode(&stage.background().join("cnxd.log")), 0o600);
}

#[test]
fn up_is_for_this_machine() {
    let stage = Stage::new("exit 1");
    let said = run(stage.cnx(&["up"]).env("CNX_SERVER", "http://elsewhere:7420"));
    assert!(said.code == 2 && said.err.contains("elsewhere"), "{}", said.err);
}

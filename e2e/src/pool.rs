//! Starting, killing and asking the binaries.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long anything may take before the test gives up: far more than it needs on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// A coordinator and at most one worker, in a temporary state folder; killed when dropped.
pub struct Pool {
    folder: TempDir,
    daemon: Option<Child>,
    worker: Option<Child>,
}

impl Pool {
    /// An empty state folder; nothing runs yet.
    pub fn new() -> Pool {
        Pool { folder: tempfile::tempdir().unwrap(), daemon: None, worker: None }
    }

    /// The temporary folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The state folder.
    pub fn state(&self) -> PathBuf {
        self.folder().join("state")
    }

    /// Starts `cnxd` and waits until it answers.
    pub fn start_daemon(&mut self) {
        // A killed coordinator leaves its endpoint behind; the new one's answer is what counts.
        let _ = fs::remove_file(self.state().join("endpoint"));
        let mut command = command("cnxd");
        command.arg("--state").arg(self.state()).args(["--listen", "127.0.0.1:0"]);
        self.daemon = Some(command.stderr(self.log("cnxd.log")).spawn().expect("cnxd starts"));
        let deadline = Instant::now() + PATIENCE;
        loop {
            let output = self.cnx(&["status", "--json"]);
            if output.status.success() {
                return;
            }
            let gone = self.daemon.as_mut().and_then(|d| d.try_wait().unwrap());
            assert!(gone.is_none() && Instant::now() < deadline, "cnxd does not answer: {}", self.logs());
            sleep(Duration::from_millis(20));
        }
    }

    /// Starts a worker of one slot and one thread on the CPU.
    pub fn start_worker(&mut self) {
        let mut command = command("cnx-worker");
        command.arg("agent").arg("--state").arg(self.state()).args([
            "--name",
            "e2e",
            "--device",
            "cpu",
            "--threads",
            "1",
        ]);
        self.worker = Some(command.stderr(self.log("worker.log")).spawn().expect("cnx-worker starts"));
    }

    /// SIGKILLs the coordinator.
    pub fn kill_daemon(&mut self) {
        kill_and_reap(&mut self.daemon);
    }

    /// SIGKILLs the agent.
    pub fn kill_worker(&mut self) {
        kill_and_reap(&mut self.worker);
    }

    /// The agent's process ID.
    pub fn worker_pid(&self) -> u32 {
        self.worker.as_ref().expect("a worker runs").id()
    }

    /// Runs `cnx` on this pool.
    pub fn cnx(&self, args: &[&str]) -> Output {
        command("cnx")
            .arg("--state")
            .arg(self.state())
            .args(args)
            .stdin(Stdio::null())
            .output()
            .expect("cnx starts")
    }

    /// Runs `cnx`, which must succeed; its standard output.
    pub fn cnx_ok(&self, args: &[&str]) -> String {
        let output = self.cnx(args);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(
            output.status.success(),
            "cnx {args:?} failed: {}\n{out}\n{err}\n{}",
            output.status,
            self.logs()
        );
        out.into_owned()
    }

    /// Writes a file into the temporary folder.
    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.folder().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// What the processes said.
    pub fn logs(&self) -> String {
        ["cnxd.log", "worker.log"]
            .map(|name| {
                format!("--- {name}\n{}", fs::read_to_string(self.folder().join(name)).unwrap_or_default())
            })
            .join("\n")
    }

    fn log(&self, name: &str) -> Stdio {
        let path = self.folder().join(name);
        fs::File::options().create(true).append(true).open(path).unwrap().into()
    }
}

impl Default for Pool {
    fn default() -> Self {
        Pool::new()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        kill_and_reap(&mut self.worker);
        kill_and_reap(&mut self.daemon);
    }
}

fn kill_and_reap(child: &mut Option<Child>) {
    if let Some(mut child) = child.take() {
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// A binary of this workspace, built in the profile that this test was built in.
fn command(name: &str) -> Command {
    let test = std::env::current_exe().unwrap();
    let folder = test.parent().and_then(Path::parent).unwrap();
    let path = folder.join(name);
    assert!(path.exists(), "{} is not built: run `cargo build --release --workspace` first", path.display());
    let mut command = Command::new(path);
    // What a developer has set must not reach the tests.
    for variable in ["CNX_STATE", "CNX_SERVER", "CNX_TOKEN", "CNX_DATA", "CNX_WORKER"] {
        command.env_remove(variable);
    }
    command
}

/// SIGKILLs a process by its ID.
pub fn kill_9(pid: u32) {
    let status = Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
    assert!(status.success(), "kill -9 {pid}");
}

/// The processes whose parent is `pid`.
pub fn children_of(pid: u32) -> Vec<u32> {
    let parent_of = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field, the command in parentheses, may hold anything; the parent is the second after it.
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<u32>().ok()
    };
    let pids = fs::read_dir("/proc").unwrap().filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|&child| parent_of(child) == Some(pid)).collect()
}

/// A spec that trains in seconds on generated images, condensing on the way.
pub fn tiny_config(name: &str, epochs: u32) -> String {
    format!(
        "name = \"{name}\"\n[model]\narch = \"condensenet\"\nstages = \"1-1-1\"\ngrowth = \"4-4-8\"\n\
         [data]\ndataset = \"synthetic\"\ntrain_images = 256\ntest_images = 100\n\
         [train]\nepochs = {epochs}\nbatch_size = 32\ngroup_lasso = 1e-5\n[resources]\nthreads = 1\n"
    )
}

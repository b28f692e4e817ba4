//! Starting, killing and asking the binaries.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long anything may take before the test gives up: far more than it needs on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// The worker of a test that has one.
const WORKER: &str = "e2e";

/// What marks the processes of a pool, their children included: its folder.
const MARK: &str = "CNX_E2E_POOL";

/// A coordinator and workers, in a temporary state folder; killed when dropped.
pub struct Pool {
    folder: TempDir,
    state: PathBuf,
    daemon: Option<Child>,
    workers: BTreeMap<String, Child>,
    environment: Vec<(String, PathBuf)>,
}

impl Pool {
    /// An empty state folder; nothing runs yet.
    pub fn new() -> Pool {
        Pool::in_folder(tempfile::tempdir().unwrap())
    }

    /// The same in a folder of the caller's.
    pub fn in_folder(folder: TempDir) -> Pool {
        let state = folder.path().join("state");
        Pool { folder, state, daemon: None, workers: BTreeMap::new(), environment: Vec::new() }
    }

    /// Leaves the folder where it is, for people to look into.
    pub fn keep_folder(&mut self) {
        self.folder.disable_cleanup(true);
    }

    /// With the state folder elsewhere, e.g. on another disk.
    pub fn with_state(mut self, state: PathBuf) -> Pool {
        self.state = state;
        self
    }

    /// Sets a variable of the environment of what is started from here on.
    pub fn set(&mut self, variable: &str, value: &Path) {
        self.environment.push((variable.to_owned(), value.to_owned()));
    }

    /// The temporary folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The state folder.
    pub fn state(&self) -> PathBuf {
        self.state.clone()
    }

    /// Starts `cnxd` and waits until it answers.
    pub fn start_daemon(&mut self) {
        self.start_daemon_with(&[]);
    }

    /// The same with more arguments.
    pub fn start_daemon_with(&mut self, arguments: &[&str]) {
        // A killed coordinator leaves its endpoint behind; the new one's answer is what counts.
        let _ = fs::remove_file(self.state().join("endpoint"));
        self.spawn_daemon(arguments);
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

    /// Starts `cnxd` and does not wait for it.
    pub fn spawn_daemon(&mut self, arguments: &[&str]) {
        let mut command = self.command("cnxd");
        command.arg("--state").arg(self.state()).args(["--listen", "127.0.0.1:0"]).args(arguments);
        self.daemon = Some(command.stderr(self.log("cnxd")).spawn().expect("cnxd starts"));
    }

    /// Runs `cnxd` with more arguments until it gives up by itself.
    pub fn failing_daemon(&self, arguments: &[&str]) -> Output {
        let mut command = self.command("cnxd");
        command.arg("--state").arg(self.state()).args(["--listen", "127.0.0.1:0"]).args(arguments);
        command.stdin(Stdio::null()).output().expect("cnxd starts")
    }

    /// Starts a worker of one slot and one thread on the CPU.
    pub fn start_worker(&mut self) {
        self.start_worker_with(WORKER, &[]);
    }

    /// Starts a worker of that name, with more arguments.
    pub fn start_worker_with(&mut self, name: &str, arguments: &[&str]) {
        let mut command = self.command("cnx-worker");
        command.arg("agent").arg("--state").arg(self.state());
        command.args(["--name", name, "--device", "cpu", "--threads", "1"]).args(arguments);
        let worker = command.stderr(self.log(name)).spawn().expect("cnx-worker starts");
        self.workers.insert(name.to_owned(), worker);
    }

    /// Starts a worker of one slot whose own state folder is another: with a token and an endpoint in it.
    pub fn start_worker_in(&mut self, state: &Path) {
        let mut command = self.command("cnx-worker");
        command.arg("agent").arg("--state").arg(state);
        command.args(["--name", WORKER, "--device", "cpu", "--threads", "1"]);
        let worker = command.stderr(self.log(WORKER)).spawn().expect("cnx-worker starts");
        self.workers.insert(WORKER.to_owned(), worker);
    }

    /// SIGKILLs the coordinator.
    pub fn kill_daemon(&mut self) {
        kill_and_reap(self.daemon.take());
    }

    /// SIGKILLs the agent.
    pub fn kill_worker(&mut self) {
        self.kill_worker_named(WORKER);
    }

    /// SIGKILLs the agent of that name.
    pub fn kill_worker_named(&mut self, name: &str) {
        kill_and_reap(self.workers.remove(name));
    }

    /// The agent's process ID.
    pub fn worker_pid(&self) -> u32 {
        self.pid_of_worker(WORKER).expect("a worker runs")
    }

    /// The process ID of the agent of that name; `None` while there is none.
    pub fn pid_of_worker(&self, name: &str) -> Option<u32> {
        self.workers.get(name).map(Child::id)
    }

    /// The coordinator's process ID; `None` while there is none.
    pub fn daemon_pid(&self) -> Option<u32> {
        self.daemon.as_ref().map(Child::id)
    }

    /// Who ended without being killed by us, and how.
    pub fn ended_by_itself(&mut self) -> Option<String> {
        let daemon = self.daemon.iter_mut().map(|child| ("cnxd", child));
        let workers = self.workers.iter_mut().map(|(name, child)| (name.as_str(), child));
        let mut ended =
            daemon.chain(workers).filter_map(|(name, child)| Some((name, child.try_wait().ok()??)));
        ended.next().map(|(name, status)| format!("{name} ended by itself: {status}"))
    }

    /// Runs `cnx` on this pool.
    pub fn cnx(&self, args: &[&str]) -> Output {
        self.cli().run(args)
    }

    /// `cnx` on this pool, for other threads.
    pub fn cli(&self) -> Cli {
        Cli { state: self.state(), mark: self.folder().to_owned() }
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
        let mut logs: Vec<PathBuf> =
            fs::read_dir(self.folder()).unwrap().filter_map(|entry| Some(entry.ok()?.path())).collect();
        logs.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
        logs.sort();
        let told = |path: &PathBuf| {
            format!("--- {}\n{}", path.display(), fs::read_to_string(path).unwrap_or_default())
        };
        logs.iter().map(told).collect::<Vec<_>>().join("\n")
    }

    /// Where a process of that name says what it does.
    pub fn log_file(&self, name: &str) -> PathBuf {
        self.folder().join(format!("{name}.log"))
    }

    fn command(&self, name: &str) -> Command {
        let mut command = command(name, self.folder());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    fn log(&self, name: &str) -> Stdio {
        let path = self.log_file(name);
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
        while let Some((_, worker)) = self.workers.pop_first() {
            kill_and_reap(Some(worker));
        }
        kill_and_reap(self.daemon.take());
    }
}

fn kill_and_reap(child: Option<Child>) {
    if let Some(mut child) = child {
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// `cnx` on a pool.
#[derive(Debug, Clone)]
pub struct Cli {
    state: PathBuf,
    mark: PathBuf,
}

impl Cli {
    /// Runs it.
    pub fn run(&self, args: &[&str]) -> Output {
        let mut cnx = command("cnx", &self.mark);
        cnx.arg("--state").arg(&self.state).args(args).stdin(Stdio::null()).output().expect("cnx starts")
    }
}

/// A binary of this workspace, built in the profile that this test was built in.
fn command(name: &str, mark: &Path) -> Command {
    let test = std::env::current_exe().unwrap();
    let folder = test.parent().and_then(Path::parent).unwrap();
    let path = folder.join(name);
    assert!(path.exists(), "{} is not built: run `cargo build --release --workspace` first", path.display());
    let mut command = Command::new(path);
    // What a developer has set must not reach the tests.
    for variable in
        ["STATE", "SERVER", "TOKEN", "WORKER_TOKEN", "TLS_CA", "TLS_CERT", "TLS_KEY", "DATA", "WORKER"]
    {
        command.env_remove(format!("CNX_{variable}"));
    }
    command.env(MARK, mark);
    command
}

/// Whether a process belongs to the pool in this folder: one that it started, or one that those started.
pub fn owns(folder: &Path, pid: u32) -> bool {
    let mark = format!("{MARK}={}", folder.display());
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|&b| b == 0).any(|variable| variable == mark.as_bytes())
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

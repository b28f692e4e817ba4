//! What the figures are held against: raw SQLite on this disk, and Pueue where it is installed.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sqlx::Connection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};

use crate::figures::quantile;

/// Tasks for each of Pueue's figures.
const TASKS: usize = 100;

/// Transactions of one row each that SQLite puts on this disk in a second, set as the coordinator sets it.
pub async fn sqlite_commits_per_s(folder: &Path) -> f64 {
    let file = folder.join("queue-raw.db");
    let remove =
        || ["", "-wal", "-shm"].map(|end| std::fs::remove_file(folder.join(format!("queue-raw.db{end}"))));
    let _ = remove();
    let options = SqliteConnectOptions::new()
        .filename(&file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    let mut connection = SqliteConnection::connect_with(&options).await.expect("SQLite opens a file");
    sqlx::query("CREATE TABLE rows (id INTEGER PRIMARY KEY, text TEXT)")
        .execute(&mut connection)
        .await
        .unwrap();
    let started = Instant::now();
    let mut commits = 0;
    while started.elapsed() < Duration::from_secs(2) {
        sqlx::query("INSERT INTO rows (text) VALUES ('a row')").execute(&mut connection).await.unwrap();
        commits += 1;
    }
    let rate = f64::from(commits) / started.elapsed().as_secs_f64();
    connection.close().await.expect("it closes");
    let _ = remove();
    rate
}

/// Pueue's daemon, in a folder of its own.
pub struct Pueue {
    folder: PathBuf,
    home: PathBuf,
    daemon: Child,
}

impl Pueue {
    /// Starts it, if `pueue` and `pueued` lie in `FOLDER/pueue/bin`.
    pub fn start(folder: &Path) -> Option<Pueue> {
        let bin = folder.join("pueue/bin");
        if !bin.join("pueued").exists() {
            eprintln!(
                "no Pueue beside it: `cargo install pueue --locked --root {}` adds it",
                folder.join("pueue").display()
            );
            return None;
        }
        let home = std::path::absolute(folder.join("queue-pueue")).expect("an absolute path");
        let _ = std::fs::remove_dir_all(&home);
        std::fs::create_dir_all(home.join("run")).expect("a folder for Pueue");
        let daemon = program(&bin.join("pueued"), &home).spawn().expect("pueued starts");
        let pueue = Pueue { folder: bin, home, daemon };
        let started = Instant::now();
        while !pueue.run(&["status"]) {
            assert!(started.elapsed() < Duration::from_secs(60), "pueued does not answer");
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(pueue)
    }

    /// From the start of `pueue add` to its end, p50.
    pub fn add_ms(&self) -> f64 {
        self.run(&["pause"]);
        let mut times: Vec<f64> = (0..TASKS)
            .map(|_| {
                let started = Instant::now();
                assert!(self.run(&["add", "--", "true"]), "pueue adds a task");
                started.elapsed().as_secs_f64() * 1000.0
            })
            .collect();
        quantile(&mut times, 0.5)
    }

    /// Tasks of `true` that it starts and ends in a second, two at once: those that wait since [`Pueue::add_ms`].
    pub fn noops_per_s(&self) -> f64 {
        assert!(self.run(&["parallel", "2"]) && self.run(&["start"]), "pueue starts");
        let started = Instant::now();
        assert!(self.run(&["wait"]), "pueue waits");
        TASKS as f64 / started.elapsed().as_secs_f64()
    }

    fn run(&self, args: &[&str]) -> bool {
        program(&self.folder.join("pueue"), &self.home).args(args).status().expect("pueue runs").success()
    }
}

impl Drop for Pueue {
    fn drop(&mut self) {
        self.run(&["shutdown"]);
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        let _ = std::fs::remove_dir_all(&self.home);
    }
}

/// A program of Pueue that sees no settings and no daemon of the person's own.
fn program(path: &Path, home: &Path) -> Command {
    let mut command = Command::new(path);
    command.env("HOME", home).env("XDG_RUNTIME_DIR", home.join("run"));
    for variable in ["XDG_CONFIG_HOME", "XDG_DATA_HOME", "PUEUE_CONFIG_PATH"] {
        command.env_remove(variable);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

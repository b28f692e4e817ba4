//! Where the coordinator keeps its things, and how the others find it: names only, no IO.
//!
//! The state folder is `--state`, else `$CNX_STATE`, else `$XDG_STATE_HOME/cnx`, else `~/.local/state/cnx`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The port of a coordinator that was not told another.
pub const DEFAULT_PORT: u16 = 7420;

/// The metadata key that carries the token, as `Bearer <token>`.
pub const AUTHORIZATION: &str = "authorization";

/// Largest message between people and the coordinator, in bytes: a sweep of some 50,000 specs.
pub const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// Largest message of a worker, in bytes: a report of the size that its spool keeps, and its lease.
pub const MAX_WORKER_MESSAGE_BYTES: usize = 2 << 20;

/// Largest message to a worker, in bytes: a Welcome that calls every lease stale.
pub const MAX_ORDER_BYTES: usize = 4 << 20;

/// A state folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateDir(PathBuf);

impl StateDir {
    /// The folder that a flag names, or the environment (`variable` looks one up), or the home folder.
    ///
    /// # Errors
    /// When none of them says anything.
    pub fn locate(
        flag: Option<&Path>,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<StateDir, String> {
        let set = |name: &str| variable(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        flag.map(Path::to_path_buf)
            .or_else(|| set("CNX_STATE"))
            .or_else(|| set("XDG_STATE_HOME").map(|d| d.join("cnx")))
            .or_else(|| set("HOME").map(|d| d.join(".local/state/cnx")))
            .map(StateDir)
            .ok_or_else(|| "no state folder: give --state DIR, or set CNX_STATE or HOME".to_owned())
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The token of people, mode 0600.
    pub fn token(&self) -> PathBuf {
        self.0.join("token")
    }

    /// The token of workers, mode 0600.
    pub fn worker_token(&self) -> PathBuf {
        self.0.join("worker-token")
    }

    /// Certificates and their keys.
    pub fn tls(&self) -> Tls {
        Tls(self.0.join("tls"))
    }

    /// The URL that the running coordinator listens on.
    pub fn endpoint(&self) -> PathBuf {
        self.0.join("endpoint")
    }

    /// Held locked by the running coordinator.
    pub fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }

    /// The database.
    pub fn database(&self) -> PathBuf {
        self.0.join("cnx.db")
    }

    /// Checkpoints and models, where no other place is named.
    pub fn artifacts(&self) -> PathBuf {
        self.0.join("artifacts")
    }

    /// A worker's own folder: its name, its spool of unacknowledged reports.
    pub fn worker(&self, name: &str) -> PathBuf {
        self.0.join("workers").join(name)
    }

    /// Logs and process IDs of what `cnx up` started.
    pub fn background(&self) -> PathBuf {
        self.0.join("background")
    }
}

/// The folder of certificates and keys in a state folder. What is there is used unless another file is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls(PathBuf);

impl Tls {
    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Certificate of the CA that signed the coordinator's certificate. Public: who calls the coordinator needs it.
    pub fn ca(&self) -> PathBuf {
        self.0.join("ca.pem")
    }

    /// Key of that CA, mode 0600. Only making certificates needs it.
    pub fn ca_key(&self) -> PathBuf {
        self.0.join("ca.key")
    }

    /// The coordinator's certificate.
    pub fn server(&self) -> PathBuf {
        self.0.join("server.pem")
    }

    /// Its key, mode 0600.
    pub fn server_key(&self) -> PathBuf {
        self.0.join("server.key")
    }

    /// Certificate that a caller shows, where the coordinator wants one.
    pub fn client(&self) -> PathBuf {
        self.0.join("client.pem")
    }

    /// Its key, mode 0600.
    pub fn client_key(&self) -> PathBuf {
        self.0.join("client.key")
    }
}

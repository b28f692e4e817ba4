//! The command line of `cnxd`, and what it means.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use cnx_proto::state_dir::{DEFAULT_PORT, StateDir};

use crate::task::Task;

/// The coordinator: queues experiments, leases them to workers, keeps what they report.
#[derive(Debug, Parser)]
#[command(
    name = "cnxd",
    version,
    after_help = "Stops cleanly on SIGTERM or Ctrl-C: workers go on training, and \
    attach again when it is back.\nLog: set RUST_LOG, e.g. RUST_LOG=cnx_daemon=debug."
)]
pub struct Arguments {
    /// Folder for database, token and lock [default: $XDG_STATE_HOME/cnx or ~/.local/state/cnx]
    #[arg(long, env = "CNX_STATE", value_name = "DIR", global = true)]
    pub state: Option<PathBuf>,
    /// Address to listen on; port 0 takes a free one
    #[arg(long, env = "CNX_LISTEN", value_name = "ADDRESS", default_value_t = SocketAddr::from(([127, 0, 0, 1], DEFAULT_PORT)), value_parser = loopback)]
    pub listen: SocketAddr,
    /// How long a silent worker keeps its lease, e.g. 90s, 5m, 1h, 2days
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration)]
    pub lease_ttl: Duration,
    /// How often workers renew their leases
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    pub heartbeat: Duration,
    /// Where workers keep checkpoints and models [default: file://STATE/artifacts]
    #[arg(long, value_name = "URL", global = true)]
    pub artifacts: Option<String>,
    /// Instead of serving
    #[command(subcommand)]
    pub task: Option<Task>,
}

/// What a coordinator needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// Its state folder.
    pub state: StateDir,
    /// How long a silent worker keeps its lease.
    pub lease_ttl: Duration,
    /// How often workers renew their leases.
    pub heartbeat: Duration,
    /// Where workers keep checkpoints and models.
    pub artifacts_url: String,
}

impl Arguments {
    /// Fills in what was left unsaid.
    ///
    /// # Errors
    /// When there is no state folder, or the heartbeat cannot keep a lease alive.
    pub fn config(&self) -> Result<Config, String> {
        let state = StateDir::locate(self.state.as_deref(), |name| std::env::var_os(name))?;
        if self.heartbeat.is_zero() || self.heartbeat * 3 > self.lease_ttl {
            return Err(format!(
                "--heartbeat {} is too slow for --lease-ttl {}: a lease must outlive three heartbeats",
                humantime::format_duration(self.heartbeat),
                humantime::format_duration(self.lease_ttl)
            ));
        }
        let artifacts_url = match &self.artifacts {
            Some(url) => url.clone(),
            None => file_url(&std::path::absolute(state.artifacts()).map_err(|e| e.to_string())?),
        };
        Ok(Config { state, lease_ttl: self.lease_ttl, heartbeat: self.heartbeat, artifacts_url })
    }
}

/// `file://` and the path, with what a URL cannot hold escaped.
fn file_url(path: &std::path::Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/-._~+=@,".contains(&b);
    let escaped = path.as_os_str().as_bytes().iter().map(|&b| match plain(b) {
        true => char::from(b).to_string(),
        false => format!("%{b:02X}"),
    });
    format!("file://{}", escaped.collect::<String>())
}

/// No TLS yet, so a token would cross the network in clear text.
fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}").parse(),
        None => text.parse(),
    }
    .map_err(|_| format!("expected an address and a port, e.g. 127.0.0.1:{DEFAULT_PORT}"))?;
    if address.ip().is_loopback() {
        return Ok(address);
    }
    Err(format!(
        "only loopback addresses (127.0.0.1, ::1) are allowed: without TLS, which is not there yet, anybody on \
         the way could read the token. Listen on 127.0.0.1:{} and forward it, e.g. ssh -L",
        address.port()
    ))
}

/// A worker that is silent for longer than this does not come back; and sums of times stay in range.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

fn duration(text: &str) -> Result<Duration, String> {
    let time =
        humantime::parse_duration(text).map_err(|e| format!("{e}; expected e.g. 90s, 5m, 1h, 2days"))?;
    if time > LONGEST {
        return Err("longer than a year; expected e.g. 90s, 5m, 1h, 2days".to_owned());
    }
    Ok(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(["cnxd"].iter().chain(arguments))
    }

    #[test]
    fn addresses_beyond_loopback_are_refused_with_the_reason() {
        let error = parse(&["--listen", "0.0.0.0:7420"]).unwrap_err().to_string();
        assert!(error.contains("TLS") && error.contains("ssh -L"), "{error}");
        assert!(parse(&["--listen", "localhost:0"]).unwrap().listen.ip().is_loopback());
        assert!(parse(&["--listen", "[::1]:0"]).is_ok());
    }

    #[test]
    fn a_heartbeat_that_cannot_keep_a_lease_alive_is_refused() {
        let slow = parse(&["--state", "/s", "--lease-ttl", "10s", "--heartbeat", "5s"]).unwrap();
        assert!(slow.config().unwrap_err().contains("three heartbeats"));
    }

    #[test]
    fn a_lease_may_last_for_days_but_not_for_ever() {
        let days = parse(&["--state", "/s", "--lease-ttl", "2days"]).unwrap().config().unwrap();
        assert_eq!(days.lease_ttl, Duration::from_secs(2 * 24 * 3600));
        for flag in ["--lease-ttl", "--heartbeat"] {
            let error = parse(&[flag, "500000000000years"]).unwrap_err().to_string();
            assert!(error.contains("longer than a year") || error.contains("too large"), "{error}");
        }
    }

    #[test]
    fn artifacts_lie_in_the_state_folder_unless_told_otherwise() {
        let config = parse(&["--state", "/my state"]).unwrap().config().unwrap();
        assert_eq!(config.artifacts_url, "file:///my%20state/artifacts");
    }
}

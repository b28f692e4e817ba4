//! The command line of `cnxd`, and what it means.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

use cnx_proto::state_dir::{DEFAULT_PORT, StateDir};

use crate::rpc::gate::Limits;
use crate::task::Task;
use crate::tls::authority::TlsCommand;
use crate::tls::{self, ServerTlsArgs};

/// The coordinator: queues experiments, leases them to workers, keeps what they report.
#[derive(Debug, Parser)]
#[command(
    name = "cnxd",
    version,
    after_help = "Beyond this machine it listens with TLS only:\n  cnxd tls init --host gpu-box    once; see its --help\n  \
    cnxd --listen 0.0.0.0:7420\n\nStops cleanly on SIGTERM or Ctrl-C: workers go on training, and \
    attach again when it is back.\nLog: set RUST_LOG, e.g. RUST_LOG=cnx_daemon=debug."
)]
pub struct Arguments {
    /// Folder for database, tokens, certificates and lock [default: $XDG_STATE_HOME/cnx or ~/.local/state/cnx]
    #[arg(long, env = "CNX_STATE", value_name = "DIR", global = true)]
    pub state: Option<PathBuf>,
    /// Address to listen on; port 0 takes a free one
    #[arg(long, env = "CNX_LISTEN", value_name = "ADDRESS", default_value_t = SocketAddr::from(([127, 0, 0, 1], DEFAULT_PORT)), value_parser = address)]
    pub listen: SocketAddr,
    /// Its certificate.
    #[command(flatten)]
    pub tls: ServerTlsArgs,
    /// Name or address that the endpoint file tells callers [default: the one listened on, as far as the certificate has it]
    #[arg(long, value_name = "HOST")]
    pub advertise: Option<String>,
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
    pub command: Option<Command>,
}

/// What `cnxd` does besides serving.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make certificates, for a pool of several machines
    #[command(subcommand)]
    Tls(TlsCommand),
    /// For `cnx`, which must not know SQL.
    #[command(flatten)]
    Task(Task),
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
    /// Its certificate; none: it speaks in clear text, on loopback only.
    pub tls: Option<tls::Files>,
    /// The host that the endpoint file names.
    pub advertise: Option<String>,
    /// Connections.
    pub limits: Limits,
}

impl Arguments {
    /// Fills in what was left unsaid.
    ///
    /// # Errors
    /// When there is no state folder, the heartbeat cannot keep a lease alive, or tokens would cross a network in clear
    /// text.
    pub fn config(&self) -> Result<Config, String> {
        let state = self.state()?;
        let tls = tls::Files::find(&self.tls, &state)?;
        // A task of an environment that sets CNX_LISTEN listens nowhere.
        let listens = !matches!(self.command, Some(Command::Task(_)));
        if listens && tls.is_none() && !self.listen.ip().is_loopback() {
            return Err(needs_tls(self.listen, &state));
        }
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
        Ok(Config {
            state,
            lease_ttl: self.lease_ttl,
            heartbeat: self.heartbeat,
            artifacts_url,
            tls,
            advertise: self.advertise.clone(),
            limits: Limits::default(),
        })
    }

    /// The state folder.
    ///
    /// # Errors
    /// When nothing says where it is.
    pub fn state(&self) -> Result<StateDir, String> {
        StateDir::locate(self.state.as_deref(), |name| std::env::var_os(name))
    }
}

impl Config {
    /// The URL that callers on this machine use for what listens on `address`.
    ///
    /// # Errors
    /// When the certificate names no host.
    pub fn url(&self, address: SocketAddr) -> anyhow::Result<String> {
        let host = match (&self.advertise, &self.tls) {
            (Some(host), _) => host.clone(),
            (None, Some(files)) => files.name_for(address)?,
            (None, None) => tls::here(address).to_string(),
        };
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        Ok(format!("{scheme}://{host}:{}", address.port()))
    }
}

fn needs_tls(listen: SocketAddr, state: &StateDir) -> String {
    format!(
        "--listen {listen} needs TLS: without it anybody on the way could read the tokens. Either make certificates \
         (`cnxd tls init --host NAME`, where NAME is what other machines call this one; they are found in {} from then on), \
         or give your own with --tls-cert and --tls-key, or listen on 127.0.0.1:{port} and forward it, e.g. ssh -L",
        state.tls().path().display(),
        port = listen.port()
    )
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

fn address(text: &str) -> Result<SocketAddr, String> {
    match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}").parse(),
        None => text.parse(),
    }
    .map_err(|_| {
        format!("expected an address and a port, e.g. 127.0.0.1:{DEFAULT_PORT} or 0.0.0.0:{DEFAULT_PORT}")
    })
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
    fn beyond_loopback_it_is_refused_without_certificates_with_the_reason() {
        let root = tempfile::tempdir().unwrap();
        let state = root.path().to_str().unwrap();
        for listen in ["0.0.0.0:7420", "[::]:7420", "10.0.0.1:0"] {
            let refusal = parse(&["--state", state, "--listen", listen]).unwrap().config().unwrap_err();
            for said in ["needs TLS", "cnxd tls init", "--tls-cert", "ssh -L"] {
                assert!(refusal.contains(said), "{refusal}");
            }
        }
        let doctor = parse(&["--state", state, "--listen", "0.0.0.0:7420", "doctor"]).unwrap();
        assert!(doctor.config().is_ok(), "what listens nowhere needs no certificate");
        assert!(parse(&["--listen", "localhost:0"]).unwrap().listen.ip().is_loopback());
        assert!(parse(&["--state", state, "--listen", "[::1]:0"]).unwrap().config().unwrap().tls.is_none());
    }

    #[test]
    fn what_cnxd_tls_made_is_used_and_told_by_a_name_that_it_has() {
        let root = tempfile::tempdir().unwrap();
        let state = root.path().to_str().unwrap();
        let made = parse(&["--state", state, "tls", "init", "--host", "gpu-box"]).unwrap();
        let Some(Command::Tls(command)) = &made.command else { panic!("{made:?}") };
        command.run(&made.state().unwrap()).unwrap();
        let config = parse(&["--state", state, "--listen", "0.0.0.0:0"]).unwrap().config().unwrap();
        config.tls.as_ref().unwrap().server_config().unwrap();
        assert_eq!(config.url("0.0.0.0:7".parse().unwrap()).unwrap(), "https://127.0.0.1:7");
        assert_eq!(config.url("[::]:7".parse().unwrap()).unwrap(), "https://[::1]:7");
        assert_eq!(config.url("10.0.0.9:7".parse().unwrap()).unwrap(), "https://localhost:7");
        let named = Config { advertise: Some("gpu-box".to_owned()), ..config };
        assert_eq!(named.url("0.0.0.0:7".parse().unwrap()).unwrap(), "https://gpu-box:7");
    }

    #[test]
    fn a_certificate_without_its_key_is_refused() {
        for (flag, needed) in
            [("--tls-cert", "--tls-key"), ("--tls-key", "--tls-cert"), ("--tls-client-ca", "--tls-cert")]
        {
            let refusal = parse(&["--state", "/nowhere", flag, "/f"]).unwrap().config().unwrap_err();
            assert!(refusal.contains(needed), "{refusal}");
        }
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

//! `cnxd tls`: a CA of the pool's own, and certificates of it, for those who have none.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use cnx_access::secret::{keep_private, write_private, write_public};
use cnx_proto::state_dir::{DEFAULT_PORT, StateDir, Tls};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use time::{Duration, OffsetDateTime};

use super::certificate::Summary;

/// Whoever lists names for a certificate of thousands of hosts means something else.
const MAX_NAMES: usize = 100;

/// The CA outlives the certificates: replacing it means visiting every machine.
const CA_DAYS: i64 = 3650;

/// Names that callers on the coordinator's own machine use.
const OWN_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// What can be done with certificates.
#[derive(Debug, Clone, Subcommand)]
pub enum TlsCommand {
    /// Make a CA for this pool (the first time) and the coordinator's certificate, in tls/ of the state folder
    ///
    /// Run again it keeps the CA and the names, adds those that are given, and makes a new certificate: that renews it. The
    /// coordinator uses it from its next start.
    #[command(after_help = "\
Examples:
  cnxd tls init --host gpu-box --host 10.0.0.5
  cnxd tls init                                   renew")]
    Init(InitArgs),
    /// Make a certificate that a caller shows, for a coordinator that runs with --tls-client-ca STATE/tls/ca.pem
    #[command(after_help = "\
Examples:
  cnxd tls client                                 for callers on this machine
  cnxd tls client --out for-node7                 to be copied to another")]
    Client(ClientArgs),
}

/// `cnxd tls init`.
#[derive(Debug, Clone, Args)]
pub struct InitArgs {
    /// Name or address by which other machines call this one; may be repeated
    #[arg(long = "host", value_name = "NAME")]
    pub hosts: Vec<String>,
    /// Days until the certificate ends
    #[arg(long, value_name = "N", default_value_t = 730, value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub days: u32,
}

/// `cnxd tls client`.
#[derive(Debug, Clone, Args)]
pub struct ClientArgs {
    /// Folder for ca.pem, client.pem and client.key [default: tls/ in the state folder]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Days until the certificate ends
    #[arg(long, value_name = "N", default_value_t = 730, value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub days: u32,
}

impl TlsCommand {
    /// Does it, and tells what to do next.
    ///
    /// # Errors
    /// When a name cannot stand in a certificate, or a file cannot be read or written.
    pub fn run(&self, state: &StateDir) -> anyhow::Result<String> {
        match self {
            TlsCommand::Init(args) => init(state, args),
            TlsCommand::Client(args) => client(state, args),
        }
    }
}

fn init(state: &StateDir, args: &InitArgs) -> anyhow::Result<String> {
    let tls = state.tls();
    private_folder(state.path())?;
    private_folder(tls.path())?;
    let ca = authority(&tls)?;
    let names = names(&tls, &args.hosts)?;
    let (pem, key) = issue(&ca, "cnx coordinator", &names, args.days, ExtendedKeyUsagePurpose::ServerAuth)?;
    // The key first: a certificate is never there without the key that it will need.
    put(&tls.server_key(), &key, true)?;
    put(&tls.server(), &pem, false)?;
    let host = args.hosts.first().map_or("NAME", String::as_str);
    Ok(format!(
        "{ca} signs for {names}, for {days} days.\n\
         Start the coordinator:     cnx up --listen 0.0.0.0:{DEFAULT_PORT}    (or cnxd with the same --listen)\n\
         On each other machine:     copy {ca} to tls/ca.pem of its state folder,\n\
         \x20                          and {worker} (a worker's) or {token} (a person's) beside tls/; then\n\
         \x20                          cnx-worker agent --server https://{host}:{DEFAULT_PORT}\n\
         {key} signs whatever the pool trusts: it is needed only here, and only for `cnxd tls`.",
        ca = tls.ca().display(),
        names = names.join(", "),
        days = args.days,
        worker = state.worker_token().display(),
        token = state.token().display(),
        key = tls.ca_key().display(),
    ))
}

fn client(state: &StateDir, args: &ClientArgs) -> anyhow::Result<String> {
    let tls = state.tls();
    if !tls.ca_key().exists() {
        bail!("there is no CA in {}; `cnxd tls init --host NAME` makes one", tls.path().display());
    }
    let out = args.out.clone().unwrap_or_else(|| tls.path().to_path_buf());
    private_folder(&out)?;
    let ca = authority(&tls)?;
    let (pem, key) = issue(&ca, "cnx caller", &[], args.days, ExtendedKeyUsagePurpose::ClientAuth)?;
    put(&out.join("client.key"), &key, true)?;
    put(&out.join("client.pem"), &pem, false)?;
    if args.out.is_some() {
        put(&out.join("ca.pem"), &ca.pem, false)?;
    }
    Ok(format!(
        "{out}/client.pem and client.key, for {days} days: callers find them in tls/ of their state folder.\n\
         The coordinator asks for them when it runs with --tls-client-ca {ca}",
        out = out.display(),
        days = args.days,
        ca = tls.ca().display(),
    ))
}

/// A CA that can sign.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// The CA of the folder; made if there is none.
fn authority(tls: &Tls) -> anyhow::Result<Authority> {
    let (cert, key) = (tls.ca(), tls.ca_key());
    if !key.exists() {
        if cert.exists() {
            bail!(
                "{} is there without {}: this machine only trusts that CA. Make certificates where its key is, or remove \
                 the file to begin a CA of this machine's own",
                cert.display(),
                key.display()
            );
        }
        let pair = KeyPair::generate().context("no key could be made")?;
        let mut params = params("cnx CA", &[], CA_DAYS)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let made = params.self_signed(&pair).context("no CA could be made")?;
        put(&key, &pair.serialize_pem(), true)?;
        put(&cert, &made.pem(), false)?;
    }
    if let Err(why) = keep_private(&key) {
        bail!("the key {} {why}", key.display());
    }
    let pem = fs::read_to_string(&cert).with_context(|| format!("cannot read {}", cert.display()))?;
    let pair = fs::read_to_string(&key).with_context(|| format!("cannot read {}", key.display()))?;
    let pair = KeyPair::from_pem(&pair).with_context(|| format!("{} holds no key", key.display()))?;
    let issuer =
        Issuer::from_ca_cert_pem(&pem, pair).with_context(|| format!("{} is no CA", cert.display()))?;
    Ok(Authority { pem, issuer })
}

/// Those of the certificate that is there, those that are new, and this machine's own.
fn names(tls: &Tls, hosts: &[String]) -> anyhow::Result<Vec<String>> {
    let before = match fs::read(tls.server()) {
        Ok(pem) => Summary::of_pem(&pem, &tls.server())?.names,
        Err(_) if hosts.is_empty() => {
            bail!("say with --host by which name or address other machines call this one; may be repeated")
        }
        Err(_) => Vec::new(),
    };
    let mut names = Vec::new();
    for name in hosts.iter().cloned().chain(before).chain(OWN_NAMES.map(str::to_owned)) {
        if !is_host(&name) {
            bail!(
                "--host {name:?} is neither a host's name nor an address; expected e.g. gpu-box or 10.0.0.5"
            );
        }
        if !names.contains(&name) {
            names.push(name);
        }
    }
    if names.len() > MAX_NAMES {
        bail!("{} names in one certificate; expected at most {MAX_NAMES}", names.len());
    }
    Ok(names)
}

fn is_host(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    name.parse::<std::net::IpAddr>().is_ok()
        || (name.len() <= 253 && name.strip_prefix("*.").unwrap_or(name).split('.').all(label))
}

fn issue(
    ca: &Authority,
    who: &str,
    names: &[String],
    days: u32,
    usage: ExtendedKeyUsagePurpose,
) -> anyhow::Result<(String, String)> {
    let pair = KeyPair::generate().context("no key could be made")?;
    let mut params = params(who, names, i64::from(days))?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    let made = params.signed_by(&pair, &ca.issuer).context("no certificate could be made")?;
    Ok((made.pem(), pair.serialize_pem()))
}

fn params(who: &str, names: &[String], days: i64) -> anyhow::Result<CertificateParams> {
    let mut params =
        CertificateParams::new(names.to_vec()).context("a name cannot stand in a certificate")?;
    params.distinguished_name.push(DnType::CommonName, who);
    let now = OffsetDateTime::now_utc();
    // Clocks of other machines may be behind.
    params.not_before = now - Duration::days(1);
    params.not_after = now + Duration::days(days);
    Ok(params)
}

fn private_folder(folder: &Path) -> anyhow::Result<()> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.with_context(|| format!("cannot make the folder {}", folder.display()))
}

fn put(file: &Path, text: &str, private: bool) -> anyhow::Result<()> {
    let written = if private { write_private(file, text) } else { write_public(file, text) };
    written.with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn made(root: &Path, arguments: &[&str]) -> anyhow::Result<StateDir> {
        let state = StateDir::locate(Some(&root.join("state")), |_| None).unwrap();
        let hosts = arguments.iter().map(|&host| host.to_owned()).collect();
        init(&state, &InitArgs { hosts, days: 30 })?;
        Ok(state)
    }

    fn summary(tls: &Tls) -> Summary {
        Summary::of_pem(&fs::read(tls.server()).unwrap(), &tls.server()).unwrap()
    }

    #[test]
    fn keys_are_the_owners_alone() {
        let root = tempfile::tempdir().unwrap();
        let state = made(root.path(), &["gpu-box"]).unwrap();
        client(&state, &ClientArgs { out: None, days: 1 }).unwrap();
        let tls = state.tls();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        for key in [tls.ca_key(), tls.server_key(), tls.client_key()] {
            assert_eq!(mode(&key), 0o600, "{}", key.display());
        }
        assert_eq!(mode(tls.path()), 0o700);
    }

    #[test]
    fn renewing_keeps_the_ca_and_the_names_and_adds_new_ones() {
        let root = tempfile::tempdir().unwrap();
        let tls = made(root.path(), &["gpu-box"]).unwrap().tls();
        let (ca, first) = (fs::read(tls.ca()).unwrap(), fs::read(tls.server()).unwrap());
        made(root.path(), &["10.0.0.5"]).unwrap();
        assert_eq!(fs::read(tls.ca()).unwrap(), ca);
        assert_ne!(fs::read(tls.server()).unwrap(), first);
        assert_eq!(summary(&tls).names, ["10.0.0.5", "gpu-box", "localhost", "127.0.0.1", "::1"]);
        made(root.path(), &[]).unwrap();
        assert_eq!(summary(&tls).names.len(), 5);
    }

    #[test]
    fn what_is_no_host_and_a_ca_without_its_key_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let refusal = |hosts: &[&str]| format!("{:#}", made(root.path(), hosts).unwrap_err());
        assert!(refusal(&[]).contains("--host"));
        for host in ["a b", "", "gpu-box:7420", "https://gpu-box", "-x", "a\nb"] {
            assert!(refusal(&[host]).contains("neither a host's name"), "{host:?}");
        }
        let state = made(root.path(), &["gpu-box"]).unwrap();
        fs::remove_file(state.tls().ca_key()).unwrap();
        assert!(refusal(&["gpu-box"]).contains("only trusts that CA"));
    }
}

//! The coordinator's side of TLS: which certificate it shows, and whether that can work, before anybody listens.
//! [`certificate`] reads one, [`authority`] makes them for a pool that has none.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use cnx_access::trust::{read_certificates, read_key};
use cnx_proto::state_dir::StateDir;
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

pub mod authority;
pub mod certificate;

/// Until a caller has come to terms about TLS.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A certificate that ends within so many days is spoken of at every start.
const ENDS_SOON_DAYS: i64 = 30;

/// What `cnxd` is told of certificates.
#[derive(Debug, Clone, Default, Args)]
pub struct ServerTlsArgs {
    /// Certificate to show, in PEM, with those between it and its CA [default: tls/server.pem in the state folder]
    #[arg(long = "tls-cert", value_name = "FILE")]
    pub cert: Option<PathBuf>,
    /// Its key, in PEM [default: tls/server.key in the state folder]
    #[arg(long = "tls-key", value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Callers must show a certificate of this CA, besides their token (mTLS)
    #[arg(long = "tls-client-ca", value_name = "FILE")]
    pub client_ca: Option<PathBuf>,
}

/// The files of a coordinator that speaks TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// Its certificate, and those between it and the CA.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// CA of callers' certificates; none: they need none.
    pub client_ca: Option<PathBuf>,
}

impl Files {
    /// What the flags name, else what lies in the state folder; none: it speaks in clear text.
    ///
    /// # Errors
    /// When one flag came without the other.
    pub fn find(args: &ServerTlsArgs, state: &StateDir) -> Result<Option<Files>, String> {
        let tls = state.tls();
        let client_ca = args.client_ca.clone();
        match (&args.cert, &args.key) {
            (Some(cert), Some(key)) => Ok(Some(Files { cert: cert.clone(), key: key.clone(), client_ca })),
            (Some(_), None) => Err("--tls-cert needs --tls-key, the key of that certificate".to_owned()),
            (None, Some(_)) => Err("--tls-key needs --tls-cert, the certificate of that key".to_owned()),
            (None, None) if tls.server().exists() => {
                Ok(Some(Files { cert: tls.server(), key: tls.server_key(), client_ca }))
            }
            (None, None) if client_ca.is_some() => Err(format!(
                "--tls-client-ca needs a certificate of its own side: give --tls-cert and --tls-key, or make them with \
                 `cnxd tls init --host NAME` (there is no {})",
                tls.server().display()
            )),
            (None, None) => Ok(None),
        }
    }

    /// What the server is given. Says in the log when the certificate ends soon.
    ///
    /// # Errors
    /// When a file cannot be used, or the certificate is not valid now.
    pub fn server_config(&self) -> anyhow::Result<ServerTlsConfig> {
        // Where a build holds two libraries of cryptography, somebody has to say which one counts.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (cert, key) = (read_certificates(&self.cert)?, read_key(&self.key)?);
        self.check_time(&certificate::Summary::of_pem(&cert, &self.cert)?)?;
        let mut config = ServerTlsConfig::new().identity(Identity::from_pem(cert, key)).timeout(HANDSHAKE);
        if let Some(file) = &self.client_ca {
            config = config.client_ca_root(Certificate::from_pem(read_certificates(file)?));
        }
        Ok(config)
    }

    fn check_time(&self, found: &certificate::Summary) -> anyhow::Result<()> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_s = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
        let renew = "`cnxd tls init` makes a new one, of the same names";
        let show = self.cert.display();
        if found.ends_at_s < now_s {
            anyhow::bail!("the certificate {show} ended on {}; {renew}", found.ends_on);
        }
        if found.begins_at_s > now_s {
            anyhow::bail!(
                "the certificate {show} begins on {}; is this machine's clock right?",
                found.begins_on
            );
        }
        if found.ends_at_s - now_s < ENDS_SOON_DAYS * 24 * 60 * 60 {
            tracing::warn!("the certificate {show} ends on {}; {renew}", found.ends_on);
        }
        Ok(())
    }

    /// The name by which callers on this machine reach `address` so that the certificate fits: the address itself, else
    /// `localhost`, else the first name that the certificate has.
    ///
    /// # Errors
    /// When the certificate has no name that could be called.
    pub fn name_for(&self, address: SocketAddr) -> anyhow::Result<String> {
        let found = certificate::Summary::of_pem(&read_certificates(&self.cert)?, &self.cert)?;
        let own = here(address).to_string();
        let names = found.names.iter().map(String::as_str);
        let fits = names
            .clone()
            .find(|name| *name == own)
            .or_else(|| names.clone().find(|name| *name == "localhost"));
        let plain = |name: &&str| !name.contains('*');
        match fits.or_else(|| names.clone().find(plain)) {
            Some(name) => Ok(name.to_owned()),
            None => anyhow::bail!(
                "the certificate {} names no host; callers could not tell that it is this coordinator's. Make one with \
                 `cnxd tls init --host NAME`, or say with --advertise by which name it is called",
                self.cert.display()
            ),
        }
    }
}

/// The address by which this machine reaches itself where `address` listens.
pub fn here(address: SocketAddr) -> std::net::IpAddr {
    match address.ip() {
        ip if !ip.is_unspecified() => ip,
        std::net::IpAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
        std::net::IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
    }
}

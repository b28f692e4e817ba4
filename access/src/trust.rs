//! Certificates of a caller: whom it trusts, and what it shows.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use cnx_proto::state_dir::StateDir;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use crate::AccessError;
use crate::place::Place;
use crate::secret::keep_private;

/// Until the coordinator has shown its certificate.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// What a caller says of certificates. What it leaves out is looked for in the state folder.
#[derive(Debug, Clone, Default, Args)]
pub struct TlsArgs {
    /// Certificate of the CA that signed the coordinator's [default: tls/ca.pem in the state folder, else the public CAs]
    #[arg(long = "tls-ca", global = true, env = "CNX_TLS_CA", value_name = "FILE", hide_env = true)]
    pub ca: Option<PathBuf>,
    /// Certificate to show, where the coordinator wants one [default: tls/client.pem in the state folder]
    #[arg(long = "tls-cert", global = true, env = "CNX_TLS_CERT", value_name = "FILE", hide_env = true)]
    pub cert: Option<PathBuf>,
    /// Its key [default: tls/client.key in the state folder]
    #[arg(long = "tls-key", global = true, env = "CNX_TLS_KEY", value_name = "FILE", hide_env = true)]
    pub key: Option<PathBuf>,
}

/// Which files a caller's trust is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust {
    /// None: the public CAs.
    ca: Option<PathBuf>,
    /// Certificate and key.
    identity: Option<(PathBuf, PathBuf)>,
}

impl Trust {
    /// What the flags say, else what lies in the state folder.
    ///
    /// # Errors
    /// When a certificate is named without its key, or the other way round.
    pub fn find(args: &TlsArgs, state: Option<&StateDir>) -> Result<Trust, AccessError> {
        let there = |file: PathBuf| file.exists().then_some(file);
        let tls = state.map(StateDir::tls);
        let ca = args.ca.clone().or_else(|| tls.as_ref().and_then(|tls| there(tls.ca())));
        let identity = match (&args.cert, &args.key) {
            (Some(cert), Some(key)) => Some((cert.clone(), key.clone())),
            (None, None) => {
                tls.as_ref().and_then(|tls| there(tls.client()).map(|cert| (cert, tls.client_key())))
            }
            (cert, _) => {
                let missing = if cert.is_some() { "--tls-key" } else { "--tls-cert" };
                return Err(AccessError::Usage(format!(
                    "a certificate needs its key: give {missing} too, or neither"
                )));
            }
        };
        Ok(Trust { ca, identity })
    }

    /// The CA, for messages.
    pub fn ca(&self) -> Option<&Path> {
        self.ca.as_deref()
    }

    /// Whether there is a certificate to show.
    pub fn has_identity(&self) -> bool {
        self.identity.is_some()
    }

    /// The way to a coordinator; TLS where its URL says so.
    ///
    /// # Errors
    /// When a file cannot be used.
    pub fn endpoint(&self, place: &Place) -> Result<Endpoint, AccessError> {
        let no_url = |_| AccessError::Usage(format!("{:?} is not a URL", place.url()));
        let endpoint = Endpoint::from_shared(place.url().to_owned()).map_err(no_url)?;
        if !place.secure {
            return Ok(endpoint);
        }
        let mut config = ClientTlsConfig::new().timeout(HANDSHAKE);
        config = match &self.ca {
            Some(file) => config.ca_certificate(Certificate::from_pem(read_certificates(file)?)),
            None => config.with_enabled_roots(),
        };
        if let Some((cert, key)) = &self.identity {
            config = config.identity(Identity::from_pem(read_certificates(cert)?, read_key(key)?));
        }
        endpoint.tls_config(config).map_err(|error| {
            let files =
                self.identity.as_ref().map(|(cert, key)| format!("{} and {}", cert.display(), key.display()));
            let of = files.unwrap_or_else(|| "the certificates".to_owned());
            AccessError::Certificate(format!("{of} cannot be used: {}", crate::explain::chain(&error)))
        })
    }
}

/// Certificates in PEM.
///
/// # Errors
/// When the file cannot be read, or holds none.
pub fn read_certificates(file: &Path) -> Result<Vec<u8>, AccessError> {
    read_pem(file, "CERTIFICATE-----", "a certificate in PEM (-----BEGIN CERTIFICATE-----)")
}

/// A key in PEM. Others lose the right to read it.
///
/// # Errors
/// When the file cannot be read, holds none, or is somebody else's and open to others.
pub fn read_key(file: &Path) -> Result<Vec<u8>, AccessError> {
    keep_private(file)
        .map_err(|why| AccessError::Certificate(format!("the key {} {why}", file.display())))?;
    read_pem(file, "PRIVATE KEY-----", "a private key in PEM (-----BEGIN PRIVATE KEY-----)")
}

fn read_pem(file: &Path, mark: &str, expected: &str) -> Result<Vec<u8>, AccessError> {
    let show = file.display();
    let wrong = |why: String| AccessError::Certificate(format!("{show} {why}"));
    let bytes = fs::read(file).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let found = bytes.windows(mark.len()).any(|part| part == mark.as_bytes());
    if found { Ok(bytes) } else { Err(wrong(format!("does not hold {expected}"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_in_the_state_folder_is_found_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::locate(Some(folder.path()), |_| None).unwrap();
        let tls = state.tls();
        let find = |args: &TlsArgs| Trust::find(args, Some(&state)).unwrap();
        assert_eq!(find(&TlsArgs::default()), Trust::default());
        fs::create_dir(tls.path()).unwrap();
        fs::write(tls.ca(), "").unwrap();
        fs::write(tls.client(), "").unwrap();
        let found = find(&TlsArgs::default());
        assert_eq!((found.ca, found.identity), (Some(tls.ca()), Some((tls.client(), tls.client_key()))));
        let named = find(&TlsArgs { ca: Some("/ca".into()), ..TlsArgs::default() });
        assert_eq!(named.ca.as_deref(), Some(Path::new("/ca")));
    }

    #[test]
    fn a_certificate_without_its_key_is_refused() {
        let args = TlsArgs { cert: Some("/c".into()), ..TlsArgs::default() };
        assert!(Trust::find(&args, None).unwrap_err().to_string().contains("--tls-key"));
    }

    #[test]
    fn a_file_that_holds_something_else_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        let refusal = |file: &Path| read_certificates(file).unwrap_err().to_string();
        assert!(refusal(&file).contains("cannot be read"));
        fs::write(&file, "hello").unwrap();
        assert!(refusal(&file).contains("does not hold a certificate in PEM"));
    }
}

//! Where the coordinator is.

use std::fs;
use std::io;
use std::net::IpAddr;

use cnx_proto::state_dir::{DEFAULT_PORT, StateDir};

use crate::AccessError;

/// A coordinator's URL that a token may be sent to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    url: String,
    /// It is spoken to through TLS.
    pub secure: bool,
}

impl Place {
    /// Of the flag or variable that names it, else what the running coordinator wrote into the state folder.
    ///
    /// # Errors
    /// When the URL cannot be meant, or none is known.
    pub fn find(server: Option<&str>, state: Option<&StateDir>) -> Result<Place, AccessError> {
        if let Some(server) = server {
            return Place::parse(server);
        }
        let Some(state) = state else {
            return Err(AccessError::Usage("name the coordinator with --server or --state".to_owned()));
        };
        let (file, folder) = (state.endpoint(), state.path().display());
        match fs::read_to_string(&file) {
            Ok(url) if !url.trim().is_empty() => Place::parse(url.trim()),
            // Without that file none was ever started there. To try the usual port all the same would send this
            // folder's token to somebody else's coordinator.
            Ok(_) => Err(AccessError::Nowhere(format!("the state folder {folder}"))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(AccessError::Nowhere(format!("the state folder {folder}")))
            }
            Err(error) => Err(AccessError::File(format!("{} cannot be read: {error}", file.display()))),
        }
    }

    /// A URL, or a host and port. Without a scheme this machine is spoken to in clear text, any other through TLS.
    ///
    /// # Errors
    /// When it is no URL of a coordinator, or a token would cross a network in clear text.
    pub fn parse(server: &str) -> Result<Place, AccessError> {
        let usage = |message: String| Err(AccessError::Usage(message));
        let (scheme, rest) = match server.split_once("://") {
            Some((scheme @ ("http" | "https"), rest)) => (Some(scheme), rest),
            Some((other, _)) => {
                return usage(format!(
                    "the coordinator's URL {server:?} starts with {other}://, expected https:// or http://"
                ));
            }
            None => (None, server),
        };
        let authority = rest.trim_end_matches('/');
        let Some(host) = host(authority) else {
            return usage(format!(
                "{server:?} is not a coordinator's URL; expected e.g. https://gpu-box:{DEFAULT_PORT} or \
                 127.0.0.1:{DEFAULT_PORT}"
            ));
        };
        let here = is_this_machine(host);
        if scheme == Some("http") && !here {
            return usage(format!(
                "{server} would be sent the token in clear text, for anybody on the way to read; say https://{authority} \
                 (docs/OPERATIONS.md tells how cnxd gets its certificate), or forward its port to this machine (ssh -L)"
            ));
        }
        let secure = scheme.map_or(!here, |scheme| scheme == "https");
        let url = format!("{}://{authority}", if secure { "https" } else { "http" });
        Ok(Place { url, secure })
    }

    /// The URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// As people read it: `127.0.0.1:7420`, `https://gpu-box:7420`.
    pub fn shown(&self) -> &str {
        self.url.strip_prefix("http://").unwrap_or(&self.url)
    }
}

/// The host of `host:port`, without the brackets of an IPv6 address. None: not of that form.
fn host(authority: &str) -> Option<&str> {
    let plain = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_:%".contains(&b))
    };
    let port_is_right = |port: &str| port.parse::<u16>().is_ok();
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            (host, port.strip_prefix(':').or(port.is_empty().then_some("")))
        }
        None => match authority.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') => (host, Some(port)),
            Some(_) => return None,
            None => (authority, Some("")),
        },
    };
    (plain(host) && port.is_some_and(|port| port.is_empty() || port_is_right(port))).then_some(host)
}

/// Whether what is sent there never leaves this machine.
fn is_this_machine(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(server: &str) -> String {
        Place::parse(server).unwrap().url
    }

    fn refusal(server: &str) -> String {
        Place::parse(server).unwrap_err().to_string()
    }

    #[test]
    fn without_a_scheme_this_machine_is_plain_and_any_other_is_not() {
        assert_eq!(url("127.0.0.1:7420"), "http://127.0.0.1:7420");
        assert_eq!(url("localhost:1"), "http://localhost:1");
        assert_eq!(url("[::1]:7420"), "http://[::1]:7420");
        assert_eq!(url("gpu-box:7420"), "https://gpu-box:7420");
        assert_eq!(url("10.0.0.1:7420/"), "https://10.0.0.1:7420");
        assert_eq!(Place::parse("https://127.0.0.1:1").unwrap().shown(), "https://127.0.0.1:1");
        assert_eq!(Place::parse("http://127.0.0.1:1").unwrap().shown(), "127.0.0.1:1");
    }

    #[test]
    fn no_token_crosses_a_network_in_clear_text() {
        for server in [
            "http://gpu-box:7420",
            "http://10.0.0.1:7420",
            "http://127.0.0.1.example.org:1",
            "http://[2001:db8::1]:1",
        ] {
            assert!(refusal(server).contains("clear text"), "{server}");
        }
    }

    #[test]
    fn what_is_no_url_of_a_coordinator_says_what_would_be() {
        assert!(refusal("ftp://host").contains("expected https://"));
        for server in [
            "",
            "http://",
            "a b:1",
            "host:port",
            "host:99999",
            "user@host:1",
            "host/path",
            "::1:7420",
            "[::1:7420",
        ] {
            assert!(refusal(server).contains("not a coordinator's URL"), "{server}: {}", refusal(server));
        }
    }

    #[test]
    fn the_state_folder_says_where_the_running_one_is() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::locate(Some(folder.path()), |_| None).unwrap();
        let none = Place::find(None, Some(&state)).unwrap_err();
        assert!(matches!(&none, AccessError::Nowhere(at) if at.contains("state folder")), "{none}");
        fs::write(state.endpoint(), "https://127.0.0.1:9\n").unwrap();
        let found = Place::find(None, Some(&state)).unwrap();
        assert!(found.secure && found.url() == "https://127.0.0.1:9");
        assert_eq!(Place::find(Some("localhost:8"), Some(&state)).unwrap().url(), "http://localhost:8");
    }
}

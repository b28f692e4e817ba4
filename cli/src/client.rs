//! Finds the coordinator, connects, and turns what goes wrong into a message and an exit code.

use std::fs;
use std::io;
use std::time::Duration;

use cnx_proto::state_dir::{AUTHORIZATION, MAX_MESSAGE_BYTES};
use cnx_proto::v1::experiments_client::ExperimentsClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::context::Context;
use crate::failure::{Code, Failure, Result};

/// Until a connection stands, and until a dead one is noticed.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Until an answer starts; a sweep of 100,000 specs takes its time.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(300);

type Rpc = ExperimentsClient<InterceptedService<Channel, Bearer>>;

/// A connection to the coordinator.
pub struct Client {
    /// The service.
    pub rpc: Rpc,
    place: Place,
}

/// Where the coordinator should be, in words that help when it is not.
#[derive(Debug, Clone)]
struct Place {
    url: String,
    token_from: String,
}

impl Client {
    /// Connects.
    pub async fn connect(context: &Context) -> Result<Client> {
        let url = url(context)?;
        let endpoint = Endpoint::from_shared(url.clone())
            .map_err(|_| {
                Failure::usage(format!("{url:?} is not a URL; expected e.g. http://127.0.0.1:7420"))
            })?
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(ANSWER_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true);
        // A URL that names no coordinator's port fails here, before any token is sent.
        let channel = endpoint.connect().await.map_err(|_| unreachable(&shown(&url)))?;
        let (token, token_from) = token(context)?;
        let rpc = ExperimentsClient::with_interceptor(channel, Bearer(token))
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        Ok(Client { rpc, place: Place { url, token_from } })
    }

    /// What a refusal means to the person.
    pub fn failure(&self, status: &Status) -> Failure {
        failure(&self.place, status)
    }

    /// The coordinator's address, as people read it.
    pub fn address(&self) -> String {
        shown(&self.place.url)
    }
}

fn failure(place: &Place, status: &Status) -> Failure {
    let address = shown(&place.url);
    let said = status.message();
    // A status with a source was made here, of a connection that broke or timed out; the coordinator's have none.
    if std::error::Error::source(status).is_some() {
        let message = format!("the connection to the coordinator at {address} broke: {said}");
        return Failure { code: Code::Unreachable, message };
    }
    match status.code() {
        tonic::Code::Unauthenticated | tonic::Code::PermissionDenied => Failure {
            code: Code::Unauthorised,
            message: format!(
                "the coordinator at {address} refused the token from {}: {said}",
                place.token_from
            ),
        },
        tonic::Code::Unavailable => Failure {
            code: Code::Unreachable,
            message: format!("the coordinator at {address} does not answer: {said}"),
        },
        tonic::Code::InvalidArgument => Failure::usage(said),
        tonic::Code::Unimplemented => Failure::refused(format!(
            "the coordinator at {address} does not know this request; are cnx and cnxd of the same version?"
        )),
        _ if said.is_empty() => {
            Failure::refused(format!("the coordinator at {address} refused: {}", status.code()))
        }
        _ => Failure::refused(said),
    }
}

/// Nothing listens there.
fn unreachable(at: &str) -> Failure {
    let message = format!(
        "no coordinator answers at {at}: start one with `cnx up`, or name another with --server or --state"
    );
    Failure { code: Code::Unreachable, message }
}

/// Of the flag or $CNX_SERVER, else what the running coordinator wrote into the state folder.
fn url(context: &Context) -> Result<String> {
    if let Some(server) = &context.server {
        return with_scheme(server);
    }
    let file = context.state()?.endpoint();
    match fs::read_to_string(&file) {
        Ok(url) if !url.trim().is_empty() => with_scheme(url.trim()),
        Ok(_) => Err(unreachable(&format!("the state folder {}", file.parent().unwrap_or(&file).display()))),
        // Without that file none was ever started there. To try the usual port all the same would send this
        // folder's token to somebody else's coordinator.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let folder = file.parent().unwrap_or(&file).display();
            Err(unreachable(&format!("the state folder {folder}")))
        }
        Err(error) => Err(Failure::refused(format!("{} cannot be read: {error}", file.display()))),
    }
}

fn with_scheme(server: &str) -> Result<String> {
    match server.split_once("://") {
        None => Ok(format!("http://{server}")),
        Some(("http", _)) => Ok(server.to_owned()),
        Some((other, _)) => Err(Failure::usage(format!(
            "the coordinator's URL {server:?} starts with {other}://, expected http://"
        ))),
    }
}

fn shown(url: &str) -> String {
    url.trim_start_matches("http://").trim_end_matches('/').to_owned()
}

/// The token, and where it is from.
fn token(context: &Context) -> Result<(MetadataValue<Ascii>, String)> {
    let unauthorised = |message: String| Failure { code: Code::Unauthorised, message };
    let (text, from) = match std::env::var("CNX_TOKEN") {
        Ok(token) if !token.is_empty() => (token, "$CNX_TOKEN".to_owned()),
        _ => {
            let file = context.state()?.token();
            let text = fs::read_to_string(&file).map_err(|error| {
                unauthorised(format!(
                    "no token: {} cannot be read ({error}); give the coordinator's state folder with --state, or set CNX_TOKEN",
                    file.display()
                ))
            })?;
            (text, file.display().to_string())
        }
    };
    let bearer = format!("Bearer {}", text.trim());
    let mut value = MetadataValue::try_from(bearer)
        .map_err(|_| unauthorised(format!("the token from {from} holds characters that no token has")))?;
    value.set_sensitive(true);
    Ok((value, from))
}

/// Puts the token on every call.
#[derive(Clone)]
pub struct Bearer(MetadataValue<Ascii>);

impl tonic::service::Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> std::result::Result<Request<()>, Status> {
        request.metadata_mut().insert(AUTHORIZATION, self.0.clone());
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_a_scheme_is_http() {
        assert_eq!(with_scheme("10.0.0.1:7420").unwrap(), "http://10.0.0.1:7420");
        assert_eq!(with_scheme("http://host:1").unwrap(), "http://host:1");
        assert_eq!(with_scheme("ftp://host").unwrap_err().code, Code::Usage);
    }

    #[test]
    fn each_refusal_has_its_exit_code() {
        let place = Place { url: "http://h:1".into(), token_from: "/s/token".into() };
        let code = |status: Status| failure(&place, &status).code;
        assert_eq!(code(Status::unauthenticated("wrong token")), Code::Unauthorised);
        assert_eq!(code(Status::unavailable("draining")), Code::Unreachable);
        assert_eq!(code(Status::invalid_argument("bad spec")), Code::Usage);
        assert_eq!(code(Status::not_found("no experiment 9")), Code::Refused);
        let said = failure(&place, &Status::unauthenticated("wrong token")).message;
        assert!(said.contains("/s/token") && said.contains("wrong token"), "{said}");
    }
}

//! Finds the coordinator, connects, and turns what goes wrong into a message and an exit code.

use std::error::Error as _;
use std::time::Duration;

use cnx_access::{AccessError, Place, Role, Trust, explain};
use cnx_proto::state_dir::{AUTHORIZATION, MAX_MESSAGE_BYTES};
use cnx_proto::v1::experiments_client::ExperimentsClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::context::{Context, warn};
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
    there: There,
}

/// Where the coordinator should be, in words that help when it is not.
#[derive(Debug, Clone)]
struct There {
    place: Place,
    trust: Trust,
    token_from: String,
}

impl Client {
    /// Connects.
    pub async fn connect(context: &Context) -> Result<Client> {
        // A state folder may be missing where flags and variables say all that it would.
        let state = context.state().ok();
        let place = match (&context.server, state) {
            (None, None) => {
                return Err(context.state().err().unwrap_or_else(|| Failure::usage("no state folder")));
            }
            (server, state) => Place::find(server.as_deref(), state)?,
        };
        let trust = Trust::find(&context.tls, state)?;
        let endpoint = trust
            .endpoint(&place)?
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(ANSWER_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true);
        // A URL that names no coordinator's port fails here, before any token is sent.
        let channel = endpoint.connect().await.map_err(|error| not_connected(&place, &trust, &error))?;
        let token = Role::Person.token(state)?;
        if let Some(mended) = &token.mended {
            warn(mended);
        }
        let bearer = token.secret.bearer().ok_or_else(|| Failure {
            code: Code::Unauthorised,
            message: format!("the token from {} holds characters that no token has", token.from),
        })?;
        let rpc = ExperimentsClient::with_interceptor(channel, Bearer(bearer))
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        Ok(Client { rpc, there: There { place, trust, token_from: token.from } })
    }

    /// What a refusal means to the person.
    pub fn failure(&self, status: &Status) -> Failure {
        failure(&self.there, status)
    }

    /// The coordinator's address, as people read it.
    pub fn address(&self) -> String {
        self.there.place.shown().to_owned()
    }
}

fn failure(there: &There, status: &Status) -> Failure {
    let address = there.place.shown();
    let said = status.message();
    // A status with a source was made here, of a connection that broke or timed out; the coordinator's have none.
    if let Some(cause) = status.source() {
        let why =
            explain::tls(cause, &there.place, &there.trust).or_else(|| explain::cut(cause, &there.place));
        let message = match why {
            Some(why) => format!("the coordinator at {address} {why}"),
            None => format!("the connection to the coordinator at {address} broke: {said}"),
        };
        return Failure { code: Code::Unreachable, message };
    }
    match status.code() {
        tonic::Code::Unauthenticated | tonic::Code::PermissionDenied => Failure {
            code: Code::Unauthorised,
            message: format!(
                "the coordinator at {address} refused the token from {}: {said}",
                there.token_from
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

/// Nothing listens there, or its certificate is not to be trusted.
fn not_connected(place: &Place, trust: &Trust, error: &tonic::transport::Error) -> Failure {
    let Some(why) = explain::tls(error, place, trust) else { return unreachable(place.shown()) };
    Failure { code: Code::Unreachable, message: format!("the coordinator at {} {why}", place.shown()) }
}

/// Nothing listens there.
fn unreachable(at: &str) -> Failure {
    let message = format!(
        "no coordinator answers at {at}: start one with `cnx up`, or name another with --server or --state"
    );
    Failure { code: Code::Unreachable, message }
}

impl From<AccessError> for Failure {
    fn from(error: AccessError) -> Failure {
        let message = error.to_string();
        match error {
            AccessError::Usage(_) => Failure::usage(message),
            AccessError::Nowhere(at) => unreachable(&at),
            AccessError::Token(_) => Failure { code: Code::Unauthorised, message },
            AccessError::Certificate(_) | AccessError::File(_) => Failure::refused(message),
        }
    }
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
    fn each_refusal_has_its_exit_code() {
        let there = There {
            place: Place::parse("http://127.0.0.1:1").unwrap(),
            trust: Trust::default(),
            token_from: "/s/token".into(),
        };
        let code = |status: Status| failure(&there, &status).code;
        assert_eq!(code(Status::unauthenticated("wrong token")), Code::Unauthorised);
        assert_eq!(code(Status::permission_denied("a worker's token")), Code::Unauthorised);
        assert_eq!(code(Status::unavailable("draining")), Code::Unreachable);
        assert_eq!(code(Status::invalid_argument("bad spec")), Code::Usage);
        assert_eq!(code(Status::not_found("no experiment 9")), Code::Refused);
        let said = failure(&there, &Status::unauthenticated("wrong token")).message;
        assert!(said.contains("/s/token") && said.contains("wrong token"), "{said}");
    }
}

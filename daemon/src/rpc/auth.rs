//! The token that every call carries, and what it gives a right to.

use std::sync::Arc;

use subtle::ConstantTimeEq;
use tonic::service::Interceptor;
use tonic::transport::server::TlsConnectInfo;
use tonic::{Request, Status};

use cnx_access::{Role, Secret};
use cnx_proto::state_dir::AUTHORIZATION;

use super::gate::Connectee;
use crate::folder::Folder;

/// Lets through what carries the token of a role.
#[derive(Clone)]
pub struct Guard {
    role: Role,
    /// Of the role that is let through, and of the other.
    right: Arc<str>,
    other: Arc<str>,
    file: Arc<str>,
}

impl Guard {
    /// Of a service that is for callers of this role.
    pub fn new(role: Role, folder: &Folder) -> Guard {
        let header = |secret: &Secret| Arc::from(format!("Bearer {}", secret.reveal()));
        let (people, workers) = (header(folder.secret(Role::Person)), header(folder.secret(Role::Worker)));
        let (right, other) = match role {
            Role::Person => (people, workers),
            Role::Worker => (workers, people),
        };
        Guard { role, right, other, file: folder.token_file(role).display().to_string().into() }
    }

    fn refusal(&self, what: &str) -> Status {
        Status::unauthenticated(format!(
            "{what}: it expects the token in {}; use the same state folder (--state or CNX_STATE) as the coordinator, or \
             copy that file into yours",
            self.file
        ))
    }

    fn forbidden(&self) -> Status {
        let what = match self.role {
            Role::Person => {
                "this is the token of workers, which can neither queue experiments nor look at them"
            }
            Role::Worker => "this is the token of people, with which nobody can attach as a worker",
        };
        Status::permission_denied(format!("{what}; the one that can is in {}", self.file))
    }
}

impl Interceptor for Guard {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let Some(value) = request.metadata().get(AUTHORIZATION) else {
            return Err(self.refusal("the coordinator was called without a token"));
        };
        // In constant time: how long a refusal takes tells nothing of how much of a guess was right.
        let is = |token: &str| bool::from(value.as_bytes().ct_eq(token.as_bytes()));
        let (right, other) = (is(&self.right), is(&self.other));
        if !right && !other {
            return Err(self.refusal("the coordinator does not know this token"));
        }
        if !right {
            return Err(self.forbidden());
        }
        if let Some(connectee) = connectee(&request) {
            connectee.0.prove()?;
        }
        Ok(request)
    }
}

/// Who is connected, with TLS around it or without.
fn connectee(request: &Request<()>) -> Option<&Connectee> {
    let extensions = request.extensions();
    extensions.get::<Connectee>().or_else(|| Some(extensions.get::<TlsConnectInfo<Connectee>>()?.get_ref()))
}

//! The token that every call carries.

use std::path::Path;
use std::sync::Arc;

use subtle::ConstantTimeEq;
use tonic::service::Interceptor;
use tonic::{Request, Status};

use cnx_proto::state_dir::AUTHORIZATION;

/// Lets through what carries the token.
#[derive(Clone)]
pub struct Guard {
    expected: Arc<str>,
    refusal: Arc<str>,
}

impl Guard {
    /// For this token, which callers find in that file.
    pub fn new(token: &str, file: &Path) -> Guard {
        let refusal = format!(
            "it expects the token in {}; use the same state folder (--state or CNX_STATE) as the coordinator, or copy \
             that file into yours",
            file.display()
        );
        Guard { expected: format!("Bearer {token}").into(), refusal: refusal.into() }
    }
}

impl Interceptor for Guard {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let refuse = |what: &str| Err(Status::unauthenticated(format!("{what}: {}", self.refusal)));
        match request.metadata().get(AUTHORIZATION) {
            None => refuse("the coordinator was called without a token"),
            // In constant time: how long a refusal takes tells nothing of how much of a guess was right.
            Some(value) if bool::from(value.as_bytes().ct_eq(self.expected.as_bytes())) => Ok(request),
            Some(_) => refuse("the coordinator does not know this token"),
        }
    }
}

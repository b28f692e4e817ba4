//! Two kinds of callers. A worker runs what it is told and cannot queue or cancel; a person cannot pose as a worker and
//! report figures.

use std::path::PathBuf;

use cnx_proto::state_dir::StateDir;

use crate::AccessError;
use crate::secret::{Secret, Token};

/// Who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A person, by the command line: the service Experiments.
    Person,
    /// A worker: the service Workers.
    Worker,
}

impl Role {
    /// Where its token lies.
    pub fn token_file(self, state: &StateDir) -> PathBuf {
        match self {
            Role::Person => state.token(),
            Role::Worker => state.worker_token(),
        }
    }

    /// The variable of the environment that overrides the file.
    pub fn variable(self) -> &'static str {
        match self {
            Role::Person => "CNX_TOKEN",
            Role::Worker => "CNX_WORKER_TOKEN",
        }
    }

    /// The token of a caller: of the environment, else of the state folder.
    ///
    /// # Errors
    /// When there is none, it cannot be read, or others can read it and that cannot be mended.
    pub fn token(self, state: Option<&StateDir>) -> Result<Token, AccessError> {
        let variable = self.variable();
        if let Some(text) = std::env::var(variable).ok().filter(|text| !text.trim().is_empty()) {
            return Ok(Token { secret: Secret::new(&text), from: format!("${variable}"), mended: None });
        }
        let Some(state) = state else {
            return Err(AccessError::Token(format!(
                "no token: give the coordinator's state folder with --state, or set {variable}"
            )));
        };
        let file = self.token_file(state);
        Token::read(&file).map_err(|why| {
            AccessError::Token(format!(
                "no token: {} {why}; give the coordinator's state folder with --state, copy that file from there, or set \
                 {variable}",
                file.display()
            ))
        })
    }
}

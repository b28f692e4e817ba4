//! The coordinator's own words, asked for without the CLI.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cnx_proto::state_dir::AUTHORIZATION;
use cnx_proto::v1::experiments_client::ExperimentsClient;
use cnx_proto::v1::{DescribeRequest, ExperimentDetail, StatusReply, StatusRequest};
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// How long one answer may take. A coordinator that was stopped answers later, or never.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// Asks the coordinator of a state folder, wherever it listens just now.
pub struct Api {
    state: PathBuf,
    runtime: Runtime,
    client: Option<ExperimentsClient<Channel>>,
}

impl Api {
    /// Of the coordinator of this state folder.
    pub fn new(state: &Path) -> Api {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Api { state: state.to_owned(), runtime, client: None }
    }

    /// Everything that was submitted.
    ///
    /// # Errors
    /// In words, when there is no answer.
    pub fn status(&mut self) -> Result<StatusReply, String> {
        let mut whole: StatusReply = self.ask(|mut client, state| async move {
            Ok(client.status(authorized(&state, StatusRequest::default())?).await?.into_inner())
        })?;
        while whole.more > 0 {
            let before = whole.experiments.first().map_or(0, |e| e.id);
            let mut page: StatusReply = self.ask(|mut client, state| async move {
                let request = StatusRequest { before, ..StatusRequest::default() };
                Ok(client.status(authorized(&state, request)?).await?.into_inner())
            })?;
            whole.more = page.more;
            page.experiments.append(&mut whole.experiments);
            whole.experiments = page.experiments;
        }
        Ok(whole)
    }

    /// Everything about one experiment.
    ///
    /// # Errors
    /// In words, when there is no answer.
    pub fn describe(&mut self, id: u64) -> Result<ExperimentDetail, String> {
        self.ask(|mut client, state| async move {
            let request = authorized(&state, DescribeRequest { selector: id.to_string() })?;
            Ok(client.describe(request).await?.into_inner())
        })
    }

    fn ask<T, F>(
        &mut self,
        question: impl FnOnce(ExperimentsClient<Channel>, PathBuf) -> F,
    ) -> Result<T, String>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let Api { state, runtime, client } = self;
        let answer = runtime.block_on(async {
            tokio::time::timeout(ANSWER_WITHIN, async {
                let connected = match client.clone() {
                    Some(connected) => connected,
                    None => client.insert(connect(state).await?).clone(),
                };
                question(connected, state.clone()).await.map_err(|status| status.to_string())
            })
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {ANSWER_WITHIN:?}")))
        });
        if answer.is_err() {
            *client = None;
        }
        answer
    }
}

/// Connects to the coordinator of this state folder.
///
/// # Errors
/// In words, when there is none.
pub async fn connect(state: &Path) -> Result<ExperimentsClient<Channel>, String> {
    let endpoint = fs::read_to_string(state.join("endpoint")).map_err(|e| e.to_string())?;
    let endpoint = Endpoint::from_shared(endpoint.trim().to_owned()).map_err(|e| e.to_string())?;
    let channel = endpoint.connect().await.map_err(|e| e.to_string())?;
    Ok(ExperimentsClient::new(channel).max_decoding_message_size(cnx_proto::state_dir::MAX_MESSAGE_BYTES))
}

/// A request with the state folder's token.
///
/// # Errors
/// When there is no token.
pub fn authorized<T>(state: &Path, message: T) -> Result<Request<T>, Status> {
    let token = fs::read_to_string(state.join("token")).map_err(|e| Status::unavailable(e.to_string()))?;
    let bearer = format!("Bearer {}", token.trim()).parse();
    let bearer = bearer.map_err(|_| Status::unavailable("no token"))?;
    let mut request = Request::new(message);
    request.metadata_mut().insert(AUTHORIZATION, bearer);
    Ok(request)
}

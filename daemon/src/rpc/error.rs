//! The one map from what went wrong to a status.

use std::future::Future;

use tonic::Status;

use crate::store::StoreError;

/// Longest message of a status, in bytes: it travels in an HTTP header, escaped.
pub const MAX_MESSAGE_BYTES: usize = 4000;

impl From<StoreError> for Status {
    fn from(error: StoreError) -> Status {
        let message = short(error.to_string());
        match error {
            StoreError::Full => Status::resource_exhausted(message),
            StoreError::Closed => Status::unavailable(message),
            StoreError::NotFound(_) => Status::not_found(message),
            StoreError::Refused(_) | StoreError::Hopeless(_) => Status::failed_precondition(message),
            StoreError::Database(_) | StoreError::Unexpected(_) => {
                tracing::error!("{message}");
                Status::internal(message)
            }
        }
    }
}

/// Cuts a message to what a header holds.
pub fn short(mut message: String) -> String {
    if message.len() > MAX_MESSAGE_BYTES {
        let mut end = MAX_MESSAGE_BYTES;
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        message.truncate(end);
        message.push_str(" …");
    }
    message
}

/// Runs a change to its end even if the caller hangs up: disk, memory and workers are told together or not at all.
pub async fn finished<T: Send + 'static>(
    change: impl Future<Output = Result<T, Status>> + Send + 'static,
) -> Result<T, Status> {
    match tokio::spawn(change).await {
        Ok(done) => done,
        Err(error) => Err(Status::internal(format!("a defect in cnxd: {error}"))),
    }
}

/// A heading and as many lines as a header holds; says how many more there are.
pub fn list(heading: &str, lines: &[String]) -> String {
    let mut text = heading.to_owned();
    for (told, line) in lines.iter().enumerate() {
        if text.len() + line.len() > MAX_MESSAGE_BYTES - 100 && told > 0 {
            text.push_str(&format!("\n… and {} more", lines.len() - told));
            break;
        }
        text.push('\n');
        text.push_str(line);
    }
    short(text)
}

//! What can go wrong with a transaction: one variant per thing the caller can do about it.

use crate::lifecycle::Refusal;

/// Why nothing was saved or found.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Free space on the disk, then do it again.
    #[error(
        "the database could not be written: the disk is full; nothing was saved; free some space and repeat"
    )]
    Full,
    /// Look at disk and permissions.
    #[error("the database could not be read or written: {0}; nothing was saved")]
    Database(String),
    /// Ask again when it is back.
    #[error("the coordinator is stopping; nothing was saved")]
    Closed,
    /// The row says what no version of cnx writes.
    #[error("the database holds what was not expected: {0}; nothing was saved")]
    Unexpected(String),
    /// Name something that exists.
    #[error("{0}")]
    NotFound(String),
    /// Retry first what is to be waited for.
    #[error("{0} failed or was cancelled: nothing can run after it; retry it first (cnx retry {0})")]
    Hopeless(String),
    /// The lifecycle does not admit it.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// Primary result codes of SQLite.
pub(super) const READ_ONLY: i32 = 8;
pub(super) const CORRUPT: i32 = 11;
pub(super) const FULL: i32 = 13;
pub(super) const NOT_A_DATABASE: i32 = 26;

/// SQLite's primary result code, if the error came from SQLite.
pub(super) fn primary_code(error: &sqlx::Error) -> Option<i32> {
    let code: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(code & 0xff)
}

impl StoreError {
    /// Whether the database failed, rather than refused: whatever shared the transaction failed with it.
    pub(super) fn is_of_the_database(&self) -> bool {
        matches!(self, StoreError::Full | StoreError::Database(_))
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> StoreError {
        match primary_code(&error) {
            Some(FULL) => StoreError::Full,
            _ => StoreError::Database(error.to_string()),
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> StoreError {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => StoreError::Full,
            // A guard of the tables: the change that met it is refused, and nothing else is wrong.
            Some(rusqlite::ErrorCode::ConstraintViolation) => StoreError::Unexpected(error.to_string()),
            _ => StoreError::Database(error.to_string()),
        }
    }
}

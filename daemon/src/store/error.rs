//! What can go wrong with a transaction: one variant per thing the caller can do about it.

use crate::lifecycle::Refusal;

/// Why nothing was saved or found.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Free space on the disk, then do it again.
    #[error(
        "the database could not be written: the disk is full; nothing was saved; free some space and repeat"
    )]
    Full,
    /// Look at disk and permissions.
    #[error("the database could not be read or written: {0}; nothing was saved")]
    Database(sqlx::Error),
    /// The row says what no version of cnx writes.
    #[error("the database holds what was not expected: {0}; nothing was saved")]
    Unexpected(String),
    /// Name something that exists.
    #[error("{0}")]
    NotFound(String),
    /// The lifecycle does not admit it.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// Primary result codes of SQLite.
pub(super) const CORRUPT: i32 = 11;
pub(super) const FULL: i32 = 13;
pub(super) const NOT_A_DATABASE: i32 = 26;

/// SQLite's primary result code, if the error came from SQLite.
pub(super) fn primary_code(error: &sqlx::Error) -> Option<i32> {
    let code: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(code & 0xff)
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> StoreError {
        match primary_code(&error) {
            Some(FULL) => StoreError::Full,
            _ => StoreError::Database(error),
        }
    }
}

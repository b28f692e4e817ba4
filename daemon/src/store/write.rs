//! A transaction that writes.

use std::ops::{Deref, DerefMut};

use sqlx::pool::PoolConnection;
use sqlx::{Sqlite, SqliteConnection, SqlitePool};

use super::Result;

/// A transaction on the one connection that writes; undone unless it is committed.
///
/// Undone means that the connection is closed, and the next transaction opens another. After a failed write SQLite may
/// have ended the transaction by itself or not (a full disk does either), and a connection whose state has to be
/// guessed is worth less than the millisecond that a new one costs.
pub(super) struct Write {
    connection: PoolConnection<Sqlite>,
    committed: bool,
}

impl Write {
    /// Takes the write lock.
    pub(super) async fn begin(writer: &SqlitePool) -> Result<Write> {
        let mut write = Write { connection: writer.acquire().await?, committed: false };
        sqlx::query("BEGIN IMMEDIATE").execute(&mut *write).await?;
        Ok(write)
    }

    /// Puts everything on disk. After an error, nothing of it is.
    pub(super) async fn commit(mut self) -> Result<()> {
        sqlx::query("COMMIT").execute(&mut *self).await?;
        self.committed = true;
        Ok(())
    }
}

impl Drop for Write {
    fn drop(&mut self) {
        if !self.committed {
            self.connection.close_on_drop();
        }
    }
}

impl Deref for Write {
    type Target = SqliteConnection;
    fn deref(&self) -> &SqliteConnection {
        &self.connection
    }
}

impl DerefMut for Write {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }
}

//! A change under way, on the thread that writes.

use std::cell::Cell;

use rusqlite::{Connection, Params, Row};

use super::Result;

/// Statements on the one connection that writes, each prepared once. They are part of a transaction that other calls
/// share; what this call did is kept if it returns `Ok`, and taken back alone if not.
pub(super) struct Tx<'a> {
    connection: &'a Connection,
    undo: Cell<bool>,
}

impl<'a> Tx<'a> {
    pub(super) fn new(connection: &'a Connection) -> Tx<'a> {
        Tx { connection, undo: Cell::new(false) }
    }

    /// Runs a statement; tells how many rows it changed.
    pub(super) fn execute(&self, sql: &str, values: impl Params) -> Result<usize> {
        Ok(self.connection.prepare_cached(sql)?.execute(values)?)
    }

    /// Adds a row; tells its number.
    pub(super) fn insert(&self, sql: &str, values: impl Params) -> Result<i64> {
        Ok(self.connection.prepare_cached(sql)?.insert(values)?)
    }

    /// The first row, if there is one, as a tuple of its columns.
    pub(super) fn first<T>(&self, sql: &str, values: impl Params) -> Result<Option<T>>
    where
        T: for<'r> TryFrom<&'r Row<'r>, Error = rusqlite::Error>,
    {
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query(values)?;
        Ok(rows.next()?.map(T::try_from).transpose()?)
    }

    /// All rows, each as a tuple of its columns.
    pub(super) fn all<T>(&self, sql: &str, values: impl Params) -> Result<Vec<T>>
    where
        T: for<'r> TryFrom<&'r Row<'r>, Error = rusqlite::Error>,
    {
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query(values)?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            all.push(T::try_from(row)?);
        }
        Ok(all)
    }

    /// Takes back what this call did, though it succeeds: a rehearsal.
    pub(super) fn undo(&self) {
        self.undo.set(true);
    }

    pub(super) fn is_undone(&self) -> bool {
        self.undo.get()
    }
}

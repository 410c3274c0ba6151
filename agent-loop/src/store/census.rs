//! The count of a table's rows and the sum of their digests, kept beside them: a row that vanished is missed.

use std::path::Path;

use rusqlite::{Connection, Transaction, params};

use super::StoreError;
use super::fault::{corrupt, from_sql};
use super::row::Sum;

/// A census: how it is read, and how it is written.
pub(super) struct Of {
    read: &'static str,
    write: &'static str,
}

/// Of the runs.
pub(super) const RUNS: Of = Of {
    read: "SELECT runs, digests FROM census WHERE one = 1",
    write: "UPDATE census SET runs = ?1, digests = ?2 WHERE one = 1",
};

/// Of the tasks.
pub(super) const TASKS: Of = Of {
    read: "SELECT tasks, digests FROM task_census WHERE one = 1",
    write: "UPDATE task_census SET tasks = ?1, digests = ?2 WHERE one = 1",
};

/// How many rows there are, and the exclusive or of their digests.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Census {
    rows: i64,
    digests: Sum,
}

impl Census {
    pub(super) fn read(of: &Of, db: &Connection, path: &Path) -> Result<Self, StoreError> {
        let read = db.query_row(of.read, [], |row| Ok(Self { rows: row.get(0)?, digests: row.get(1)? }));
        match read {
            Err(rusqlite::Error::QueryReturnedNoRows) => Err(corrupt(path, "the count of its rows is gone")),
            read => read.map_err(|error| from_sql(path, "reading the count of rows", error)),
        }
    }

    pub(super) fn write(&self, of: &Of, change: &Transaction<'_>) -> rusqlite::Result<()> {
        let written = change.execute(of.write, params![self.rows, self.digests])?;
        if written == 1 { Ok(()) } else { Err(rusqlite::Error::StatementChangedRows(written)) }
    }

    pub(super) fn add(&mut self, sum: &Sum) {
        self.rows += 1;
        self.toggle(sum);
    }

    pub(super) fn remove(&mut self, sum: &Sum) {
        self.rows -= 1;
        self.toggle(sum);
    }

    fn toggle(&mut self, sum: &Sum) {
        self.digests.iter_mut().zip(sum).for_each(|(all, one)| *all ^= one);
    }
}

//! What the daemon remembers over its own end: its runs, in an embedded database.
//! Inside: opening state safely, the schema and its migrations, the files that a run writes into. Not inside: a decision, a signal; what is read
//! here never authorises one by itself (I4). Called by the daemon's shell alone.

mod census;
mod entry;
mod fault;
mod output;
mod place;
mod row;
mod schema;
mod sqlite;
mod task;
mod tasks;
#[cfg(test)]
mod tests;
mod wire;

use std::path::PathBuf;

pub use output::{Drain, Reopened, RunFiles};
pub use place::{Lock, LogDir, StateDir};
pub use sqlite::{KEEP_ENDED, SqliteStore};

use crate::run::{Part, RunId, RunRecord};
use crate::work::Task;

/// Why the store did not do what it was asked. Every message says what to do next.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The place or the file is not safe to be trusted.
    #[error("{0}")]
    Unsafe(String),
    /// Another process has it.
    #[error(
        "{path} is in use by {}; only one agent-loop may run on it: stop that one, or choose another directory",
        match pid {
            Some(pid) => format!("process {pid}"),
            None => "another process".to_owned(),
        },
        path = path.display()
    )]
    Busy {
        /// The directory: of the state, of the runs' cgroups, of the pins.
        path: PathBuf,
        /// Who has it, where that could be told.
        pid: Option<u32>,
    },
    /// It cannot be read as what we wrote; it is kept as it is.
    #[error("{0}")]
    Corrupt(String),
    /// It was written by a newer version.
    #[error("{0}")]
    Newer(String),
    /// Reading or writing failed: a full disk, an I/O error.
    #[error("{doing}: {why}")]
    Failed {
        /// What was being done.
        doing: &'static str,
        /// What went wrong.
        why: String,
    },
}

/// A place that remembers runs. Small, so that a database server could stand behind it one day.
pub trait Store {
    /// Writes a run as it is now; durable when this returns. A run that was saved as ended stays as it ended.
    ///
    /// # Errors
    /// [`StoreError::Failed`]; what was remembered before then stands.
    fn save(&mut self, run: &RunRecord) -> Result<(), StoreError>;

    /// The runs that have not ended, oldest first.
    ///
    /// # Errors
    /// When a row cannot be read as what we wrote: never fewer runs than there are.
    fn open_runs(&self) -> Result<Vec<RunRecord>, StoreError>;

    /// The latest runs, newest first, ended ones included.
    ///
    /// # Errors
    /// As [`Store::open_runs`].
    fn latest(&self, limit: u32) -> Result<Vec<RunRecord>, StoreError>;

    /// One run.
    ///
    /// # Errors
    /// As [`Store::open_runs`].
    fn run(&self, id: RunId) -> Result<Option<RunRecord>, StoreError>;

    /// The run that is this part of a task, ended or not.
    ///
    /// # Errors
    /// As [`Store::open_runs`].
    fn run_of(&self, part: &Part) -> Result<Option<RunRecord>, StoreError>;

    /// Writes a task as it is now; durable when this returns.
    ///
    /// # Errors
    /// As [`Store::save`].
    fn save_task(&mut self, task: &Task) -> Result<(), StoreError>;

    /// Every task that was ever saved.
    ///
    /// # Errors
    /// When a row cannot be read as what we wrote: never fewer tasks than there are.
    fn tasks(&self) -> Result<Vec<Task>, StoreError>;
}

//! What the issue loop asks of the daemon that it lives in. No path of the control socket leads here.

use std::path::PathBuf;

use crate::audit::TaskLine;
use crate::run::{Part, RunId, RunRecord};
use crate::work::Task;

/// A question of the issue loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Within {
    /// Submits a run that is a part of a task; one that was submitted as this part before is the same.
    Submit(Box<Order>),
    /// The run that is this part of a task.
    RunOf(Part),
    /// Answered once the run is over, or at once where it is.
    Over(RunId),
    /// Stops a run.
    Stop {
        /// Which.
        run: RunId,
        /// Why, in words for the log.
        why: String,
    },
    /// Makes a task durable.
    Remember(Box<Task>),
    /// Every task that was ever remembered.
    Tasks,
    /// Writes a line; where its kind demands it, it is durable when this is answered.
    Note(Box<TaskLine>),
    /// Ends the daemon: its pass is over.
    Finish,
}

/// A run that is a part of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// What it is.
    pub part: Part,
    /// The command.
    pub argv: Vec<String>,
    /// Its working directory.
    pub cwd: PathBuf,
    /// What it reads.
    pub stdin: Option<PathBuf>,
    /// The most bytes that it may write, instead of what the configuration says.
    pub output_bytes: Option<u64>,
    /// How long it may take, as `10m`, instead of what the configuration says.
    pub limit: Option<String>,
}

/// An answer to the issue loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given {
    /// The run, where there is one.
    Run(Option<Box<RunRecord>>),
    /// The tasks.
    Tasks(Vec<Task>),
    /// It is done.
    Done,
}

//! What a forge says about a commit: checks, statuses, workflow runs, and what a branch requires. [pure]
//!
//! A word that is not known is kept as it came: it is never taken for a known one (I15).

use crate::work::{At, Sha};

/// The id of a workflow run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunId(pub u64);

/// The id of a job of a workflow run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(pub u64);

/// How far a check or a workflow run has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckStatus {
    /// Accepted.
    Queued,
    /// Running.
    InProgress,
    /// Over; its conclusion counts.
    Completed,
    /// Waits for a rule of its environment, such as an approval.
    Waiting,
    /// Asked for.
    Requested,
    /// Waits for its turn in a group.
    Pending,
    /// The forge says nothing.
    Untold,
    /// Another word.
    Other(String),
}

/// How a check or a workflow run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conclusion {
    /// Passed.
    Success,
    /// Failed.
    Failure,
    /// Neither yes nor no.
    Neutral,
    /// Ended by somebody.
    Cancelled,
    /// Not run, by its own conditions.
    Skipped,
    /// Ran too long.
    TimedOut,
    /// Waits for a person.
    ActionRequired,
    /// Given up by the forge.
    Stale,
    /// Could not start.
    StartupFailure,
    /// Another word.
    Other(String),
}

/// What a commit status says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatusState {
    /// Passed.
    Success,
    /// Not over.
    Pending,
    /// Failed.
    Failure,
    /// Could not be told.
    Error,
    /// Another word.
    Other(String),
}

/// A check run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckRun {
    /// Its id; a later one is higher.
    pub id: u64,
    /// Its name, as rules require it.
    pub name: String,
    /// The app that made it: its id and its short name, where the forge names it.
    pub app: Option<(u64, String)>,
    /// The commit.
    pub head: Sha,
    /// How far it has come.
    pub status: CheckStatus,
    /// How it ended, where it has.
    pub conclusion: Option<Conclusion>,
    /// When it began.
    pub started: Option<At>,
    /// When it ended.
    pub completed: Option<At>,
    /// Where people read more.
    pub url: Option<String>,
}

/// A commit status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitStatus {
    /// Its id; a later one is higher.
    pub id: u64,
    /// Its name, as rules require it.
    pub context: String,
    /// What it says.
    pub state: StatusState,
    /// When it was last set.
    pub updated: Option<At>,
    /// Where people read more.
    pub url: Option<String>,
}

/// A workflow run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkflowRun {
    /// Its id.
    pub id: RunId,
    /// The workflow's name.
    pub name: Option<String>,
    /// What started it, such as `pull_request`.
    pub event: String,
    /// The commit.
    pub head: Sha,
    /// The branch, where the forge names one.
    pub branch: Option<String>,
    /// How far it has come.
    pub status: CheckStatus,
    /// How it ended, where it has.
    pub conclusion: Option<Conclusion>,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// When it was made.
    pub created: At,
    /// Where people read more.
    pub url: String,
}

impl WorkflowRun {
    /// Whether it waits for a person.
    #[must_use]
    pub fn waits_for_a_person(&self) -> bool {
        self.status == CheckStatus::Waiting || self.conclusion == Some(Conclusion::ActionRequired)
    }
}

/// A job of a workflow run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// The run.
    pub run: RunId,
    /// Its name.
    pub name: String,
    /// How far it has come.
    pub status: CheckStatus,
    /// How it ended, where it has.
    pub conclusion: Option<Conclusion>,
    /// Where people read more.
    pub url: Option<String>,
}

/// A check that a branch requires.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequiredCheck {
    /// Its name.
    pub name: String,
    /// The id of the app that has to make it; any may where there is none.
    pub app: Option<u64>,
}

/// What a branch requires of a pull request into it, of all its rules together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requirements {
    /// The checks, by name.
    pub checks: Vec<RequiredCheck>,
    /// Whether the head must not be behind the base.
    pub up_to_date: bool,
    /// Whether merges go through a queue.
    pub merge_queue: bool,
    /// How many approving reviews.
    pub approvals: u32,
    /// Rules of kinds that are not known here, by their names.
    pub unknown: Vec<String>,
    /// Whether the branch is protected in a way whose checks this token is not told.
    pub hidden: bool,
}

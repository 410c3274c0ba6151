//! What people ask of the issue loop, and what they are shown.

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::{Answer, Caller, Problem};
use crate::work::IssueKey;

/// A question to the issue loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IssueAsk {
    /// `GET /v1/queue`: every repository with its tasks, and the issues that wait.
    Queue,
    /// `POST /v1/tasks`
    Act(IssueKey, TaskVerb),
}

/// A question on its way to the issue loop.
#[derive(Debug)]
pub struct IssueQuestion {
    /// What is asked.
    pub ask: IssueAsk,
    /// Who asks.
    pub from: Caller,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Result<Answer, Problem>>,
}

/// What is to be done with a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskVerb {
    /// Take the issue now, whatever its turn; who asks stands for its label and its author.
    Start,
    /// Try it again, with new budgets.
    Retry,
    /// Begin nothing new for it. What runs goes on.
    Pause,
    /// Go on.
    Resume,
}

/// The body of `POST /v1/tasks`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskRequest {
    /// The issue: `owner/name#number`.
    pub issue: String,
    /// What is to be done.
    pub verb: TaskVerb,
}

/// All repositories.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueView {
    /// One for each `[[repo]]` of the configuration.
    pub repos: Vec<RepoView>,
}

/// A repository.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepoView {
    /// `owner/name`.
    pub repo: String,
    /// What is wrong with it, in words.
    pub trouble: Option<String>,
    /// When it was last looked at, RFC 3339.
    pub looked: Option<String>,
    /// Requests that were sent to the forge.
    pub requests: u64,
    /// Of these, those that cost nothing: nothing had changed.
    pub not_modified: u64,
    /// Requests that are left in this hour, as the forge says.
    pub remaining: Option<u64>,
    /// Its tasks, the latest first.
    pub tasks: Vec<TaskView>,
    /// Issues that wait for their turn, the next one first.
    pub waiting: Vec<String>,
    /// Issues with the label that are not taken, and why.
    pub skipped: Vec<SkippedView>,
}

/// An issue that is not taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkippedView {
    /// `owner/name#number`.
    pub issue: String,
    /// Why.
    pub why: String,
}

/// A task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskView {
    /// `owner/name#number`.
    pub issue: String,
    /// Its state, as a word.
    pub state: String,
    /// The same as a sentence.
    pub says: String,
    /// Since when, RFC 3339, by the forge's clock.
    pub since: Option<String>,
    /// The attempt.
    pub attempt: u32,
    /// The run of this attempt, where there is one.
    pub run: Option<String>,
    /// Its branch.
    pub branch: String,
    /// Its pull request.
    pub pull: Option<u64>,
    /// The commit that its state is about.
    pub head: Option<String>,
    /// Whether a person holds it back.
    pub paused: bool,
    /// What could not be read or done last, and is tried again.
    pub trouble: Option<String>,
}

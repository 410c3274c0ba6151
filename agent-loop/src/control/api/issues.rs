//! What people ask of the issue loop, and what they are shown.

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::{Answer, Caller, Problem};
use crate::work::{IssueKey, RepoName};

/// A question to the issue loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IssueAsk {
    /// `GET /v1/queue`: every repository with its tasks, and the issues that wait.
    Queue,
    /// `GET /v1/tasks/{owner}/{name}/{number}`: what became of an issue so far.
    Story(IssueKey),
    /// `POST /v1/tasks`
    Act(IssueKey, TaskVerb),
    /// `POST /v1/repos`
    Steer(RepoName, RepoVerb),
    /// `POST /v1/tick`: every repository is looked at now.
    Tick {
        /// Only say what would be taken.
        dry_run: bool,
    },
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

/// What is to be done with a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RepoVerb {
    /// Take no issue of it any more. Those that are worked on go on.
    Pause,
    /// Take issues again.
    Resume,
}

/// The body of `POST /v1/repos`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepoRequest {
    /// `owner/name`.
    pub repo: String,
    /// What is to be done.
    pub verb: RepoVerb,
}

/// The body of `POST /v1/tick`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TickRequest {
    /// Only say what would be taken.
    #[serde(default)]
    pub dry_run: bool,
}

/// What a pass over all repositories found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TickView {
    /// Whether nothing was taken, since only that was asked.
    pub dry_run: bool,
    /// Whether it is another `agent-loop tick` that answers: then nothing was done, its own pass goes on.
    pub under_way: bool,
    /// One for each `[[repo]]` of the configuration.
    pub repos: Vec<LookView>,
}

/// What a look at a repository found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookView {
    /// `owner/name`.
    pub repo: String,
    /// What is wrong with it, in words.
    pub trouble: Option<String>,
    /// Whether a person holds it back.
    pub paused: bool,
    /// The issues that were taken by this look, or would be, the first one first.
    pub taken: Vec<String>,
    /// Issues that wait for their turn, the next one first.
    pub waiting: Vec<String>,
    /// Issues with the label that are not taken, and why.
    pub skipped: Vec<SkippedView>,
    /// The tasks that are open, as they are now.
    pub tasks: Vec<TaskView>,
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

/// What became of an issue so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoryView {
    /// `owner/name#number`.
    pub issue: String,
    /// Its state, as a word.
    pub state: String,
    /// The same as a sentence.
    pub says: String,
    /// Its branch.
    pub branch: String,
    /// Its pull request.
    pub pull: Option<u64>,
    /// What it passed, oldest first; of a long story the middle is left out.
    pub steps: Vec<PassedView>,
    /// Its agents, oldest first; the latest ones where there were many.
    pub runs: Vec<AttemptView>,
}

/// A step that a task has passed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassedView {
    /// When, RFC 3339, by the forge's clock.
    pub at: String,
    /// What it came to, as a word.
    pub state: String,
    /// The same as a sentence.
    pub says: String,
    /// The attempt.
    pub attempt: u32,
    /// The commit, where there is one.
    pub head: Option<String>,
}

/// An agent that worked on an issue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptView {
    /// Which attempt, from 1.
    pub attempt: u32,
    /// Its run.
    pub run: String,
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
    /// How many there are in an hour.
    #[serde(default)]
    pub limit: Option<u64>,
    /// When there are that many again, RFC 3339.
    #[serde(default)]
    pub resets: Option<String>,
    /// Seconds for which nothing is sent, since the forge asked for that.
    #[serde(default)]
    pub held_seconds: Option<u64>,
    /// Whether a person holds it back: no issue is taken.
    #[serde(default)]
    pub paused: bool,
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

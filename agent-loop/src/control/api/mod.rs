//! The questions and answers of the control socket: a stable schema, version 1 under the path `/v1`.

mod issues;
#[cfg(test)]
mod tests;
mod view;
mod within;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::feed::Follower;

pub use self::issues::{
    AttemptView, IssueAsk, IssueQuestion, LookView, PassedView, QueueView, RepoRequest, RepoVerb, RepoView,
    SkippedView, StoryView, TaskRequest, TaskVerb, TaskView, TickRequest, TickView,
};
pub use self::view::{
    ErrorBody, ErrorView, ForgeView, KillView, LogView, MissedView, OutputView, ProcessView, RunView, RunsView,
    StartedView, StatusView, TreeView,
};
pub use self::within::{Given, Order, Within};

/// A question on its way to the daemon's shell.
#[derive(Debug)]
pub struct Question {
    /// What is asked.
    pub ask: Ask,
    /// Who asks, by the kernel's credentials of the connection.
    pub from: Caller,
    /// Where the answer goes; dropped, the caller is told that the daemon is stopping.
    pub reply: oneshot::Sender<Result<Answer, Problem>>,
}

/// The sending half that the server holds.
pub type Questions = mpsc::Sender<Question>;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The user id.
    pub uid: u32,
    /// The process that connected, where the kernel tells it.
    pub pid: Option<u32>,
    /// The cgroup that this process was in, a unit of systemd for one; only where it is proven to be that process's.
    pub cgroup: Option<String>,
    /// Whether it may write: root, or the owner that the configuration names.
    pub may_write: bool,
}

impl Caller {
    /// The daemon itself, for what it does of its own: the issue loop.
    #[must_use]
    pub fn ourselves() -> Self {
        Self { uid: 0, pid: Some(std::process::id()), cgroup: None, may_write: true }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user {}", self.uid)?;
        match (self.pid, &self.cgroup) {
            (Some(pid), Some(cgroup)) => write!(f, " (process {pid} in {cgroup})"),
            (Some(pid), None) => write!(f, " (process {pid})"),
            (None, _) => Ok(()),
        }
    }
}

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// `GET /v1/status`
    Status,
    /// `GET /v1/runs?all=BOOL&limit=N`: the open runs, with `all` the latest ended ones too.
    Runs {
        /// Ended ones too.
        all: bool,
        /// How many at most.
        limit: u32,
    },
    /// `GET /v1/runs/RUN`
    Run(String),
    /// `GET /v1/runs/RUN/tree`
    Tree(String),
    /// `GET /v1/runs/RUN/logs?stream=stdout|stderr&follow=BOOL&from=BYTE`: where the output is; the server streams
    /// it. While it follows it asks again about once a second, to learn whether the run goes on.
    Logs(String),
    /// `GET /v1/events?follow=BOOL`: the latest lines of the event log, and with `follow` those from now on.
    Events,
    /// `POST /v1/runs`
    Start(Box<StartRequest>),
    /// `POST /v1/runs/RUN/kill`
    Kill {
        /// Which.
        run: String,
        /// Why, in words for the log.
        reason: String,
        /// Only say what would be done.
        dry_run: bool,
    },
    /// Of the issue loop.
    Issues(IssueAsk),
    /// By the issue loop.
    Within(Within),
}

/// What is answered.
#[derive(Debug)]
pub enum Answer {
    /// To [`Ask::Status`].
    Status(StatusView),
    /// To [`Ask::Runs`].
    Runs(Vec<RunView>),
    /// To [`Ask::Run`].
    Run(Box<RunView>),
    /// To [`Ask::Tree`].
    Tree(TreeView),
    /// To [`Ask::Logs`]: the files of standard output and standard error, and whether the run goes on.
    Logs(LogFiles),
    /// To [`Ask::Events`].
    Events(EventFeed),
    /// To [`Ask::Start`]: the id.
    Started {
        /// The id of the run.
        run: String,
    },
    /// To [`Ask::Kill`]: what is done, or would be.
    Killing(KillView),
    /// To [`IssueAsk::Queue`].
    Queue(QueueView),
    /// To [`IssueAsk::Act`]: the task as it is then.
    Task(Box<TaskView>),
    /// To [`IssueAsk::Story`].
    Story(Box<StoryView>),
    /// To [`IssueAsk::Steer`]: the repository as it is then.
    Repo(Box<RepoView>),
    /// To [`IssueAsk::Tick`].
    Tick(TickView),
    /// To [`Ask::Within`].
    Given(Given),
}

/// Lines of the event log, without their line ends.
#[derive(Debug)]
pub struct EventFeed {
    /// The latest ones, oldest first: all that a reader gets who does not follow.
    pub recent: Vec<Arc<str>>,
    /// Those after them as they are written; a reader that falls behind is told how many it missed, and dropped.
    pub live: Follower,
}

/// Why a question has no answer: an error object `{"error": {"code", "message"}}` with an HTTP status.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// 400: the question makes no sense; the message says what to change.
    #[error("{0}")]
    Bad(String),
    /// 403: not for this caller.
    #[error("{0}")]
    Forbidden(String),
    /// 404: there is no such run.
    #[error("{0}")]
    NotFound(String),
    /// 409: not in its present state.
    #[error("{0}")]
    Conflict(String),
    /// 429: too many runs or clients.
    #[error("{0}")]
    TooMany(String),
    /// 503: the daemon cannot now: no keeper, a full disk.
    #[error("{0}")]
    Unavailable(String),
}

impl Problem {
    /// Its code in the error object.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Bad(_) => "bad_request",
            Self::Forbidden(_) => "forbidden",
            Self::NotFound(_) => "not_found",
            Self::Conflict(_) => "conflict",
            Self::TooMany(_) => "too_many",
            Self::Unavailable(_) => "unavailable",
        }
    }

    /// Its HTTP status.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::Bad(_) => 400,
            Self::Forbidden(_) => 403,
            Self::NotFound(_) => 404,
            Self::Conflict(_) => 409,
            Self::TooMany(_) => 429,
            Self::Unavailable(_) => 503,
        }
    }
}

/// The body of `POST /v1/runs/RUN/kill`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KillRequest {
    /// Why, in words for the log.
    pub reason: String,
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

impl KillRequest {
    /// The longest reason, in bytes.
    pub const LONGEST_REASON: usize = 1000;

    /// Refuses a reason that says nothing, or would not be one line of a log.
    ///
    /// # Errors
    /// [`Problem::Bad`] with what to change.
    pub fn check(&self) -> Result<(), Problem> {
        let bad = |text: &str| Err(Problem::Bad(text.to_owned()));
        if self.reason.trim().is_empty() {
            return bad("a kill needs a reason in words, it is kept in the log");
        }
        if self.reason.len() > Self::LONGEST_REASON || self.reason.contains(char::is_control) {
            return bad("the reason must be one line of at most 1000 bytes");
        }
        Ok(())
    }
}

/// The body of `POST /v1/runs`. Times are texts as `1h 30m`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartRequest {
    /// The command and its arguments.
    pub argv: Vec<String>,
    /// Its environment beyond the configuration's allow-list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<(String, String)>,
    /// Its working directory; the user's home without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<PathBuf>,
    /// Its standard input; /dev/null without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<PathBuf>,
    /// Its wall limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    /// Its active limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_limit: Option<String>,
    /// Its limit without output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_limit: Option<String>,
    /// The grace of each polite step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace: Option<String>,
    /// Bytes of output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_bytes: Option<u64>,
    /// Bytes of memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Number of tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<u64>,
    /// Processors in hundredths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_percent: Option<u32>,
    /// `kill` or `wait`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leftovers: Option<String>,
}

impl StartRequest {
    /// Refuses what no process can be started with.
    ///
    /// # Errors
    /// [`Problem::Bad`] with what to change.
    pub fn check(&self) -> Result<(), Problem> {
        let bad = |text: &str| Err(Problem::Bad(text.to_owned()));
        if self.argv.first().is_none_or(String::is_empty) {
            return bad("argv must name a command");
        }
        let paths = [&self.cwd, &self.stdin].into_iter().flatten();
        let texts = self.argv.iter().chain(self.env.iter().flat_map(|(key, value)| [key, value]));
        let with_zero = texts.map(String::as_bytes).any(|text| text.contains(&0))
            || paths.clone().any(|path| path.as_os_str().as_encoded_bytes().contains(&0));
        if with_zero {
            return bad("argv, env and paths must not contain a zero byte");
        }
        if self.env.iter().any(|(key, _)| key.is_empty() || key.contains('=')) {
            return bad("the name of an environment variable is neither empty nor contains `=`");
        }
        if paths.into_iter().any(|path| !path.is_absolute()) {
            return bad("cwd and stdin must be absolute paths");
        }
        Ok(())
    }
}

/// Where a run's output is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFiles {
    /// Standard output.
    pub stdout: PathBuf,
    /// Standard error.
    pub stderr: PathBuf,
    /// Whether more may come.
    pub open: bool,
}

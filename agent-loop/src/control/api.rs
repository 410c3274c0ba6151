//! The questions and answers of the control socket: a stable schema, version 1 under the path `/v1`.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, mpsc, oneshot};

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The user id.
    pub uid: u32,
    /// Whether it may write: root, or the owner that the configuration names.
    pub may_write: bool,
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
}

/// Lines of the event log, without their line ends.
#[derive(Debug)]
pub struct EventFeed {
    /// The latest ones, oldest first: all that a reader gets who does not follow.
    pub recent: Vec<Arc<str>>,
    /// Those after them as they are written; a reader that falls behind is told how many it missed, and dropped.
    pub live: broadcast::Receiver<Arc<str>>,
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

/// The body of every answer that is an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorView,
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorView {
    /// A word for programs: [`Problem::code`], or `too_large`, `wrong_method`, `internal` of the server.
    pub code: String,
    /// A sentence for people.
    pub message: String,
}

/// The body of the answer to `GET /v1/runs`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunsView {
    /// The runs, newest first.
    pub runs: Vec<RunView>,
}

/// The body of the answer to `POST /v1/runs`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartedView {
    /// The id of the run.
    pub run: String,
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

/// One piece of output as `agent-loop logs --json` prints it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputView {
    /// The run.
    pub run: String,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// Where in the stream it begins, in bytes.
    pub from: u64,
    /// A line without its end, or a part of a very long one; what is not UTF-8 is replaced by U+FFFD.
    pub text: String,
    /// Whether a line end follows.
    pub ended: bool,
}

/// What stands in the place of lines of the event log that a reader was too slow for; nothing comes after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissedView {
    /// Always `control.missed`, which no line of the log has.
    pub kind: String,
    /// How many lines it missed.
    pub lines: u64,
}

impl MissedView {
    /// The value of `kind`.
    pub const KIND: &str = "control.missed";
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

/// The daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusView {
    /// Its version.
    pub version: String,
    /// Its own number.
    pub pid: u32,
    /// `ebpf` or `pidfd`.
    pub backend: String,
    /// What is missing, in words; empty where everything is there.
    pub degraded: Vec<String>,
    /// The keeper: its number, or why there is none; in JSON `{"pid": N}` or `{"missing": "WHY"}`.
    #[serde(with = "keeper")]
    pub keeper: Result<u32, String>,
    /// When the daemon started, RFC 3339.
    pub since: String,
    /// Runs by state: `queued`, `running` and so on.
    pub runs: std::collections::BTreeMap<String, u64>,
    /// How many may run at once.
    pub max_agents: u32,
    /// Processes of agents that nobody launched through agent-loop: seen, never signalled.
    pub observed: Vec<ProcessView>,
    /// Records that the kernel could not deliver since the hooks were attached.
    pub lost: u64,
}

/// A run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunView {
    /// Its id.
    pub run: String,
    /// `queued`, `launching`, `running`, `draining`, `stopping`, `unkillable`, `ended`.
    pub state: String,
    /// The command.
    pub argv: Vec<String>,
    /// Who it runs as.
    pub user: String,
    /// When it was submitted, RFC 3339.
    pub submitted: String,
    /// When it was born, RFC 3339.
    pub born: Option<String>,
    /// Milliseconds since its birth, or from its birth to its end.
    pub elapsed_ms: Option<u64>,
    /// Milliseconds until its wall limit; negative once it passed.
    pub remaining_ms: Option<i64>,
    /// Its main process.
    pub main_pid: Option<u32>,
    /// Processes of its tree that are alive.
    pub alive: u64,
    /// Bytes of output so far.
    pub output_bytes: u64,
    /// Why it is or was stopped, as a word.
    pub reason: Option<String>,
    /// How it ended: `ended`, `deadline`, `operator`, `launch_failed`, `lost_to_reboot` and so on.
    pub outcome: Option<String>,
    /// The status as `exit 0` or `SIGKILL`; `unknown` where nobody saw it.
    pub status: Option<String>,
    /// The exit code, where there is one.
    pub code: Option<u8>,
    /// The signal that ended it, where one did.
    pub signal: Option<u8>,
    /// Processes that outlived the main process.
    pub leftovers: u64,
    /// Whether the tree was proven empty at the end.
    pub proven: Option<bool>,
    /// What ended it, by whom, on what evidence: one sentence each.
    pub why: Vec<String>,
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessView {
    /// Its number.
    pub pid: u32,
    /// Its start, nanoseconds of CLOCK_BOOTTIME.
    pub start_ns: u64,
    /// The number of who forked it, where known.
    pub parent: Option<u32>,
    /// What it executed last, in short.
    pub command: String,
}

/// The live processes of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeView {
    /// The run.
    pub run: String,
    /// Its processes, by number.
    pub processes: Vec<ProcessView>,
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

/// What a kill does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KillView {
    /// The run.
    pub run: String,
    /// Its state before.
    pub state: String,
    /// The processes it concerns.
    pub processes: Vec<ProcessView>,
    /// Whether it is only said.
    pub dry_run: bool,
}

/// The JSON form of [`StatusView::keeper`].
mod keeper {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Form {
        Pid(u32),
        Missing(String),
    }

    pub(super) fn serialize<S: Serializer>(keeper: &Result<u32, String>, serializer: S) -> Result<S::Ok, S::Error> {
        match keeper {
            Ok(pid) => Form::Pid(*pid),
            Err(why) => Form::Missing(why.clone()),
        }
        .serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Result<u32, String>, D::Error> {
        Ok(match Form::deserialize(deserializer)? {
            Form::Pid(pid) => Ok(pid),
            Form::Missing(why) => Err(why),
        })
    }
}

//! What is answered, as JSON: the views, whose names and meanings are a promise to programs.

use serde::{Deserialize, Serialize};

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
    /// How far the audit log has come.
    #[serde(default)]
    pub log: LogView,
    /// What is left of the patience of each repository's forge; none where no repository is configured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forges: Vec<ForgeView>,
}

/// How far the audit log has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogView {
    /// Lines that are on the disk.
    pub durable: u64,
    /// Of these, those that the newest checkpoint covers.
    pub signed: u64,
    /// Milliseconds since that was signed; none is signed yet without.
    pub checkpoint_age_ms: Option<u64>,
}

/// What is left of a forge's patience with one repository's requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForgeView {
    /// `owner/name`.
    pub repo: String,
    /// What is wrong with it, in words.
    pub trouble: Option<String>,
    /// Requests that were sent to it.
    pub requests: u64,
    /// Of these, those that cost nothing: nothing had changed.
    pub not_modified: u64,
    /// Requests that are left in this hour, as the forge says.
    pub remaining: Option<u64>,
    /// How many there are in an hour.
    pub limit: Option<u64>,
    /// When there are that many again, RFC 3339.
    pub resets: Option<String>,
    /// Seconds for which nothing is sent, since the forge asked for that.
    pub held_seconds: Option<u64>,
}

impl From<super::RepoView> for ForgeView {
    fn from(view: super::RepoView) -> Self {
        Self {
            repo: view.repo,
            trouble: view.trouble,
            requests: view.requests,
            not_modified: view.not_modified,
            remaining: view.remaining,
            limit: view.limit,
            resets: view.resets,
            held_seconds: view.held_seconds,
        }
    }
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
    /// Bytes of output so far; not known of one that is over while the disk of its output does not answer.
    pub output_bytes: Option<u64>,
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

/// The body of every answer that is an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorView,
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorView {
    /// A word for programs: [`super::Problem::code`], or `too_large`, `wrong_method`, `internal` of the server.
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

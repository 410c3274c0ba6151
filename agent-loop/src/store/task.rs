//! A task as it is written into the database: types of its own, as in [`super::wire`].

use serde::{Deserialize, Serialize};

use crate::work::{
    At, CommentId, Gone, Head, Mark, Passed, PullNumber, Purpose, RunEnd, Spent, State, Status, Task, Why, Writing,
};

/// The version of this form.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireTask {
    v: u32,
    issue: String,
    branch: String,
    base: String,
    state: WireState,
    step: u64,
    attempt: u32,
    spent: [u32; 5],
    pull: Option<u64>,
    pushed: Option<String>,
    claimed: bool,
    labelled: bool,
    paused: bool,
    retry: bool,
    status_id: Option<u64>,
    status_digest: Option<String>,
    notices: Vec<String>,
    writing: Option<WireWriting>,
    history: Vec<WirePassed>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum WireState {
    Eligible,
    Preparing { purpose: WirePurpose },
    Running { purpose: WirePurpose, stop: Option<WireGone> },
    Exited { end: WireEnd },
    Pushing { head: String },
    Opening { head: WireHead },
    CiWait { head: WireHead },
    CiMissing { head: WireHead },
    CiApproval { head: WireHead },
    MergeGate { head: WireHead, asked: u32 },
    Merging { head: WireHead },
    MergeUnknown { head: WireHead, reads: u32 },
    Closing { head: WireHead, tries: u32 },
    Backoff { until: i64, purpose: WirePurpose, why: Option<String> },
    NeedsHuman { why: WireWhy },
    Done,
    Superseded { gone: WireGone },
    Cleaned,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireHead {
    sha: String,
    since: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum WirePurpose {
    Work,
    Again,
    FixChecks { head: String, failed: Vec<String> },
    FixConflict { head: String },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WireGone {
    IssueClosed,
    LabelRemoved,
    ClaimLost,
    PullClosed,
    MergedElsewhere,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum WireEnd {
    Worked,
    Failed(String),
    WaitUntil(i64),
    Stopped(String),
    Infrastructure(String),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum WireWhy {
    AgentFailed(String),
    NothingCommitted,
    HostFailed(String),
    ChecksFailed(Vec<String>),
    Conflicts,
    ChecksStuck(String),
    MergeQueue,
    MergeFailed(String),
    Refused(String),
    ForeignBranch(String),
    NotClosed(String),
    TreeNotProven,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireWriting {
    /// The key of a notice; `None` is the status.
    notice: Option<String>,
    digest: String,
    since: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WirePassed {
    at: i64,
    word: String,
    attempt: u32,
    head: Option<String>,
}

/// Writes a task.
pub(super) fn write(task: &Task) -> Result<String, String> {
    let wire = WireTask {
        v: VERSION,
        issue: task.key.to_string(),
        branch: task.branch.to_string(),
        base: task.base.to_string(),
        state: WireState::of(&task.state),
        step: task.step,
        attempt: task.attempt,
        spent: [
            task.spent.failures,
            task.spent.host,
            task.spent.check_fixes,
            task.spent.conflict_fixes,
            task.spent.merges,
        ],
        pull: task.pull.map(|pull| pull.0),
        pushed: task.pushed.as_ref().map(ToString::to_string),
        claimed: task.claimed,
        labelled: task.labelled,
        paused: task.paused,
        retry: task.retry,
        status_id: task.status.id.map(|id| id.0),
        status_digest: task.status.digest.clone(),
        notices: task.notices.iter().cloned().collect(),
        writing: task.writing.as_ref().map(|writing| WireWriting {
            notice: match &writing.mark {
                Mark::Status => None,
                Mark::Notice(key) => Some(key.clone()),
            },
            digest: writing.digest.clone(),
            since: writing.since.0,
        }),
        history: task
            .history
            .iter()
            .map(|passed| WirePassed {
                at: passed.at.0,
                word: passed.word.to_owned(),
                attempt: passed.attempt,
                head: passed.head.as_ref().map(ToString::to_string),
            })
            .collect(),
    };
    serde_json::to_string(&wire).map_err(|error| error.to_string())
}

/// Reads what [`write()`] wrote, and nothing else.
pub(super) fn read(text: &str) -> Result<Task, String> {
    let wire: WireTask = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if wire.v != VERSION {
        return Err(format!("form {} is not form {VERSION}", wire.v));
    }
    let [failures, host, check_fixes, conflict_fixes, merges] = wire.spent;
    let task = Task {
        key: name(&wire.issue)?,
        branch: name(&wire.branch)?,
        base: name(&wire.base)?,
        state: wire.state.read()?,
        step: wire.step,
        attempt: wire.attempt,
        spent: Spent { failures, host, check_fixes, conflict_fixes, merges },
        pull: wire.pull.map(PullNumber),
        pushed: wire.pushed.as_deref().map(name).transpose()?,
        claimed: wire.claimed,
        labelled: wire.labelled,
        paused: wire.paused,
        retry: wire.retry,
        status: Status { id: wire.status_id.map(CommentId), digest: wire.status_digest },
        notices: wire.notices.into_iter().collect(),
        writing: wire.writing.map(|writing| Writing {
            mark: writing.notice.map_or(Mark::Status, Mark::Notice),
            digest: writing.digest,
            since: At(writing.since),
        }),
        history: wire
            .history
            .into_iter()
            .map(|passed| {
                Ok(Passed {
                    at: At(passed.at),
                    word: State::known_word(&passed.word).ok_or_else(|| format!("the state {:?}", passed.word))?,
                    attempt: passed.attempt,
                    head: passed.head.as_deref().map(name).transpose()?,
                })
            })
            .collect::<Result<_, String>>()?,
    };
    // What reads but would be written otherwise was not written by us.
    if write(&task)? == text { Ok(task) } else { Err("agent-loop would have written it otherwise".to_owned()) }
}

fn name<T: std::str::FromStr<Err = crate::work::NotAName>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: crate::work::NotAName| error.to_string())
}

impl WireState {
    fn of(state: &State) -> Self {
        match state {
            State::Eligible => Self::Eligible,
            State::Preparing(purpose) => Self::Preparing { purpose: WirePurpose::of(purpose) },
            State::Running { purpose, stop } => {
                Self::Running { purpose: WirePurpose::of(purpose), stop: stop.map(WireGone::of) }
            }
            State::Exited(end) => Self::Exited { end: WireEnd::of(end) },
            State::Pushing(head) => Self::Pushing { head: head.to_string() },
            State::Opening(head) => Self::Opening { head: WireHead::of(head) },
            State::CiWait(head) => Self::CiWait { head: WireHead::of(head) },
            State::CiMissing(head) => Self::CiMissing { head: WireHead::of(head) },
            State::CiApproval(head) => Self::CiApproval { head: WireHead::of(head) },
            State::MergeGate { head, asked } => Self::MergeGate { head: WireHead::of(head), asked: *asked },
            State::Merging(head) => Self::Merging { head: WireHead::of(head) },
            State::MergeUnknown { head, reads } => Self::MergeUnknown { head: WireHead::of(head), reads: *reads },
            State::Closing { head, tries } => Self::Closing { head: WireHead::of(head), tries: *tries },
            State::Backoff { until, purpose, why } => {
                Self::Backoff { until: until.0, purpose: WirePurpose::of(purpose), why: why.clone() }
            }
            State::NeedsHuman(why) => Self::NeedsHuman { why: WireWhy::of(why) },
            State::Done => Self::Done,
            State::Superseded(gone) => Self::Superseded { gone: WireGone::of(*gone) },
            State::Cleaned => Self::Cleaned,
        }
    }

    fn read(self) -> Result<State, String> {
        Ok(match self {
            Self::Eligible => State::Eligible,
            Self::Preparing { purpose } => State::Preparing(purpose.read()?),
            Self::Running { purpose, stop } => {
                State::Running { purpose: purpose.read()?, stop: stop.map(WireGone::read) }
            }
            Self::Exited { end } => State::Exited(end.read()),
            Self::Pushing { head } => State::Pushing(name(&head)?),
            Self::Opening { head } => State::Opening(head.read()?),
            Self::CiWait { head } => State::CiWait(head.read()?),
            Self::CiMissing { head } => State::CiMissing(head.read()?),
            Self::CiApproval { head } => State::CiApproval(head.read()?),
            Self::MergeGate { head, asked } => State::MergeGate { head: head.read()?, asked },
            Self::Merging { head } => State::Merging(head.read()?),
            Self::MergeUnknown { head, reads } => State::MergeUnknown { head: head.read()?, reads },
            Self::Closing { head, tries } => State::Closing { head: head.read()?, tries },
            Self::Backoff { until, purpose, why } => State::Backoff { until: At(until), purpose: purpose.read()?, why },
            Self::NeedsHuman { why } => State::NeedsHuman(why.read()?),
            Self::Done => State::Done,
            Self::Superseded { gone } => State::Superseded(gone.read()),
            Self::Cleaned => State::Cleaned,
        })
    }
}

impl WireHead {
    fn of(head: &Head) -> Self {
        Self { sha: head.sha.to_string(), since: head.since.0 }
    }

    fn read(self) -> Result<Head, String> {
        Ok(Head { sha: name(&self.sha)?, since: At(self.since) })
    }
}

impl WirePurpose {
    fn of(purpose: &Purpose) -> Self {
        match purpose {
            Purpose::Work => Self::Work,
            Purpose::Again => Self::Again,
            Purpose::FixChecks { head, failed } => Self::FixChecks { head: head.to_string(), failed: failed.clone() },
            Purpose::FixConflict { head } => Self::FixConflict { head: head.to_string() },
        }
    }

    fn read(self) -> Result<Purpose, String> {
        Ok(match self {
            Self::Work => Purpose::Work,
            Self::Again => Purpose::Again,
            Self::FixChecks { head, failed } => Purpose::FixChecks { head: name(&head)?, failed },
            Self::FixConflict { head } => Purpose::FixConflict { head: name(&head)? },
        })
    }
}

impl WireGone {
    const fn of(gone: Gone) -> Self {
        match gone {
            Gone::IssueClosed => Self::IssueClosed,
            Gone::LabelRemoved => Self::LabelRemoved,
            Gone::ClaimLost => Self::ClaimLost,
            Gone::PullClosed => Self::PullClosed,
            Gone::MergedElsewhere => Self::MergedElsewhere,
        }
    }

    const fn read(self) -> Gone {
        match self {
            Self::IssueClosed => Gone::IssueClosed,
            Self::LabelRemoved => Gone::LabelRemoved,
            Self::ClaimLost => Gone::ClaimLost,
            Self::PullClosed => Gone::PullClosed,
            Self::MergedElsewhere => Gone::MergedElsewhere,
        }
    }
}

impl WireEnd {
    fn of(end: &RunEnd) -> Self {
        match end {
            RunEnd::Worked => Self::Worked,
            RunEnd::Failed(why) => Self::Failed(why.clone()),
            RunEnd::WaitUntil(at) => Self::WaitUntil(at.0),
            RunEnd::Stopped(why) => Self::Stopped(why.clone()),
            RunEnd::Infrastructure(why) => Self::Infrastructure(why.clone()),
        }
    }

    fn read(self) -> RunEnd {
        match self {
            Self::Worked => RunEnd::Worked,
            Self::Failed(why) => RunEnd::Failed(why),
            Self::WaitUntil(at) => RunEnd::WaitUntil(At(at)),
            Self::Stopped(why) => RunEnd::Stopped(why),
            Self::Infrastructure(why) => RunEnd::Infrastructure(why),
        }
    }
}

impl WireWhy {
    fn of(why: &Why) -> Self {
        match why {
            Why::AgentFailed(why) => Self::AgentFailed(why.clone()),
            Why::NothingCommitted => Self::NothingCommitted,
            Why::HostFailed(why) => Self::HostFailed(why.clone()),
            Why::ChecksFailed(names) => Self::ChecksFailed(names.clone()),
            Why::Conflicts => Self::Conflicts,
            Why::ChecksStuck(why) => Self::ChecksStuck(why.clone()),
            Why::MergeQueue => Self::MergeQueue,
            Why::MergeFailed(why) => Self::MergeFailed(why.clone()),
            Why::Refused(why) => Self::Refused(why.clone()),
            Why::ForeignBranch(head) => Self::ForeignBranch(head.to_string()),
            Why::NotClosed(why) => Self::NotClosed(why.clone()),
            Why::TreeNotProven => Self::TreeNotProven,
        }
    }

    fn read(self) -> Result<Why, String> {
        Ok(match self {
            Self::AgentFailed(why) => Why::AgentFailed(why),
            Self::NothingCommitted => Why::NothingCommitted,
            Self::HostFailed(why) => Why::HostFailed(why),
            Self::ChecksFailed(names) => Why::ChecksFailed(names),
            Self::Conflicts => Why::Conflicts,
            Self::ChecksStuck(why) => Why::ChecksStuck(why),
            Self::MergeQueue => Why::MergeQueue,
            Self::MergeFailed(why) => Why::MergeFailed(why),
            Self::Refused(why) => Why::Refused(why),
            Self::ForeignBranch(head) => Why::ForeignBranch(name(&head)?),
            Self::NotClosed(why) => Why::NotClosed(why),
            Self::TreeNotProven => Why::TreeNotProven,
        })
    }
}

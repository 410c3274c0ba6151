//! The JSON columns of the database: types of their own, since the domain's may change and what is on disk may not.
//! A change here needs a migration; what is read must write itself the same way again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::event::{LaunchFailure, Outcome};
use crate::model::{Source, StopReason, Totals, WaitStatus};
use crate::run::{End, Limits, Part, RunOutcome, Submission};
use crate::supervise::Leftovers;

/// The version of these forms.
const VERSION: u32 = 1;

/// The column `submission`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WireSubmission {
    v: u32,
    argv: Vec<String>,
    env: Vec<(String, String)>,
    cwd: String,
    user: String,
    stdin: Option<String>,
    limits: WireLimits,
    grace: Span,
    leftovers: WireLeftovers,
    asked_by: u32,
    /// Written from the second version of the schema on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    part: Option<WirePart>,
    /// See `part`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    withheld: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WirePart {
    issue: String,
    attempt: u32,
    what: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireLimits {
    wall: Option<Span>,
    active: Option<Span>,
    idle: Option<Span>,
    output_bytes: Option<u64>,
    memory_bytes: Option<u64>,
    tasks: Option<u64>,
    cpu_percent: Option<u32>,
}

/// A duration: whole seconds and the nanoseconds beyond them.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Span {
    s: u64,
    ns: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WireLeftovers {
    Kill,
    Wait,
}

/// The column `ended`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WireEnd {
    v: u32,
    outcome: WireOutcome,
    status: Option<WireStatus>,
    source: WireSource,
    births: u64,
    deaths: u64,
    leftovers: u64,
    proven: bool,
    oom_kills: Option<u64>,
    elapsed: Span,
    at_unix_ns: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum WireOutcome {
    Ended,
    Stopped { reason: WireReason },
    LaunchFailed { step: String, errno: Option<i32> },
    NotEmpty { reason: WireReason, survivors: u32 },
    LostToReboot,
    Lost,
    Withdrawn,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum WireReason {
    Deadline,
    ActiveLimit,
    Idle,
    OutputBudget,
    Leftovers,
    Operator { signal: u8 },
    OutputFailed,
    Internal,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum WireStatus {
    Exited { code: u8 },
    Signaled { signal: u8, core: bool },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WireSource {
    Kernel,
    Waitid,
    RunTable,
    LiveSet,
    Scan,
    Unknown,
}

/// The column `baseline`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireTotals {
    v: u32,
    seen: [u64; 3],
    lost: [u64; 3],
    live_full: u64,
    stale: u64,
    missed: u64,
}

/// Writes the kernel's counters; births, execs and deaths in that order.
pub(super) fn write_totals(it: &Totals) -> Result<String, String> {
    let wire = WireTotals {
        v: VERSION,
        seen: [it.seen_fork, it.seen_exec, it.seen_exit],
        lost: [it.lost_fork, it.lost_exec, it.lost_exit],
        live_full: it.live_full,
        stale: it.stale,
        missed: it.missed,
    };
    serde_json::to_string(&wire).map_err(|error| error.to_string())
}

/// Reads what [`write_totals`] wrote.
pub(super) fn read_totals(text: &str) -> Result<Totals, String> {
    let wire: WireTotals = serde_json::from_str(text).map_err(|error| error.to_string())?;
    version(wire.v)?;
    let ([seen_fork, seen_exec, seen_exit], [lost_fork, lost_exec, lost_exit]) = (wire.seen, wire.lost);
    let (live_full, stale, missed) = (wire.live_full, wire.stale, wire.missed);
    Ok(Totals { seen_fork, seen_exec, seen_exit, lost_fork, lost_exec, lost_exit, live_full, stale, missed })
}

/// Writes a submission.
///
/// # Errors
/// A path that is not UTF-8 has no form in JSON.
pub(super) fn write_submission(it: &Submission) -> Result<String, String> {
    let path = |path: &std::path::Path| {
        path.to_str().map(str::to_owned).ok_or_else(|| format!("the path {} is not UTF-8", path.display()))
    };
    let wire = WireSubmission {
        v: VERSION,
        argv: it.argv.clone(),
        env: it.env.clone(),
        cwd: path(&it.cwd)?,
        user: it.user.clone(),
        stdin: it.stdin.as_deref().map(path).transpose()?,
        limits: WireLimits {
            wall: it.limits.wall.map(Span::of),
            active: it.limits.active.map(Span::of),
            idle: it.limits.idle.map(Span::of),
            output_bytes: it.limits.output_bytes,
            memory_bytes: it.limits.memory_bytes,
            tasks: it.limits.tasks,
            cpu_percent: it.limits.cpu_percent,
        },
        grace: Span::of(it.grace),
        leftovers: match it.leftovers {
            Leftovers::Kill => WireLeftovers::Kill,
            Leftovers::Wait => WireLeftovers::Wait,
        },
        asked_by: it.asked_by,
        part: it.part.as_ref().map(|part| WirePart {
            issue: part.issue.clone(),
            attempt: part.attempt,
            what: part.what.clone(),
        }),
        withheld: it.withheld,
    };
    serde_json::to_string(&wire).map_err(|error| error.to_string())
}

/// Reads what [`write_submission`] wrote.
pub(super) fn read_submission(text: &str) -> Result<Submission, String> {
    let wire: WireSubmission = serde_json::from_str(text).map_err(|error| error.to_string())?;
    version(wire.v)?;
    Ok(Submission {
        argv: wire.argv,
        env: wire.env,
        cwd: wire.cwd.into(),
        user: wire.user,
        stdin: wire.stdin.map(Into::into),
        limits: Limits {
            wall: wire.limits.wall.map(Span::read).transpose()?,
            active: wire.limits.active.map(Span::read).transpose()?,
            idle: wire.limits.idle.map(Span::read).transpose()?,
            output_bytes: wire.limits.output_bytes,
            memory_bytes: wire.limits.memory_bytes,
            tasks: wire.limits.tasks,
            cpu_percent: wire.limits.cpu_percent,
        },
        grace: wire.grace.read()?,
        leftovers: match wire.leftovers {
            WireLeftovers::Kill => Leftovers::Kill,
            WireLeftovers::Wait => Leftovers::Wait,
        },
        asked_by: wire.asked_by,
        part: wire.part.map(|part| Part { issue: part.issue, attempt: part.attempt, what: part.what }),
        withheld: wire.withheld,
    })
}

/// Writes an end.
pub(super) fn write_end(it: &End) -> Result<String, String> {
    let wire = WireEnd {
        v: VERSION,
        outcome: match &it.outcome {
            RunOutcome::LostToReboot => WireOutcome::LostToReboot,
            RunOutcome::Lost => WireOutcome::Lost,
            RunOutcome::Withdrawn => WireOutcome::Withdrawn,
            RunOutcome::Finished(outcome) => match outcome {
                Outcome::Ended => WireOutcome::Ended,
                Outcome::Stopped(reason) => WireOutcome::Stopped { reason: WireReason::of(*reason) },
                Outcome::LaunchFailed(LaunchFailure { step, errno }) => {
                    WireOutcome::LaunchFailed { step: step.clone(), errno: *errno }
                }
                Outcome::NotEmpty { reason, survivors } => {
                    WireOutcome::NotEmpty { reason: WireReason::of(*reason), survivors: *survivors }
                }
            },
        },
        status: it.status.map(|status| match status {
            WaitStatus::Exited(code) => WireStatus::Exited { code },
            WaitStatus::Signaled { signal, core } => WireStatus::Signaled { signal, core },
        }),
        source: match it.source {
            Source::Kernel => WireSource::Kernel,
            Source::Waitid => WireSource::Waitid,
            Source::RunTable => WireSource::RunTable,
            Source::LiveSet => WireSource::LiveSet,
            Source::Scan => WireSource::Scan,
            Source::Unknown => WireSource::Unknown,
        },
        births: it.births,
        deaths: it.deaths,
        leftovers: it.leftovers,
        proven: it.proven,
        oom_kills: it.oom_kills,
        elapsed: Span::of(it.elapsed),
        at_unix_ns: it.at_unix_ns,
    };
    serde_json::to_string(&wire).map_err(|error| error.to_string())
}

/// Reads what [`write_end`] wrote.
pub(super) fn read_end(text: &str) -> Result<End, String> {
    let wire: WireEnd = serde_json::from_str(text).map_err(|error| error.to_string())?;
    version(wire.v)?;
    Ok(End {
        outcome: match wire.outcome {
            WireOutcome::LostToReboot => RunOutcome::LostToReboot,
            WireOutcome::Lost => RunOutcome::Lost,
            WireOutcome::Withdrawn => RunOutcome::Withdrawn,
            WireOutcome::Ended => RunOutcome::Finished(Outcome::Ended),
            WireOutcome::Stopped { reason } => RunOutcome::Finished(Outcome::Stopped(reason.read())),
            WireOutcome::LaunchFailed { step, errno } => {
                RunOutcome::Finished(Outcome::LaunchFailed(LaunchFailure { step, errno }))
            }
            WireOutcome::NotEmpty { reason, survivors } => {
                RunOutcome::Finished(Outcome::NotEmpty { reason: reason.read(), survivors })
            }
        },
        status: wire.status.map(|status| match status {
            WireStatus::Exited { code } => WaitStatus::Exited(code),
            WireStatus::Signaled { signal, core } => WaitStatus::Signaled { signal, core },
        }),
        source: match wire.source {
            WireSource::Kernel => Source::Kernel,
            WireSource::Waitid => Source::Waitid,
            WireSource::RunTable => Source::RunTable,
            WireSource::LiveSet => Source::LiveSet,
            WireSource::Scan => Source::Scan,
            WireSource::Unknown => Source::Unknown,
        },
        births: wire.births,
        deaths: wire.deaths,
        leftovers: wire.leftovers,
        proven: wire.proven,
        oom_kills: wire.oom_kills,
        elapsed: wire.elapsed.read()?,
        at_unix_ns: wire.at_unix_ns,
    })
}

/// Writes why a run is being stopped.
pub(super) fn write_reason(reason: StopReason) -> Result<String, String> {
    serde_json::to_string(&WireReason::of(reason)).map_err(|error| error.to_string())
}

/// Reads what [`write_reason`] wrote.
pub(super) fn read_reason(text: &str) -> Result<StopReason, String> {
    serde_json::from_str::<WireReason>(text).map(WireReason::read).map_err(|error| error.to_string())
}

/// The column `told`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireTold {
    v: u32,
    sentences: Vec<String>,
}

/// Writes what is told of a run.
pub(super) fn write_told(told: &[String]) -> Result<String, String> {
    serde_json::to_string(&WireTold { v: VERSION, sentences: told.to_vec() }).map_err(|error| error.to_string())
}

/// Reads what [`write_told`] wrote.
pub(super) fn read_told(text: &str) -> Result<Vec<String>, String> {
    let wire: WireTold = serde_json::from_str(text).map_err(|error| error.to_string())?;
    version(wire.v)?;
    Ok(wire.sentences)
}

fn version(v: u32) -> Result<(), String> {
    if v == VERSION { Ok(()) } else { Err(format!("form {v} is not form {VERSION}")) }
}

impl Span {
    const fn of(span: Duration) -> Self {
        Self { s: span.as_secs(), ns: span.subsec_nanos() }
    }

    fn read(self) -> Result<Duration, String> {
        // `Duration::new` would carry, and panic where there is no more room.
        if self.ns < 1_000_000_000 { Ok(Duration::new(self.s, self.ns)) } else { Err(format!("{} ns", self.ns)) }
    }
}

impl WireReason {
    const fn of(reason: StopReason) -> Self {
        match reason {
            StopReason::Deadline => Self::Deadline,
            StopReason::ActiveLimit => Self::ActiveLimit,
            StopReason::Idle => Self::Idle,
            StopReason::OutputBudget => Self::OutputBudget,
            StopReason::Leftovers => Self::Leftovers,
            StopReason::Operator { signal } => Self::Operator { signal },
            StopReason::OutputFailed => Self::OutputFailed,
            StopReason::Internal => Self::Internal,
        }
    }

    const fn read(self) -> StopReason {
        match self {
            Self::Deadline => StopReason::Deadline,
            Self::ActiveLimit => StopReason::ActiveLimit,
            Self::Idle => StopReason::Idle,
            Self::OutputBudget => StopReason::OutputBudget,
            Self::Leftovers => StopReason::Leftovers,
            Self::Operator { signal } => StopReason::Operator { signal },
            Self::OutputFailed => StopReason::OutputFailed,
            Self::Internal => StopReason::Internal,
        }
    }
}

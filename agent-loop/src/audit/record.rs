//! The lines of the event log: one JSON object each, its shape normative and tested.
//!
//! Core types are not serialised: this file owns the wire. A line holds the common fields (`seq`, `kind`,
//! `boot_ns`, `time`, `boot_id`, `run`, `issue`) and those of its kind; names that a kind does not have are
//! left out, values that are not known are `null`.

mod cut;
mod own;
mod recorder;
mod task;

use std::sync::Arc;

use serde::{Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use crate::model::{ProcessKey, Totals};
use crate::track::{Accounts, Tally};

pub use own::{Class, OwnLines, SCHEMA, SegmentHead};
pub use recorder::{Clock, Recorder};
pub use task::{Area, CiBody, TaskBody, TaskKind, TaskLine, WriteBody};

/// The id of a process in records: base32 of the first 16 bytes of SHA-256 over the boot id as text, the
/// number as four bytes and the start time in nanoseconds as eight, both little-endian.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ProcId(String);

impl ProcId {
    /// Derives the id.
    #[must_use]
    pub fn of(boot_id: &str, key: ProcessKey) -> Self {
        let mut hash = Sha256::new();
        hash.update(boot_id.as_bytes());
        hash.update(key.tgid.to_le_bytes());
        hash.update(key.start_boottime_ns.to_le_bytes());
        let digest = hash.finalize();
        Self(data_encoding::BASE32_NOPAD.encode(digest.get(..16).unwrap_or_default()))
    }
}

/// A text that all lines of a run have in common.
#[derive(Clone, Debug, Default)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Shared(Arc<str>);

impl Serialize for Shared {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// Leaves a field out where a kind does not have it; `Some(None)` is written as `null`.
type Maybe<T> = Option<Option<T>>;

/// A line.
#[derive(Debug, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub struct Line {
    seq: u64,
    kind: &'static str,
    boot_ns: u64,
    time: String,
    boot_id: Shared,
    /// `null` in what concerns no single run.
    run: Option<Shared>,
    issue: Option<Shared>,
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<TaskBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    write: Option<WriteBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ci: Option<CiBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proc: Option<Proc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Maybe<Parent>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_pid: Maybe<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Maybe<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exec: Option<ExecBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit: Option<ExitBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inferred: Maybe<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    discovery: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cgroup: Maybe<Cgroup>,
    #[serde(skip_serializing_if = "Option::is_none")]
    argv: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<To>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proof: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gap: Option<own::AnyGap>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Maybe<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    survivors: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tree: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    elapsed_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    births: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deaths: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    leftovers: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<Host>,
    /// In `host.start` inside a time namespace: how far `boot_ns` of our own lines is ahead of that of `proc` lines.
    #[serde(skip_serializing_if = "Option::is_none")]
    clock_ahead_ns: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stats: Option<Stats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    segment: Option<own::Segment>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<own::Key>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retention: Option<own::Retention>,
    #[serde(skip_serializing_if = "Option::is_none")]
    anchor: Option<own::Anchor>,
    /// Where words of `argv` were left out of the middle: what it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    argv_cut: Option<cut::Cut>,
}

impl Line {
    /// What it says in words, redacted.
    pub(crate) fn why(&self) -> Option<&str> {
        self.why.as_deref()
    }
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
struct Proc {
    id: ProcId,
    pid: u32,
    start_ns: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pidfs_ino: Option<u64>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
struct Parent {
    id: ProcId,
    pid: u32,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
struct To {
    id: Option<ProcId>,
    pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cgroup: Option<u64>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
struct ExecBody {
    exe: String,
    argv: Vec<String>,
    argc: u32,
    argv_total: u32,
    truncated: bool,
    cwd: Option<String>,
    cwd_source: Option<&'static str>,
    file: Option<FileId>,
    source: &'static str,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
struct FileId {
    dev: u64,
    ino: u64,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
struct ExitBody {
    code: Option<u8>,
    signal: Option<u8>,
    core: Option<bool>,
    /// Whether the out-of-memory killer did it; `null` where nothing could tell.
    oom: Option<bool>,
    cause: &'static str,
    source: &'static str,
}

#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
struct Cgroup {
    id: u64,
    path: String,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
struct GapBody {
    id: u64,
    cause: &'static str,
    lost: Counts,
    untracked: u64,
    missed: u64,
    from_ns: u64,
    to_ns: u64,
    inferred: Counts,
    repaired: bool,
}

/// Numbers of births, execs and deaths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub struct Counts {
    /// Births.
    pub fork: u64,
    /// Execs.
    pub exec: u64,
    /// Deaths.
    pub exit: u64,
}

/// `host.start`: what this host offers and what is done without.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub struct Host {
    /// The version of agent-loop.
    pub version: &'static str,
    /// The version of the log's shape: readers refuse a newer major.
    pub schema: &'static str,
    /// The kernel's release.
    pub kernel: String,
    /// How processes are watched: `ebpf` or `pidfd`.
    pub backend: &'static str,
    /// What is missing, in words; empty where everything is there.
    pub degraded: Vec<String>,
}

/// `stats`: the sum that an auditor checks. Seen = written + filtered + late + lost, for each kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub struct Stats {
    /// What the hooks counted.
    pub seen: Counts,
    /// What stands in this log; a main process's birth stands in `run.born`.
    pub written: Counts,
    /// What was left out on purpose: the launcher's own exec.
    pub filtered: Counts,
    /// What came after a repair had inferred it: it stands in the log as inferred.
    pub late: Counts,
    /// What found no room in a ring.
    pub lost: Counts,
    /// Processes never tracked since the live set was full.
    pub untracked: u64,
    /// Runs of a hook that the kernel skipped.
    pub missed: u64,
}

impl Stats {
    /// Makes the sum from the kernel's totals and the tracker's accounts.
    #[must_use]
    pub fn new(totals: &Totals, accounts: &Accounts) -> Self {
        let of = |count: fn(&Tally) -> u64| Counts {
            fork: count(&accounts.births),
            exec: count(&accounts.execs),
            exit: count(&accounts.deaths),
        };
        Self {
            seen: Counts { fork: totals.seen_fork, exec: totals.seen_exec, exit: totals.seen_exit },
            written: of(|tally| tally.emitted),
            filtered: of(|tally| tally.filtered),
            late: of(|tally| tally.late),
            lost: Counts { fork: totals.lost_fork, exec: totals.lost_exec, exit: totals.lost_exit },
            untracked: totals.live_full,
            missed: totals.missed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_id_is_fixed_by_the_schema() {
        let id = ProcId::of("7c1e0a52-0000-4000-8000-000000000001", ProcessKey::new(4711, 183_920_418_690_112));
        assert_eq!(id.0, "5K3D5VKLIZEHQ3QLQ5F7CV6KUY");
    }
}

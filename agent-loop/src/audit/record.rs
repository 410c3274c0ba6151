//! The lines of the event log: one JSON object each, its shape normative and tested.
//!
//! Core types are not serialised: this file owns the wire. A line holds the common fields (`seq`, `kind`,
//! `boot_ns`, `time`, `boot_id`, `run`, `issue`) and those of its kind; names that a kind does not have are
//! left out, values that are not known are `null`.

mod own;
mod task;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use crate::audit::redact::{self, Redactor};
use crate::event::{Fact, Gap, Member, Outcome, Phase, SignalResult, Signalled, Summary};
use crate::model::{BootNs, ProcessKey, ProofKind, Source, Totals, WaitStatus};
use crate::track::{Accounts, Tally};

pub use own::{Class, OwnLines, SCHEMA, SegmentHead};
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
    argv_cut: Option<Cut>,
}

/// What an argument list was before words were left out of it.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
struct Cut {
    /// How many words it had.
    argc: u64,
    /// How many bytes they had, a zero byte after each.
    bytes: u64,
    /// The SHA-256 over them, each with a zero byte after it, in hexadecimal digits.
    sha256: String,
}

/// How many bytes of an argument list are kept at each end where it is too long for a line.
const CUT_KEEPS: usize = 12 << 10;

/// How many bytes of any other text are kept where a line is too long.
const TEXT_KEEPS: usize = 4 << 10;

impl Line {
    /// What it says in words, redacted.
    pub(crate) fn why(&self) -> Option<&str> {
        self.why.as_deref()
    }

    /// Makes it fit: an argument list keeps its head and tail, other texts their head.
    fn shorten(&mut self) {
        if let Some(exec) = &mut self.exec {
            self.argv_cut = cut(&mut exec.argv);
            exec.truncated |= self.argv_cut.is_some();
            shorten(&mut exec.exe);
            exec.cwd.iter_mut().for_each(shorten);
        }
        if let Some(argv) = &mut self.argv {
            self.argv_cut = cut(argv);
        }
        self.why.iter_mut().chain(&mut self.user).for_each(shorten);
        if let Some(Some(cgroup)) = &mut self.cgroup {
            shorten(&mut cgroup.path);
        }
        if let Some(host) = &mut self.host {
            host.degraded.truncate(16);
            host.degraded.iter_mut().for_each(shorten);
        }
    }
}

/// Leaves words out of the middle, and says what the whole was.
fn cut(argv: &mut Vec<String>) -> Option<Cut> {
    let bytes: usize = argv.iter().map(|word| word.len() + 1).sum();
    if bytes <= 2 * CUT_KEEPS {
        return None;
    }
    let mut hash = Sha256::new();
    for word in &*argv {
        hash.update(word.as_bytes());
        hash.update([0]);
    }
    let sha256 = data_encoding::HEXLOWER.encode(&hash.finalize());
    let what = Cut { argc: argv.len() as u64, bytes: bytes as u64, sha256 };
    let fitting = |words: &mut dyn Iterator<Item = &String>| {
        let mut room = CUT_KEEPS;
        words.take_while(|word| room.checked_sub(word.len() + 1).map(|left| room = left).is_some()).count()
    };
    let head = fitting(&mut argv.iter());
    let tail = fitting(&mut argv.iter().rev()).min(argv.len() - head);
    // A word that is too long by itself keeps its own head.
    let between: Vec<String> = argv.get(head).filter(|_| head + tail < argv.len()).cloned().into_iter().collect();
    argv.splice(head..argv.len() - tail, between);
    if let Some(word) = argv.get_mut(head) {
        shorten(word);
    }
    Some(what)
}

fn shorten(text: &mut String) {
    if text.len() > TEXT_KEEPS {
        let end = (0..=TEXT_KEEPS).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
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

/// What stays the same in all lines of a run. The log that they go to numbers them.
pub struct Recorder {
    boot_id: Shared,
    run: Shared,
    issue: Option<Shared>,
    cgroup: Option<Cgroup>,
    argv: Vec<String>,
    user: String,
    ahead: i64,
    /// Who was told last to withstand SIGKILL.
    unkillable: Vec<u32>,
    redact: Redactor,
}

/// How many of those that withstand SIGKILL are named.
const NAMED: usize = 16;

impl Recorder {
    /// A recorder for one run of `argv` by `user`. What it records is redacted as this process redacts.
    #[must_use]
    pub fn new(boot_id: String, run: String, argv: Vec<String>, user: String) -> Self {
        let (boot_id, run) = (Shared(boot_id.into()), Shared(run.into()));
        let redact = redact::ours();
        let (argv, user) = (redact.words(&argv, false), redact.text(&user).into_owned());
        Self { boot_id, run, issue: None, cgroup: None, argv, user, ahead: 0, unkillable: Vec::new(), redact }
    }

    /// Says which issue the run is for.
    pub fn set_issue(&mut self, issue: &str) {
        self.issue = Some(Shared(issue.into()));
    }

    /// The line that declares the torn end of the line before it.
    pub fn torn(&mut self, clock: Clock) -> Line {
        let why = "the line before this one is not whole: its writer ended in the middle of it".to_owned();
        Line { why: Some(why), ..self.line("log.torn", clock.boot, clock) }
    }

    /// The line that declares how many lines before it could not be written.
    pub fn dropped(&mut self, lines: u64, clock: Clock) -> Line {
        let why = format!("{lines} lines before this one could not be written and are lost");
        Line { why: Some(why), ..self.line("log.lost", clock.boot, clock) }
    }

    /// The line of a run that is about to be launched.
    pub fn intent(&mut self, clock: Clock) -> Line {
        Line {
            argv: Some(self.argv.clone()),
            user: Some(self.user.clone()),
            ..self.line("run.intent", clock.boot, clock)
        }
    }

    /// The line of a daemon that goes on with the run of an earlier one.
    pub fn adopted(&mut self, why: String, clock: Clock) -> Line {
        let why = self.redact.text(&why).into_owned();
        Line { why: Some(why), ..self.line("run.adopted", clock.boot, clock) }
    }

    /// The line of somebody who wants the run to end.
    pub fn stop_asked(&mut self, why: String, clock: Clock) -> Line {
        let why = self.redact.text(&why).into_owned();
        Line { why: Some(why), ..self.line("run.stop_asked", clock.boot, clock) }
    }

    /// The line of output whose end may be missing, unseen by anybody.
    pub fn output_unheard(&mut self, why: String, clock: Clock) -> Line {
        Line { why: Some(why), ..self.line("run.output_unheard", clock.boot, clock) }
    }

    /// Names the run's cgroup in its `run.born`.
    pub fn set_cgroup(&mut self, id: u64, mut path: String) {
        self.redact.string(&mut path);
        self.cgroup = Some(Cgroup { id, path });
    }

    /// Says how far our clock is ahead of the one by which the kernel's records tell the time, in nanoseconds.
    pub fn set_clock(&mut self, ahead: i64) {
        self.ahead = ahead;
    }

    /// The line of a host that starts.
    pub fn host(&mut self, mut host: Host, clock: Clock) -> Line {
        host.degraded.iter_mut().for_each(|why| self.redact.string(why));
        let clock_ahead_ns = Some(self.ahead).filter(|ahead| *ahead != 0);
        Line { host: Some(host), clock_ahead_ns, ..self.line("host.start", clock.boot, clock) }
    }

    /// The line of the final sum.
    pub fn stats(&mut self, stats: Stats, clock: Clock) -> Line {
        Line { stats: Some(stats), ..self.line("stats", clock.boot, clock) }
    }

    /// The line of a fact; `None` for what is only for people.
    pub fn fact(&mut self, fact: &Fact, clock: Clock) -> Option<Line> {
        Some(match fact {
            Fact::RunBorn(born) => Line {
                proc: Some(Proc { pidfs_ino: born.ino.map(|ino| ino.0), ..self.proc(born.key) }),
                cgroup: Some(self.cgroup.clone()),
                argv: Some(self.argv.clone()),
                user: Some(self.user.clone()),
                ..self.line("run.born", born.at, clock)
            },
            Fact::Fork { birth, inferred } => Line {
                proc: Some(Proc { pidfs_ino: birth.ino.map(|ino| ino.0), ..self.proc(birth.key) }),
                parent: Some(birth.forker.map(|key| Parent { id: self.id(key), pid: key.tgid })),
                parent_pid: Some(birth.parent_tgid),
                uid: Some(birth.uid),
                discovery: Some(discovery(birth.discovery)),
                inferred: Some(inferred.map(|gap| gap.0)),
                ..self.record("proc.fork", birth.at, clock)
            },
            Fact::Exec(exec) => Line {
                proc: Some(self.proc(exec.key)),
                uid: Some(exec.uid),
                exec: Some(ExecBody {
                    exe: self.redact.text(&exec.filename).into_owned(),
                    argv: self.redact.words(&exec.argv, exec.truncated),
                    argc: exec.argc,
                    argv_total: exec.argv_total,
                    truncated: exec.truncated,
                    cwd: exec.cwd.as_deref().map(|cwd| self.redact.text(cwd).into_owned()),
                    cwd_source: exec.cwd.is_some().then_some("procfs"),
                    file: exec.file.map(|(dev, ino)| FileId { dev, ino }),
                    source: source(exec.source),
                }),
                ..self.record("proc.exec", exec.at, clock)
            },
            Fact::Exit { death, cause, inferred } => Line {
                proc: Some(self.proc(death.key)),
                exit: Some(exit(death.status, cause.word(), death.source)),
                inferred: Some(inferred.map(|gap| gap.0)),
                ..self.record("proc.exit", death.at, clock)
            },
            Fact::Gap(gap) => Line { gap: Some(own::AnyGap::Kernel(gap_body(gap))), ..self.line("gap", gap.to, clock) },
            Fact::SignalIntent { pid, key, signal, cgroup, reason } => Line {
                to: Some(To {
                    id: key.map(|key| self.id(key)),
                    pid: (!cgroup).then_some(*pid),
                    cgroup: cgroup.then(|| self.cgroup.as_ref().map_or(0, |cgroup| cgroup.id)),
                }),
                signal: Some(*signal),
                reason: Some(Some(reason.word())),
                ..self.line("signal.intent", clock.boot, clock)
            },
            Fact::SignalResult(signalled) => self.signal_result(signalled, clock),
            Fact::Phase(Phase::Unkillable { members, since }) => return self.unkillable(members, *since, clock),
            Fact::Phase(Phase::Stopping { .. } | Phase::Step { .. } | Phase::Draining { .. }) => return None,
            Fact::RunKilled { reason, survivors, proven, elapsed } => Line {
                reason: Some(Some(reason.word())),
                survivors: Some(*survivors),
                tree: Some(tree(*proven, *survivors)),
                elapsed_ms: Some(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)),
                ..self.line("run.killed", clock.boot, clock)
            },
            Fact::RunExit(summary) => self.run_exit(summary, clock),
        })
    }

    /// Who withstands SIGKILL; `None` where the same were told last.
    fn unkillable(&mut self, members: &[Member], since: Duration, clock: Clock) -> Option<Line> {
        let pids: Vec<u32> = members.iter().map(|member| member.pid).collect();
        if self.unkillable == pids {
            return None;
        }
        self.unkillable = pids;
        let names: Vec<String> = members.iter().take(NAMED).map(ToString::to_string).collect();
        let more = match members.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let why = format!("not dead {} ms after SIGKILL: {}{more}", since.as_millis(), names.join(", "));
        let why = self.redact.text(&why).into_owned();
        Some(Line { why: Some(why), ..self.line("run.unkillable", clock.boot, clock) })
    }

    /// Completes an intent with the proof that the signal will need.
    #[must_use]
    pub fn with_proof(line: Line, proof: ProofKind) -> Line {
        Line { proof: Some(proof.word()), ..line }
    }

    fn signal_result(&mut self, signalled: &Signalled, clock: Clock) -> Line {
        let to = Some(To { id: signalled.key.map(|key| self.id(key)), pid: Some(signalled.pid), cgroup: None });
        let (kind, result, proof, why) = match &signalled.result {
            SignalResult::Sent(proof) => ("signal.result", "sent", Some(proof.word()), None),
            SignalResult::Gone => ("signal.result", "gone", None, None),
            SignalResult::Refused(why) => ("signal.refused", "refused", None, Some(self.redact.text(why).into_owned())),
        };
        Line {
            to,
            signal: Some(signalled.signal),
            result: Some(result),
            proof,
            why,
            ..self.line(kind, clock.boot, clock)
        }
    }

    fn run_exit(&mut self, summary: &Summary, clock: Clock) -> Line {
        let (outcome, reason, survivors, why) = match &summary.outcome {
            Outcome::Ended => ("ended", None, 0, None),
            Outcome::Stopped(reason) => (reason.word(), Some(reason.word()), 0, None),
            Outcome::LaunchFailed(failure) => {
                ("launch_failed", None, 0, Some(self.redact.text(&failure.step).into_owned()))
            }
            Outcome::NotEmpty { reason, survivors } => ("not_empty", Some(reason.word()), *survivors, None),
        };
        Line {
            outcome: Some(outcome),
            reason: Some(reason),
            why,
            exit: Some(exit(
                summary.status,
                if summary.status.is_some() { "observed" } else { "unknown" },
                summary.status_source,
            )),
            births: Some(summary.births),
            deaths: Some(summary.deaths),
            leftovers: Some(summary.leftovers),
            survivors: Some(survivors),
            tree: Some(tree(summary.proven, survivors)),
            elapsed_ms: Some(u64::try_from(summary.elapsed.as_millis()).unwrap_or(u64::MAX)),
            ..self.line("run.exit", clock.boot, clock)
        }
    }

    /// A line whose time is the kernel's.
    fn record(&mut self, kind: &'static str, at: BootNs, clock: Clock) -> Line {
        Line { time: clock.wall(at.shifted(self.ahead)), ..self.line(kind, at, clock) }
    }

    fn line(&mut self, kind: &'static str, at: BootNs, clock: Clock) -> Line {
        Line {
            kind,
            boot_ns: at.0,
            time: clock.wall(at),
            boot_id: self.boot_id.clone(),
            run: Some(self.run.clone()),
            issue: self.issue.clone(),
            ..Line::default()
        }
    }

    fn proc(&self, key: ProcessKey) -> Proc {
        Proc { id: self.id(key), pid: key.tgid, start_ns: key.start_boottime_ns, pidfs_ino: None }
    }

    fn id(&self, key: ProcessKey) -> ProcId {
        ProcId::of(&self.boot_id.0, key)
    }
}

/// The two clocks read together: decisions use the first, people read the second.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// CLOCK_BOOTTIME.
    pub boot: BootNs,
    /// CLOCK_REALTIME at the same moment, nanoseconds since 1970.
    pub real_ns: i128,
}

impl Clock {
    /// The wall time at a boot time, RFC 3339 in UTC with nanoseconds.
    #[must_use]
    pub fn wall(self, at: BootNs) -> String {
        let ns = self.real_ns - i128::from(self.boot.0) + i128::from(at.0);
        Timestamp::from_nanosecond(ns).map_or_else(|_| String::new(), |time| format!("{time:.9}"))
    }
}

fn exit(status: Option<WaitStatus>, cause: &'static str, from: Source) -> ExitBody {
    let (code, signal, core) = match status {
        Some(WaitStatus::Exited(code)) => (Some(code), None, Some(false)),
        Some(WaitStatus::Signaled { signal, core }) => (None, Some(signal), Some(core)),
        None => (None, None, None),
    };
    let from = if status.is_none() { Source::Unknown } else { from };
    ExitBody { code, signal, core, oom: None, cause, source: source(from) }
}

fn gap_body(gap: &Gap) -> GapBody {
    GapBody {
        id: gap.id.0,
        cause: gap.cause.word(),
        lost: Counts { fork: gap.lost_fork, exec: gap.lost_exec, exit: gap.lost_exit },
        untracked: gap.untracked,
        missed: gap.missed,
        from_ns: gap.from.0,
        to_ns: gap.to.0,
        inferred: Counts { fork: gap.inferred_births, exec: 0, exit: gap.inferred_deaths },
        repaired: gap.repaired,
    }
}

const fn tree(proven: bool, survivors: u32) -> &'static str {
    if survivors > 0 {
        "not empty"
    } else if proven {
        "empty"
    } else {
        "not proven"
    }
}

const fn source(source: Source) -> &'static str {
    match source {
        Source::Kernel => "kernel",
        Source::Waitid => "waitid",
        Source::RunTable => "run_table",
        Source::LiveSet => "live_set",
        Source::Scan => "scan",
        Source::Unknown => "unknown",
    }
}

const fn discovery(discovery: crate::model::Discovery) -> &'static str {
    use crate::model::Discovery;
    match discovery {
        Discovery::Fork => "fork",
        Discovery::Exec => "exec",
        Discovery::Snapshot => "snapshot",
        Discovery::Scan => "scan",
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

    #[test]
    fn wall_time_follows_boot_time() {
        let clock = Clock { boot: BootNs(2_000_000_000), real_ns: 1_000_000_000_000_000_000 };
        assert_eq!(clock.wall(BootNs(1_999_999_999)), "2001-09-09T01:46:39.999999999Z");
    }
}

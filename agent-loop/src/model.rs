//! The words of the domain: what a process, a status, a birth and a death are. [pure]
//!
//! Plain data without a clock, a file or a process. Wire types (the kernel's records, the log's lines) are
//! parsed into these at the edge.

use std::fmt;

pub use agent_loop_common::ProcessKey;
use agent_loop_common::map::OBSERVED;

/// Nanoseconds of CLOCK_BOOTTIME: the only clock that decisions are made by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootNs(pub u64);

impl BootNs {
    /// The moment `span` later; saturates at the end of time.
    #[must_use]
    pub fn after(self, span: std::time::Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// The same moment by a clock that is this far ahead, in nanoseconds; saturates.
    #[must_use]
    pub const fn shifted(self, ahead: i64) -> Self {
        Self(self.0.saturating_add_signed(ahead))
    }

    /// How long before `later` this was; zero if it was not.
    #[must_use]
    pub fn until(self, later: Self) -> std::time::Duration {
        std::time::Duration::from_nanos(later.0.saturating_sub(self.0))
    }
}

/// The tag that a run's processes carry in the kernel: the id of the run's cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunTag(pub u64);

impl RunTag {
    /// The number of the watch rule, where the process is only observed and belongs to no run.
    #[must_use]
    pub fn observed(self) -> Option<u32> {
        let rule = self.0 & !OBSERVED;
        // A rule is a number of 32 bits; a tag that holds more is still nobody's run.
        (self.0 & OBSERVED != 0).then(|| u32::try_from(rule).unwrap_or(u32::MAX))
    }
}

/// The inode of a process's pidfd: unique within one boot (Linux 6.9 and later).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PidfsIno(pub u64);

/// How a process ended, as the kernel encodes it for `wait(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WaitStatus {
    /// It exited by itself with this code, 0 to 255.
    Exited(u8),
    /// A signal ended it.
    Signaled {
        /// The signal's number.
        signal: u8,
        /// Whether the kernel flagged a core dump.
        core: bool,
    },
}

impl WaitStatus {
    /// Reads the encoding of `wait(2)`: code in bits 8 to 15, signal in bits 0 to 6, core in bit 7.
    #[must_use]
    pub fn from_raw(raw: i32) -> Self {
        let [low, code, ..] = raw.to_le_bytes();
        match low & 0x7f {
            0 => Self::Exited(code),
            signal => Self::Signaled { signal, core: low & 0x80 != 0 },
        }
    }

    /// The code a shell reports for it: the exit code, or 128 plus the signal.
    #[must_use]
    pub fn shell_code(self) -> u8 {
        match self {
            Self::Exited(code) => code,
            Self::Signaled { signal, .. } => 128u8.wrapping_add(signal),
        }
    }
}

impl fmt::Display for WaitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exit {code}"),
            Self::Signaled { signal, core } => {
                match nix::sys::signal::Signal::try_from(i32::from(*signal)) {
                    Ok(name) => f.write_str(name.as_str())?,
                    Err(_) => write!(f, "signal {signal}")?,
                }
                if *core { f.write_str(" (core dumped)") } else { Ok(()) }
            }
        }
    }
}

/// Where a piece of knowledge came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// The eBPF program's record.
    Kernel,
    /// `waitid(2)` on our own child.
    Waitid,
    /// The run table in the kernel (`RUNS`).
    RunTable,
    /// The live set in the kernel, compared after a loss.
    LiveSet,
    /// A look at cgroup.procs or /proc: no eBPF here.
    Scan,
    /// Nobody could say.
    Unknown,
}

/// How a birth came to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Discovery {
    /// Its fork was seen.
    Fork,
    /// It was found at an exec, by its cgroup or a watch rule.
    Exec,
    /// It lived before the hooks were attached.
    Snapshot,
    /// A scan found it: no eBPF here.
    Scan,
}

/// A process was born.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Birth {
    /// Who.
    pub key: ProcessKey,
    /// Its pidfd's inode, where the kernel has one.
    pub ino: Option<PidfsIno>,
    /// Its run.
    pub run: RunTag,
    /// Who called fork, where known: parents change later, this does not.
    pub forker: Option<ProcessKey>,
    /// The number of its parent at birth, where known.
    pub parent_tgid: Option<u32>,
    /// The user id it was born with, where known.
    pub uid: Option<u32>,
    /// When.
    pub at: BootNs,
    /// How it came to be known.
    pub discovery: Discovery,
}

/// A process executed a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exec {
    /// Who; unchanged by the exec, whichever thread called it.
    pub key: ProcessKey,
    /// Its run.
    pub run: RunTag,
    /// When.
    pub at: BootNs,
    /// The path as called, lossy where it is not UTF-8.
    pub filename: String,
    /// The captured arguments, lossy where they are not UTF-8.
    pub argv: Vec<String>,
    /// The number of arguments the process was given.
    pub argc: u32,
    /// The length of the whole argument vector in bytes, terminators included, however much of it was captured.
    pub argv_total: u32,
    /// Whether `argv` or `filename` holds less than the process was given.
    pub truncated: bool,
    /// The working directory, where it could be read while the process was proven alive.
    pub cwd: Option<String>,
    /// Device and inode of the executed file.
    pub file: Option<(u64, u64)>,
    /// The user id after the exec.
    pub uid: Option<u32>,
    /// Where it came from.
    pub source: Source,
}

impl Exec {
    /// An exec of which nothing is known but who and when.
    #[must_use]
    pub const fn empty(key: ProcessKey, run: RunTag, at: BootNs) -> Self {
        Self {
            key,
            run,
            at,
            filename: String::new(),
            argv: Vec::new(),
            argc: 0,
            argv_total: 0,
            truncated: false,
            cwd: None,
            file: None,
            uid: None,
            source: Source::Unknown,
        }
    }
}

/// A process died.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death {
    /// Who.
    pub key: ProcessKey,
    /// Its pidfd's inode, where the kernel has one.
    pub ino: Option<PidfsIno>,
    /// Its run.
    pub run: RunTag,
    /// Who had called fork for it, where known; lets a lost birth be inferred.
    pub forker: Option<ProcessKey>,
    /// How it ended; `None` is unknown, never success.
    pub status: Option<WaitStatus>,
    /// When, by the exit hook; for an inferred death the moment of the inference.
    pub at: BootNs,
    /// Where the status came from.
    pub source: Source,
}

/// An entry of the kernel's live set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Live {
    /// Who.
    pub key: ProcessKey,
    /// Its pidfd's inode, where the kernel has one.
    pub ino: Option<PidfsIno>,
    /// Its run.
    pub run: RunTag,
    /// Who called fork.
    pub forker: Option<ProcessKey>,
}

/// Totals of the kernel's counters since the hooks were attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Births of tracked processes seen by the fork hook (or discovered).
    pub seen_fork: u64,
    /// Execs of tracked processes.
    pub seen_exec: u64,
    /// Deaths of tracked processes.
    pub seen_exit: u64,
    /// Birth records that found no room.
    pub lost_fork: u64,
    /// Exec records that found no room.
    pub lost_exec: u64,
    /// Death records that found no room.
    pub lost_exit: u64,
    /// Processes not tracked since the live set was full. Where hooks have copies (Linux 7.0 on) each copy that runs counts one
    /// that an exec would have found.
    pub live_full: u64,
    /// Stale entries replaced.
    pub stale: u64,
    /// Runs of a hook that the kernel skipped since one was active on that CPU, execs that all copies of a hook were
    /// skipped for, and hooks that could not read a structure.
    pub missed: u64,
}

/// Why a run is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StopReason {
    /// Its wall limit passed.
    Deadline,
    /// Its limit of waking time passed.
    ActiveLimit,
    /// It wrote nothing for too long.
    Idle,
    /// It wrote more output than its budget.
    OutputBudget,
    /// The main process ended and left others behind.
    Leftovers,
    /// A person or a caller asked: the signal `exec` received.
    Operator {
        /// The signal that asked.
        signal: u8,
    },
    /// Output, events or the terminal could no longer be written.
    OutputFailed,
    /// agent-loop itself failed and does not leave the tree alone.
    Internal,
}

impl StopReason {
    /// The word used in records and summaries.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Deadline => "deadline",
            Self::ActiveLimit => "active_limit",
            Self::Idle => "idle",
            Self::OutputBudget => "output_budget",
            Self::Leftovers => "leftovers",
            Self::Operator { .. } => "operator",
            Self::OutputFailed => "output_failed",
            Self::Internal => "internal",
        }
    }
}

/// What proved that a signal would hit the process it was meant for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProofKind {
    /// Our own child, its pidfd made by the `clone3` that made it.
    OwnChild,
    /// The pidfd's inode equals the recorded one.
    PidfsIno,
    /// The kernel's live set held exactly this process after the pidfd was opened.
    LiveSet,
    /// After the pidfd was opened, the process was in the run's own cgroup.
    OwnCgroup,
    /// No eBPF and no cgroup: a verified descendant of ours.
    Descendant,
}

impl ProofKind {
    const ALL: [Self; 5] = [Self::OwnChild, Self::PidfsIno, Self::LiveSet, Self::OwnCgroup, Self::Descendant];

    /// The kind that [`ProofKind::word`] calls so.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }

    /// The word used in records.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::OwnChild => "own_child",
            Self::PidfsIno => "pidfs_ino",
            Self::LiveSet => "live_set",
            Self::OwnCgroup => "own_cgroup",
            Self::Descendant => "descendant",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_a_run_or_a_watch_rule() {
        assert_eq!(RunTag(1234).observed(), None);
        assert_eq!(RunTag(OBSERVED).observed(), Some(0));
        assert_eq!(RunTag(OBSERVED | 7).observed(), Some(7));
        assert_eq!(RunTag(OBSERVED | 1 << 40).observed(), Some(u32::MAX), "never a run");
    }
}

//! A run as it is asked for, remembered and ended: the words of the daemon. [pure]
//!
//! What the kernel sees of a run's processes is in [`crate::model`]; a run is what those processes are for.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ulid::Ulid;

use crate::event::Outcome;
use crate::model::{BootNs, PidfsIno, ProcessKey, RunTag, Source, StopReason, Totals, WaitStatus};
use crate::supervise::Leftovers;

/// The id of a run: a ULID, unique for ever and sorted by the time of its submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunId(pub Ulid);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for RunId {
    type Err = ulid::DecodeError;

    /// Reads the 26 characters of a ULID.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ulid::from_string(text).map(Self)
    }
}

/// The name of the cgroup of one attempt at a run: `run-<ULID>`, from the second attempt on `run-<ULID>.<attempt>`.
///
/// A second attempt is made only where the first is proven never to have executed an instruction (I7, I13).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunName {
    /// The run.
    pub id: RunId,
    /// Which attempt, from 1.
    pub attempt: u32,
}

impl fmt::Display for RunName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.attempt {
            1 => write!(f, "run-{}", self.id),
            attempt => write!(f, "run-{}.{attempt}", self.id),
        }
    }
}

/// A text that is not the name of a run's cgroup.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the name of a run's cgroup")]
pub struct NotARunName(pub String);

impl FromStr for RunName {
    type Err = NotARunName;

    /// Reads exactly what [`RunName::fmt`] writes, nothing else.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let rest = text.strip_prefix("run-")?;
            let (id, attempt) = match rest.split_once('.') {
                Some((id, attempt)) => (id, attempt.parse().ok()?),
                None => (rest, 1),
            };
            Some(Self { id: id.parse().ok()?, attempt })
        };
        // What reads but is not written like this (lower case, `.1`, `.02`) would be a second name of the same; attempts
        // count from 1.
        read().filter(|name| name.attempt > 0 && name.to_string() == text).ok_or_else(|| NotARunName(text.to_owned()))
    }
}

/// What a run may take. `None` is no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Wall time from its birth, suspend included (CLOCK_BOOTTIME).
    pub wall: Option<Duration>,
    /// Time that the host was awake since its birth (CLOCK_MONOTONIC).
    pub active: Option<Duration>,
    /// Time without a byte of output.
    pub idle: Option<Duration>,
    /// Bytes of output, standard output and error together.
    pub output_bytes: Option<u64>,
    /// Bytes of memory (memory.max).
    pub memory_bytes: Option<u64>,
    /// Number of tasks (pids.max).
    pub tasks: Option<u64>,
    /// Processors in hundredths (cpu.max): 150 is one and a half.
    pub cpu_percent: Option<u32>,
}

/// A run as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submission {
    /// The command and its arguments; never given to a shell.
    pub argv: Vec<String>,
    /// Its environment beyond what the daemon's allow-list lets through.
    pub env: Vec<(String, String)>,
    /// Its working directory.
    pub cwd: PathBuf,
    /// Who it runs as: a name of the host's user database.
    pub user: String,
    /// What it reads as standard input; /dev/null without.
    pub stdin: Option<PathBuf>,
    /// What it may take.
    pub limits: Limits,
    /// How long each polite step of a stop is given.
    pub grace: Duration,
    /// What becomes of processes that outlive the command.
    pub leftovers: Leftovers,
    /// The user id of who asked, by the kernel's credentials of the control socket.
    pub asked_by: u32,
    /// What of the issue loop it is, where it is: there is one run for each.
    pub part: Option<Part>,
    /// Whether words of it were secret and marks stand in their places: it can be launched by the daemon that took it,
    /// which has the words in memory, and by no other.
    pub withheld: bool,
}

/// What a run is for a task of the issue loop. Two runs never have the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Part {
    /// The issue: `owner/name#number`.
    pub issue: String,
    /// Which attempt of the task, from 1.
    pub attempt: u32,
    /// What: `agent`, or a step before or after it.
    pub what: String,
}

impl Part {
    /// What the run of an agent is for its task; everything else is a step.
    pub const AGENT: &str = "agent";
}

/// How far a run has come, as it is remembered across restarts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Accepted; waits for its turn. Nothing of it exists.
    Queued,
    /// Its launch was ordered: a frozen cgroup, perhaps a frozen process in it, that never executed an instruction. Why
    /// it is to be stopped, where that was asked for meanwhile: nothing of it ever runs then.
    Intended(Option<StopReason>),
    /// Its main process was born and is remembered; it may run.
    Born(Born),
    /// It is over.
    Ended(End),
}

/// The main process as it was born.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Born {
    /// The run's cgroup.
    pub cgroup: RunTag,
    /// Who.
    pub main: ProcessKey,
    /// Its pidfd's inode, where the kernel has one.
    pub ino: Option<PidfsIno>,
    /// When.
    pub at: BootNs,
    /// When its wall limit strikes; kept over restarts unchanged (I11).
    pub deadline: Option<BootNs>,
    /// Whether eBPF watches it.
    pub traced: bool,
    /// Why it is being stopped, once it is.
    pub stopping: Option<StopReason>,
    /// How long the host had been suspended since its boot, nanoseconds: what a limit of waking time leaves out.
    pub suspended_ns: u64,
    /// The kernel's counters just before.
    pub baseline: Totals,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// What became of it.
    pub outcome: RunOutcome,
    /// The main process's status; `None` is unknown, never success (I9).
    pub status: Option<WaitStatus>,
    /// Where the status comes from.
    pub source: Source,
    /// Births in its tree, as far as this daemon and its predecessors counted them.
    pub births: u64,
    /// Deaths in its tree.
    pub deaths: u64,
    /// Processes that outlived the main process.
    pub leftovers: u64,
    /// Whether the tree was proven empty.
    pub proven: bool,
    /// Kills by the kernel for want of memory; `None` where no controller counts them.
    pub oom_kills: Option<u64>,
    /// From birth to the empty tree.
    pub elapsed: Duration,
    /// When, nanoseconds since 1970.
    pub at_unix_ns: i64,
}

impl End {
    /// Whether nobody of its tree is left, as far as can be known: proven, or since nothing of it ever ran or the host
    /// was started again.
    #[must_use]
    pub const fn left_nobody(&self) -> bool {
        match &self.outcome {
            RunOutcome::Withdrawn | RunOutcome::LostToReboot | RunOutcome::Finished(Outcome::LaunchFailed(_)) => true,
            RunOutcome::Finished(Outcome::NotEmpty { .. }) | RunOutcome::Lost => false,
            RunOutcome::Finished(Outcome::Ended | Outcome::Stopped(_)) => self.proven,
        }
    }
}

/// What became of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunOutcome {
    /// As the state machine of the run says.
    Finished(Outcome),
    /// The host was started again meanwhile: nothing of it is alive, and nobody saw its end.
    LostToReboot,
    /// What was remembered of it is older than what was found: whether and how it ran is not known.
    Lost,
    /// It was withdrawn before it was launched.
    Withdrawn,
}

/// A run as it is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunRecord {
    /// Which.
    pub id: RunId,
    /// Which attempt at its launch, from 1.
    pub attempt: u32,
    /// What was asked for.
    pub submission: Submission,
    /// When it was accepted, nanoseconds since 1970.
    pub submitted_unix_ns: i64,
    /// The boot in which its stage was written: no number of another boot means anything.
    pub boot_id: String,
    /// How far it has come.
    pub stage: Stage,
    /// What people are told of it beyond its stage, one sentence each: who asked for its end and why, what of its output
    /// may be missing. At most [`RunRecord::MOST_TOLD`], nothing secret.
    pub told: Vec<String>,
}

impl RunRecord {
    /// How many sentences are kept of a run: it can be asked to end again and again.
    pub const MOST_TOLD: usize = 16;

    /// Adds a sentence, unless it is there already or there are enough; says whether it did.
    pub fn tell(&mut self, sentence: String) -> bool {
        let new = self.told.len() < Self::MOST_TOLD && !self.told.contains(&sentence);
        if new {
            self.told.push(sentence);
        }
        new
    }

    /// The name of the cgroup of its present attempt.
    #[must_use]
    pub const fn name(&self) -> RunName {
        RunName { id: self.id, attempt: self.attempt }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: RunId = RunId(Ulid::from_parts(0x0123_4567_89ab, 0xcdef_0123_4567_89ab_cdef));

    #[test]
    fn a_run_name_reads_only_what_it_writes() {
        for attempt in [1, 2, 77, u32::MAX] {
            let name = RunName { id: ID, attempt };
            assert_eq!(name.to_string().parse::<RunName>(), Ok(name));
        }
        let name = RunName { id: ID, attempt: 1 }.to_string();
        let lower = name.to_lowercase();
        assert_ne!(name, lower, "an id with letters");
        let endings = ["\n", " ", "/", "/..", ".", ".0", ".1", ".02", ".+2", ".-2", ".2.2", ".4294967296", "\0"];
        let mut wrong: Vec<String> = endings.iter().map(|end| format!("{name}{end}")).collect();
        wrong.extend(["", "run-", "run-1", "run-../etc", &ID.to_string(), &lower].map(str::to_owned));
        wrong.extend([format!(" {name}"), format!("run-{name}"), format!("run-{}", "Z".repeat(26))]);
        for wrong in wrong {
            assert_eq!(wrong.parse::<RunName>(), Err(NotARunName(wrong.clone())));
        }
    }

    #[test]
    fn names_are_sorted_by_submission_then_attempt() {
        let name = |ms, attempt| RunName { id: RunId(Ulid::from_parts(ms, 5)), attempt };
        let mut names = [name(2, 1), name(1, 10), name(1, 2), name(1, 1)];
        names.sort_unstable();
        assert_eq!(names, [name(1, 1), name(1, 2), name(1, 10), name(2, 1)]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whatever_reads_as_a_run_name_is_written_the_same(id: u128, end in "(\\.[0-9+]{0,2})?", lower: bool) {
            let id = Ulid(id).to_string();
            let text = format!("run-{}{end}", if lower { id.to_lowercase() } else { id });
            if let Ok(name) = text.parse::<RunName>() {
                prop_assert_eq!(name.to_string(), text);
                prop_assert!(name.attempt > 0);
            } else {
                prop_assert!(lower || !end.is_empty());
            }
        }
    }
}

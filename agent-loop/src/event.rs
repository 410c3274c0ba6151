//! Everything that can wake the core, and everything it can ask for. [pure]
//!
//! The shell turns sources (rings, pidfds, timers, signals) into an [`Event`], hands it to
//! [`crate::supervise::Core::handle`], and performs the [`Action`]s that come back, in order. Both enums are
//! closed: nothing else wakes the core, and nothing else is done.

use std::fmt;
use std::time::Duration;

use crate::model::{
    Birth, BootNs, Death, Exec, Live, PidfsIno, ProcessKey, ProofKind, RunTag, Source, StopReason, Totals, WaitStatus,
};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A record of the kernel, in the order of the rings; may be late, doubled, or without its birth.
    Born(Birth),
    /// See [`Event::Born`].
    Execed(Exec),
    /// See [`Event::Born`].
    Died(Death),
    /// One round over the rings ended: what was written before it began has been delivered.
    RoundEnded,
    /// The kernel's counters were read, after the rings were drained.
    Counted(Totals),
    /// The answer to [`Action::ReadLiveSet`]: the rings were drained before the set was read.
    LiveSet(Vec<Live>),
    /// The other answer to [`Action::ReadLiveSet`]: it could not be read, which is no proof of anything.
    LiveSetUnread,
    /// The main process was born, frozen, in its own cgroup (or, degraded, held back by a pipe).
    Launched(Launched),
    /// The launch failed; nothing of the run is left, or [`Event::Tree`] will say so.
    LaunchFailed(LaunchFailure),
    /// The main process executed the command.
    Started,
    /// `waitid` on the main process answered: the authority for its status.
    MainExited(Option<WaitStatus>),
    /// The main process is dead and `waitid` has no answer: a tracer holds it. The status is the run table's.
    MainHeld(Option<WaitStatus>),
    /// The time of the last [`Action::WakeAt`] has come.
    Woke,
    /// Somebody wants the run to end.
    StopRequested(StopReason),
    /// Somebody wants it to end at once: the second Ctrl-C. Skips what is left of the grace periods.
    Impatient,
    /// The answer to [`Action::InspectTree`].
    Tree(Tree),
    /// The outcome of one [`Action::Signal`] or [`Action::SignalMember`].
    Signalled(Signalled),
    /// The answer to [`Action::Verify`].
    Verified {
        /// Who.
        key: ProcessKey,
        /// Whether it is certain that it is gone.
        gone: bool,
    },
    /// The outcome of [`Action::KillCgroup`].
    CgroupKilled(Result<(), String>),
}

impl Event {
    /// The run of a record of the kernel; of anything else none.
    #[must_use]
    pub const fn run(&self) -> Option<RunTag> {
        match self {
            Self::Born(birth) => Some(birth.run),
            Self::Execed(exec) => Some(exec.run),
            Self::Died(death) => Some(death.run),
            Self::RoundEnded
            | Self::Counted(_)
            | Self::LiveSet(_)
            | Self::LiveSetUnread
            | Self::MainHeld(_)
            | Self::Launched(_)
            | Self::LaunchFailed(_)
            | Self::Started
            | Self::MainExited(_)
            | Self::Woke
            | Self::StopRequested(_)
            | Self::Impatient
            | Self::Tree(_)
            | Self::Signalled(_)
            | Self::Verified { .. }
            | Self::CgroupKilled(_) => None,
        }
    }
}

/// The main process as it was born.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launched {
    /// Who.
    pub key: ProcessKey,
    /// Its pidfd's inode, where the kernel has one.
    pub ino: Option<PidfsIno>,
    /// The run's tag.
    pub run: RunTag,
    /// When it was born: the fork hook's time, else the launcher's.
    pub at: BootNs,
    /// Whether eBPF watches it, so that births and deaths of its tree will be exact.
    pub traced: bool,
}

/// A launch that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaunchFailure {
    /// What was being done, as a lowercase fragment.
    pub step: String,
    /// The error number of that step, where there is one.
    pub errno: Option<i32>,
}

/// What is left of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tree {
    /// No process is left; `proof` says how far that is proven.
    Empty {
        /// Whether a cgroup or the live set proved it; without them the answer is "none was found".
        proven: bool,
    },
    /// These are left.
    Populated(Vec<Member>),
    /// It could not be told; the fragment says why.
    Unknown(String),
}

/// A process found in a tree: a number, to be verified before anything is done to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its number now.
    pub pid: u32,
    /// Who it is, where the live set or the registry could tell.
    pub key: Option<ProcessKey>,
    /// The state letter of /proc, where it could be read: `D` cannot be killed now.
    pub state: Option<char>,
    /// The kernel function it waits in, where it could be read.
    pub wchan: Option<String>,
    /// Its name, for people.
    pub comm: Option<String>,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.pid, self.comm.as_deref().unwrap_or("?"))?;
        if let Some(state) = self.state {
            write!(f, " (state {state}")?;
            if let Some(wchan) = &self.wchan {
                write!(f, " in {wchan}")?;
            }
            f.write_str(")")?;
        }
        Ok(())
    }
}

/// The outcome of a signal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signalled {
    /// The number it was meant for.
    pub pid: u32,
    /// Who it was meant for, where known.
    pub key: Option<ProcessKey>,
    /// The signal's number.
    pub signal: u8,
    /// What happened.
    pub result: SignalResult,
}

/// What became of a signal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignalResult {
    /// Sent, on this proof.
    Sent(ProofKind),
    /// The process had gone before; nothing was hit.
    Gone,
    /// Not sent: the proof failed. The fragment says why.
    Refused(String),
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Write a fact to the log, before the actions that follow.
    Log(Fact),
    /// Let the frozen main process run. May be asked again; one that runs or is gone already is left as it is.
    Thaw,
    /// Deliver [`Event::Woke`] at this time; replaces the time asked for before.
    WakeAt(BootNs),
    /// Ask `waitid` again for a main process that a tracer holds; deliver [`Event::MainExited`] if it answers.
    WaitMain,
    /// Read the counters and deliver [`Event::Counted`].
    ReadCounters,
    /// Drain the rings, read the live set, and deliver [`Event::LiveSet`] or [`Event::LiveSetUnread`].
    ReadLiveSet,
    /// Signal a process of the tree if it can be proven to be this one; deliver [`Event::Signalled`].
    Signal {
        /// Who.
        key: ProcessKey,
        /// Its recorded inode, where known.
        ino: Option<PidfsIno>,
        /// The signal's number.
        signal: u8,
    },
    /// Look whether a process that is told to be alive is; deliver [`Event::Verified`].
    Verify {
        /// Who.
        key: ProcessKey,
        /// Its recorded inode, where known.
        ino: Option<PidfsIno>,
    },
    /// Signal a number found in the tree if it can be proven to be in it; deliver [`Event::Signalled`].
    SignalMember {
        /// The number.
        pid: u32,
        /// The signal's number.
        signal: u8,
    },
    /// Kill the run's own cgroup; deliver [`Event::CgroupKilled`].
    KillCgroup,
    /// Freeze the run's own cgroup, which could not be killed at once: what cannot fork can be killed one by one.
    FreezeTree,
    /// Thaw it: nobody is in it any more.
    ThawTree,
    /// Look at what is left of the tree; deliver [`Event::Tree`].
    InspectTree,
    /// The run is over; nothing follows.
    Finish(Summary),
}

/// Something that was observed or decided: one record of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// `run.born`: the main process's birth.
    RunBorn(Launched),
    /// `proc.fork`.
    Fork {
        /// The birth.
        birth: Birth,
        /// The gap whose repair inferred it, where its record was lost.
        inferred: Option<GapId>,
    },
    /// `proc.exec`.
    Exec(Exec),
    /// `proc.exit`.
    Exit {
        /// The death.
        death: Death,
        /// What ended it.
        cause: Cause,
        /// The gap whose repair inferred it, where its record was lost.
        inferred: Option<GapId>,
    },
    /// `gap`.
    Gap(Gap),
    /// `signal.intent`.
    SignalIntent {
        /// The number.
        pid: u32,
        /// Who, where known.
        key: Option<ProcessKey>,
        /// The signal's number; for a cgroup kill, SIGKILL.
        signal: u8,
        /// Whether it is a kill of the run's whole cgroup.
        cgroup: bool,
        /// Why.
        reason: StopReason,
    },
    /// `signal.result` or `signal.refused`.
    SignalResult(Signalled),
    /// The run moves to another phase; for people, not in the log of records.
    Phase(Phase),
    /// `run.killed`: the tree was stopped and is empty, or could not be emptied.
    RunKilled {
        /// Why it was stopped.
        reason: StopReason,
        /// How many processes are left.
        survivors: u32,
        /// Whether emptiness was proven.
        proven: bool,
        /// From the first step to the empty tree.
        elapsed: Duration,
    },
    /// `run.exit`: the end.
    RunExit(Summary),
}

/// Why a process ended, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// It exited by itself.
    Exited,
    /// A signal that we had sent, to it or to its cgroup.
    StoppedByUs,
    /// A signal that we did not send.
    Signal,
    /// Not known.
    Unknown,
}

impl Cause {
    /// The word used in records.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Exited => "exited",
            Self::StoppedByUs => "stopped_by_us",
            Self::Signal => "signal",
            Self::Unknown => "unknown",
        }
    }
}

/// The number of a gap within one log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GapId(pub u64);

/// A stretch of time in which records were lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Its number.
    pub id: GapId,
    /// What lost them: `ring_full`, `live_full`, `missed`, `no_death`, `restart`, in that order of severity.
    pub cause: GapCause,
    /// Birth records lost, by the kernel's own count.
    pub lost_fork: u64,
    /// Exec records lost.
    pub lost_exec: u64,
    /// Death records lost.
    pub lost_exit: u64,
    /// Processes never tracked, since the live set was full; no hook counted them as seen.
    pub untracked: u64,
    /// Runs of a hook that the kernel skipped; what they would have recorded is not known.
    pub missed: u64,
    /// Lower bound: the last time nothing was lost.
    pub from: BootNs,
    /// Upper bound: when the loss was found.
    pub to: BootNs,
    /// Births that the repair inferred.
    pub inferred_births: u64,
    /// Deaths that the repair inferred.
    pub inferred_deaths: u64,
    /// Whether the registry equals the live set again.
    pub repaired: bool,
}

impl Gap {
    /// Whether nothing was lost in it after all, and nothing inferred.
    #[must_use]
    pub const fn is_void(&self) -> bool {
        self.lost_fork == 0
            && self.lost_exec == 0
            && self.lost_exit == 0
            && self.untracked == 0
            && self.missed == 0
            && self.inferred_births == 0
            && self.inferred_deaths == 0
    }
}

/// Why records were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GapCause {
    /// A ring had no room.
    RingFull,
    /// The live set had no room: such processes are not tracked at all.
    LiveFull,
    /// The kernel skipped a run of a hook.
    Missed,
    /// At the end of a run deaths were missing that nothing accounts for.
    NoDeath,
    /// A daemon ended after it had read records and before it wrote them.
    Restart,
}

impl GapCause {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::RingFull, Self::LiveFull, Self::Missed, Self::NoDeath, Self::Restart];

    /// The cause that [`GapCause::word`] calls so.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.word() == word)
    }

    /// The word used in records.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::RingFull => "ring_full",
            Self::LiveFull => "live_full",
            Self::Missed => "missed",
            Self::NoDeath => "no_death",
            Self::Restart => "restart",
        }
    }
}

/// A step that a person is told about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The stop began.
    Stopping {
        /// Why.
        reason: StopReason,
    },
    /// SIGINT went to the main process, SIGTERM to the tree, or the kill began.
    Step {
        /// Which step.
        step: Step,
        /// How many processes it concerns.
        processes: u32,
        /// How long it is given.
        grace: Duration,
    },
    /// The main process ended and these live on.
    Draining {
        /// Who they are, with the command of each where it is known.
        leftovers: Vec<(ProcessKey, String)>,
    },
    /// These processes cannot be killed now.
    Unkillable {
        /// Who.
        members: Vec<Member>,
        /// For how long already.
        since: Duration,
    },
}

/// A step of the stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// SIGINT to the main process.
    Interrupt,
    /// SIGTERM to every verified process of the tree.
    Terminate,
    /// The kill of the cgroup, then the sweep by pidfd.
    Kill,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The main process ended by itself.
    Ended,
    /// It was stopped.
    Stopped(StopReason),
    /// It never started.
    LaunchFailed(LaunchFailure),
    /// Processes are left that could not be killed or not be proven gone.
    NotEmpty {
        /// Why the stop was begun.
        reason: StopReason,
        /// How many are left, as far as is known.
        survivors: u32,
    },
}

/// The end of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// How it ended.
    pub outcome: Outcome,
    /// The main process's status; `None` is unknown.
    pub status: Option<WaitStatus>,
    /// Where the status came from.
    pub status_source: Source,
    /// Births of the tree, the main process included.
    pub births: u64,
    /// Deaths of the tree, the main process included.
    pub deaths: u64,
    /// Processes that outlived the main process.
    pub leftovers: u64,
    /// Birth records that were lost and never made good.
    pub gaps: u64,
    /// Whether the tree was proven empty.
    pub proven: bool,
    /// Births of which the live set may know nothing: whether one of those left the run's cgroup is not known.
    pub unseen: u64,
    /// From birth to the empty tree.
    pub elapsed: Duration,
}

//! What wakes a fleet, and what it asks for. [pure]

use crate::event::{Action, Event, LaunchFailure, Launched};
use crate::model::{BootNs, StopReason, Totals};
use crate::run::{RunId, RunName, RunOutcome, RunRecord};
use crate::supervise::Core;

/// A moment on the three clocks. Decisions are made by the first two, people read the third.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// CLOCK_BOOTTIME, suspend included.
    pub boot: BootNs,
    /// CLOCK_MONOTONIC: the time that the host was awake.
    pub awake: BootNs,
    /// CLOCK_REALTIME, nanoseconds since 1970.
    pub unix_ns: i64,
}

impl Now {
    /// How long the host has been suspended since its boot, to the millisecond: the clocks are not read at once.
    #[must_use]
    pub const fn suspended_ns(self) -> u64 {
        self.boot.0.saturating_sub(self.awake.0) / 1_000_000 * 1_000_000
    }
}

/// Something that happened to a fleet.
#[derive(Debug)]
pub enum FleetEvent {
    /// A run was asked for and found sound. One whose first save fails is forgotten: it was not accepted.
    Submitted(Box<RunRecord>),
    /// A run that an earlier daemon had accepted waits again: [`super::Step::Queue`], [`super::Step::Again`].
    Requeued(Box<RunRecord>),
    /// The answer to [`FleetAction::Save`].
    Saved {
        /// Which run.
        id: RunId,
        /// Whether it is durable now.
        result: Result<(), String>,
    },
    /// The answer to [`FleetAction::Prepare`].
    Prepared {
        /// Which run.
        id: RunId,
        /// The kernel's counters once its cgroup is there and its run table entry is made.
        result: Result<Totals, StepFailed>,
    },
    /// The answer to [`FleetAction::Launch`].
    Launched {
        /// Which run.
        id: RunId,
        /// Its main process, frozen.
        result: Result<Launched, StepFailed>,
    },
    /// The answer to [`FleetAction::Remove`].
    Removed {
        /// Which run.
        id: RunId,
        /// Whether nothing of it is left.
        result: Result<(), String>,
    },
    /// What concerns one supervised run.
    Of(RunId, Event),
    /// More output was drained.
    Output {
        /// Which run.
        id: RunId,
        /// When its last byte came.
        at: Option<BootNs>,
        /// When its pipes were last looked into because of a [`FleetAction::LookAtOutput`]: nothing came until then but
        /// what is told.
        looked: Option<BootNs>,
        /// Whether its budget was reached.
        over_budget: bool,
    },
    /// How often the kernel killed in its cgroup for want of memory, read at its end.
    OomKills {
        /// Which run.
        id: RunId,
        /// How often.
        kills: u64,
    },
    /// Somebody wants it to end.
    StopAsked {
        /// Which run.
        id: RunId,
        /// Why.
        reason: StopReason,
        /// Who and in which words, to be remembered: [`RunRecord::told`].
        told: String,
    },
    /// Something that people are told of a run beyond its stage, to be remembered: [`RunRecord::told`].
    Told {
        /// Which run.
        id: RunId,
        /// One sentence.
        told: String,
    },
    /// A run of an earlier daemon goes on, with the core that was restored for it.
    Resumed {
        /// What was remembered of it.
        record: Box<RunRecord>,
        /// Its state machine.
        core: Box<Core>,
    },
    /// A run of an earlier daemon is over, and nobody saw its end.
    Ended(Box<RunRecord>, RunOutcome),
    /// What a cut-off launch left behind is gone and never executed an instruction: it may be launched again.
    Again(RunId),
    /// There is no keeper: nothing is launched for now.
    KeeperLost,
    /// There is one.
    KeeperReady,
    /// Nothing new may be launched for now, though there is a keeper; or it may be again.
    LaunchesHeld(bool),
    /// The time of the last [`FleetAction::WakeAt`] has come.
    Woke,
}

impl FleetEvent {
    /// The run that it is about, where it is about one.
    #[must_use]
    pub fn run(&self) -> Option<RunId> {
        match self {
            Self::Submitted(record) | Self::Requeued(record) | Self::Ended(record, _) => Some(record.id),
            Self::Resumed { record, .. } => Some(record.id),
            Self::Saved { id, .. }
            | Self::Prepared { id, .. }
            | Self::Launched { id, .. }
            | Self::Removed { id, .. }
            | Self::Of(id, _)
            | Self::Output { id, .. }
            | Self::OomKills { id, .. }
            | Self::StopAsked { id, .. }
            | Self::Told { id, .. }
            | Self::Again(id) => Some(*id),
            Self::KeeperLost | Self::KeeperReady | Self::LaunchesHeld(_) | Self::Woke => None,
        }
    }

    /// Whether it leaves all other runs as they are, as long as its own keeps or lacks its slot.
    #[must_use]
    pub fn concerns_one_run(&self) -> bool {
        match self {
            Self::Of(..) | Self::Output { .. } | Self::OomKills { .. } | Self::Told { .. } => true,
            Self::Submitted(_)
            | Self::Requeued(_)
            | Self::Saved { .. }
            | Self::Prepared { .. }
            | Self::Launched { .. }
            | Self::Removed { .. }
            | Self::StopAsked { .. }
            | Self::Resumed { .. }
            | Self::Ended(..)
            | Self::Again(_)
            | Self::KeeperLost
            | Self::KeeperReady
            | Self::LaunchesHeld(_)
            | Self::Woke => false,
        }
    }
}

/// Why a step of a launch did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepFailed {
    /// It was refused or failed, and nothing of it runs.
    Refused(LaunchFailure),
    /// The keeper was lost: whether it was done is not known.
    Unsure,
}

/// Something to do for a fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FleetAction {
    /// Make a run durable as it is now; deliver [`FleetEvent::Saved`], of one run in the order they were asked.
    Save(Box<RunRecord>),
    /// Have its frozen cgroup made; deliver [`FleetEvent::Prepared`].
    Prepare(RunName),
    /// Have its main process born; deliver [`FleetEvent::Launched`].
    Launch(RunName),
    /// Do what the core of a run asks for.
    Of(RunId, Action),
    /// Have what is left of it removed: cgroup, pipes, its entry in the kernel; deliver [`FleetEvent::Removed`].
    Remove(RunName),
    /// Have its pipes looked into once more; deliver [`FleetEvent::Output`] once that could be done.
    LookAtOutput(RunName),
    /// Deliver [`FleetEvent::Woke`] at this time; replaces the time asked for before.
    WakeAt(BootNs),
}

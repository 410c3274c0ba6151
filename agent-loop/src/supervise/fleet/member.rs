//! One run of a fleet: where it stands in memory, when something of it is due, and how it ends. [pure]

use std::time::Duration;

use super::{FleetAction, Now};
use crate::event::{LaunchFailure, Launched, Outcome, Summary};
use crate::model::{BootNs, Source, StopReason, Totals};
use crate::run::{End, Part, RunOutcome, RunRecord, Stage};
use crate::supervise::Core;
use crate::track::Accounts;

/// How often it is asked again whether a run was silent, while there is no answer.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Where a run stands in memory; [`Stage`] is what of it is durable.
#[derive(Debug)]
pub(super) enum Phase {
    /// Accepted; `saved` says that it is durable.
    Queued { saved: bool },
    /// The save of its intent is awaited.
    Intending,
    /// Its cgroup is being made.
    Preparing,
    /// Its main process is being born, frozen; the core keeps what the kernel tells of it until it is known.
    Launching(Box<Core>, Totals),
    /// The save of its birth is awaited.
    Recording(Box<Core>, Launched),
    /// It is supervised.
    Live(Box<Core>),
    /// The save of its end is awaited.
    Ending,
    /// Its cgroup is being removed, for the first time or again at `retry`.
    Removing { retry: Option<BootNs> },
    /// The keeper was lost while it was being launched: whoever takes stock of the host next decides.
    Unsure,
}

/// A run in memory.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) record: RunRecord,
    pub(super) phase: Phase,
    /// A stop that its core has not been told of yet.
    pub(super) stop: Option<StopReason>,
    /// When its core wants to be woken.
    pub(super) wake: Option<BootNs>,
    /// The last byte of output.
    pub(super) output_at: Option<BootNs>,
    /// Until when it is known that nothing else was written.
    pub(super) looked_at: Option<BootNs>,
    /// When it was last asked for.
    pub(super) look_asked: Option<BootNs>,
    /// A save that failed is tried again then.
    pub(super) save_again: Option<BootNs>,
    /// Saves that are not answered yet: only the answer to the last one says anything of the record as it is.
    pub(super) saving: u32,
    /// Whether the store has it, in whatever stage.
    pub(super) known: bool,
    pub(super) oom_kills: Option<u64>,
    /// What became of the kernel's records, once its core has drawn the sum.
    pub(super) accounts: Option<Accounts>,
}

impl Member {
    /// Has it made durable as it is now.
    pub(super) fn save(&mut self, out: &mut Vec<FleetAction>) {
        self.saving += 1;
        out.push(FleetAction::Save(Box::new(self.record.clone())));
    }

    /// Remembers a stop that its core cannot be told of yet, and has it made durable: a crash does not forget it.
    pub(super) fn stop_later(&mut self, reason: StopReason, out: &mut Vec<FleetAction>) {
        if self.stop.is_some() {
            return;
        }
        self.stop = Some(reason);
        match &mut self.record.stage {
            Stage::Intended(stopping) => *stopping = Some(reason),
            Stage::Born(born) => born.stopping = Some(reason),
            Stage::Queued | Stage::Ended(_) => return,
        }
        self.save(out);
    }

    /// Whether it was lost to a restart of the host, so that nothing in this boot is its own.
    pub(super) fn is_of_another_boot(&self) -> bool {
        match &self.record.stage {
            Stage::Ended(end) => end.outcome == RunOutcome::LostToReboot,
            Stage::Queued | Stage::Intended(_) | Stage::Born(_) => false,
        }
    }

    /// The reason to stop it now, for the limits that its core does not know.
    pub(super) fn broken_limit(&self, now: Now) -> Option<StopReason> {
        let Stage::Born(born) = &self.record.stage else { return None };
        if !self.runs_free() {
            return None;
        }
        // Silent is who was found so: what it wrote may wait for a disk of ours to answer.
        if self.idle_due(born.at).is_some_and(|at| self.looked_at.is_some_and(|looked| at <= looked)) {
            return Some(StopReason::Idle);
        }
        self.active_due(now).is_some_and(|at| at <= now.boot).then_some(StopReason::ActiveLimit)
    }

    /// Whether it is supervised and nobody is stopping it yet.
    pub(super) fn runs_free(&self) -> bool {
        match &self.phase {
            Phase::Live(core) => core.runs_free(),
            Phase::Queued { .. }
            | Phase::Intending
            | Phase::Preparing
            | Phase::Launching(..)
            | Phase::Recording(..)
            | Phase::Ending
            | Phase::Removing { .. }
            | Phase::Unsure => false,
        }
    }

    /// Whether its limit of silence passes if nothing was written that is not known yet.
    pub(super) fn may_be_silent(&self, now: Now) -> bool {
        let Stage::Born(born) = &self.record.stage else { return false };
        self.runs_free() && self.look_due(born.at).is_some_and(|at| at <= now.boot)
    }

    /// When it is to be looked whether it was silent.
    fn look_due(&self, born: BootNs) -> Option<BootNs> {
        Some(self.idle_due(born)?.max(self.look_asked.map_or(BootNs(0), |at| at.after(LOOK_AGAIN))))
    }

    fn idle_due(&self, born: BootNs) -> Option<BootNs> {
        let limit = self.record.submission.limits.idle?;
        Some(self.output_at.map_or(born, |at| at.max(born)).after(limit))
    }

    /// When something of it is due.
    pub(super) fn due(&self, now: Now) -> Option<BootNs> {
        let removal = match &self.phase {
            Phase::Removing { retry } => *retry,
            Phase::Queued { .. }
            | Phase::Intending
            | Phase::Preparing
            | Phase::Launching(..)
            | Phase::Recording(..)
            | Phase::Live(_)
            | Phase::Ending
            | Phase::Unsure => None,
        };
        let limits = match &self.record.stage {
            Stage::Born(born) if self.runs_free() => {
                [self.look_due(born.at), self.active_due(now)].into_iter().flatten().min()
            }
            Stage::Born(_) | Stage::Queued | Stage::Intended(_) | Stage::Ended(_) => None,
        };
        [self.wake, self.save_again, removal, limits].into_iter().flatten().min()
    }

    pub(super) fn new(record: RunRecord, phase: Phase) -> Self {
        Self {
            record,
            phase,
            stop: None,
            wake: None,
            output_at: None,
            looked_at: None,
            look_asked: None,
            save_again: None,
            saving: 0,
            known: false,
            oom_kills: None,
            accounts: None,
        }
    }

    /// Whether it is a step of a task, not an agent.
    pub(super) fn is_step(&self) -> bool {
        self.record.submission.part.as_ref().is_some_and(|part| part.what != Part::AGENT)
    }

    pub(super) fn takes_a_slot(&self) -> bool {
        match &self.phase {
            Phase::Intending
            | Phase::Preparing
            | Phase::Launching(..)
            | Phase::Recording(..)
            | Phase::Live(_)
            | Phase::Unsure => true,
            Phase::Queued { .. } | Phase::Ending | Phase::Removing { .. } => false,
        }
    }

    /// Whether it may be launched as soon as there is a slot.
    pub(super) fn waits_for_a_slot(&self) -> bool {
        matches!(self.phase, Phase::Queued { saved: true }) && self.save_again.is_none()
    }

    /// The limit of waking time strikes then, if the host does not sleep again.
    pub(super) fn active_due(&self, now: Now) -> Option<BootNs> {
        let Stage::Born(born) = &self.record.stage else { return None };
        let slept = now.suspended_ns().saturating_sub(born.suspended_ns);
        let limit = self.record.submission.limits.active?;
        Some(BootNs(born.at.after(limit).0.saturating_add(slept)))
    }
}

impl End {
    pub(super) fn of(summary: &Summary, oom_kills: Option<u64>) -> Self {
        Self {
            outcome: RunOutcome::Finished(summary.outcome.clone()),
            status: summary.status,
            source: summary.status_source,
            births: summary.births,
            deaths: summary.deaths,
            leftovers: summary.leftovers,
            proven: summary.proven,
            oom_kills,
            elapsed: summary.elapsed,
            at_unix_ns: 0,
        }
    }

    pub(super) fn without_a_process(outcome: RunOutcome) -> Self {
        Self {
            outcome,
            status: None,
            source: Source::Unknown,
            births: 0,
            deaths: 0,
            leftovers: 0,
            proven: true,
            oom_kills: None,
            elapsed: Duration::ZERO,
            at_unix_ns: 0,
        }
    }

    pub(super) fn withdrawn() -> Self {
        Self::without_a_process(RunOutcome::Withdrawn)
    }

    pub(super) fn never_born(failure: LaunchFailure) -> Self {
        Self::without_a_process(RunOutcome::Finished(Outcome::LaunchFailed(failure)))
    }
}

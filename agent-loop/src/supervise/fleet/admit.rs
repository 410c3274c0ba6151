//! How runs come into a fleet: submitted, taken over from an earlier daemon, or launched again. [pure]

use super::{End, Fleet, FleetAction, Member, Now, Phase};
use crate::event::{Action, Event};
use crate::model::BootNs;
use crate::run::{RunId, RunOutcome, RunRecord, Stage};
use crate::supervise::Core;

impl Fleet {
    /// Takes a run into the queue. A run is submitted once: an id that is known changes nothing.
    pub(super) fn submitted(&mut self, record: RunRecord, out: &mut Vec<FleetAction>) {
        if self.members.contains_key(&record.id) {
            return;
        }
        out.push(FleetAction::Save(Box::new(record.clone())));
        self.members.insert(record.id, Member::new(record, Phase::Queued { saved: false }));
    }

    /// Takes over a run whose main process was born under an earlier daemon.
    pub(super) fn resumed(&mut self, now: Now, record: RunRecord, core: Box<Core>) {
        let stopping = match &record.stage {
            Stage::Born(born) => born.stopping,
            Stage::Queued | Stage::Intended | Stage::Ended(_) => None,
        };
        let id = record.id;
        let mut member = Member::new(record, Phase::Live(core));
        // Its core arms its own timer with the first event; what was being stopped is stopped on.
        member.wake = Some(now.boot);
        member.stop = stopping;
        self.members.insert(id, member);
    }

    /// Remembers the end of a run that nobody saw.
    pub(super) fn ended_unseen(&mut self, record: RunRecord, outcome: RunOutcome, out: &mut Vec<FleetAction>) {
        let id = record.id;
        let mut member = Member::new(record, Phase::Ending);
        member.record.stage = Stage::Ended(End { proven: false, ..End::without_a_process(outcome) });
        out.push(FleetAction::Save(Box::new(member.record.clone())));
        self.members.insert(id, member);
    }

    /// Queues a run again whose launch was cut off before anything of it could run.
    pub(super) fn again(&mut self, id: RunId, out: &mut Vec<FleetAction>) {
        let Some(member) = self.members.get_mut(&id) else { return };
        if !matches!(member.phase, Phase::Unsure) {
            return;
        }
        member.record.attempt += 1;
        member.record.stage = Stage::Queued;
        member.phase = Phase::Queued { saved: false };
        out.push(FleetAction::Save(Box::new(member.record.clone())));
    }

    /// Begins to launch what waits, as far as slots are free, in the order of submission.
    pub(super) fn admit(&mut self, out: &mut Vec<FleetAction>) {
        if self.held_back {
            return;
        }
        let taken = self.members.values().filter(|member| member.takes_a_slot()).count();
        let free = usize::try_from(self.settings.max_agents).unwrap_or(usize::MAX).saturating_sub(taken);
        let ready =
            |member: &&mut Member| matches!(member.phase, Phase::Queued { saved: true }) && member.save_again.is_none();
        for member in self.members.values_mut().filter(ready).take(free) {
            member.record.stage = Stage::Intended;
            member.phase = Phase::Intending;
            out.push(FleetAction::Save(Box::new(member.record.clone())));
        }
    }

    /// Makes the reason of a stop durable once a core began one, after all that the stop itself asks for.
    pub(super) fn remember_stop(&mut self, id: RunId, actions: &[Action], out: &mut Vec<FleetAction>) {
        let began = actions.iter().find_map(|action| match action {
            Action::Log(fact) => super::stop_began(fact),
            Action::Thaw
            | Action::WakeAt(_)
            | Action::ReadCounters
            | Action::ReadLiveSet
            | Action::Signal { .. }
            | Action::SignalMember { .. }
            | Action::KillCgroup
            | Action::WaitMain
            | Action::InspectTree
            | Action::Finish(_) => None,
        });
        let Some(member) = self.members.get_mut(&id) else { return };
        if let (Some(reason), Stage::Born(born)) = (began, &mut member.record.stage)
            && born.stopping.is_none()
        {
            born.stopping = Some(reason);
            out.push(FleetAction::Save(Box::new(member.record.clone())));
        }
    }

    /// Tells a resumed core, once, that it was being stopped.
    pub(super) fn stop_on(&mut self, now: Now, id: RunId, out: &mut Vec<FleetAction>) {
        let Some(member) = self.members.get_mut(&id) else { return };
        if let (Phase::Live(_), Some(reason)) = (&member.phase, member.stop.take()) {
            self.of(now, id, Event::StopRequested(reason), out);
        }
    }
}

impl Member {
    pub(super) fn new(record: RunRecord, phase: Phase) -> Self {
        Self { record, phase, stop: None, wake: None, output_at: None, save_again: None, oom_kills: None }
    }

    fn takes_a_slot(&self) -> bool {
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

    /// The limit of waking time strikes then, if the host does not sleep again.
    pub(super) fn active_due(&self, now: Now) -> Option<BootNs> {
        let Stage::Born(born) = &self.record.stage else { return None };
        let slept = now.suspended_ns().saturating_sub(born.suspended_ns);
        let limit = self.record.submission.limits.active?;
        Some(BootNs(born.at.after(limit).0.saturating_add(slept)))
    }
}

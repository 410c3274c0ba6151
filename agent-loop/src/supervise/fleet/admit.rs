//! How runs come into a fleet: submitted, taken over from an earlier daemon, or launched again. [pure]

use super::{End, Fleet, FleetAction, Member, Now, Phase};
use crate::event::{Action, Event};
use crate::run::{RunId, RunOutcome, RunRecord, Stage};
use crate::supervise::Core;

impl Fleet {
    /// Takes a run into the queue. A run is submitted once: an id that is known changes nothing.
    pub(super) fn submitted(&mut self, record: RunRecord, known: bool, out: &mut Vec<FleetAction>) {
        if self.members.contains_key(&record.id) {
            return;
        }
        let id = record.id;
        let mut member = Member::new(record, Phase::Queued { saved: false });
        member.known = known;
        member.save(out);
        self.members.insert(id, member);
    }

    /// Takes over a run whose main process was born under an earlier daemon.
    pub(super) fn resumed(&mut self, now: Now, record: RunRecord, core: Box<Core>, out: &mut Vec<FleetAction>) {
        let stopping = match &record.stage {
            Stage::Born(born) => born.stopping,
            Stage::Queued | Stage::Intended(_) | Stage::Ended(_) => None,
        };
        let id = record.id;
        // The earlier daemon may have ended between the record of the birth and the thaw. While stock is taken, the
        // word that there is a keeper brings it.
        if !self.held_back && stopping.is_none() && core.may_be_frozen() {
            out.push(FleetAction::Of(id, Action::Thaw));
        }
        let mut member = Member::new(record, Phase::Live(core));
        member.known = true;
        // Its core arms its own timer with the first event; what was being stopped is stopped on.
        member.wake = Some(now.boot);
        member.stop = stopping;
        // Nobody knows what it wrote while nobody looked: its limit of silence begins anew.
        member.output_at = Some(now.boot);
        self.members.insert(id, member);
    }

    /// Remembers the end of a run that nobody saw.
    pub(super) fn ended_unseen(
        &mut self,
        now: Now,
        record: RunRecord,
        outcome: RunOutcome,
        out: &mut Vec<FleetAction>,
    ) {
        let id = record.id;
        let mut member = Member::new(record, Phase::Ending);
        member.known = true;
        member.saving = self.members.get(&id).map_or(0, |before| before.saving);
        let end = End::without_a_process(outcome);
        // What was withdrawn never had a process.
        let proven = end.outcome == RunOutcome::Withdrawn;
        member.record.stage = Stage::Ended(End { proven, at_unix_ns: now.unix_ns, ..end });
        member.save(out);
        self.members.insert(id, member);
    }

    /// Queues a run again whose launch was cut off before anything of it could run.
    pub(super) fn again(&mut self, now: Now, id: RunId, out: &mut Vec<FleetAction>) {
        let Some(member) = self.members.get_mut(&id) else { return };
        if !matches!(member.phase, Phase::Unsure) {
            return;
        }
        if member.stop.is_some() {
            self.end(now, id, End::withdrawn(), out);
            return;
        }
        member.record.attempt += 1;
        member.record.stage = Stage::Queued;
        member.phase = Phase::Queued { saved: false };
        member.save(out);
    }

    /// Goes on launching, and thaws again what the lost keeper may have been asked to thaw in vain.
    pub(super) fn keeper_ready(&mut self, out: &mut Vec<FleetAction>) {
        self.held_back = false;
        for (id, member) in &self.members {
            match &member.phase {
                Phase::Live(core) if core.may_be_frozen() => out.push(FleetAction::Of(*id, Action::Thaw)),
                Phase::Live(_)
                | Phase::Queued { .. }
                | Phase::Intending
                | Phase::Preparing
                | Phase::Launching(..)
                | Phase::Recording(..)
                | Phase::Ending
                | Phase::Removing { .. }
                | Phase::Unsure => {}
            }
        }
    }

    /// Begins to launch what waits, as far as slots are free, in the order of submission.
    ///
    /// Steps of a task have as many slots of their own: they take seconds, and an agent that waits for its clone while
    /// others run for hours would wait for nothing.
    pub(super) fn admit(&mut self, out: &mut Vec<FleetAction>) {
        if self.held_back || self.launches_held {
            return;
        }
        self.count_look(self.members.len());
        let most = usize::try_from(self.settings.max_agents).unwrap_or(usize::MAX);
        for steps in [false, true] {
            let taken =
                self.members.values().filter(|member| member.is_step() == steps && member.takes_a_slot()).count();
            let ready = |member: &&mut Member| member.is_step() == steps && member.waits_for_a_slot();
            for member in self.members.values_mut().filter(ready).take(most.saturating_sub(taken)) {
                member.record.stage = Stage::Intended(None);
                member.phase = Phase::Intending;
                member.save(out);
            }
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
            | Action::Verify { .. }
            | Action::FreezeTree
            | Action::ThawTree
            | Action::WaitMain
            | Action::InspectTree
            | Action::Finish(_) => None,
        });
        let Some(member) = self.members.get_mut(&id) else { return };
        match &member.phase {
            // The main process ended by itself: the next daemon finds it dead, and stops what it left as its leftovers.
            Phase::Live(core) if core.stops_leftovers() => return,
            Phase::Live(_)
            | Phase::Queued { .. }
            | Phase::Intending
            | Phase::Preparing
            | Phase::Launching(..)
            | Phase::Recording(..)
            | Phase::Ending
            | Phase::Removing { .. }
            | Phase::Unsure => {}
        }
        if let (Some(reason), Stage::Born(born)) = (began, &mut member.record.stage)
            && born.stopping.is_none()
        {
            born.stopping = Some(reason);
            member.save(out);
        }
    }

    /// Tells a resumed core, once, that it was being stopped.
    pub(super) fn stop_on(&mut self, now: Now, id: RunId, out: &mut Vec<FleetAction>) {
        let Some(member) = self.members.get_mut(&id) else { return };
        match &member.phase {
            Phase::Live(_) => {}
            // Kept for when there is a core to be told.
            Phase::Queued { .. }
            | Phase::Intending
            | Phase::Preparing
            | Phase::Launching(..)
            | Phase::Recording(..)
            | Phase::Ending
            | Phase::Removing { .. }
            | Phase::Unsure => return,
        }
        if let Some(reason) = member.stop.take() {
            self.of(now, id, Event::StopRequested(reason), out);
        }
    }
}

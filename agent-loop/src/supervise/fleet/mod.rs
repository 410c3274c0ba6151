//! All runs of a daemon: the queue, the slots, and the way of each run from its submission to its removal. [pure]
//!
//! ```text
//!            slot free          saved            prepared           born            saved
//! Queued ----------> Intending -------> Preparing ------> Launching -----> Recording -----> Live (a Core)
//!   | stop                |  refused: End, failed ------------+----------------+               | Finish
//!   v                     |  keeper lost: Unsure -> discarded, queued again as a new attempt   v
//!  Ending <---------------+-------------------------------------------------------------- Ending --saved--> Removing
//! ```
//! A run is launched only after its intent is durable, and its main process is thawed only after its birth is (I6,
//! I19). A stop never waits for the store. What is done twice after a crash (a save, a removal) does no harm.

mod admit;
mod adopt;
mod event;
mod member;

use std::collections::{BTreeMap, BTreeSet};

pub use adopt::{Findings, HeldRun, Step, Why, plan};
pub use event::{FleetAction, FleetEvent, Now, StepFailed};
use member::{Member, Phase};

use super::{Core, Settings};
use crate::event::{Action, Event, Fact, Launched};
use crate::model::{BootNs, Source, StopReason, Totals};
use crate::run::{Born, End, RunId, RunRecord, Stage};
use crate::track::Accounts;

/// How long a step that failed for want of a disk or a keeper waits before it is tried again.
const RETRY: std::time::Duration = std::time::Duration::from_secs(1);

/// What a fleet may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FleetSettings {
    /// How many runs may be launched and not over at once.
    pub max_agents: u32,
}

/// Everything that is decided about the runs of a daemon.
#[derive(Debug)]
pub struct Fleet {
    settings: FleetSettings,
    members: BTreeMap<RunId, Member>,
    /// When something of a run is due, at the earliest: looked at again then, and whenever the run is touched.
    due: BTreeSet<(BootNs, RunId)>,
    due_of: BTreeMap<RunId, BootNs>,
    /// How many runs were looked at so far.
    #[cfg(test)]
    looks: std::cell::Cell<usize>,
    armed: Option<BootNs>,
    /// While set, nothing new is launched: there is no keeper.
    held_back: bool,
    /// While set, nothing new is launched either: the shell says why.
    launches_held: bool,
}

impl Fleet {
    /// A fleet without runs.
    #[must_use]
    pub fn new(settings: FleetSettings) -> Self {
        Self {
            settings,
            members: BTreeMap::new(),
            due: BTreeSet::new(),
            due_of: BTreeMap::new(),
            #[cfg(test)]
            looks: std::cell::Cell::new(0),
            armed: None,
            held_back: true,
            launches_held: false,
        }
    }

    /// Changes what it may do from now on; running agents stay as they are.
    pub fn set(&mut self, settings: FleetSettings) {
        self.settings = settings;
    }

    /// The runs that are not over and removed, oldest first.
    pub fn records(&self) -> impl Iterator<Item = &RunRecord> {
        self.members.values().map(|member| &member.record)
    }

    /// One of them.
    #[must_use]
    pub fn record(&self, id: RunId) -> Option<&RunRecord> {
        self.members.get(&id).map(|member| &member.record)
    }

    /// The state machine of a run that is supervised now.
    #[must_use]
    pub fn core(&self, id: RunId) -> Option<&Core> {
        match &self.members.get(&id)?.phase {
            Phase::Live(core) => Some(core),
            Phase::Queued { .. }
            | Phase::Intending
            | Phase::Preparing
            | Phase::Launching(..)
            | Phase::Recording(..)
            | Phase::Ending
            | Phase::Removing { .. }
            | Phase::Unsure => None,
        }
    }

    /// What became of the kernel's records of a run that has come to its end.
    #[must_use]
    pub fn accounts(&self, id: RunId) -> Option<&Accounts> {
        self.members.get(&id)?.accounts.as_ref()
    }

    /// The state of a run as a word for people.
    #[must_use]
    pub fn state(&self, id: RunId) -> Option<&'static str> {
        Some(match &self.members.get(&id)?.phase {
            Phase::Queued { .. } => "queued",
            Phase::Intending | Phase::Preparing | Phase::Launching(..) | Phase::Recording(..) | Phase::Unsure => {
                "launching"
            }
            Phase::Live(core) => core.word(),
            // Told as over only once that is durable.
            Phase::Ending => "draining",
            Phase::Removing { .. } => "ended",
        })
    }

    /// Names who tells how the main process of a run ended, where that is not the keeper that launched it.
    pub fn main_is_told_by(&mut self, id: RunId, source: Source) {
        if let Some(Member { phase: Phase::Live(core), .. }) = self.members.get_mut(&id) {
            core.main_is_told_by(source);
        }
    }

    /// The runs whose launch was cut off by the loss of the keeper.
    pub fn unsure(&self) -> impl Iterator<Item = RunId> {
        self.members.iter().filter(|(_, member)| matches!(member.phase, Phase::Unsure)).map(|(id, _)| *id)
    }

    /// Takes an event; the actions are to be performed in order.
    pub fn handle(&mut self, now: Now, event: FleetEvent) -> Vec<FleetAction> {
        let mut out = Vec::new();
        let touched = event.run();
        // A record of the kernel changes nothing for other runs, unless its own leaves its slot.
        let alone = event.concerns_one_run();
        let before = self.standing(touched);
        self.take(now, event, &mut out);
        let others = self.tick(now, touched, &mut out);
        if !alone || others || self.standing(touched) != before {
            self.admit(&mut out);
        }
        self.arm(&mut out);
        out
    }

    /// What of a run matters to the others: whether it takes a slot, whether it waits for one.
    fn standing(&self, id: Option<RunId>) -> Option<(bool, bool)> {
        self.members.get(&id?).map(|member| (member.takes_a_slot(), member.waits_for_a_slot()))
    }

    /// Counts what a test wants to know: how many runs one event makes us look at.
    #[cfg_attr(not(test), expect(clippy::unused_self, reason = "counts in tests alone"))]
    fn count_look(&self, _runs: usize) {
        #[cfg(test)]
        self.looks.set(self.looks.get() + _runs);
    }

    fn take(&mut self, now: Now, event: FleetEvent, out: &mut Vec<FleetAction>) {
        match event {
            FleetEvent::Submitted(record) => self.submitted(*record, false, out),
            FleetEvent::Requeued(record) => self.submitted(*record, true, out),
            FleetEvent::Saved { id, result } => self.saved(now, id, result, out),
            FleetEvent::Prepared { id, result } => self.prepared(now, id, result, out),
            FleetEvent::Launched { id, result } => self.launched(now, id, result, out),
            FleetEvent::Of(id, event) => self.of(now, id, event, out),
            FleetEvent::Output { id, at, looked, over_budget } => {
                if let Some(member) = self.members.get_mut(&id) {
                    member.output_at = member.output_at.max(at);
                    member.looked_at = member.looked_at.max(looked);
                }
                if over_budget {
                    self.stop(now, id, StopReason::OutputBudget, out);
                }
            }
            FleetEvent::StopAsked { id, reason, told } => {
                let new = self.tell(id, told);
                self.stop(now, id, reason, out);
                // After what the stop itself asks for, which waits for no disk.
                self.save_told(id, new, out);
            }
            FleetEvent::Told { id, told } => {
                let new = self.tell(id, told);
                self.save_told(id, new, out);
            }
            FleetEvent::OomKills { id, kills } => {
                if let Some(member) = self.members.get_mut(&id) {
                    member.oom_kills = Some(kills);
                }
            }
            FleetEvent::Resumed { record, core } => self.resumed(now, *record, core, out),
            FleetEvent::Ended(record, outcome) => self.ended_unseen(now, *record, outcome, out),
            FleetEvent::Removed { id, result } => self.removed(now, id, result),
            FleetEvent::Again(id) => self.again(now, id, out),
            FleetEvent::KeeperLost => self.held_back = true,
            FleetEvent::KeeperReady => self.keeper_ready(out),
            FleetEvent::LaunchesHeld(held) => self.launches_held = held,
            FleetEvent::Woke => self.armed = None,
        }
    }

    fn saved(&mut self, now: Now, id: RunId, result: Result<(), String>, out: &mut Vec<FleetAction>) {
        let Some(member) = self.members.get_mut(&id) else { return };
        member.saving = member.saving.saturating_sub(1);
        member.known |= result.is_ok();
        if member.saving > 0 {
            // The record was changed since: what counts is whether it is durable as it is now.
            return;
        }
        let retry = now.boot.after(RETRY);
        member.save_again = None;
        let elsewhere = member.is_of_another_boot();
        match (&mut member.phase, result) {
            (Phase::Queued { saved }, Ok(())) => *saved = true,
            // Nobody was told that it was accepted, so it must not run.
            (Phase::Queued { .. }, Err(_)) if !member.known => {
                self.members.remove(&id);
            }
            // Withdrawn while its intent was written: nothing was begun.
            (Phase::Intending, _) if member.stop.is_some() => self.end(now, id, End::withdrawn(), out),
            (Phase::Intending, Ok(())) => {
                member.phase = Phase::Preparing;
                out.push(FleetAction::Prepare(member.record.name()));
            }
            // Nothing was begun: it waits in the queue, as the store still says.
            (Phase::Intending, Err(_)) => {
                member.record.stage = Stage::Queued;
                member.phase = Phase::Queued { saved: true };
                member.save_again = Some(retry);
            }
            (Phase::Recording(..), result) => self.recorded(now, id, result, out),
            // Nothing of it exists in this boot.
            (Phase::Ending, Ok(())) if elsewhere => {
                self.members.remove(&id);
            }
            (Phase::Ending, Ok(())) => {
                member.phase = Phase::Removing { retry: None };
                out.push(FleetAction::Remove(member.record.name()));
            }
            // An end is tried until it is durable, and so is the reason of a stop, which never waits for it.
            (Phase::Queued { .. } | Phase::Ending | Phase::Live(_), Err(_)) => member.save_again = Some(retry),
            (Phase::Live(_), Ok(())) => {}
            // A stop that its core is not told of yet.
            (Phase::Preparing | Phase::Launching(..) | Phase::Unsure, Err(_)) => member.save_again = Some(retry),
            (Phase::Preparing | Phase::Launching(..) | Phase::Unsure, Ok(())) | (Phase::Removing { .. }, _) => {}
        }
    }

    fn prepared(&mut self, now: Now, id: RunId, result: Result<Totals, StepFailed>, out: &mut Vec<FleetAction>) {
        let Some(member) = self.members.get_mut(&id) else { return };
        if !matches!(member.phase, Phase::Preparing) {
            return;
        }
        match (result, member.stop) {
            (Ok(baseline), None) => {
                let core = Core::new(settings_of(&member.record, baseline));
                member.phase = Phase::Launching(Box::new(core), baseline);
                out.push(FleetAction::Launch(member.record.name()));
            }
            (Ok(_), Some(_)) => self.end(now, id, End::withdrawn(), out),
            (Err(StepFailed::Refused(failure)), _) => self.end(now, id, End::never_born(failure), out),
            (Err(StepFailed::Unsure), _) => member.phase = Phase::Unsure,
        }
    }

    fn launched(&mut self, now: Now, id: RunId, result: Result<Launched, StepFailed>, out: &mut Vec<FleetAction>) {
        let Some(member) = self.members.get_mut(&id) else { return };
        let (core, baseline) = match std::mem::replace(&mut member.phase, Phase::Unsure) {
            Phase::Launching(core, baseline) => (core, baseline),
            other @ (Phase::Queued { .. }
            | Phase::Intending
            | Phase::Preparing
            | Phase::Recording(..)
            | Phase::Live(_)
            | Phase::Ending
            | Phase::Removing { .. }
            | Phase::Unsure) => {
                member.phase = other;
                return;
            }
        };
        match result {
            Ok(launched) => {
                member.record.stage = Stage::Born(Born {
                    cgroup: launched.run,
                    main: launched.key,
                    ino: launched.ino,
                    at: launched.at,
                    deadline: member.record.submission.limits.wall.map(|limit| launched.at.after(limit)),
                    traced: launched.traced,
                    stopping: member.stop,
                    suspended_ns: now.suspended_ns(),
                    baseline,
                });
                member.phase = Phase::Recording(core, launched);
                member.save(out);
            }
            Err(StepFailed::Refused(failure)) => self.end(now, id, End::never_born(failure), out),
            Err(StepFailed::Unsure) => member.phase = Phase::Unsure,
        }
    }

    /// The birth is durable, or it is not and the process never runs (I6).
    fn recorded(&mut self, now: Now, id: RunId, result: Result<(), String>, out: &mut Vec<FleetAction>) {
        let Some(member) = self.members.get_mut(&id) else { return };
        let Phase::Recording(mut core, launched) = std::mem::replace(&mut member.phase, Phase::Unsure) else { return };
        if result.is_err() {
            member.save_again = Some(now.boot.after(RETRY));
        }
        let mut actions = Vec::new();
        if let Some(reason) = member.stop.take().or(result.is_err().then_some(StopReason::Internal)) {
            actions.extend(core.handle(now.boot, Event::StopRequested(reason)));
        }
        actions.extend(core.handle(now.boot, Event::Launched(launched)));
        member.phase = Phase::Live(core);
        self.pass_on(now, id, actions, out);
    }

    fn of(&mut self, now: Now, id: RunId, event: Event, out: &mut Vec<FleetAction>) {
        let Some(member) = self.members.get_mut(&id) else { return };
        match &mut member.phase {
            // Before the birth is durable a core answers nothing: it keeps the records until then.
            Phase::Launching(core, _) | Phase::Recording(core, _) | Phase::Live(core) => {
                let actions = core.handle(now.boot, event);
                self.pass_on(now, id, actions, out);
            }
            Phase::Queued { .. }
            | Phase::Intending
            | Phase::Preparing
            | Phase::Ending
            | Phase::Removing { .. }
            | Phase::Unsure => {}
        }
    }

    /// Hands on what a core asks for; its wish to be woken is kept, its end is a step of the run.
    fn pass_on(&mut self, now: Now, id: RunId, actions: Vec<Action>, out: &mut Vec<FleetAction>) {
        let mut stop = Vec::new();
        self.remember_stop(id, &actions, &mut stop);
        for action in actions {
            match action {
                Action::WakeAt(at) => {
                    if let Some(member) = self.members.get_mut(&id) {
                        member.wake = Some(at);
                    }
                }
                Action::Finish(summary) => {
                    if let Some(member) = self.members.get_mut(&id)
                        && let Phase::Live(core) = &member.phase
                    {
                        member.accounts = Some(*core.tracker().accounts());
                        if summary.unseen > 0 {
                            member.record.tell(format!(
                                "The kernel could not track up to {} births on this host while it ran: that none of \
                                 these processes left its cgroup is not proven.",
                                summary.unseen
                            ));
                        }
                    }
                    let end = self.members.get(&id).map(|member| End::of(&summary, member.oom_kills));
                    if let Some(end) = end {
                        self.end(now, id, end, out);
                    }
                }
                action @ (Action::Log(_)
                | Action::Thaw
                | Action::ReadCounters
                | Action::ReadLiveSet
                | Action::Signal { .. }
                | Action::SignalMember { .. }
                | Action::KillCgroup
                | Action::Verify { .. }
                | Action::FreezeTree
                | Action::ThawTree
                | Action::WaitMain
                | Action::InspectTree) => out.push(FleetAction::Of(id, action)),
            }
        }
        // An end that came with it says more.
        if self.members.get(&id).is_some_and(|member| matches!(member.phase, Phase::Live(_))) {
            out.append(&mut stop);
        }
    }

    fn end(&mut self, now: Now, id: RunId, mut end: End, out: &mut Vec<FleetAction>) {
        let Some(member) = self.members.get_mut(&id) else { return };
        end.at_unix_ns = now.unix_ns;
        member.wake = None;
        member.record.stage = Stage::Ended(end);
        member.phase = Phase::Ending;
        member.save(out);
    }

    /// Adds to what people are told of a run; one whose end is remembered already is remembered as it ended.
    fn tell(&mut self, id: RunId, told: String) -> bool {
        let Some(member) = self.members.get_mut(&id) else { return false };
        !matches!(member.record.stage, Stage::Ended(_)) && member.record.tell(told)
    }

    /// Has a run saved of which something new is told, unless it is being saved as it is now.
    fn save_told(&mut self, id: RunId, new: bool, out: &mut Vec<FleetAction>) {
        let saved = |action: &FleetAction| matches!(action, FleetAction::Save(record) if record.id == id);
        if let Some(member) = self.members.get_mut(&id).filter(|_| new && !out.iter().any(saved)) {
            member.save(out);
        }
    }

    fn stop(&mut self, now: Now, id: RunId, reason: StopReason, out: &mut Vec<FleetAction>) {
        let Some(member) = self.members.get_mut(&id) else { return };
        match &member.phase {
            Phase::Queued { .. } => self.end(now, id, End::withdrawn(), out),
            // Remembered: its core is told before it is told of the birth, so that nothing of it ever runs.
            Phase::Intending | Phase::Preparing | Phase::Launching(..) | Phase::Recording(..) | Phase::Unsure => {
                member.stop_later(reason, out);
            }
            Phase::Live(_) => {
                self.of(now, id, Event::StopRequested(reason), out);
            }
            Phase::Ending | Phase::Removing { .. } => {}
        }
    }

    fn removed(&mut self, now: Now, id: RunId, result: Result<(), String>) {
        let Some(member) = self.members.get_mut(&id) else { return };
        match (&mut member.phase, result) {
            (Phase::Removing { .. }, Ok(())) => {
                self.members.remove(&id);
            }
            (Phase::Removing { retry }, Err(_)) => *retry = Some(now.boot.after(RETRY)),
            (
                Phase::Queued { .. }
                | Phase::Intending
                | Phase::Preparing
                | Phase::Launching(..)
                | Phase::Recording(..)
                | Phase::Live(_)
                | Phase::Ending
                | Phase::Unsure,
                _,
            ) => {}
        }
    }

    /// Does what is due of the run that was touched and of those whose time has come; says whether there were such.
    fn tick(&mut self, now: Now, touched: Option<RunId>, out: &mut Vec<FleetAction>) -> bool {
        let due = self.due.iter().take_while(|(at, _)| *at <= now.boot).map(|(_, id)| *id);
        let due: Vec<RunId> = due.filter(|id| Some(*id) != touched).collect();
        let others = !due.is_empty();
        for id in touched.into_iter().chain(due) {
            self.count_look(1);
            self.tick_one(now, id, out);
            if let Some(at) = self.due_of.remove(&id) {
                self.due.remove(&(at, id));
            }
            if let Some(at) = self.members.get(&id).and_then(|member| member.due(now)) {
                self.due_of.insert(id, at);
                self.due.insert((at, id));
            }
        }
        others
    }

    /// Does what is due of one run: its core, limits of output and wakefulness, saves and removals that failed before.
    fn tick_one(&mut self, now: Now, id: RunId, out: &mut Vec<FleetAction>) {
        // First: the reason that was recorded stands, whatever else struck while no daemon ran.
        self.stop_on(now, id, out);
        let Some(member) = self.members.get_mut(&id) else { return };
        if member.wake.is_some_and(|at| at <= now.boot) {
            member.wake = None;
            self.of(now, id, Event::Woke, out);
        }
        if let Some(reason) = self.members.get(&id).and_then(|member| member.broken_limit(now)) {
            self.stop(now, id, reason, out);
        }
        let Some(member) = self.members.get_mut(&id) else { return };
        if member.may_be_silent(now) {
            member.look_asked = Some(now.boot);
            out.push(FleetAction::LookAtOutput(member.record.name()));
        }
        if member.save_again.is_some_and(|at| at <= now.boot) {
            member.save_again = None;
            if !matches!(member.phase, Phase::Queued { saved: true }) {
                member.save(out);
            }
        }
        if let Phase::Removing { retry } = &mut member.phase
            && retry.is_some_and(|at| at <= now.boot)
        {
            *retry = None;
            out.push(FleetAction::Remove(member.record.name()));
        }
    }

    fn arm(&mut self, out: &mut Vec<FleetAction>) {
        let next = self.due.first().map(|(at, _)| *at);
        if let Some(at) = next
            && self.armed != next
        {
            self.armed = next;
            out.push(FleetAction::WakeAt(at));
        }
    }
}

/// How the core of a run is to supervise it. Its deadline is the recorded one, whatever happened since (I11).
#[must_use]
pub fn settings_of(record: &RunRecord, baseline: Totals) -> Settings {
    let limit = match &record.stage {
        Stage::Born(born) => born.deadline.map(|deadline| born.at.until(deadline)),
        Stage::Queued | Stage::Intended(_) | Stage::Ended(_) => record.submission.limits.wall,
    };
    Settings {
        limit,
        grace: record.submission.grace,
        leftovers: record.submission.leftovers,
        give_up: None,
        baseline,
        sole: true,
    }
}

/// Whether a fact of a run is that its stop began, and why.
#[must_use]
pub fn stop_began(fact: &Fact) -> Option<StopReason> {
    match fact {
        Fact::Phase(crate::event::Phase::Stopping { reason }) => Some(*reason),
        Fact::Phase(_)
        | Fact::RunBorn(_)
        | Fact::Fork { .. }
        | Fact::Exec(_)
        | Fact::Exit { .. }
        | Fact::Gap(_)
        | Fact::SignalIntent { .. }
        | Fact::SignalResult(_)
        | Fact::RunKilled { .. }
        | Fact::RunExit(_) => None,
    }
}

#[cfg(test)]
mod property;
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "numbers of a test fit")]
#[expect(clippy::wildcard_enum_match_arm, reason = "a shadow picks the answers it changes")]
mod shadow;
#[cfg(test)]
#[expect(clippy::wildcard_enum_match_arm, reason = "a test picks the step it is about")]
mod tests;

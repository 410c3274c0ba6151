//! The end of a run: the tree is empty, the last records come in, the sum is drawn. [pure]

use std::time::Duration;

use super::Leftovers;
use super::ladder::{Goal, Rung, Stop};
use super::run::{Core, State};
use crate::event::{Action, Fact, GapCause, Outcome, Summary};
use crate::model::{BootNs, Source, StopReason};

/// How long records of a tree that is empty are waited for.
const DRAIN: Duration = Duration::from_secs(1);

/// A run whose tree is empty or given up.
#[derive(Debug)]
pub(super) struct Closing {
    since: BootNs,
    end: End,
    /// The counters were read since.
    counted: bool,
}

/// What will be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Main,
    LaunchFailed,
    Stopped(StopReason),
    NotEmpty { reason: StopReason, survivors: u32 },
}

impl Core {
    /// Whether the main process is dead and its tree is empty (I8).
    pub(super) fn is_over(&self) -> bool {
        // Where the live set cannot be read, the records say alone who left the cgroup: the end is not proven.
        let cleared = !self.traced() || self.look.cleared || self.tracker.is_blind();
        let registry = self.tracker.registry();
        let nobody = || self.living_keys().iter().all(|(key, _)| self.tracker.is_blind() && registry.is_gone(key));
        self.main_dead() && self.look.empty_since.is_some() && cleared && (!self.traced() || nobody())
    }

    /// Whether nothing can tell any more if those that the registry knows alive outside of an empty tree are.
    fn is_lost(&self, now: BootNs) -> bool {
        let long = self.look.empty_since.is_some_and(|since| since.after(DRAIN) <= now);
        self.tracker.is_blind() && self.is_killing() && long
    }

    /// Begins the end of a run that is over.
    pub(super) fn over(&mut self, now: BootNs, out: &mut Vec<Action>) {
        // Who was never tracked is seen in the cgroup alone: that nobody of them left it is not proven.
        self.look.proven &= !self.traced() || self.look.cleared && self.tracker.unseen() == 0;
        let end = match &self.state {
            State::Failed { .. } => End::LaunchFailed,
            State::Draining { .. } => End::Main,
            State::Stopping(stop) | State::Unkillable(stop) => {
                // Given up, what is left stays frozen: it could not be ended, and shall not go on.
                if stop.froze() {
                    out.push(Action::ThawTree);
                }
                out.push(Action::Log(Fact::RunKilled {
                    reason: stop.reason,
                    survivors: 0,
                    proven: self.look.proven,
                    elapsed: stop.began.until(now),
                }));
                match stop.goal {
                    Goal::Stopped => End::Stopped(stop.reason),
                    Goal::MainEnded => End::Main,
                    Goal::LaunchFailed => End::LaunchFailed,
                }
            }
            // MainExited comes before the end is looked for; the answer to a look of a stop is not one.
            State::Intent(_) | State::Born | State::Running | State::Closing(_) | State::Ended => return,
        };
        self.close(now, end, out);
    }

    /// The live set could not be read: it will be tried again, and the end is not made to wait for it for ever.
    pub(super) fn on_live_set_unread(&mut self, now: BootNs, out: &mut Vec<Action>) {
        self.tracker.live_set_unread(now);
        if self.is_over() {
            self.over(now, out);
        } else if self.is_lost(now) {
            self.give_up(now, out);
        } else if self.tracker.is_blind() && self.main_dead() {
            self.verify(&self.living_keys(), out);
        }
    }

    /// Ends a run whose rest cannot be killed.
    pub(super) fn give_up(&mut self, now: BootNs, out: &mut Vec<Action>) {
        let (State::Stopping(stop) | State::Unkillable(stop)) = &self.state else { return };
        let Stop { reason, began, .. } = *stop;
        let found = self.look.members.as_deref().unwrap_or_default();
        let elsewhere =
            self.living_keys().iter().filter(|(key, _)| found.iter().all(|member| member.pid != key.tgid)).count();
        let survivors = u32::try_from(found.len() + elsewhere).unwrap_or(u32::MAX);
        let elapsed = began.until(now);
        out.push(Action::Log(Fact::RunKilled { reason, survivors, proven: false, elapsed }));
        self.look.proven = false;
        self.close(now, End::NotEmpty { reason, survivors }, out);
    }

    fn close(&mut self, now: BootNs, end: End, out: &mut Vec<Action>) {
        self.state = State::Closing(Closing { since: now, end, counted: !self.traced() });
        self.look.answered();
        self.tracker.ask_counters(out);
    }

    pub(super) fn on_counted(&mut self, fresh: bool) {
        match &mut self.state {
            State::Closing(closing) => closing.counted |= fresh,
            State::Intent(_)
            | State::Born
            | State::Running
            | State::Failed { .. }
            | State::Draining { .. }
            | State::Stopping(_)
            | State::Unkillable(_)
            | State::Ended => {}
        }
    }

    /// Ends the run once every birth has its death and the counters were read, or the time for that is over;
    /// before, looks for deaths that keep an empty tree from being over.
    pub(super) fn finish_if_settled(&mut self, now: BootNs, out: &mut Vec<Action>) {
        let overdue = |since: &BootNs| since.after(DRAIN) <= now;
        match &self.state {
            State::Closing(closing) => {
                let survived = matches!(closing.end, End::NotEmpty { .. });
                let told = self.main.is_none() || self.reaped.is_some() || survived;
                let settled = if survived { !self.tracker.is_dirty() } else { self.tracker.is_settled() };
                let complete = closing.counted && told && settled;
                if !complete && !overdue(&closing.since) {
                    return;
                }
                let (end, since) = (closing.end, closing.since);
                if survived {
                    self.tracker.abandon(now, out);
                } else {
                    self.tracker.force(now, out);
                }
                self.finish(end, since, out);
            }
            State::Failed { .. } | State::Draining { .. } | State::Stopping(_) | State::Unkillable(_) => {
                if self.main_dead() && self.look.empty_since.as_ref().is_some_and(overdue) && self.living() > 0 {
                    self.tracker.suspect(now, GapCause::NoDeath, out);
                }
            }
            State::Intent(_) | State::Born | State::Running | State::Ended => {}
        }
    }

    fn finish(&mut self, end: End, since: BootNs, out: &mut Vec<Action>) {
        let outcome = match (end, self.failure.take()) {
            (End::NotEmpty { reason, survivors }, _) => Outcome::NotEmpty { reason, survivors },
            (End::Stopped(reason), _) => Outcome::Stopped(reason),
            (End::Main | End::LaunchFailed, Some(failure)) => Outcome::LaunchFailed(failure),
            (End::Main | End::LaunchFailed, None) => Outcome::Ended,
        };
        let registry = self.tracker.registry();
        let waited = self.reaped.flatten().map(|status| (status, self.reaped_source));
        let status = waited.or(self.recorded);
        let summary = Summary {
            outcome,
            status: status.map(|(status, _)| status),
            status_source: status.map_or(Source::Unknown, |(_, source)| source),
            births: registry.births(),
            deaths: registry.deaths(),
            leftovers: self.leftovers,
            gaps: self.tracker.unmade(),
            // The last count may have told of hooks that were skipped.
            proven: self.look.proven && (!self.traced() || self.tracker.unseen() == 0),
            unseen: self.tracker.unseen(),
            elapsed: self.begun.map_or(Duration::ZERO, |begun| begun.until(since)),
        };
        out.push(Action::Log(Fact::RunExit(summary.clone())));
        out.push(Action::Finish(summary));
        self.state = State::Ended;
    }

    /// When the present state has something to do.
    pub(super) fn state_due(&self) -> Option<BootNs> {
        let drained = self.look.empty_since.map(|since| since.after(DRAIN)).filter(|_| !self.tracker.is_dirty());
        match &self.state {
            State::Intent(_) | State::Ended => None,
            State::Born | State::Running => self.deadline(),
            State::Failed { since } => [Some(since.after(self.settings.grace)), drained].into_iter().flatten().min(),
            // Leftovers that are not told after so long could not be looked at: they are stopped unseen.
            State::Draining { since, .. } => match self.settings.leftovers {
                Leftovers::Kill => Some(since.after(self.settings.grace.max(DRAIN * 2))),
                Leftovers::Wait => self.deadline(),
            },
            State::Stopping(stop) | State::Unkillable(stop) => match &stop.rung {
                Rung::Interrupt { .. } | Rung::Terminate { .. } | Rung::Kill(_) => stop.due(self.settings.give_up),
            },
            State::Closing(closing) => Some(closing.since.after(DRAIN)),
        }
    }

    /// What the moment of [`Core::state_due`] means before a stop.
    pub(super) fn why_due(&self) -> (Goal, StopReason) {
        let leftovers = (Goal::MainEnded, StopReason::Leftovers);
        let deadline = (Goal::Stopped, StopReason::Deadline);
        match (&self.state, self.settings.leftovers) {
            (State::Draining { .. }, Leftovers::Kill) => leftovers,
            (State::Draining { .. }, Leftovers::Wait)
            | (
                State::Intent(_)
                | State::Born
                | State::Running
                | State::Failed { .. }
                | State::Stopping(_)
                | State::Unkillable(_)
                | State::Closing(_)
                | State::Ended,
                _,
            ) => deadline,
        }
    }

    fn deadline(&self) -> Option<BootNs> {
        let main = self.main.as_ref()?;
        self.settings.limit.map(|limit| main.at.after(limit))
    }
}

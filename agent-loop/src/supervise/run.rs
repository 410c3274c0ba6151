//! The state machine of one run. [pure]
//!
//! ```text
//!            Launched          Started             MainExited           empty
//! Intent ------------> Born ----------> Running -------------> Draining ------> Closing ----> Ended
//!   |  (frozen)         |  (thawed)        |                      |                ^      settled, or 1 s
//!   |                   |                  | stop                 | stop, or       |
//!   |                   |                  v                      v policy Kill    | empty, or given up
//!   | stop, Launched    +-----------> Stopping: Interrupt -> Terminate -> Kill ----+
//!   +----(not thawed)------------------------------------------> Kill              |
//!   |                   |                                         | 10 s, or D     |
//!   | LaunchFailed      | LaunchFailed                            v                |
//!   +-----> Failed <----+  -- grace --> Kill                  Unkillable ----------+
//!             |                                                                    |
//!             +---------------------------- empty ---------------------------------+
//! ```
//! A main process that is dead and held by a tracer ([`Event::MainHeld`]) has ended; its status is still asked for.
//! Empty: the main process is dead, nothing was found in its tree, and, where eBPF watches, no process of the
//! run is alive in the registry (I8). Records of the kernel are taken in every state but Ended.

use std::time::Duration;

use super::finish::Closing;
use super::ladder::{Goal, Stop};
use super::look::Look;
use super::{Leftovers, Settings};
use crate::event::{Action, Event, Fact, LaunchFailure, Launched, SignalResult, Signalled};
use crate::model::{BootNs, Death, ProcessKey, Source, StopReason, WaitStatus};
use crate::track::Tracker;

/// The signal of Ctrl-C, assumed where impatience comes before any request.
const SIGINT: u8 = 2;

/// `waitid` is asked again for a dead main process after this long, then after twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(5);
/// It is asked at least this often: the signal of a child's end tells it too.
const LONGEST_WAIT: Duration = Duration::from_millis(100);

/// A dead main process that a tracer holds.
#[derive(Debug)]
pub(super) struct Held {
    due: BootNs,
    pause: Duration,
}

/// Where a run stands.
#[derive(Debug)]
pub(super) enum State {
    /// The launch was ordered; a stop asked for meanwhile is remembered.
    Intent(Option<StopReason>),
    /// Born and thawed, the command is not executed yet.
    Born,
    /// The command runs.
    Running,
    /// The launch failed; what it left behind is awaited, then killed.
    Failed {
        /// Since when.
        since: BootNs,
    },
    /// The main process ended by itself; whether others outlive it is being found out, or they are awaited.
    Draining {
        /// When the main process ended.
        since: BootNs,
        /// Whether the others were told.
        told: bool,
    },
    /// The tree is being stopped.
    Stopping(Stop),
    /// The kill was given and some withstand it.
    Unkillable(Stop),
    /// The tree is empty or given up; the last records are awaited.
    Closing(Closing),
    /// Nothing follows.
    Ended,
}

/// Everything that is decided about one run.
#[derive(Debug)]
pub struct Core {
    pub(super) settings: Settings,
    pub(super) tracker: Tracker,
    pub(super) state: State,
    pub(super) main: Option<Launched>,
    /// The answer of `waitid`, once there is one.
    pub(super) reaped: Option<Option<WaitStatus>>,
    /// Who answered: `waitid`, or the kernel's run table for a main process that is not our child.
    pub(super) reaped_source: Source,
    /// The status by the kernel's record, or by its run table.
    pub(super) recorded: Option<(WaitStatus, Source)>,
    /// The main process is dead, and a tracer keeps `waitid` from answering.
    pub(super) held: Option<Held>,
    pub(super) failure: Option<LaunchFailure>,
    pub(super) look: Look,
    pub(super) leftovers: u64,
    /// Whether the live set was asked for processes outside the tree.
    pub(super) seeks_outside: bool,
    pub(super) begun: Option<BootNs>,
    /// Whether the main process is known to have been thawed.
    pub(super) started: bool,
    /// The main process's end while no daemon ran, until the first event.
    pub(super) ended_before: Option<Option<WaitStatus>>,
    early: Vec<Event>,
    armed: Option<BootNs>,
}

impl Core {
    /// A run whose launch is ordered.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            tracker: Tracker::new(settings.baseline, settings.sole),
            state: State::Intent(None),
            main: None,
            reaped: None,
            reaped_source: Source::Waitid,
            recorded: None,
            held: None,
            failure: None,
            look: Look::new(),
            leftovers: 0,
            seeks_outside: false,
            begun: None,
            started: false,
            ended_before: None,
            early: Vec::new(),
            armed: None,
        }
    }

    /// Says how far our clock is ahead of the one by which the kernel's records tell the time.
    pub fn set_clock(&mut self, ahead: i64) {
        self.tracker.set_clock(ahead);
    }

    /// What became of the kernel's records so far.
    #[must_use]
    pub fn tracker(&self) -> &Tracker {
        &self.tracker
    }

    /// Takes an event; the actions are to be performed in order.
    pub fn handle(&mut self, now: BootNs, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        self.begun.get_or_insert(now);
        match &self.state {
            State::Ended => return out,
            State::Intent(_)
            | State::Born
            | State::Running
            | State::Failed { .. }
            | State::Draining { .. }
            | State::Stopping(_)
            | State::Unkillable(_)
            | State::Closing(_) => {}
        }
        self.take(now, event, &mut out);
        if let Some(status) = self.ended_before.take() {
            self.on_main_exited(now, status, &mut out);
        }
        while self.climb(now, &mut out) {}
        self.tracker.tick(now, &mut out);
        self.look.if_due(now, &mut out);
        self.wait_if_due(now, &mut out);
        self.finish_if_settled(now, &mut out);
        match &self.state {
            State::Ended => {}
            State::Intent(_)
            | State::Born
            | State::Running
            | State::Failed { .. }
            | State::Draining { .. }
            | State::Stopping(_)
            | State::Unkillable(_)
            | State::Closing(_) => self.arm(&mut out),
        }
        out
    }

    fn take(&mut self, now: BootNs, event: Event, out: &mut Vec<Action>) {
        match event {
            Event::Born(_) | Event::Execed(_) | Event::Died(_) => self.on_record(now, event, out),
            Event::RoundEnded => self.tracker.round_ended(now, out),
            Event::Counted(totals) => {
                let fresh = self.tracker.counted(now, totals, out);
                self.on_counted(fresh);
            }
            Event::LiveSet(set) => {
                if self.tracker.live_set(now, &set, out) {
                    self.on_live_set(now, &set, out);
                }
            }
            Event::LiveSetUnread => self.on_live_set_unread(now, out),
            Event::Launched(launched) => self.on_launched(now, launched, out),
            Event::LaunchFailed(failure) => self.on_launch_failed(now, failure, out),
            Event::Started => self.on_started(),
            Event::MainExited(status) => self.on_main_exited(now, status, out),
            Event::MainHeld(status) => self.on_main_held(now, status, out),
            Event::Woke => self.armed = None,
            Event::StopRequested(reason) => self.on_stop(now, reason, out),
            Event::Impatient => self.on_impatient(now, out),
            Event::Tree(tree) => self.on_tree(now, tree, out),
            Event::Signalled(signalled) => self.on_signalled(signalled, out),
            Event::Verified { key, gone } => self.on_verified(key, gone),
            Event::CgroupKilled(result) => self.on_cgroup_killed(now, result, out),
        }
    }

    fn on_record(&mut self, now: BootNs, record: Event, out: &mut Vec<Action>) {
        match &self.state {
            // Until the main process is known, its own records could not be told from others.
            State::Intent(_) => {
                self.early.push(record);
                return;
            }
            State::Born
            | State::Running
            | State::Failed { .. }
            | State::Draining { .. }
            | State::Stopping(_)
            | State::Unkillable(_)
            | State::Closing(_)
            | State::Ended => {}
        }
        match record {
            Event::Born(birth) => self.tracker.born(now, birth, out),
            Event::Execed(exec) => self.tracker.execed(now, exec, out),
            Event::Died(death) => self.on_died(now, death, out),
            // `take` hands over records only.
            Event::RoundEnded
            | Event::Counted(_)
            | Event::LiveSet(_)
            | Event::LiveSetUnread
            | Event::Launched(_)
            | Event::LaunchFailed(_)
            | Event::Started
            | Event::MainExited(_)
            | Event::MainHeld(_)
            | Event::Woke
            | Event::StopRequested(_)
            | Event::Impatient
            | Event::Tree(_)
            | Event::Signalled(_)
            | Event::Verified { .. }
            | Event::CgroupKilled(_) => {}
        }
    }

    fn on_died(&mut self, now: BootNs, death: Death, out: &mut Vec<Action>) {
        if self.main.as_ref().is_some_and(|main| main.key == death.key) {
            self.recorded = death.status.map(|status| (status, death.source));
        }
        let before = self.living();
        self.tracker.died(now, death, out);
        if before == 0 || self.living() > 0 {
            return;
        }
        match &self.state {
            // With the main process alive the living are never none; before MainExited its end is not told.
            State::Intent(_) | State::Born | State::Running | State::Closing(_) | State::Ended => {}
            State::Failed { .. } | State::Draining { .. } | State::Stopping(_) | State::Unkillable(_) => {
                self.look.at_once(out);
            }
        }
    }

    fn replay(&mut self, now: BootNs, out: &mut Vec<Action>) {
        for event in std::mem::take(&mut self.early) {
            self.take(now, event, out);
        }
    }

    fn on_launched(&mut self, now: BootNs, launched: Launched, out: &mut Vec<Action>) {
        let stop = match &self.state {
            State::Intent(stop) => *stop,
            // A run is launched once.
            State::Born
            | State::Running
            | State::Failed { .. }
            | State::Draining { .. }
            | State::Stopping(_)
            | State::Unkillable(_)
            | State::Closing(_)
            | State::Ended => return,
        };
        out.push(Action::Log(Fact::RunBorn(launched.clone())));
        self.begun = Some(launched.at);
        self.tracker.launched(&launched);
        self.main = Some(launched);
        self.state = State::Born;
        self.replay(now, out);
        match stop {
            // Killed while it was frozen, by somebody else: there is nothing to thaw.
            None if self.reaped.is_some() => {}
            None => out.push(Action::Thaw),
            // Stopped before its first instruction: it shall never have one.
            Some(reason) => self.kill_now(now, Goal::Stopped, reason, out),
        }
    }

    fn on_launch_failed(&mut self, now: BootNs, failure: LaunchFailure, out: &mut Vec<Action>) {
        self.failure.get_or_insert(failure);
        match &self.state {
            State::Intent(_) => {
                self.state = State::Failed { since: now };
                self.replay(now, out);
                self.look.at_once(out);
            }
            State::Born => {
                self.state = State::Failed { since: now };
                self.look.at_once(out);
            }
            // The end of the launcher may be told before the reason for it; the reason is kept for the outcome.
            State::Draining { .. } | State::Closing(_) | State::Stopping(_) | State::Unkillable(_) => {}
            State::Running | State::Failed { .. } | State::Ended => {}
        }
    }

    fn on_started(&mut self) {
        self.started = true;
        match &self.state {
            State::Born => self.state = State::Running,
            State::Intent(_)
            | State::Running
            | State::Failed { .. }
            | State::Draining { .. }
            | State::Stopping(_)
            | State::Unkillable(_)
            | State::Closing(_)
            | State::Ended => {}
        }
    }

    fn on_main_exited(&mut self, now: BootNs, status: Option<WaitStatus>, out: &mut Vec<Action>) {
        if let State::Intent(_) = &self.state {
            // It may be killed while it is frozen and its birth is not told yet.
            self.early.push(Event::MainExited(status));
            return;
        }
        if self.main.is_none() || self.reaped.is_some() {
            return;
        }
        self.reaped = Some(status);
        let known = self.held.take().is_some();
        self.tracker.main_exited(now, status, out);
        if !known {
            self.main_ended(now, out);
        }
    }

    /// The main process is dead; its status is not known, or not by `waitid`.
    fn on_main_held(&mut self, now: BootNs, status: Option<WaitStatus>, out: &mut Vec<Action>) {
        if self.main.is_none() || self.reaped.is_some() || self.held.is_some() {
            return;
        }
        self.held = Some(Held { due: now.after(FIRST_WAIT), pause: FIRST_WAIT });
        self.recorded = self.recorded.or(status.map(|status| (status, Source::RunTable)));
        self.tracker.main_held(status);
        self.main_ended(now, out);
    }

    /// Asks `waitid` again: it answers once the tracer lets go.
    fn wait_if_due(&mut self, now: BootNs, out: &mut Vec<Action>) {
        if let Some(held) = self.held.as_mut().filter(|held| held.due <= now) {
            held.pause = held.pause.saturating_mul(2).min(LONGEST_WAIT);
            held.due = now.after(held.pause);
            out.push(Action::WaitMain);
        }
    }

    fn main_ended(&mut self, now: BootNs, out: &mut Vec<Action>) {
        match &self.state {
            State::Born | State::Running => {
                self.state = State::Draining { since: now, told: false };
                self.look.at_once(out);
            }
            State::Failed { .. } | State::Stopping(_) | State::Unkillable(_) => self.look.at_once(out),
            State::Intent(_) | State::Draining { .. } | State::Closing(_) | State::Ended => {}
        }
    }

    fn on_stop(&mut self, now: BootNs, reason: StopReason, out: &mut Vec<Action>) {
        match &mut self.state {
            State::Intent(stop) => {
                stop.get_or_insert(reason);
            }
            State::Born | State::Running => self.stop(now, Goal::Stopped, reason, out),
            State::Failed { .. } => self.kill_now(now, Goal::LaunchFailed, reason, out),
            State::Draining { .. } => match self.settings.leftovers {
                // The main process ended by itself and nobody meant to wait for the others: its end stands, unless
                // it is we who failed.
                Leftovers::Kill if reason != StopReason::Internal => self.stop(now, Goal::MainEnded, reason, out),
                Leftovers::Kill | Leftovers::Wait => self.stop(now, Goal::Stopped, reason, out),
            },
            // The first reason stands; the tree is empty, or on its way to be.
            State::Stopping(stop) | State::Unkillable(stop) => stop.fails(reason),
            State::Closing(_) | State::Ended => {}
        }
    }

    fn on_impatient(&mut self, now: BootNs, out: &mut Vec<Action>) {
        let reason = StopReason::Operator { signal: SIGINT };
        match &mut self.state {
            State::Intent(stop) => {
                stop.get_or_insert(reason);
            }
            State::Born | State::Running => self.kill_now(now, Goal::Stopped, reason, out),
            State::Failed { .. } => self.kill_now(now, Goal::LaunchFailed, reason, out),
            State::Draining { .. } => match self.settings.leftovers {
                Leftovers::Kill => self.kill_now(now, Goal::MainEnded, reason, out),
                Leftovers::Wait => self.kill_now(now, Goal::Stopped, reason, out),
            },
            State::Stopping(stop) => stop.hurry(now),
            State::Unkillable(_) => self.give_up(now, out),
            State::Closing(_) | State::Ended => {}
        }
    }

    fn on_signalled(&mut self, signalled: Signalled, out: &mut Vec<Action>) {
        match (&signalled.result, &signalled.key) {
            (SignalResult::Gone | SignalResult::Refused(_), Some(key)) => {
                self.tracker.registry_mut().forget_signal(key, signalled.signal);
                if signalled.result == SignalResult::Gone {
                    self.tracker.registry_mut().note_gone(key);
                }
            }
            (SignalResult::Sent(_), Some(key)) => self.tracker.registry_mut().note_signal(key, signalled.signal),
            (SignalResult::Gone | SignalResult::Refused(_) | SignalResult::Sent(_), None) => {}
        }
        out.push(Action::Log(Fact::SignalResult(signalled)));
    }

    fn on_verified(&mut self, key: ProcessKey, gone: bool) {
        if gone {
            self.tracker.registry_mut().note_gone(&key);
        }
    }

    /// Whether eBPF watches the run.
    pub(super) fn traced(&self) -> bool {
        self.main.as_ref().is_some_and(|main| main.traced)
    }

    /// Whether the main process is dead, or was never born.
    pub(super) fn main_dead(&self) -> bool {
        let Some(main) = &self.main else { return true };
        self.reaped.is_some() || self.held.is_some() || !self.tracker.registry().is_alive(&main.key)
    }

    /// How many processes of the run the registry knows alive.
    pub(super) fn living(&self) -> usize {
        self.main.as_ref().map_or(0, |main| self.tracker.registry().living_count(main.run))
    }

    /// Asks to be woken for whatever is due next.
    fn arm(&mut self, out: &mut Vec<Action>) {
        let wait = self.held.as_ref().map(|held| held.due);
        let next = [self.tracker.wake(), self.look.due(), self.state_due(), wait].into_iter().flatten().min();
        if let Some(at) = next
            && self.armed != next
        {
            self.armed = next;
            out.push(Action::WakeAt(at));
        }
    }
}

//! The ladder of a stop: SIGINT to the main process, SIGTERM to the tree, the kill and the sweep. [pure]
//!
//! An intent is logged before each signal. A step whose target is gone is skipped. Polite signals go by the
//! registry; where that cannot be trusted (no eBPF, or a loss not repaired) they go by what is found in the tree.

use std::time::Duration;

use super::run::{Core, State};
use super::sweep::Kill;
use crate::event::{Action, Fact, Member, Phase, SignalResult, Signalled, Step};
use crate::model::{BootNs, PidfsIno, ProcessKey, ProofKind, StopReason};

const SIGINT: u8 = 2;
pub(super) const SIGTERM: u8 = 15;
pub(super) const SIGKILL: u8 = 9;

/// What the end of a stop will be told as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    /// The run was stopped.
    Stopped,
    /// The main process had ended by itself; its leftovers were stopped.
    MainEnded,
    /// The launch had failed.
    LaunchFailed,
}

/// A stop.
#[derive(Debug)]
pub(super) struct Stop {
    pub(super) goal: Goal,
    pub(super) reason: StopReason,
    pub(super) began: BootNs,
    pub(super) rung: Rung,
}

/// A step of the ladder.
#[derive(Debug)]
pub(super) enum Rung {
    /// SIGINT was sent.
    Interrupt {
        /// The end of its grace.
        until: BootNs,
    },
    /// SIGTERM is to be sent, or was.
    Terminate {
        /// The end of its grace; `None` until the tree was asked whom to send it to.
        until: Option<BootNs>,
    },
    /// The kill.
    Kill(Kill),
}

impl Stop {
    /// Ends what is left of the graces.
    pub(super) fn hurry(&mut self, now: BootNs) {
        match &self.rung {
            Rung::Interrupt { .. } | Rung::Terminate { .. } => {
                self.rung = Rung::Terminate { until: Some(now) };
            }
            Rung::Kill(_) => {}
        }
    }

    /// Takes another reason: our own failure is not hidden behind the end of the main process.
    pub(super) fn fails(&mut self, reason: StopReason) {
        if reason == StopReason::Internal && self.goal == Goal::MainEnded {
            (self.goal, self.reason) = (Goal::Stopped, reason);
        }
    }

    /// When something of it is due.
    pub(super) fn due(&self, give_up: Option<Duration>) -> Option<BootNs> {
        match &self.rung {
            Rung::Interrupt { until } => Some(*until),
            Rung::Terminate { until } => *until,
            Rung::Kill(kill) => give_up.map(|after| kill.began.after(after)),
        }
    }

    /// Whether the cgroup was frozen for the kill.
    pub(super) fn froze(&self) -> bool {
        match &self.rung {
            Rung::Kill(kill) => kill.frozen,
            Rung::Interrupt { .. } | Rung::Terminate { .. } => false,
        }
    }

    pub(super) fn interrupted(&self) -> bool {
        match &self.rung {
            Rung::Interrupt { .. } => true,
            Rung::Terminate { .. } | Rung::Kill(_) => false,
        }
    }
}

impl Core {
    /// Begins a stop at its first step that has a target.
    pub(super) fn stop(&mut self, now: BootNs, goal: Goal, reason: StopReason, out: &mut Vec<Action>) {
        out.push(Action::Log(Fact::Phase(Phase::Stopping { reason })));
        let until = now.after(self.settings.grace);
        self.state = State::Stopping(Stop { goal, reason, began: now, rung: Rung::Interrupt { until } });
        match self.main.as_ref().map(|main| (main.key, main.ino)) {
            Some((key, ino)) if !self.main_dead() => {
                self.step(Step::Interrupt, 1, out);
                self.signal(key, ino, SIGINT, reason, out);
            }
            Some(_) | None => self.terminate(now, out),
        }
    }

    /// Begins a stop with the kill.
    pub(super) fn kill_now(&mut self, now: BootNs, goal: Goal, reason: StopReason, out: &mut Vec<Action>) {
        out.push(Action::Log(Fact::Phase(Phase::Stopping { reason })));
        let rung = Rung::Terminate { until: Some(now) };
        self.state = State::Stopping(Stop { goal, reason, began: now, rung });
        self.kill(now, out);
    }

    /// Goes up a rung if the present one's grace is over; false if it is not.
    pub(super) fn climb(&mut self, now: BootNs, out: &mut Vec<Action>) -> bool {
        match &self.state {
            State::Intent(_) | State::Closing(_) | State::Ended => false,
            State::Born | State::Running | State::Draining { .. } => {
                let due = self.state_due().is_some_and(|due| due <= now);
                if due {
                    let (goal, reason) = self.why_due();
                    self.stop(now, goal, reason, out);
                }
                due
            }
            State::Failed { since } => {
                let due = since.after(self.settings.grace) <= now;
                if due {
                    self.kill_now(now, Goal::LaunchFailed, StopReason::Internal, out);
                }
                due
            }
            State::Stopping(stop) | State::Unkillable(stop) => {
                if stop.due(self.settings.give_up).is_none_or(|due| now < due) {
                    return false;
                }
                match &stop.rung {
                    Rung::Interrupt { .. } => self.terminate(now, out),
                    Rung::Terminate { .. } => self.kill(now, out),
                    Rung::Kill(_) => self.give_up(now, out),
                }
                true
            }
        }
    }

    /// SIGTERM to the tree.
    pub(super) fn terminate(&mut self, now: BootNs, out: &mut Vec<Action>) {
        let by_registry = self.traced() && !self.tracker.is_dirty();
        let State::Stopping(stop) = &mut self.state else { return };
        let reason = stop.reason;
        if !by_registry {
            stop.rung = Rung::Terminate { until: None };
            self.look.at_once(out);
            return;
        }
        stop.rung = Rung::Terminate { until: Some(now.after(self.settings.grace)) };
        let targets = self.living_keys();
        // A birth may still be unread where the tree shows the process already.
        let registry = self.tracker.registry();
        let strangers: Vec<_> = self.left().filter(|member| registry.by_tgid(member.pid).is_none()).cloned().collect();
        self.step(Step::Terminate, targets.len() + strangers.len(), out);
        for (key, ino) in targets {
            self.signal(key, ino, SIGTERM, reason, out);
        }
        for member in &strangers {
            self.signal_member(member, SIGTERM, reason, out);
        }
        if self.main_dead() {
            self.look.at_once(out);
        }
    }

    /// The kill of the cgroup; what it leaves is swept by [`Core::sweep`].
    fn kill(&mut self, now: BootNs, out: &mut Vec<Action>) {
        let processes = self.living().max(self.look.members.as_ref().map_or(0, Vec::len));
        let State::Stopping(stop) = &mut self.state else { return };
        let reason = stop.reason;
        stop.rung = Rung::Kill(Kill::new(now));
        let by_records = self.tracker.by_kernel(now);
        self.tracker.registry_mut().note_kill(by_records);
        self.step(Step::Kill, processes, out);
        let key = self.main.as_ref().map(|main| main.key);
        let pid = key.map_or(0, |key| key.tgid);
        out.push(Action::Log(Fact::SignalIntent { pid, key, signal: SIGKILL, cgroup: true, reason }));
        out.push(Action::KillCgroup);
        self.look.members = None;
    }

    pub(super) fn on_cgroup_killed(&mut self, now: BootNs, result: Result<(), String>, out: &mut Vec<Action>) {
        let key = self.main.as_ref().map(|main| main.key);
        let pid = key.map_or(0, |key| key.tgid);
        let killed = result.is_ok();
        let result = match result {
            Ok(()) => SignalResult::Sent(ProofKind::OwnCgroup),
            Err(why) => SignalResult::Refused(why),
        };
        out.push(Action::Log(Fact::SignalResult(Signalled { pid, key, signal: SIGKILL, result })));
        let reason = match &mut self.state {
            State::Stopping(Stop { reason, rung: Rung::Kill(kill), .. })
            | State::Unkillable(Stop { reason, rung: Rung::Kill(kill), .. }) => {
                kill.cgroup = Some(killed);
                // Below Linux 5.14: whoever forks faster than one can look would else never be caught up with.
                if !killed && !std::mem::replace(&mut kill.frozen, true) {
                    out.push(Action::FreezeTree);
                }
                *reason
            }
            State::Stopping(_) | State::Unkillable(_) => return,
            State::Intent(_)
            | State::Born
            | State::Running
            | State::Failed { .. }
            | State::Draining { .. }
            | State::Closing(_)
            | State::Ended => return,
        };
        // Without the cgroup's kill our own child is the one process that can be hit without a look.
        if !killed && !self.main_dead() {
            let main = self.main.as_ref().map(|main| (main.key, main.ino));
            if let Some((key, ino)) = main
                && self.sweeps(now, key.tgid)
            {
                self.signal(key, ino, SIGKILL, reason, out);
            }
        }
        self.look.at_once(out);
    }

    pub(super) fn living_keys(&self) -> Vec<(ProcessKey, Option<PidfsIno>)> {
        let Some(main) = &self.main else { return Vec::new() };
        self.tracker.registry().living(main.run).map(|entry| (entry.key, entry.ino)).collect()
    }

    pub(super) fn step(&self, step: Step, processes: usize, out: &mut Vec<Action>) {
        let processes = u32::try_from(processes).unwrap_or(u32::MAX);
        out.push(Action::Log(Fact::Phase(Phase::Step { step, processes, grace: self.settings.grace })));
    }

    pub(super) fn signal(
        &mut self,
        key: ProcessKey,
        ino: Option<PidfsIno>,
        signal: u8,
        reason: StopReason,
        out: &mut Vec<Action>,
    ) {
        let intent = Fact::SignalIntent { pid: key.tgid, key: Some(key), signal, cgroup: false, reason };
        out.push(Action::Log(intent));
        self.tracker.registry_mut().note_signal(&key, signal);
        out.push(Action::Signal { key, ino, signal });
    }

    pub(super) fn signal_member(&mut self, member: &Member, signal: u8, reason: StopReason, out: &mut Vec<Action>) {
        let key = member.key.or_else(|| self.tracker.registry().by_tgid(member.pid).map(|entry| entry.key));
        out.push(Action::Log(Fact::SignalIntent { pid: member.pid, key, signal, cgroup: false, reason }));
        if let Some(key) = key {
            self.tracker.registry_mut().note_signal(&key, signal);
        }
        out.push(Action::SignalMember { pid: member.pid, signal });
    }
}

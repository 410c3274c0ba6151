//! The ladder of a stop: SIGINT to the main process, SIGTERM to the tree, the kill and the sweep. [pure]
//!
//! An intent is logged before each signal. A step whose target is gone is skipped. Polite signals go by the
//! registry; where that cannot be trusted (no eBPF, or a loss not repaired) they go by what is found in the tree.

use std::collections::HashSet;
use std::time::Duration;

use super::run::{Core, State};
use crate::event::{Action, Fact, Member, Phase, SignalResult, Signalled, Step};
use crate::model::{BootNs, PidfsIno, ProcessKey, ProofKind, StopReason};

const SIGINT: u8 = 2;
const SIGTERM: u8 = 15;
const SIGKILL: u8 = 9;

/// A process that withstands SIGKILL is told after this long, and then this often.
const ALARM_EVERY: Duration = Duration::from_secs(10);
/// One in state D is told sooner: a short wait for a device is no news.
const ALARM_D: Duration = Duration::from_secs(1);
/// A member is not sent another SIGKILL within this time.
const RESWEEP: Duration = Duration::from_secs(1);
/// The kill of a cgroup that makes no progress for this long has survivors.
const STALL: Duration = Duration::from_millis(20);
/// Looks at a tree that is being stopped are at most this far apart.
pub(super) const LOOK_MAX: Duration = Duration::from_millis(50);
/// Looks at a tree that cannot be killed are.
const LOOK_STUCK: Duration = Duration::from_secs(1);

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

/// The last step.
#[derive(Debug)]
pub(super) struct Kill {
    began: BootNs,
    /// Whether the kill of the cgroup was given; `None` until it is known.
    cgroup: Option<bool>,
    /// The fewest that a look found, and when.
    fewest: Option<(usize, BootNs)>,
    swept: HashSet<u32>,
    resweep: BootNs,
    alarm: Option<BootNs>,
}

impl Kill {
    /// Whether this number is to be sent a SIGKILL: not twice within [`RESWEEP`].
    fn sweeps(&mut self, now: BootNs, pid: u32) -> bool {
        if self.resweep <= now {
            self.swept.clear();
            // Those that withstand it are retried for ever, at the pace of the alarms.
            self.resweep = now.after(if self.alarm.is_some() { ALARM_EVERY } else { RESWEEP });
        }
        self.swept.insert(pid)
    }
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

    /// When something of it is due.
    pub(super) fn due(&self, give_up: Option<Duration>) -> Option<BootNs> {
        match &self.rung {
            Rung::Interrupt { until } => Some(*until),
            Rung::Terminate { until } => *until,
            Rung::Kill(kill) => give_up.map(|after| kill.began.after(after)),
        }
    }

    fn interrupted(&self) -> bool {
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
    fn terminate(&mut self, now: BootNs, out: &mut Vec<Action>) {
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
        self.step(Step::Terminate, targets.len(), out);
        for (key, ino) in targets {
            self.signal(key, ino, SIGTERM, reason, out);
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
        stop.rung = Rung::Kill(Kill {
            began: now,
            cgroup: None,
            fewest: None,
            swept: HashSet::new(),
            resweep: now.after(RESWEEP),
            alarm: None,
        });
        self.tracker.registry_mut().note_kill(now);
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

    /// Acts on what was found in the tree, which is not the end of the run.
    pub(super) fn sweep(&mut self, now: BootNs, out: &mut Vec<Action>) {
        let members = self.look.members.clone();
        let found = members.as_deref().unwrap_or_default();
        let (State::Stopping(stop) | State::Unkillable(stop)) = &mut self.state else { return };
        let reason = stop.reason;
        match &mut stop.rung {
            Rung::Interrupt { .. } => {
                if self.main_dead() && !found.is_empty() {
                    self.terminate(now, out);
                }
            }
            Rung::Terminate { until: Some(_) } => {}
            Rung::Terminate { until } => {
                *until = Some(now.after(self.settings.grace));
                self.step(Step::Terminate, found.len(), out);
                for member in found {
                    self.signal_member(member, SIGTERM, reason, out);
                }
            }
            Rung::Kill(kill) => {
                // While fewer and fewer are found the kill of the cgroup is at work and needs no help.
                let (fewest, since) = *kill.fewest.get_or_insert((found.len(), now));
                if found.len() < fewest {
                    kill.fewest = Some((found.len(), now));
                }
                let stalled = found.len() >= fewest && since.after(STALL) <= now;
                let helps = kill.cgroup.is_some_and(|killed| !killed || stalled);
                if helps {
                    let swept: Vec<_> = found.iter().filter(|member| kill.sweeps(now, member.pid)).collect();
                    for member in swept {
                        self.signal_member(member, SIGKILL, reason, out);
                    }
                }
                self.alarm(now, found, out);
            }
        }
        if self.main_dead() || self.is_killing() {
            let max = match &self.state {
                State::Unkillable(_) => LOOK_STUCK,
                State::Stopping(_)
                | State::Intent(_)
                | State::Born
                | State::Running
                | State::Failed { .. }
                | State::Draining { .. }
                | State::Closing(_)
                | State::Ended => LOOK_MAX,
            };
            self.look.later(now, max);
        }
    }

    /// SIGKILL to those of the run that live outside its tree: in the live set, and not found in the tree.
    pub(super) fn sweep_outside(
        &mut self,
        now: BootNs,
        outside: &[(ProcessKey, Option<PidfsIno>)],
        out: &mut Vec<Action>,
    ) {
        if outside.is_empty() {
            return;
        }
        let (State::Stopping(stop) | State::Unkillable(stop)) = &self.state else { return };
        let (reason, interrupted) = (stop.reason, stop.interrupted());
        if interrupted && self.main_dead() {
            self.terminate(now, out);
            return;
        }
        // Before the repair of a loss nothing outside the run's cgroup is signalled (I10).
        if !self.is_killing() || self.tracker.is_dirty() {
            return;
        }
        for &(key, ino) in outside {
            if self.sweeps(now, key.tgid) {
                self.signal(key, ino, SIGKILL, reason, out);
            }
        }
    }

    /// Tells of those that withstand the kill.
    fn alarm(&mut self, now: BootNs, found: &[Member], out: &mut Vec<Action>) {
        let (State::Stopping(Stop { rung: Rung::Kill(kill), .. })
        | State::Unkillable(Stop { rung: Rung::Kill(kill), .. })) = &mut self.state
        else {
            return;
        };
        let since = kill.began.until(now);
        let stuck = since >= ALARM_EVERY || since >= ALARM_D && found.iter().any(|member| member.state == Some('D'));
        if !stuck || kill.alarm.is_some_and(|alarm| now < alarm) {
            return;
        }
        kill.alarm = Some(now.after(ALARM_EVERY));
        let mut members = found.to_vec();
        if found.is_empty() {
            members.extend(self.living_keys().into_iter().map(|(key, _)| Member {
                pid: key.tgid,
                key: Some(key),
                state: None,
                wchan: None,
                comm: None,
            }));
        }
        out.push(Action::Log(Fact::Phase(Phase::Unkillable { members, since })));
        let state = std::mem::replace(&mut self.state, State::Ended);
        self.state = match state {
            State::Stopping(stop) => State::Unkillable(stop),
            kept @ (State::Intent(_)
            | State::Born
            | State::Running
            | State::Failed { .. }
            | State::Draining { .. }
            | State::Unkillable(_)
            | State::Closing(_)
            | State::Ended) => kept,
        };
    }

    fn sweeps(&mut self, now: BootNs, pid: u32) -> bool {
        match &mut self.state {
            State::Stopping(Stop { rung: Rung::Kill(kill), .. })
            | State::Unkillable(Stop { rung: Rung::Kill(kill), .. }) => kill.sweeps(now, pid),
            State::Stopping(_)
            | State::Unkillable(_)
            | State::Intent(_)
            | State::Born
            | State::Running
            | State::Failed { .. }
            | State::Draining { .. }
            | State::Closing(_)
            | State::Ended => false,
        }
    }

    pub(super) fn is_killing(&self) -> bool {
        match &self.state {
            State::Stopping(stop) | State::Unkillable(stop) => match &stop.rung {
                Rung::Kill(_) => true,
                Rung::Interrupt { .. } | Rung::Terminate { .. } => false,
            },
            State::Intent(_)
            | State::Born
            | State::Running
            | State::Failed { .. }
            | State::Draining { .. }
            | State::Closing(_)
            | State::Ended => false,
        }
    }

    pub(super) fn living_keys(&self) -> Vec<(ProcessKey, Option<PidfsIno>)> {
        let Some(main) = &self.main else { return Vec::new() };
        self.tracker.registry().living(main.run).map(|entry| (entry.key, entry.ino)).collect()
    }

    fn step(&self, step: Step, processes: usize, out: &mut Vec<Action>) {
        let processes = u32::try_from(processes).unwrap_or(u32::MAX);
        out.push(Action::Log(Fact::Phase(Phase::Step { step, processes, grace: self.settings.grace })));
    }

    fn signal(
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

    fn signal_member(&mut self, member: &Member, signal: u8, reason: StopReason, out: &mut Vec<Action>) {
        let key = member.key.or_else(|| self.tracker.registry().by_tgid(member.pid).map(|entry| entry.key));
        out.push(Action::Log(Fact::SignalIntent { pid: member.pid, key, signal, cgroup: false, reason }));
        if let Some(key) = key {
            self.tracker.registry_mut().note_signal(&key, signal);
        }
        out.push(Action::SignalMember { pid: member.pid, signal });
    }
}

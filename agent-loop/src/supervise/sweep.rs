//! After the kill: who is left in the tree, or outside of it, and who cannot be killed. [pure]

use std::collections::HashSet;
use std::time::Duration;

use super::ladder::{Rung, SIGKILL, SIGTERM, Stop};
use super::run::{Core, State};
use crate::event::{Action, Fact, Member, Phase, Step};
use crate::model::{BootNs, PidfsIno, ProcessKey};

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

/// The last step.
#[derive(Debug)]
pub(super) struct Kill {
    pub(super) began: BootNs,
    /// Whether the kill of the cgroup was given; `None` until it is known.
    pub(super) cgroup: Option<bool>,
    /// Whether the cgroup was frozen instead.
    pub(super) frozen: bool,
    /// The fewest that a look found, and when.
    fewest: Option<(usize, BootNs)>,
    swept: HashSet<u32>,
    resweep: BootNs,
    alarm: Option<BootNs>,
}

impl Kill {
    pub(super) fn new(now: BootNs) -> Self {
        Self {
            began: now,
            cgroup: None,
            frozen: false,
            fewest: None,
            swept: HashSet::new(),
            resweep: now.after(RESWEEP),
            alarm: None,
        }
    }

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

impl Core {
    /// Acts on what was found in the tree, which is not the end of the run.
    pub(super) fn sweep(&mut self, now: BootNs, out: &mut Vec<Action>) {
        let members = self.look.members.clone();
        let found = members.as_deref().unwrap_or_default();
        let left: Vec<_> = self.left().cloned().collect();
        let (State::Stopping(stop) | State::Unkillable(stop)) = &mut self.state else { return };
        let reason = stop.reason;
        match &mut stop.rung {
            Rung::Interrupt { .. } => {
                if self.main_dead() && !left.is_empty() {
                    self.terminate(now, out);
                }
            }
            Rung::Terminate { until: Some(_) } => {}
            Rung::Terminate { until } => {
                *until = Some(now.after(self.settings.grace));
                self.step(Step::Terminate, left.len(), out);
                for member in &left {
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

    pub(super) fn sweeps(&mut self, now: BootNs, pid: u32) -> bool {
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
}

//! Job control: when the command is stopped from the terminal, we stop with it, and go on with it.

use nix::sys::signal::Signal as Number;

use super::shell::{Shell, outcome};
use crate::event::{Fact, Signalled};
use crate::keeper::scan;
use crate::keeper::terminal::{self, Suspension};
use crate::model::StopReason;

impl Shell {
    /// The command was stopped, by Ctrl-Z for one: we stop with it, so that the caller's shell has the terminal.
    ///
    /// The whole tree is frozen meanwhile, or it could stop us and run on beyond its limit; a limit that passed
    /// strikes when we are continued. Where nothing can be frozen and a limit is set, the command goes on instead.
    pub(super) fn main_stopped(&mut self) {
        let Some(main) = self.main.as_ref().filter(|main| !main.dead) else { return };
        let Ok(Some(signal)) = terminal::stopped_by(&main.child.pidfd) else { return };
        // A stop of the tree is not put off: what is stopped now ends with its last step.
        if self.stop_asked || self.stopping {
            return;
        }
        let group = main.child.pid;
        // SIGSTOP may come from anybody. It is a matter of the terminal where it keeps the foreground from all.
        let by_keys = matches!(signal, Number::SIGTSTP | Number::SIGTTIN | Number::SIGTTOU);
        if !by_keys && !self.terminal.is_of(group) {
            return;
        }
        let frozen = self.ground.cgroup.as_ref().is_some_and(|cgroup| cgroup.freeze().is_ok());
        if !frozen && self.limited {
            self.continue_group(group);
            return;
        }
        let suspension = self.terminal.suspend();
        if frozen
            && let Some(cgroup) = &self.ground.cgroup
            && let Err(error) = cgroup.thaw()
        {
            self.report.trouble("thawing the tree", &error);
        }
        let go_on = match suspension {
            Ok(Suspension::Over) => {
                self.terminal.lend(group);
                true
            }
            // Nobody would ever continue us. The command goes on, unless it would only be stopped again.
            Ok(Suspension::Refused) => self.terminal.lend(group) || signal == Number::SIGTSTP,
            Ok(Suspension::NoTerminal) => false,
            Err(error) => {
                self.report.trouble("stopping together with the command", &error);
                true
            }
        };
        if go_on {
            self.continue_group(group);
        }
    }

    /// We were continued outside of [`Shell::main_stopped`], by `fg` of a job in the background for one.
    pub(super) fn continued(&mut self) {
        let Some(main) = self.main.as_ref().filter(|main| !main.exited) else { return };
        let group = main.child.pid;
        if self.terminal.lend(group) {
            self.continue_group(group);
        }
    }

    /// Continues the command's own process group as a shell does, each member by proof.
    fn continue_group(&mut self, group: u32) {
        let continue_signal = Number::SIGCONT as u8;
        let mut members = self.ground.members().unwrap_or_default();
        members.insert(group);
        let of_group =
            |pid: u32| scan::Stat::read(pid).ok().flatten().is_some_and(|stat| stat.pgrp.cast_unsigned() == group);
        for pid in members.into_iter().filter(|&pid| of_group(pid)) {
            let key = self.core.tracker().registry().by_tgid(pid).map(|entry| entry.key);
            let reason = StopReason::Operator { signal: continue_signal };
            self.log(Fact::SignalIntent { pid, key, signal: continue_signal, cgroup: false, reason });
            let result = match &self.main {
                Some(main) if main.child.pid == pid => main.signal(&self.ground, continue_signal),
                Some(_) | None => self.ground.signal_member(pid, continue_signal),
            };
            self.log(Fact::SignalResult(Signalled { pid, key, signal: continue_signal, result: outcome(result) }));
        }
    }
}

//! What the looks at the tree and at the live set mean for the run. [pure]

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::Leftovers;
use super::ladder::Goal;
use super::run::{Core, State};
use super::sweep::LOOK_MAX;
use crate::event::{Action, Fact, GapCause, Member, Phase, Tree};
use crate::model::{BootNs, Live, PidfsIno, ProcessKey, StopReason};

/// Looks at a tree that is waited for are at most this far apart: a death record comes sooner.
const LOOK_WAIT: Duration = Duration::from_secs(1);

/// How many are verified at one look.
const VERIFY_MOST: usize = 64;

impl Core {
    pub(super) fn on_tree(&mut self, now: BootNs, tree: Tree, out: &mut Vec<Action>) {
        self.look.answered();
        match tree {
            Tree::Empty { proven } => {
                self.look.members = Some(Vec::new());
                self.look.empty_since.get_or_insert(now);
                self.look.proven = proven;
            }
            Tree::Populated(members) => {
                self.look.members = Some(members);
                self.look.not_empty();
            }
            Tree::Unknown(_) => {
                self.look.members = None;
                self.look.not_empty();
            }
        }
        if self.is_over() {
            self.over(now, out);
            return;
        }
        // Alive in the registry and not in the tree: its death is on its way, or it left the cgroup.
        if (self.main_dead() || self.is_killing()) && !self.seeks_outside && self.is_missing_some() {
            self.seeks_outside = true;
            self.tracker.ask_live_set(out);
        }
        match &self.state {
            State::Failed { .. } => self.look.later(now, LOOK_MAX),
            State::Draining { told, .. } => {
                let told = *told;
                if !told && self.left().next().is_some() {
                    self.tell_leftovers(now, &[], out);
                }
                self.look_on(now);
            }
            State::Stopping(_) | State::Unkillable(_) => self.sweep(now, out),
            State::Intent(_) | State::Born | State::Running | State::Closing(_) | State::Ended => {}
        }
    }

    pub(super) fn on_live_set(&mut self, now: BootNs, set: &[Live], out: &mut Vec<Action>) {
        // Others read it for a repair.
        if !std::mem::take(&mut self.seeks_outside) {
            return;
        }
        let outside = self.outside(set);
        if outside.is_empty() {
            self.look.cleared = self.look.empty_since.is_some();
            if self.is_over() {
                self.over(now, out);
            }
            return;
        }
        // Found alive elsewhere: the tree was not empty after all.
        self.look.not_empty();
        // The rings were drained before, so that the births of those not known were lost.
        let registry = self.tracker.registry();
        let (known, lost): (Vec<_>, Vec<_>) = outside.into_iter().partition(|(key, _)| registry.is_alive(key));
        if !lost.is_empty() {
            self.tracker.suspect(now, GapCause::Missed, out);
        }
        if known.is_empty() {
            return;
        }
        let outside = known;
        match &self.state {
            State::Draining { told: false, .. } => {
                self.verify(&outside, out);
                self.tell_leftovers(now, &outside, out);
                self.look_on(now);
            }
            State::Stopping(_) | State::Unkillable(_) => self.sweep_outside(now, &outside, out),
            // No signal will find out who of them is an entry that outlived its process.
            State::Draining { told: true, .. } => self.verify(&outside, out),
            State::Failed { .. } => {}
            State::Intent(_) | State::Born | State::Running | State::Closing(_) | State::Ended => {}
        }
    }

    /// Asks whether they live, so that none is waited for that does not.
    pub(super) fn verify(&self, outside: &[(ProcessKey, Option<PidfsIno>)], out: &mut Vec<Action>) {
        out.extend(outside.iter().take(VERIFY_MOST).map(|&(key, ino)| Action::Verify { key, ino }));
    }

    /// Those of the run that are in the live set and were not found in the tree, in the order of their birth.
    fn outside(&self, set: &[Live]) -> Vec<(ProcessKey, Option<PidfsIno>)> {
        let Some(main) = &self.main else { return Vec::new() };
        let found: HashSet<_> = self.look.members.iter().flatten().map(|member| member.pid).collect();
        let registry = self.tracker.registry();
        let outside = set
            .iter()
            .filter(|live| live.run == main.run && !found.contains(&live.key.tgid) && !registry.is_gone(&live.key));
        let mut outside: Vec<_> = outside.map(|live| (live.key, live.ino)).collect();
        outside.sort_unstable_by_key(|(key, _)| (key.start_boottime_ns, key.tgid));
        outside
    }

    /// Those found in the tree, but for a main process on its way out: its death is recorded a moment before the
    /// kernel takes it out of its cgroup (`do_exit`, 6.18). One that stays is stopped with the tree all the same.
    pub(super) fn left(&self) -> impl Iterator<Item = &Member> {
        let dead = self.main.as_ref().map(|main| main.key).filter(|_| self.main_dead());
        let dying = move |member: &Member| {
            dead.is_some_and(|main| member.pid == main.tgid && member.key.is_none_or(|key| key == main))
        };
        self.look.members.iter().flatten().filter(move |member| !dying(member))
    }

    /// Whether processes of the run may live elsewhere than where they were found.
    fn is_missing_some(&self) -> bool {
        let Some(found) = &self.look.members else { return false };
        if !self.traced() || found.is_empty() {
            return self.traced() && !self.look.cleared;
        }
        let found: HashSet<_> = found.iter().map(|member| member.pid).collect();
        self.living_keys().iter().any(|(key, _)| !found.contains(&key.tgid))
    }

    /// Records who outlives the main process, and stops them unless they are waited for.
    fn tell_leftovers(&mut self, now: BootNs, outside: &[(ProcessKey, Option<PidfsIno>)], out: &mut Vec<Action>) {
        let registry = self.tracker.registry();
        let mut leftovers: HashMap<ProcessKey, String> = HashMap::new();
        let mut nameless = 0u64;
        for member in self.left() {
            let entry = registry.by_tgid(member.pid);
            let name = entry.and_then(|entry| entry.name.as_deref()).or(member.comm.as_deref()).unwrap_or("?");
            match member.key.or(entry.map(|entry| entry.key)) {
                Some(key) => {
                    leftovers.insert(key, name.to_owned());
                }
                None => nameless += 1,
            }
        }
        for (key, _) in outside {
            let name = registry.get(key).and_then(|entry| entry.name.as_deref()).unwrap_or("?");
            leftovers.insert(*key, name.to_owned());
        }
        let mut leftovers: Vec<_> = leftovers.into_iter().collect();
        leftovers.sort_unstable_by_key(|(key, _)| (key.start_boottime_ns, key.tgid));
        self.leftovers = nameless + leftovers.len() as u64;
        out.push(Action::Log(Fact::Phase(Phase::Draining { leftovers })));
        self.state = State::Draining { since: now, told: true };
        match self.settings.leftovers {
            Leftovers::Kill => self.stop(now, Goal::MainEnded, StopReason::Leftovers, out),
            Leftovers::Wait => {}
        }
    }

    fn look_on(&mut self, now: BootNs) {
        let max = match self.settings.leftovers {
            Leftovers::Kill => LOOK_MAX,
            Leftovers::Wait => LOOK_WAIT,
        };
        self.look.later(now, max);
    }
}

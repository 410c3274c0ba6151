//! A tracker that goes on where an earlier daemon's log ends. [pure]
//!
//! What the log says was written is taken as it is; who lives is compared with the kernel's own set as after any
//! loss. What the earlier daemon had read from the rings and not written is found by the kernel's count of this run
//! (I20), and declared by a gap.

use std::collections::VecDeque;

use super::loss::{Accounts, Tally};
use super::registry::Life;
use super::tracker::Tracker;
use crate::event::{Action, Fact, Gap, GapCause, GapId, Launched};
use crate::model::{Birth, BootNs, Death, Discovery, PidfsIno, ProcessKey, Source, Totals, WaitStatus};

/// A process that the log knows born and not dead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survivor {
    /// Who.
    pub key: ProcessKey,
    /// Its pidfd's inode, where the line has one.
    pub ino: Option<PidfsIno>,
    /// Who forked it, where the line says so.
    pub forker: Option<ProcessKey>,
    /// The command line of its last exec, in words.
    pub argv: Vec<String>,
}

/// What the log of a run says of its past.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The main process as it was born.
    pub launched: Launched,
    /// The kernel's counters just before its birth.
    pub baseline: Totals,
    /// Who lives, the main process left out.
    pub living: Vec<Survivor>,
    /// Births told, the main process's included.
    pub births: u64,
    /// Deaths told.
    pub deaths: u64,
    /// What was written, filtered, late, inferred and declared so far; the kernel's side of it is read anew.
    pub accounts: Accounts,
    /// The main process's death, if it was told: its status.
    pub main_died: Option<Option<WaitStatus>>,
    /// Whether the main process was told to have executed its command.
    pub main_execed: bool,
    /// The number of the next gap.
    pub next_gap: u64,
    /// Losses counted by the kernel that gaps told: the lost, the missed, `live_full` for the untracked.
    pub told: Totals,
    /// Who died last, the newest last: what is still in the rings of them is no news.
    pub buried: VecDeque<ProcessKey>,
    /// Whether nobody watched for a time: the kernel side is not the one of the run's birth.
    pub unwatched: bool,
}

/// How many of the dead a [`Restored`] remembers: a ring's worth of records that one round may leave unread.
const BURIED: usize = 4096;

impl Restored {
    /// A run of which nothing is told but the birth of its main process.
    #[must_use]
    pub fn new(launched: Launched, baseline: Totals) -> Self {
        let mut accounts = Accounts::default();
        // Its line is `run.born`.
        accounts.births.emitted = u64::from(launched.traced);
        Self {
            launched,
            baseline,
            living: Vec::new(),
            births: 1,
            deaths: 0,
            accounts,
            main_died: None,
            main_execed: false,
            next_gap: 1,
            told: Totals::default(),
            buried: VecDeque::new(),
            unwatched: false,
        }
    }

    /// Begins the count anew with a kernel side that was loaded only now: what it counts from here on is compared,
    /// and that nobody watched before is declared by a gap.
    pub fn forget_the_count(&mut self, now: Totals) {
        self.baseline = now;
        self.accounts = Accounts::default();
        self.told = Totals::default();
        self.unwatched = true;
    }

    /// Takes the next fact of the log.
    pub fn take(&mut self, fact: &Fact) {
        match fact {
            Fact::Fork { birth, inferred } => {
                self.births += 1;
                self.count(*inferred, |accounts| &mut accounts.births);
                self.living.push(Survivor { key: birth.key, ino: birth.ino, forker: birth.forker, argv: Vec::new() });
            }
            Fact::Exec(exec) => {
                self.accounts.execs.emitted += 1;
                self.main_execed |= exec.key == self.launched.key;
                if let Some(survivor) = self.living.iter_mut().find(|survivor| survivor.key == exec.key) {
                    survivor.argv.clone_from(&exec.argv);
                }
            }
            Fact::Exit { death, inferred, .. } => {
                self.deaths += 1;
                self.count(*inferred, |accounts| &mut accounts.deaths);
                if death.key == self.launched.key {
                    self.main_died = Some(death.status);
                    return;
                }
                self.living.retain(|survivor| survivor.key != death.key);
                if self.buried.len() == BURIED {
                    self.buried.pop_front();
                }
                self.buried.push_back(death.key);
            }
            Fact::Gap(gap) => self.take_gap(gap),
            Fact::RunBorn(_)
            | Fact::SignalIntent { .. }
            | Fact::SignalResult(_)
            | Fact::Phase(_)
            | Fact::RunKilled { .. }
            | Fact::RunExit(_) => {}
        }
    }

    fn count(&mut self, inferred: Option<GapId>, of: impl Fn(&mut Accounts) -> &mut Tally) {
        let tally = of(&mut self.accounts);
        match inferred {
            None => tally.emitted += u64::from(self.launched.traced),
            Some(id) => {
                tally.inferred += 1;
                self.next_gap = self.next_gap.max(id.0 + 1);
            }
        }
    }

    fn take_gap(&mut self, gap: &Gap) {
        self.next_gap = self.next_gap.max(gap.id.0 + 1);
        self.told.missed += gap.missed;
        self.told.live_full += gap.untracked;
        let lost = [gap.lost_fork, gap.lost_exec, gap.lost_exit];
        let Accounts { births, execs, deaths } = &mut self.accounts;
        match gap.cause {
            // Counted by nobody: declared.
            GapCause::NoDeath | GapCause::Restart => {
                for (tally, lost) in [births, execs, deaths].into_iter().zip(lost) {
                    tally.declared += lost;
                }
            }
            GapCause::RingFull | GapCause::LiveFull | GapCause::Missed => {
                let [fork, exec, exit] = lost;
                self.told.lost_fork += fork;
                self.told.lost_exec += exec;
                self.told.lost_exit += exit;
            }
        }
    }
}

impl Tracker {
    /// A tracker that goes on with a run.
    #[must_use]
    pub fn restored(now: BootNs, restored: &Restored) -> Self {
        let mut tracker = Self::new(restored.baseline, true);
        tracker.launched(&restored.launched);
        tracker.accounts = restored.accounts;
        tracker.loss.restore(restored.next_gap, restored.told);
        tracker.loss.unwatched = restored.unwatched;
        let main = restored.launched.key;
        if let Some(entry) = tracker.registry.get_mut(&main) {
            // Its record was read before it was told of.
            entry.birth_seen = true;
        }
        if let Some(main) = &mut tracker.main {
            main.go_on(restored.main_execed);
        }
        for survivor in &restored.living {
            let birth = Birth {
                key: survivor.key,
                ino: survivor.ino,
                run: restored.launched.run,
                forker: survivor.forker,
                parent_tgid: None,
                uid: None,
                at: BootNs(survivor.key.start_boottime_ns),
                discovery: Discovery::Fork,
            };
            tracker.registry.insert(&birth, true);
            if !survivor.argv.is_empty() {
                tracker.registry.set_name(&survivor.key, &survivor.argv, "");
            }
        }
        if let Some(status) = restored.main_died {
            let death = Death {
                key: main,
                ino: restored.launched.ino,
                run: restored.launched.run,
                forker: None,
                status,
                at: now,
                source: Source::Unknown,
            };
            // Not by its record: it is remembered for good, lest a stale entry of the live set bears it again.
            tracker.registry.reap(&main);
            tracker.registry.bury(now, &death, false);
            if let Some(entry) = tracker.registry.get_mut(&main) {
                entry.death_seen = true;
            }
        }
        for key in &restored.buried {
            tracker.registry.remember_dead(now, *key, restored.launched.run);
        }
        tracker.registry.restore_counts(restored.births, restored.deaths);
        tracker
    }

    /// After each count of a new daemon: what the earlier one read and never wrote is a gap.
    ///
    /// It is missing from every count; what a count misses since it is on its way comes before another does.
    pub(super) fn check_restart(&mut self, now: BootNs, out: &mut Vec<Action>) {
        if std::mem::take(&mut self.loss.unchecked) {
            // The launcher's own exec has no line: the earlier daemon may have read it and left it out.
            let execs = &mut self.accounts.execs;
            execs.filtered += u64::from(execs.filtered == 0 && execs.unexplained() > 0);
            self.loss.suspected = self.unwritten();
            if self.loss.suspected != [0; 3] || self.loss.unwatched {
                self.loss.gap(now, GapCause::Restart, out);
            }
        } else if self.loss.suspected != [0; 3] {
            let still = self.unwritten();
            for (suspected, still) in self.loss.suspected.iter_mut().zip(still) {
                *suspected = still.min(*suspected);
            }
        }
    }

    /// What nothing accounts for, and nobody holds: births, execs, deaths.
    fn unwritten(&self) -> [u64; 3] {
        let [births, execs, deaths] = self.accounts.unexplained();
        let [held_execs, held_deaths] = self.held_records();
        [births, execs.saturating_sub(held_execs), deaths.saturating_sub(held_deaths)]
    }

    /// Tells a gap that closed, and what an earlier daemon read and never wrote: in a gap of its own where the kernel
    /// counted losses too, so that each line says either what was counted or what was declared.
    pub(super) fn tell_gap(&mut self, mut gap: Gap, out: &mut Vec<Action>) {
        let unwritten = std::mem::take(&mut self.loss.suspected);
        if gap.cause == GapCause::Restart {
            self.accounts.declare_at_most(&mut gap, unwritten);
            // What was not watched is declared though nobody can say how much it was.
            if gap.is_void() && !std::mem::take(&mut self.loss.unwatched) {
                self.loss.forget(gap.id);
                return;
            }
            out.push(Action::Log(Fact::Gap(gap)));
            return;
        }
        let mut own = Gap {
            id: self.loss.number(),
            cause: GapCause::Restart,
            lost_fork: 0,
            lost_exec: 0,
            lost_exit: 0,
            untracked: 0,
            missed: 0,
            inferred_births: 0,
            inferred_deaths: 0,
            ..gap
        };
        out.push(Action::Log(Fact::Gap(gap)));
        self.accounts.declare_at_most(&mut own, unwritten);
        if own.is_void() {
            self.loss.forget(own.id);
        } else {
            out.push(Action::Log(Fact::Gap(own)));
        }
    }

    /// Whether the main process was recorded dead.
    #[must_use]
    pub fn main_is_buried(&self) -> bool {
        let main = self.main.as_ref().and_then(|main| self.registry.get(&main.key));
        main.is_some_and(|entry| entry.life == Life::Dead)
    }
}

#[cfg(test)]
#[expect(clippy::wildcard_enum_match_arm, reason = "a test picks the event it is about")]
mod tests;

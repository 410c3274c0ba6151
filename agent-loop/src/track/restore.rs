//! A tracker that goes on where an earlier daemon's log ends. [pure]
//!
//! What the log says was written is taken as it is; who lives is compared with the kernel's own set as after any
//! loss. What the earlier daemon had read from the rings and not written is found by the kernel's count of this run
//! (I20), and declared by a gap.

use super::loss::Accounts;
use super::registry::Life;
use super::tracker::Tracker;
use crate::event::{Action, GapCause, Launched};
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
}

impl Tracker {
    /// A tracker that goes on with a run.
    #[must_use]
    pub fn restored(now: BootNs, restored: &Restored) -> Self {
        let mut tracker = Self::new(restored.baseline, true);
        tracker.launched(&restored.launched);
        tracker.accounts = restored.accounts;
        tracker.loss.restore(now, restored.next_gap);
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
            tracker.registry.bury(now, &death, true);
        }
        tracker.registry.restore_counts(restored.births, restored.deaths);
        tracker
    }

    /// After the first count of a new daemon: what the earlier one read and never wrote is a gap.
    pub(super) fn check_restart(&mut self, now: BootNs, out: &mut Vec<Action>) {
        if !std::mem::take(&mut self.loss.unchecked) || self.accounts.balanced() {
            return;
        }
        self.loss.suspected = self.accounts.unexplained();
        self.loss.gap(now, GapCause::Restart, out);
    }

    /// Whether the main process was recorded dead.
    #[must_use]
    pub fn main_is_buried(&self) -> bool {
        let main = self.main.as_ref().and_then(|main| self.registry.get(&main.key));
        main.is_some_and(|entry| entry.life == Life::Dead)
    }
}

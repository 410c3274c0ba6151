//! The repair after a loss: the registry is compared with the kernel's live set. [pure]
//!
//! ```text
//! loss counted, or a birth inferred
//!   -> Look: live set read -> suspects --20 ms--> Confirm: live set read again -> inferred, or dropped
//!   -> Recount: counters read -> no further loss: gap closed; else Look again, in the same gap
//! ```
//! A hook may be between its change of the map and its record, so that one look proves nothing.

use std::collections::{HashMap, HashSet};

use super::loss::{CONFIRM_AFTER, MAIN_TRIES, Open, Stage, Suspects, Unread};
use super::registry::Life;
use super::tracker::Tracker;
use crate::event::{Action, Fact, GapCause};
use crate::model::{Birth, BootNs, Death, Discovery, Live, ProcessKey, Source};

impl Tracker {
    /// Takes the live set, as of the last drain of the rings; true if it is as new as was last asked for.
    pub fn live_set(&mut self, now: BootNs, set: &[Live], out: &mut Vec<Action>) -> bool {
        self.loss.unread = Unread::default();
        let fresh = self.loss.set.answered(Action::ReadLiveSet, out);
        if fresh {
            self.compare_live(now, set, out);
        }
        fresh
    }

    fn compare_live(&mut self, now: BootNs, set: &[Live], out: &mut Vec<Action>) {
        let Some(Open { stage, .. }) = &mut self.loss.open else { return };
        match std::mem::replace(stage, Stage::Recount) {
            Stage::Look => {
                let suspects = self.suspects(set);
                // What a count missed after a restart is given as long to come as a process that is looked for.
                if suspects.is_empty() && self.loss.suspected == [0; 3] {
                    self.recount(out);
                } else {
                    self.wait(now, suspects);
                }
            }
            Stage::Confirm(suspects) => self.confirm(now, set, suspects, out),
            kept @ (Stage::Wait { .. } | Stage::Recount) => *stage = kept,
        }
    }

    /// Begins a repair though no counter told of a loss.
    pub fn suspect(&mut self, now: BootNs, cause: GapCause, out: &mut Vec<Action>) {
        if self.loss.traced {
            self.loss.gap(now, cause, out);
        }
    }

    /// Ends whatever is open: the time for it is over. What is missing is declared, not inferred, but for the
    /// main process, for which `waitid` has answered.
    pub fn force(&mut self, now: BootNs, out: &mut Vec<Action>) {
        if self.is_settled() {
            return;
        }
        let id = self.loss.gap(now, GapCause::NoDeath, out);
        self.bury_main(now, Some(id), out);
        let missing = self.registry.births().saturating_sub(self.registry.deaths());
        let Some(mut gap) = self.loss.close(now, missing == 0) else { return };
        self.loss.suspected = [0; 3];
        if self.checks_sum() {
            self.accounts.declare(&mut gap);
        } else if gap.lost_exit == 0 {
            gap.lost_exit = missing;
        }
        out.push(Action::Log(Fact::Gap(gap)));
    }

    /// Closes what is open as it is: processes are left, and nothing will be waited for.
    pub fn abandon(&mut self, now: BootNs, out: &mut Vec<Action>) {
        if let Some(gap) = self.loss.close(now, false) {
            self.tell_gap(gap, out);
        }
    }

    pub(super) fn repair_due(&self) -> Option<BootNs> {
        match &self.loss.open.as_ref()?.stage {
            Stage::Wait { due, .. } => Some(*due),
            Stage::Look | Stage::Confirm(_) | Stage::Recount => None,
        }
    }

    /// Asks for the second look once its time has come.
    pub(super) fn look_again(&mut self, now: BootNs, out: &mut Vec<Action>) {
        if self.repair_due().is_none_or(|due| now < due) {
            return;
        }
        let Some(Open { stage, .. }) = &mut self.loss.open else { return };
        match std::mem::replace(stage, Stage::Recount) {
            Stage::Wait { suspects, .. } => {
                *stage = Stage::Confirm(suspects);
                self.loss.set.fresh(Action::ReadLiveSet, out);
            }
            kept @ (Stage::Look | Stage::Confirm(_) | Stage::Recount) => *stage = kept,
        }
    }

    /// Closes the gap if nothing more was lost meanwhile.
    pub(super) fn recounted(&mut self, now: BootNs, out: &mut Vec<Action>) {
        let Some(open) = &mut self.loss.open else { return };
        match open.stage {
            Stage::Recount => {}
            Stage::Look | Stage::Wait { .. } | Stage::Confirm(_) => return,
        }
        if std::mem::take(&mut open.grew) {
            open.stage = Stage::Look;
            open.tries = 0;
            self.loss.set.fresh(Action::ReadLiveSet, out);
            return;
        }
        let repaired = open.tries <= MAIN_TRIES;
        if let Some(mut gap) = self.loss.close(now, repaired) {
            // Suspected only once the tree was empty: no record can be on its way.
            if gap.cause == GapCause::NoDeath && self.checks_sum() {
                self.accounts.declare(&mut gap);
            }
            self.tell_gap(gap, out);
        }
    }

    /// A birth was recorded after all.
    pub(super) fn unsuspect(&mut self, key: &ProcessKey) {
        let Some(Open { stage, .. }) = &mut self.loss.open else { return };
        match stage {
            Stage::Wait { suspects, .. } | Stage::Confirm(suspects) => {
                suspects.births.remove(key);
            }
            Stage::Look | Stage::Recount => {}
        }
    }

    /// The entries of the live set but for those known to be stale.
    fn proven(&self, set: &[Live]) -> HashSet<ProcessKey> {
        set.iter().map(|live| live.key).filter(|key| !self.registry.is_gone(key)).collect()
    }

    fn suspects(&self, set: &[Live]) -> Suspects {
        let Some(main) = &self.main else { return Suspects::default() };
        let births: HashMap<_, _> = set
            .iter()
            .filter(|live| live.run == main.run && self.registry.get(&live.key).is_none() && !self.holds(&live.key))
            .map(|live| (live.key, *live))
            .collect();
        let set = self.proven(set);
        let living = self.registry.living(main.run).map(|entry| entry.key);
        let reaped = self.registry.get(&main.key).filter(|entry| entry.life == Life::Reaped).map(|entry| entry.key);
        Suspects { births, deaths: living.chain(reaped).filter(|key| !set.contains(key)).collect() }
    }

    fn confirm(&mut self, now: BootNs, set: &[Live], suspects: Suspects, out: &mut Vec<Action>) {
        let Some(open) = &mut self.loss.open else { return };
        let (id, is_last_try) = (open.gap.id, open.tries + 1 >= MAIN_TRIES);
        let set = self.proven(set);
        let mut again = Suspects::default();
        let mut births: Vec<_> = suspects.births.into_values().collect();
        births.sort_unstable_by_key(|live| (live.key.start_boottime_ns, live.key.tgid));
        for live in births {
            let birth = Birth {
                key: live.key,
                ino: live.ino,
                run: live.run,
                forker: live.forker,
                parent_tgid: None,
                uid: None,
                at: BootNs(live.key.start_boottime_ns),
                discovery: Discovery::Snapshot,
            };
            self.admit(now, birth, Some(id), out);
            // Born and gone between the two looks: its death is a suspicion of its own.
            if !set.contains(&live.key) && self.registry.is_alive(&live.key) {
                again.deaths.push(live.key);
            }
        }
        for key in suspects.deaths.into_iter().filter(|key| !set.contains(key)) {
            let Some(entry) = self.registry.get(&key) else { continue };
            match (entry.life, self.is_main(&key)) {
                (Life::Dead, _) => {}
                (Life::Alive, true) => again.deaths.push(key),
                // By `waitid` if the tracer lets go meanwhile.
                (Life::Reaped, _) if self.is_main_held() && !is_last_try => again.deaths.push(key),
                (Life::Reaped, _) => self.bury_main(now, Some(id), out),
                (Life::Alive, false) => {
                    let (ino, run, forker) = (entry.ino, entry.run, entry.forker);
                    let at = self.by_kernel(now);
                    let death = Death { key, ino, run, forker, status: None, at, source: Source::LiveSet };
                    self.bury_inferred(now, death, Some(id), out);
                }
            }
        }
        let Some(open) = &mut self.loss.open else { return };
        open.tries += 1;
        if again.is_empty() || open.tries > MAIN_TRIES {
            self.recount(out);
        } else {
            self.wait(now, again);
        }
    }

    fn is_main_held(&self) -> bool {
        self.main.as_ref().is_some_and(|main| main.held.is_some() && main.reaped.is_none())
    }

    fn wait(&mut self, now: BootNs, suspects: Suspects) {
        if let Some(open) = &mut self.loss.open {
            open.stage = Stage::Wait { due: now.after(CONFIRM_AFTER), suspects };
        }
    }

    fn recount(&mut self, out: &mut Vec<Action>) {
        if let Some(open) = &mut self.loss.open {
            open.stage = Stage::Recount;
        }
        self.loss.count.fresh(Action::ReadCounters, out);
    }
}

//! One birth and one death per process, whatever the order, loss or doubling of the records. [pure]

use std::collections::HashMap;
use std::time::Duration;

use super::loss::{Accounts, Loss};
use super::registry::{Life, Registry};
use crate::event::{Action, Fact, GapCause, GapId, Launched};
use crate::model::{Birth, BootNs, Death, Discovery, Exec, ProcessKey, RunTag, Source, Totals, WaitStatus};

/// A record held this long is given up at the next drain, should no round end meanwhile.
const HOLD: Duration = Duration::from_millis(50);

/// Records of a process whose birth has not come yet.
#[derive(Debug)]
struct Held {
    round: u64,
    since: BootNs,
    execs: Vec<Exec>,
    death: Option<Death>,
}

/// The main process, whose birth and end are known from elsewhere too.
#[derive(Debug)]
pub(super) struct Main {
    pub(super) key: ProcessKey,
    pub(super) run: RunTag,
    launcher: Launcher,
    /// The answer of `waitid`, once there is one.
    pub(super) reaped: Option<Option<WaitStatus>>,
    /// It is dead and `waitid` has no answer; the status is the run table's.
    pub(super) held: Option<Option<WaitStatus>>,
}

/// What is known of the launcher's own exec, which is left out of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Launcher {
    /// The main process's first exec is the launcher's.
    Awaited,
    /// It came, or there is none to come.
    Done,
    /// An earlier daemon may have read it: an exec that looks like it is taken for it.
    Unsure,
}

impl Main {
    /// Takes up the main process of an earlier daemon, which was told to have executed its command or not.
    pub(super) fn go_on(&mut self, execed: bool) {
        self.launcher = if execed { Launcher::Done } else { Launcher::Unsure };
    }

    /// Whether this exec of the main process is the launcher's own.
    fn is_launchers(&mut self, exec: &Exec) -> bool {
        let is = match self.launcher {
            Launcher::Awaited => true,
            Launcher::Done => false,
            Launcher::Unsure => exec.argv.get(1).is_some_and(|argument| argument == "launcher"),
        };
        self.launcher = Launcher::Done;
        is
    }
}

/// Normalises the kernel's records.
#[derive(Debug)]
pub struct Tracker {
    pub(super) registry: Registry,
    pub(super) loss: Loss,
    pub(super) main: Option<Main>,
    pub(super) accounts: Accounts,
    held: HashMap<ProcessKey, Held>,
    round: u64,
    sole: bool,
    /// How far our clock is ahead of the one of the kernel's records, in nanoseconds.
    ahead: i64,
}

impl Tracker {
    /// A tracker of one run. `base` are the counters at its beginning; `sole` says that they count this run
    /// alone, so that their sum can be checked.
    #[must_use]
    pub fn new(base: Totals, sole: bool) -> Self {
        Self {
            registry: Registry::default(),
            loss: Loss::new(base),
            main: None,
            accounts: Accounts::default(),
            held: HashMap::new(),
            round: 0,
            sole,
            ahead: 0,
        }
    }

    /// Says how far our clock is ahead of the one by which the kernel's records tell the time.
    pub fn set_clock(&mut self, ahead: i64) {
        self.ahead = ahead;
    }

    /// A moment of our clock as the kernel's records tell it.
    pub(crate) const fn by_kernel(&self, now: BootNs) -> BootNs {
        now.shifted(self.ahead.saturating_neg())
    }

    /// The processes.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The processes, to note signals.
    pub fn registry_mut(&mut self) -> &mut Registry {
        &mut self.registry
    }

    /// What became of the records so far.
    #[must_use]
    pub fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// Whether something was lost that is not repaired yet.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.loss.open.is_some()
    }

    /// Births that were lost and never made good.
    #[must_use]
    pub fn unmade(&self) -> u64 {
        self.accounts.births.lost.saturating_sub(self.accounts.births.inferred) + self.loss.untracked()
    }

    /// How many births may have happened that the live set knows nothing of: since it was full, or a hook was
    /// skipped; the kernel's counts.
    #[must_use]
    pub fn unseen(&self) -> u64 {
        self.loss.unseen()
    }

    /// Whether every born process has its death, no gap is open, and the counters add up.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.registry.births() == self.registry.deaths()
            && self.held.is_empty()
            && !self.is_dirty()
            && (!self.loss.traced || !self.sole || self.accounts.balanced())
    }

    /// When [`Tracker::tick`] is due.
    #[must_use]
    pub fn wake(&self) -> Option<BootNs> {
        let count = self.loss.count_due(!self.held.is_empty());
        [count, self.repair_due(), self.loss.unread.due()].into_iter().flatten().min()
    }

    /// Takes the main process; its birth is told by `run.born`, not by `proc.fork`.
    pub fn launched(&mut self, launched: &Launched) {
        self.loss.traced = launched.traced;
        self.loss.clean_at = launched.at;
        let launcher = if launched.traced { Launcher::Awaited } else { Launcher::Done };
        self.main = Some(Main { key: launched.key, run: launched.run, launcher, reaped: None, held: None });
        let birth = Birth {
            key: launched.key,
            ino: launched.ino,
            run: launched.run,
            forker: None,
            parent_tgid: None,
            uid: None,
            at: launched.at,
            discovery: Discovery::Fork,
        };
        self.registry.insert(&birth, false);
    }

    /// Takes a birth record.
    pub fn born(&mut self, now: BootNs, birth: Birth, out: &mut Vec<Action>) {
        self.loss.flow = true;
        let is_main = self.is_main(&birth.key);
        match self.registry.get_mut(&birth.key) {
            None => {
                self.accounts.births.emitted += 1;
                self.admit(now, birth, None, out);
            }
            Some(entry) if entry.birth_seen => self.accounts.births.duplicates += 1,
            Some(entry) => {
                entry.birth_seen = true;
                if is_main {
                    // `run.born` is its line.
                    self.accounts.births.emitted += 1;
                } else {
                    self.accounts.births.late += 1;
                }
            }
        }
    }

    /// Takes an exec record; one without its birth is held for a round.
    pub fn execed(&mut self, now: BootNs, exec: Exec, out: &mut Vec<Action>) {
        self.loss.flow = true;
        if self.registry.get(&exec.key).is_some() {
            self.run_exec(exec, out);
        } else {
            self.hold(now, exec.key).execs.push(exec);
        }
    }

    /// Takes a death record; one without its birth is held for a round.
    pub fn died(&mut self, now: BootNs, death: Death, out: &mut Vec<Action>) {
        self.loss.flow = true;
        if self.registry.get(&death.key).is_some() {
            self.bury(now, death, out);
            return;
        }
        let held = self.hold(now, death.key);
        if held.death.is_some() {
            self.accounts.deaths.duplicates += 1;
        } else {
            held.death = Some(death);
        }
    }

    /// Ends a round: infers the births that held records waited for, and asks for the counters if due.
    pub fn round_ended(&mut self, now: BootNs, out: &mut Vec<Action>) {
        let round = self.round;
        self.give_up_holding(now, out, |held| held.round < round);
        self.round += 1;
        self.registry.end_round(now);
        self.loss.count_if_due(now, !self.held.is_empty(), out);
    }

    /// Takes the counters; true if they are as new as was last asked for.
    pub fn counted(&mut self, now: BootNs, totals: Totals, out: &mut Vec<Action>) -> bool {
        let fresh = self.loss.count.answered(Action::ReadCounters, out);
        if !self.loss.traced {
            return fresh;
        }
        self.accounts.count(&self.loss.base, &totals);
        self.loss.compare(now, totals, out);
        self.check_restart(now, out);
        // The rings were drained for this answer, so a birth before a record held that long was lost.
        self.give_up_holding(now, out, |held| held.since.after(HOLD) <= now);
        self.recounted(now, out);
        fresh
    }

    /// Takes the answer of `waitid` for the main process.
    pub fn main_exited(&mut self, now: BootNs, status: Option<WaitStatus>, out: &mut Vec<Action>) {
        let Some(main) = &mut self.main else { return };
        main.reaped = Some(status);
        let key = main.key;
        self.registry.reap(&key);
        if !self.loss.traced {
            self.bury_main(now, None, out);
        }
    }

    /// Takes the news that the main process is dead while `waitid` has no answer for it.
    pub fn main_held(&mut self, status: Option<WaitStatus>) {
        let Some(main) = &mut self.main else { return };
        main.held = Some(status);
        let key = main.key;
        self.registry.reap(&key);
    }

    /// Takes the end of the main process of an earlier daemon, before [`Tracker::main_exited`] tells it.
    pub fn main_had_ended(&mut self, status: Option<WaitStatus>) {
        let Some(main) = &mut self.main else { return };
        main.reaped = Some(status);
        let key = main.key;
        self.registry.reap(&key);
    }

    /// Does what is due.
    pub fn tick(&mut self, now: BootNs, out: &mut Vec<Action>) {
        self.loss.count_if_due(now, !self.held.is_empty(), out);
        self.look_again(now, out);
        self.loss.read_again_if_due(now, out);
    }

    /// Asks for the counters as they are from now on.
    pub fn ask_counters(&mut self, out: &mut Vec<Action>) {
        if self.loss.traced {
            self.loss.count.fresh(Action::ReadCounters, out);
        }
    }

    /// Asks for the live set as it is from now on.
    pub fn ask_live_set(&mut self, out: &mut Vec<Action>) {
        if self.loss.traced {
            self.loss.set.fresh(Action::ReadLiveSet, out);
        }
    }

    /// Takes the news that the live set could not be read; it is tried again after a pause.
    pub fn live_set_unread(&mut self, now: BootNs) {
        self.loss.unread.failed(now);
    }

    /// Whether the live set could not be read for so long that nothing is made to depend on it.
    #[must_use]
    pub fn is_blind(&self) -> bool {
        self.loss.unread.is_blind()
    }

    pub(super) fn is_main(&self, key: &ProcessKey) -> bool {
        self.main.as_ref().is_some_and(|main| main.key == *key)
    }

    /// Takes a birth that is new, and what was held for it.
    pub(super) fn admit(&mut self, now: BootNs, birth: Birth, inferred: Option<GapId>, out: &mut Vec<Action>) {
        self.unsuspect(&birth.key);
        self.registry.insert(&birth, inferred.is_none());
        if inferred.is_some() {
            self.accounts.births.inferred += 1;
            if let Some(open) = &mut self.loss.open {
                open.gap.inferred_births += 1;
            }
        }
        let key = birth.key;
        out.push(Action::Log(Fact::Fork { birth, inferred }));
        if let Some(held) = self.held.remove(&key) {
            for exec in held.execs {
                self.run_exec(exec, out);
            }
            if let Some(death) = held.death {
                self.bury(now, death, out);
            }
        }
    }

    /// Buries without a record of the kernel, as part of a gap's repair or, for the main process, by `waitid`.
    pub(super) fn bury_inferred(&mut self, now: BootNs, death: Death, inferred: Option<GapId>, out: &mut Vec<Action>) {
        if let Some(cause) = self.registry.bury(now, &death, false) {
            if inferred.is_some() {
                self.accounts.deaths.inferred += 1;
                if let Some(open) = &mut self.loss.open {
                    open.gap.inferred_deaths += 1;
                }
            }
            out.push(Action::Log(Fact::Exit { death, cause, inferred }));
        }
    }

    /// Buries the dead main process with the status of `waitid`, else with the run table's.
    pub(super) fn bury_main(&mut self, now: BootNs, inferred: Option<GapId>, out: &mut Vec<Action>) {
        let Some(Main { key, run, reaped, held, .. }) = &self.main else { return };
        if reaped.is_none() && held.is_none() {
            return;
        }
        let waited = reaped.flatten().map(|status| (status, Source::Waitid));
        let known = waited.or(held.flatten().map(|status| (status, Source::RunTable)));
        let (status, source) = known.map_or((None, Source::Unknown), |(status, source)| (Some(status), source));
        let ino = self.registry.get(key).and_then(|entry| entry.ino);
        let death = Death { key: *key, ino, run: *run, forker: None, status, at: self.by_kernel(now), source };
        self.bury_inferred(now, death, inferred, out);
    }

    fn bury(&mut self, now: BootNs, death: Death, out: &mut Vec<Action>) {
        let Some(cause) = self.registry.bury(now, &death, true) else {
            match self.registry.get_mut(&death.key) {
                Some(entry) if !entry.death_seen && entry.life == Life::Dead => {
                    entry.death_seen = true;
                    self.accounts.deaths.late += 1;
                }
                Some(_) | None => self.accounts.deaths.duplicates += 1,
            }
            return;
        };
        self.accounts.deaths.emitted += 1;
        out.push(Action::Log(Fact::Exit { death, cause, inferred: None }));
    }

    fn run_exec(&mut self, exec: Exec, out: &mut Vec<Action>) {
        if let Some(entry) = self.registry.get_mut(&exec.key)
            && entry.last_exec.replace(exec.at) == Some(exec.at)
        {
            self.accounts.execs.duplicates += 1;
            return;
        }
        if let Some(main) = &mut self.main
            && main.key == exec.key
            && main.is_launchers(&exec)
        {
            self.accounts.execs.filtered += 1;
            return;
        }
        self.registry.set_name(&exec.key, &exec.argv, &exec.filename);
        self.accounts.execs.emitted += 1;
        out.push(Action::Log(Fact::Exec(exec)));
    }

    fn hold(&mut self, now: BootNs, key: ProcessKey) -> &mut Held {
        let round = self.round;
        self.held.entry(key).or_insert_with(|| Held { round, since: now, execs: Vec::new(), death: None })
    }

    /// Infers the births for which held records waited in vain.
    fn give_up_holding(&mut self, now: BootNs, out: &mut Vec<Action>, lost: impl Fn(&Held) -> bool) {
        let mut keys: Vec<_> = self.held.iter().filter(|(_, held)| lost(held)).map(|(key, _)| *key).collect();
        keys.sort_unstable_by_key(|key| (key.start_boottime_ns, key.tgid));
        for key in keys {
            let Some(held) = self.held.get(&key) else { continue };
            let death = held.death.as_ref();
            let Some(run) = death.map(|death| death.run).or(held.execs.first().map(|exec| exec.run)) else { continue };
            let birth = Birth {
                key,
                ino: death.and_then(|death| death.ino),
                run,
                forker: death.and_then(|death| death.forker),
                parent_tgid: None,
                uid: None,
                // The start in the key is the time of the fork.
                at: BootNs(key.start_boottime_ns),
                discovery: Discovery::Fork,
            };
            // Whether it still lives is to be seen in the live set, perhaps by another look.
            if let Some(open) = &mut self.loss.open {
                open.grew = true;
            }
            let gap = self.loss.gap(now, GapCause::Missed, out);
            self.admit(now, birth, Some(gap), out);
        }
    }

    pub(super) fn holds(&self, key: &ProcessKey) -> bool {
        self.held.contains_key(key)
    }

    /// How many execs and deaths wait for the birth before them.
    pub(crate) fn held_records(&self) -> [u64; 2] {
        let execs = self.held.values().map(|held| held.execs.len() as u64).sum();
        let deaths = self.held.values().filter(|held| held.death.is_some()).count() as u64;
        [execs, deaths]
    }

    pub(super) fn checks_sum(&self) -> bool {
        self.sole && self.loss.traced
    }
}

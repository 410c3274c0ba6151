//! The table of processes: who lives, who died a moment ago, who has which number. [pure]

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::event::Cause;
use crate::model::{Birth, BootNs, Death, PidfsIno, ProcessKey, RunTag, WaitStatus};

/// Whole rounds for which a dead process is remembered, so that what is late or doubled is known as such.
const TOMB_ROUNDS: u64 = 2;
/// An inferred end is remembered longer: the hook that was overtaken may have been preempted.
const INFERRED_TOMB: Duration = Duration::from_secs(1);
/// What is kept of a command line, for naming leftovers.
pub(crate) const NAME_CHARS: usize = 160;
const SIGKILL: u8 = 9;

/// How far a process has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It lives, as far as is known.
    Alive,
    /// `waitid` has answered for it, its own death record is still awaited.
    Reaped,
    /// Its death is recorded.
    Dead,
}

/// A process.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Who.
    pub key: ProcessKey,
    /// Its pidfd's inode, where known.
    pub ino: Option<PidfsIno>,
    /// Its run.
    pub run: RunTag,
    /// Who called fork for it, where known.
    pub forker: Option<ProcessKey>,
    /// Its last known command line, its forker's until it executes something itself.
    pub name: Option<Arc<str>>,
    /// How far it has come.
    pub life: Life,
    /// Whether the kernel's own record of its birth has come.
    pub(super) birth_seen: bool,
    /// Whether the kernel's own record of its death has come.
    pub(super) death_seen: bool,
    /// The time of its last recorded exec.
    pub(super) last_exec: Option<BootNs>,
    signals: u64,
    gone: bool,
}

/// A dead process that is still remembered.
#[derive(Debug)]
struct Tomb {
    key: ProcessKey,
    round: u64,
    until: BootNs,
}

/// All processes by key; its size is bounded by the living, the deaths of the last rounds, and the exit hooks
/// that the kernel skipped.
#[derive(Debug, Default)]
pub struct Registry {
    entries: HashMap<ProcessKey, Entry>,
    by_tgid: HashMap<u32, ProcessKey>,
    living: HashMap<RunTag, BTreeSet<ProcessKey>>,
    tombs: VecDeque<Tomb>,
    round: u64,
    births: u64,
    deaths: u64,
    killed_at: Option<BootNs>,
    /// Signals to processes whose birth is still unread.
    unborn: HashMap<ProcessKey, u64>,
}

impl Registry {
    /// The process with this key, dead ones included while they are remembered.
    #[must_use]
    pub fn get(&self, key: &ProcessKey) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// The living process with this number.
    #[must_use]
    pub fn by_tgid(&self, tgid: u32) -> Option<&Entry> {
        self.by_tgid.get(&tgid).and_then(|key| self.entries.get(key))
    }

    /// Whether this process lives, as far as is known.
    #[must_use]
    pub fn is_alive(&self, key: &ProcessKey) -> bool {
        self.entries.get(key).is_some_and(|entry| entry.life == Life::Alive)
    }

    /// The living processes of a run, in the order of their keys.
    pub fn living(&self, run: RunTag) -> impl Iterator<Item = &Entry> {
        self.living.get(&run).into_iter().flatten().filter_map(|key| self.entries.get(key))
    }

    /// How many processes of a run live.
    #[must_use]
    pub fn living_count(&self, run: RunTag) -> usize {
        self.living.get(&run).map_or(0, BTreeSet::len)
    }

    /// Births so far.
    #[must_use]
    pub fn births(&self) -> u64 {
        self.births
    }

    /// Deaths so far.
    #[must_use]
    pub fn deaths(&self) -> u64 {
        self.deaths
    }

    /// How many entries are held, remembered dead ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Notes that a signal is about to be sent to this process by us.
    pub fn note_signal(&mut self, key: &ProcessKey, signal: u8) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.signals |= bit(signal);
        } else {
            *self.unborn.entry(*key).or_default() |= bit(signal);
        }
    }

    /// Takes the note back: that signal was not sent.
    pub fn forget_signal(&mut self, key: &ProcessKey, signal: u8) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.signals &= !bit(signal);
        }
    }

    /// Notes that a signal found this process gone: an entry of the live set that names it is stale.
    pub fn note_gone(&mut self, key: &ProcessKey) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.gone = true;
        }
    }

    /// Whether a signal found this process gone, `waitid` answered for it, or its death is recorded.
    #[must_use]
    pub fn is_gone(&self, key: &ProcessKey) -> bool {
        self.entries.get(key).is_some_and(|entry| entry.gone || entry.life != Life::Alive)
    }

    /// Notes that from now on every SIGKILL in the tree is ours.
    pub fn note_kill(&mut self, now: BootNs) {
        self.killed_at.get_or_insert(now);
    }

    pub(super) fn insert(&mut self, birth: &Birth, seen: bool) {
        if self.entries.contains_key(&birth.key) {
            return;
        }
        let name = birth.forker.and_then(|forker| self.entries.get(&forker)).and_then(|entry| entry.name.clone());
        let entry = Entry {
            key: birth.key,
            ino: birth.ino,
            run: birth.run,
            forker: birth.forker,
            name,
            life: Life::Alive,
            birth_seen: seen,
            death_seen: false,
            last_exec: None,
            signals: self.unborn.remove(&birth.key).unwrap_or_default(),
            gone: false,
        };
        self.entries.insert(birth.key, entry);
        self.births += 1;
        self.living.entry(birth.run).or_default().insert(birth.key);
        // A number's newest owner has it, even when its predecessor's death is still to be delivered.
        let newest = self.by_tgid.entry(birth.key.tgid).or_insert(birth.key);
        if newest.start_boottime_ns < birth.key.start_boottime_ns {
            *newest = birth.key;
        }
    }

    /// Remembers for a while a process whose birth and death an earlier daemon told.
    pub(super) fn remember_dead(&mut self, now: BootNs, key: ProcessKey, run: RunTag) {
        let entry = Entry {
            key,
            ino: None,
            run,
            forker: None,
            name: None,
            life: Life::Dead,
            birth_seen: true,
            death_seen: true,
            last_exec: None,
            signals: 0,
            gone: false,
        };
        if self.entries.insert(key, entry).is_none() {
            self.tombs.push_back(Tomb { key, round: self.round, until: now.after(INFERRED_TOMB) });
        }
    }

    /// Takes the counts of an earlier daemon's log for those made while the living were entered.
    pub(super) fn restore_counts(&mut self, births: u64, deaths: u64) {
        (self.births, self.deaths) = (births, deaths);
    }

    pub(super) fn get_mut(&mut self, key: &ProcessKey) -> Option<&mut Entry> {
        self.entries.get_mut(key)
    }

    pub(super) fn set_name(&mut self, key: &ProcessKey, argv: &[String], filename: &str) {
        if let Some(entry) = self.entries.get_mut(key) {
            let name: String = if argv.is_empty() {
                filename.chars().take(NAME_CHARS).collect()
            } else {
                let mut words = argv.iter().flat_map(|word| [" ", word.as_str()]).flat_map(str::chars);
                words.next();
                words.take(NAME_CHARS).collect()
            };
            entry.name = Some(name.into());
        }
    }

    /// Takes a reaped process out of the living before its death is recorded.
    pub(super) fn reap(&mut self, key: &ProcessKey) {
        if let Some(entry) = self.entries.get_mut(key)
            && entry.life == Life::Alive
        {
            entry.life = Life::Reaped;
            let run = entry.run;
            self.unlist(run, key);
        }
    }

    /// Buries a process; `None` if it is not known or dead already.
    pub(super) fn bury(&mut self, now: BootNs, death: &Death, seen: bool) -> Option<Cause> {
        let entry = self.entries.get_mut(&death.key)?;
        if entry.life == Life::Dead {
            return None;
        }
        // Known dead from elsewhere, without a record: its exit hook may never have run, and the live set may
        // name it until its number comes round. Such are few, and are remembered lest they be born again.
        let stale = !seen && (entry.gone || entry.life == Life::Reaped);
        entry.life = Life::Dead;
        entry.death_seen = seen;
        let cause = match death.status {
            None => Cause::Unknown,
            Some(WaitStatus::Exited(_)) => Cause::Exited,
            Some(WaitStatus::Signaled { signal, .. }) => {
                let by_kill = signal == SIGKILL && self.killed_at.is_some_and(|killed| killed <= death.at);
                if by_kill || entry.signals & bit(signal) != 0 { Cause::StoppedByUs } else { Cause::Signal }
            }
        };
        let run = entry.run;
        // Late records are to be expected for whatever was inferred, its birth or its death.
        let certain = seen && entry.birth_seen;
        let until = if certain { now } else { now.after(INFERRED_TOMB) };
        self.deaths += 1;
        self.unlist(run, &death.key);
        if !stale {
            self.tombs.push_back(Tomb { key: death.key, round: self.round, until });
        }
        Some(cause)
    }

    /// Ends a round: forgets those who died long enough ago.
    pub(super) fn end_round(&mut self, now: BootNs) {
        self.round += 1;
        while let Some(tomb) = self.tombs.front()
            && tomb.round + TOMB_ROUNDS < self.round
            && tomb.until <= now
        {
            self.entries.remove(&tomb.key);
            self.tombs.pop_front();
        }
    }

    fn unlist(&mut self, run: RunTag, key: &ProcessKey) {
        if let Some(living) = self.living.get_mut(&run) {
            living.remove(key);
            if living.is_empty() {
                self.living.remove(&run);
            }
        }
        if self.by_tgid.get(&key.tgid) == Some(key) {
            self.by_tgid.remove(&key.tgid);
        }
    }
}

fn bit(signal: u8) -> u64 {
    1u64.checked_shl(u32::from(signal).wrapping_sub(1)).unwrap_or(0)
}

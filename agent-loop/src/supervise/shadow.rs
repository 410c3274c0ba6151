//! A shadow of the kernel and the shell: a process table that knows the truth, and a core that is told of it
//! in every order, with doubled and lost records. Whatever the core says is checked against the truth at once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::{Core, Settings};
use crate::event::{Action, Event, Fact, Gap, GapCause, Launched, Member, SignalResult, Signalled, Summary, Tree};
use crate::model::{
    Birth, BootNs, Death, Discovery, Exec, Live, ProcessKey, ProofKind, RunTag, Source, Totals, WaitStatus,
};
use crate::track::Restored;

pub(crate) const RUN: RunTag = RunTag(77);
const MS: u64 = 1_000_000;
const LAUNCHER: &str = "launcher";

/// How a process takes signals, and where it lives.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Nature {
    pub(crate) ignores_int: bool,
    pub(crate) ignores_term: bool,
    /// `cgroup.kill` does not reach it, its pidfd does.
    pub(crate) survives_cgroup_kill: bool,
    /// It waits in the kernel: nothing reaches it.
    pub(crate) stuck: bool,
    pub(crate) left_cgroup: bool,
}

/// What becomes of a record.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fate {
    pub(crate) lost: bool,
    pub(crate) missed: bool,
    pub(crate) doubled: bool,
    /// Its hook has changed the map, and is preempted before it writes the record.
    pub(crate) late: bool,
}

#[derive(Clone, Debug)]
struct Proc {
    forker: Option<ProcessKey>,
    nature: Nature,
    /// Whether a hook has put it into the live set.
    tracked: bool,
}

pub(crate) struct Shadow {
    pub(crate) core: Core,
    settings: Settings,
    /// Records that a daemon had read and not written when it ended: births, execs, deaths.
    pub(crate) unwritten: [u64; 3],
    launcher_execed: bool,
    pub(crate) now: u64,
    pub(crate) main: ProcessKey,
    live: BTreeMap<ProcessKey, Proc>,
    /// Entries of the dead, whose exit hook was skipped.
    stale: BTreeMap<ProcessKey, Proc>,
    ever: BTreeSet<ProcessKey>,
    ring: Vec<Event>,
    in_flight: Vec<(u64, Event)>,
    pub(crate) totals: Totals,
    wake: Option<u64>,
    next_pid: u32,
    seed: u64,
    births: BTreeMap<ProcessKey, u32>,
    deaths: BTreeMap<ProcessKey, u32>,
    pub(crate) facts: Vec<Fact>,
    pub(crate) gaps: Vec<Gap>,
    pub(crate) signals: Vec<(u32, u8)>,
    pub(crate) finished: Option<Summary>,
    pub(crate) cgroup_kill_works: bool,
    main_status: Option<WaitStatus>,
    main_told: bool,
    thawed: bool,
    /// Numbers in use are chosen from this many.
    pub(crate) pids: u32,
    pub(crate) default_fate: Fate,
    /// How often the live set cannot be read from now on.
    pub(crate) unreadable: u32,
    /// Until when a tracer keeps `waitid` from answering for the main process.
    pub(crate) held_until: u64,
    /// No signal tells that a tracer has let go: only who asks again is told.
    pub(crate) is_silent: bool,
    /// Somebody in the cgroup forks between any two looks once the kill of the cgroup has failed.
    pub(crate) is_bomb: bool,
    is_exploding: bool,
    is_frozen: bool,
    held_told: bool,
    main_recorded: bool,
}

impl Shadow {
    pub(crate) fn new(settings: Settings, seed: u64) -> Self {
        Self {
            core: Core::new(settings),
            settings,
            unwritten: [0; 3],
            launcher_execed: false,
            now: 1_000_000_000,
            main: ProcessKey::new(100, 999_000_000),
            live: BTreeMap::new(),
            stale: BTreeMap::new(),
            ever: BTreeSet::new(),
            ring: Vec::new(),
            in_flight: Vec::new(),
            totals: settings.baseline,
            wake: None,
            next_pid: 101,
            seed,
            births: BTreeMap::new(),
            deaths: BTreeMap::new(),
            facts: Vec::new(),
            gaps: Vec::new(),
            signals: Vec::new(),
            finished: None,
            cgroup_kill_works: true,
            main_status: None,
            main_told: false,
            thawed: false,
            pids: 12,
            default_fate: Fate::default(),
            unreadable: 0,
            held_until: 0,
            is_silent: false,
            is_bomb: false,
            is_exploding: false,
            is_frozen: false,
            held_told: false,
            main_recorded: false,
        }
    }

    /// From now on a tracer holds the main process for this long, for ever if `None`.
    pub(crate) fn is_held_for(&mut self, span: Option<Duration>, is_silent: bool) {
        self.held_until = span.map_or(u64::MAX, |span| self.now + u64::try_from(span.as_nanos()).unwrap());
        self.is_silent = is_silent;
    }

    /// A run whose command executes.
    pub(crate) fn running(settings: Settings, seed: u64) -> Self {
        let mut shadow = Self::new(settings, seed);
        shadow.launch(Nature::default());
        assert!(shadow.thawed);
        shadow.exec(shadow.main, Fate::default());
        shadow.exec(shadow.main, Fate::default());
        shadow.tell(Event::Started);
        shadow
    }

    pub(crate) fn launch(&mut self, nature: Nature) {
        let main = self.main;
        self.live.insert(main, Proc { forker: None, nature, tracked: true });
        self.ever.insert(main);
        self.totals.seen_fork += 1;
        self.record(birth(main, None), Fate::default());
        let launched = Launched { key: main, ino: None, run: RUN, at: BootNs(main.start_boottime_ns), traced: true };
        self.tell(Event::Launched(launched));
    }

    pub(crate) fn living(&self) -> Vec<ProcessKey> {
        self.live.keys().copied().collect()
    }

    pub(crate) fn nature(&mut self, key: ProcessKey, nature: Nature) {
        if let Some(proc) = self.live.get_mut(&key) {
            proc.nature = nature;
        }
    }

    pub(crate) fn fork(&mut self, forker: ProcessKey, nature: Nature, fate: Fate) -> Option<ProcessKey> {
        self.now += 1_000;
        let taken = |pid: u32| self.live.keys().any(|key| key.tgid == pid);
        let pid = (0..self.pids).map(|step| 101 + (self.next_pid - 101 + step) % self.pids).find(|pid| !taken(*pid))?;
        self.next_pid = 101 + (pid - 101 + 1) % self.pids;
        let key = ProcessKey::new(pid, self.now);
        // One that no hook saw and that is in no cgroup of ours leaves nothing to be found by.
        let nature = Nature { left_cgroup: nature.left_cgroup && !fate.missed, ..nature };
        self.live.insert(key, Proc { forker: Some(forker), nature, tracked: !fate.missed });
        self.ever.insert(key);
        if fate.missed {
            self.totals.missed += 1;
            return Some(key);
        }
        self.appear(key, Some(forker), fate);
        Some(key)
    }

    /// The fork hook, or the exec hook where that was skipped.
    fn appear(&mut self, key: ProcessKey, forker: Option<ProcessKey>, fate: Fate) {
        let before = self.stale.len();
        self.stale.retain(|old, _| old.tgid != key.tgid);
        self.totals.stale += (before - self.stale.len()) as u64;
        self.totals.seen_fork += 1;
        self.totals.lost_fork += u64::from(fate.lost);
        self.record(birth(key, forker), fate);
    }

    /// The hooks of a process run one after the other, that of its fork before it runs at all.
    fn leave_hooks(&mut self, key: ProcessKey) {
        for (at, event) in &mut self.in_flight {
            if matches!(event, Event::Execed(exec) if exec.key == key)
                || matches!(event, Event::Born(birth) if birth.key == key)
            {
                *at = 0;
            }
        }
    }

    pub(crate) fn exec(&mut self, key: ProcessKey, fate: Fate) {
        self.now += 1_000;
        self.leave_hooks(key);
        if fate.missed {
            self.totals.missed += 1;
            return;
        }
        if let Some(proc) = self.live.get_mut(&key)
            && !std::mem::replace(&mut proc.tracked, true)
        {
            self.appear(key, None, fate);
        }
        self.totals.seen_exec += 1;
        self.totals.lost_exec += u64::from(fate.lost);
        let doubled = false;
        let mut record = exec(key, self.now);
        if key == self.main && !std::mem::replace(&mut self.launcher_execed, true) {
            let Event::Execed(exec) = &mut record else { unreachable!("an exec") };
            exec.argv = vec!["agent-loop".into(), LAUNCHER.into()];
        }
        self.record(record, Fate { doubled, ..fate });
    }

    pub(crate) fn exit(&mut self, key: ProcessKey, status: WaitStatus, fate: Fate) {
        self.now += 1_000;
        let Some(proc) = self.live.remove(&key) else { return };
        self.leave_hooks(key);
        if key == self.main {
            self.main_status = Some(status);
            self.main_recorded = !fate.missed;
        }
        if fate.missed {
            self.totals.missed += 1;
        }
        if !proc.tracked {
            return;
        }
        if fate.missed {
            self.stale.insert(key, proc);
            return;
        }
        self.totals.seen_exit += 1;
        self.totals.lost_exit += u64::from(fate.lost);
        let death = Death {
            key,
            ino: None,
            run: RUN,
            forker: proc.forker,
            status: Some(status),
            at: BootNs(self.now),
            source: Source::Kernel,
        };
        self.record(Event::Died(death), fate);
    }

    fn record(&mut self, record: Event, fate: Fate) {
        if fate.lost {
            return;
        }
        if fate.doubled {
            self.ring.push(record.clone());
        }
        if fate.late && !fate.doubled {
            self.in_flight.push((self.now + 10 * MS, record));
        } else {
            self.ring.push(record);
        }
    }

    fn random(&mut self, below: usize) -> usize {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.seed >> 33).unwrap() % below.max(1)
    }

    /// Delivers what is in the rings, in any order.
    fn drain(&mut self) -> Vec<Event> {
        let (ready, rest) = std::mem::take(&mut self.in_flight).into_iter().partition(|(at, _)| *at <= self.now);
        self.in_flight = rest;
        let mut events = std::mem::take(&mut self.ring);
        events.extend::<Vec<_>>(Vec::into_iter(ready).map(|(_, event)| event).collect());
        for last in (1..events.len()).rev() {
            let other = self.random(last + 1);
            events.swap(last, other);
        }
        // One process executes one thing after the other, and the first of the main process is the launcher's.
        let execs = |events: &[Event]| {
            let of_main = |event: &Event| matches!(event, Event::Execed(exec) if exec.key == self.main);
            (0..events.len()).filter(|at| of_main(&events[*at])).collect::<Vec<_>>()
        };
        let places = execs(&events);
        let mut in_order: Vec<_> = places.iter().map(|at| events[*at].clone()).collect();
        in_order.sort_by_key(|event| match event {
            Event::Execed(exec) => exec.at,
            other => unreachable!("no exec: {other:?}"),
        });
        for (place, event) in places.into_iter().zip(in_order) {
            events[place] = event;
        }
        events
    }

    pub(crate) fn round(&mut self) {
        let mut events = VecDeque::from(self.drain());
        events.push_back(Event::RoundEnded);
        self.tell_all(events);
        self.tell_main();
    }

    /// Delivers the records in the rings and nothing else.
    pub(crate) fn read(&mut self) {
        let events = VecDeque::from(self.drain());
        let told = std::mem::replace(&mut self.main_told, true);
        self.tell_all(events);
        self.main_told = told;
    }

    /// Puts a record into the rings.
    pub(crate) fn deliver(&mut self, record: Event) {
        self.ring.push(record);
    }

    fn tell_main(&mut self) {
        if let Some(event) = self.main_end(false) {
            self.tell(event);
        }
    }

    /// What is to be told of the end of the main process now.
    fn main_end(&mut self, asked: bool) -> Option<Event> {
        if self.main_status.is_none() || self.main_told {
            return None;
        }
        let is_free = self.held_until <= self.now;
        if is_free && (asked || !self.held_told || !self.is_silent) {
            self.main_told = true;
            return Some(Event::MainExited(self.main_status));
        }
        let is_news = !is_free && !std::mem::replace(&mut self.held_told, true);
        is_news.then(|| Event::MainHeld(self.main_status.filter(|_| self.main_recorded)))
    }

    /// Lets time pass, a round every 5 ms and each timer when it is due.
    pub(crate) fn pass(&mut self, span: Duration) {
        let end = self.now + u64::try_from(span.as_nanos()).unwrap();
        let mut next_round = self.now;
        while self.now < end && self.finished.is_none() {
            let due = self.wake.unwrap_or(u64::MAX).max(self.now);
            self.now = due.min(next_round.max(self.now)).min(end);
            if self.wake.is_some_and(|wake| wake <= self.now) {
                self.wake = None;
                self.tell(Event::Woke);
            }
            if next_round <= self.now {
                // A ring without records wakes nobody.
                if !self.ring.is_empty() || !self.in_flight.is_empty() || self.main_status.is_some() {
                    self.round();
                }
                next_round = self.now + 5 * MS;
            }
        }
    }

    /// Hands over an event and performs what comes back, in order.
    pub(crate) fn tell(&mut self, event: Event) {
        self.tell_all(VecDeque::from([event]));
    }

    fn tell_all(&mut self, mut events: VecDeque<Event>) {
        while let Some(event) = events.pop_front() {
            for action in self.core.handle(BootNs(self.now), event) {
                assert!(self.finished.is_none(), "something follows the end: {action:?}");
                self.perform(action, &mut events);
            }
        }
    }

    fn perform(&mut self, action: Action, events: &mut VecDeque<Event>) {
        match action {
            Action::Log(fact) => self.check(fact),
            Action::Thaw => self.thawed = true,
            Action::WakeAt(at) => self.wake = Some(at.0),
            Action::ReadCounters => {
                events.extend(self.drain());
                events.push_back(Event::Counted(self.totals));
            }
            Action::ReadLiveSet if self.unreadable > 0 => {
                self.unreadable -= 1;
                events.extend(self.drain());
                events.push_back(Event::LiveSetUnread);
            }
            Action::ReadLiveSet => {
                events.extend(self.drain());
                let live =
                    |(key, proc): (&ProcessKey, &Proc)| Live { key: *key, ino: None, run: RUN, forker: proc.forker };
                let tracked = self.live.iter().filter(|(_, proc)| proc.tracked);
                events.push_back(Event::LiveSet(tracked.chain(&self.stale).map(live).collect()));
            }
            Action::Signal { key, signal, .. } => {
                assert!(self.core.tracker().registry().is_alive(&key), "a signal to a process known dead");
                let result = self.hit(key, signal);
                events.push_back(Event::Signalled(Signalled { pid: key.tgid, key: Some(key), signal, result }));
            }
            Action::Verify { key, .. } => {
                events.push_back(Event::Verified { key, gone: !self.live.contains_key(&key) });
            }
            Action::SignalMember { pid, signal } => {
                let key = self.live.keys().copied().find(|key| key.tgid == pid);
                assert!(key.is_none_or(|key| !self.core.tracker().registry().is_gone(&key)));
                let result = key.map_or(SignalResult::Gone, |key| self.hit(key, signal));
                events.push_back(Event::Signalled(Signalled { pid, key, signal, result }));
            }
            Action::KillCgroup if !self.cgroup_kill_works => {
                self.is_exploding = self.is_bomb;
                events.push_back(Event::CgroupKilled(Err("no cgroup here".into())));
            }
            Action::KillCgroup => {
                for key in self.living() {
                    let nature = self.live[&key].nature;
                    if !(nature.left_cgroup || nature.stuck || nature.survives_cgroup_kill) {
                        self.exit(key, killed(9), self.default_fate);
                    }
                }
                events.push_back(Event::CgroupKilled(Ok(())));
            }
            Action::FreezeTree => self.is_frozen = true,
            Action::ThawTree => {
                let inside = self.live.values().find(|proc| !proc.nature.left_cgroup);
                assert!(inside.is_none(), "thawed with {inside:?} in it");
                self.is_frozen = false;
            }
            Action::InspectTree => {
                let tree = self.tree();
                self.explode();
                events.push_back(Event::Tree(tree));
            }
            Action::WaitMain => events.extend(self.main_end(true)),
            Action::Finish(summary) => self.finished = Some(summary),
        }
        events.extend(self.main_end(false));
    }

    /// One who was seen forks before it can be hit.
    fn explode(&mut self) {
        let inside = self.live.iter().find(|(_, proc)| !proc.nature.left_cgroup).map(|(key, _)| *key);
        if let Some(forker) = inside.filter(|_| self.is_exploding && !self.is_frozen) {
            self.fork(forker, Nature::default(), Fate::default());
        }
    }

    fn tree(&mut self) -> Tree {
        let member = |(key, proc): (&ProcessKey, &Proc)| Member {
            pid: key.tgid,
            key: None,
            state: Some(if proc.nature.stuck { 'D' } else { 'S' }),
            wchan: None,
            comm: Some("shadow".into()),
        };
        let inside = self.live.iter().filter(|(_, proc)| !proc.nature.left_cgroup);
        let members: Vec<_> = inside.map(member).collect();
        if members.is_empty() {
            // The hooks of a process are over before its cgroup is empty.
            self.in_flight.iter_mut().for_each(|(at, _)| *at = 0);
            Tree::Empty { proven: true }
        } else {
            Tree::Populated(members)
        }
    }

    fn hit(&mut self, key: ProcessKey, signal: u8) -> SignalResult {
        self.signals.push((key.tgid, signal));
        let Some(proc) = self.live.get(&key) else { return SignalResult::Gone };
        let nature = proc.nature;
        let ignored = signal == 2 && nature.ignores_int || signal == 15 && nature.ignores_term;
        if !ignored && !nature.stuck {
            self.exit(key, killed(signal), self.default_fate);
        }
        SignalResult::Sent(ProofKind::LiveSet)
    }

    /// Holds a fact against the truth.
    fn check(&mut self, fact: Fact) {
        match &fact {
            Fact::RunBorn(launched) => *self.births.entry(launched.key).or_default() += 1,
            Fact::Fork { birth, .. } => {
                assert!(self.ever.contains(&birth.key), "a birth of nobody: {birth:?}");
                *self.births.entry(birth.key).or_default() += 1;
                assert_eq!(self.births[&birth.key], 1, "a second birth: {birth:?}");
            }
            Fact::Exit { death, .. } => {
                assert!(!self.live.contains_key(&death.key), "a death of a living process: {death:?}");
                assert_eq!(self.births.get(&death.key), Some(&1), "a death without birth: {death:?}");
                *self.deaths.entry(death.key).or_default() += 1;
                assert_eq!(self.deaths[&death.key], 1, "a second death: {death:?}");
            }
            Fact::Gap(gap) => self.gaps.push(gap.clone()),
            // Where the live set cannot be read the count is what is known, and the end is told as not proven.
            Fact::RunKilled { proven: false, .. } if self.unreadable > 0 => {}
            Fact::RunKilled { survivors, .. } => {
                assert_eq!(usize::try_from(*survivors).unwrap(), self.live.len(), "survivors of the kill");
            }
            Fact::RunExit(summary) => {
                let survived = matches!(summary.outcome, crate::event::Outcome::NotEmpty { .. });
                let blind = self.unreadable > 0 && !summary.proven;
                assert!(survived || blind || self.live.is_empty(), "over with processes left: {:?}", self.live);
            }
            Fact::Exec(_) | Fact::SignalIntent { .. } | Fact::SignalResult(_) | Fact::Phase(_) => {}
        }
        self.facts.push(fact);
    }

    /// The daemon ends when it has read this many of the records in the rings and written none of them, and
    /// another one goes on where the log ends.
    pub(crate) fn crash(&mut self, unwritten: usize) {
        let mut read = self.drain();
        self.ring = read.split_off(unwritten.min(read.len()));
        for record in read {
            match record {
                Event::Born(birth) => self.unwritten[0] += u64::from(birth.key != self.main),
                Event::Execed(exec) => self.unwritten[1] += u64::from(exec.argv[1] != LAUNCHER),
                Event::Died(_) => self.unwritten[2] += 1,
                other => unreachable!("no record: {other:?}"),
            }
        }
        let tracker = self.core.tracker();
        let [execs, deaths] = tracker.held_records();
        // A record whose fact was inferred before it came has no line, and nothing says that it came.
        let rest = || self.ring.iter().chain(self.in_flight.iter().map(|(_, record)| record));
        let inferred = |record: &&Event| match record {
            Event::Born(birth) => birth.key != self.main && self.births.contains_key(&birth.key),
            Event::Died(death) => self.deaths.contains_key(&death.key),
            _ => false,
        };
        let births = rest().filter(inferred).filter(|record| matches!(record, Event::Born(_))).count() as u64;
        let inferred = rest().filter(inferred).count() as u64 - births;
        self.unwritten[0] += births + tracker.accounts().births.late;
        self.unwritten[1] += execs;
        self.unwritten[2] += deaths + inferred + tracker.accounts().deaths.late;
        let launched = self.facts.iter().find_map(|fact| match fact {
            Fact::RunBorn(launched) => Some(launched.clone()),
            _ => None,
        });
        let mut restored = Restored::new(launched.expect("a birth"), self.settings.baseline);
        self.facts.iter().for_each(|fact| restored.take(fact));
        self.core = Core::resumed(BootNs(self.now), self.settings, &restored);
        self.wake = None;
        if let Some(status) = self.main_status {
            self.core.main_had_ended(Some(status));
            self.main_told = true;
        }
        self.tell(Event::Woke);
    }

    /// As [`Shadow::assert_repaired`], after daemons that ended with records read and not written.
    pub(crate) fn assert_continued(&self) {
        let tracker = self.core.tracker();
        let known: BTreeSet<_> = tracker.registry().living(RUN).map(|entry| entry.key).collect();
        assert_eq!(known, self.live.keys().copied().collect(), "registry and live set");
        assert!(!tracker.is_dirty());
        let sums = |gaps: &[&Gap]| {
            gaps.iter().fold([0; 3], |[fork, exec, exit], gap| {
                [fork + gap.lost_fork, exec + gap.lost_exec, exit + gap.lost_exit]
            })
        };
        let (restarts, others): (Vec<_>, Vec<_>) = self.gaps.iter().partition(|gap| gap.cause == GapCause::Restart);
        assert_eq!(sums(&restarts), self.unwritten, "declared by a restart");
        assert!(restarts.iter().all(|gap| !gap.is_void()), "{restarts:?}");
        let (total, base) = (self.totals, self.settings.baseline);
        let lost =
            [total.lost_fork - base.lost_fork, total.lost_exec - base.lost_exec, total.lost_exit - base.lost_exit];
        assert_eq!(sums(&others), lost, "counted by the kernel");
        assert_eq!(self.gaps.iter().map(|gap| gap.missed).sum::<u64>(), self.totals.missed);
        let ids: BTreeSet<_> = self.gaps.iter().map(|gap| gap.id).collect();
        assert_eq!(ids.len(), self.gaps.len(), "numbers of gaps");
        let accounts = tracker.accounts();
        for (tally, unwritten) in [accounts.births, accounts.execs, accounts.deaths].into_iter().zip(self.unwritten) {
            assert_eq!(
                tally.seen,
                tally.emitted + tally.filtered + tally.late + tally.lost + tally.declared,
                "{tally:?}"
            );
            assert_eq!(tally.declared, unwritten);
        }
    }

    /// The registry is what lives, nothing is open, and the sums are right.
    pub(crate) fn assert_repaired(&self) {
        let tracker = self.core.tracker();
        let known: BTreeSet<_> = tracker.registry().living(RUN).map(|entry| entry.key).collect();
        let tracked = self.live.iter().filter(|(_, proc)| proc.tracked);
        let truth: BTreeSet<_> = tracked.map(|(key, _)| *key).collect();
        // A stale entry is taken for alive until its number comes round, or a signal finds it gone.
        let known: BTreeSet<_> = known.into_iter().filter(|key| !self.stale.contains_key(key)).collect();
        assert_eq!(known, truth, "registry and live set");
        assert!(!tracker.is_dirty());
        let sum = |of: fn(&Gap) -> u64| self.gaps.iter().map(of).sum::<u64>();
        assert_eq!(sum(|gap| gap.lost_fork), self.totals.lost_fork);
        assert_eq!(sum(|gap| gap.lost_exec), self.totals.lost_exec);
        assert_eq!(sum(|gap| gap.lost_exit), self.totals.lost_exit);
        assert_eq!(sum(|gap| gap.missed), self.totals.missed);
        let accounts = tracker.accounts();
        for tally in [accounts.births, accounts.execs, accounts.deaths] {
            assert_eq!(tally.seen, tally.emitted + tally.filtered + tally.late + tally.lost, "{tally:?}");
            assert_eq!(tally.declared, 0);
        }
    }

    /// Every birth that was told has its death, and the log agrees with the accounts.
    pub(crate) fn assert_closed(&self) {
        let summary = self.finished.as_ref().expect("the run is over");
        assert_eq!(self.births.len(), self.deaths.len());
        assert_eq!(summary.births, self.births.len() as u64);
        assert_eq!(summary.deaths, self.deaths.len() as u64);
        let accounts = self.core.tracker().accounts();
        let unread = self.births.len() as u64 - accounts.births.emitted - accounts.births.inferred;
        let lossless = self.totals.lost_fork + self.totals.missed == 0;
        assert!(unread == 0 || unread == 1 && !lossless, "only the main process is told without its record: {unread}");
        assert_eq!(accounts.deaths.emitted + accounts.deaths.inferred, self.deaths.len() as u64);
        let execs = self.facts.iter().filter(|fact| matches!(fact, Fact::Exec(_))).count() as u64;
        assert_eq!(accounts.execs.emitted, execs);
    }
}

pub(crate) fn killed(signal: u8) -> WaitStatus {
    WaitStatus::Signaled { signal, core: false }
}

pub(crate) fn birth(key: ProcessKey, forker: Option<ProcessKey>) -> Event {
    Event::Born(Birth {
        key,
        ino: None,
        run: RUN,
        forker,
        parent_tgid: forker.map(|forker| forker.tgid),
        uid: Some(0),
        at: BootNs(key.start_boottime_ns),
        discovery: Discovery::Fork,
    })
}

pub(crate) fn exec(key: ProcessKey, at: u64) -> Event {
    Event::Execed(Exec {
        key,
        run: RUN,
        at: BootNs(at),
        filename: format!("/bin/tool{}", key.tgid),
        argv: vec![format!("tool{}", key.tgid), "-x".into()],
        argc: 2,
        argv_total: 11,
        truncated: false,
        cwd: None,
        file: None,
        uid: None,
        source: Source::Kernel,
    })
}

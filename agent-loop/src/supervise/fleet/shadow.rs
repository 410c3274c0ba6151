//! A shadow of everything a fleet stands on: a store that can fail, a keeper that can be lost, a host that can be
//! started again, agents that end as they please. It performs what the fleet asks for, answers in order, and holds
//! every step against the truth at once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use ulid::Ulid;

use super::{
    Findings, Fleet, FleetAction, FleetEvent, FleetSettings, HeldRun, Now, Step, StepFailed, plan, settings_of,
};
use crate::event::{Action, Event, Fact, LaunchFailure, Launched, Member, Outcome, SignalResult, Signalled, Tree};
use crate::model::{
    Birth, BootNs, Death, Discovery, Exec, Live, PidfsIno, ProcessKey, ProofKind, RunTag, Source, StopReason, Totals,
    WaitStatus,
};
use crate::run::{End, Limits, RunId, RunName, RunOutcome, RunRecord, Stage, Submission};
use crate::supervise::shadow::killed;
use crate::supervise::{Core, Leftovers};
use crate::track::Restored;

const SEC: u64 = 1_000_000_000;
/// More events than this at one moment are a loop.
const STORM: u32 = 10_000;
/// Who asks for the end of a run, and why.
pub(super) const ASKED: &str = "Its end was asked for by user 0: enough.";
pub(super) const OPERATOR: StopReason = StopReason::Operator { signal: 15 };

/// The cgroup of an attempt and what is in it.
#[derive(Clone, Debug)]
pub(super) struct Agent {
    pub(super) tag: RunTag,
    pub(super) main: Option<ProcessKey>,
    pub(super) thawed: bool,
    pub(super) status: Option<WaitStatus>,
}

/// How many of the next steps of each kind fail.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    pub(super) saves: u32,
    pub(super) prepares: u32,
    pub(super) launches: u32,
    pub(super) removals: u32,
}

pub(super) struct World {
    pub(super) fleet: Fleet,
    settings: FleetSettings,
    pub(super) now: u64,
    pub(super) slept: u64,
    boot: u32,
    pub(super) store: BTreeMap<RunId, RunRecord>,
    pub(super) host: BTreeMap<RunName, Agent>,
    /// What the keeper holds; `None` while there is none.
    pub(super) keeper: Option<BTreeMap<RunName, HeldRun>>,
    answers: VecDeque<FleetEvent>,
    pub(super) wake: Option<u64>,
    pub(super) faults: Faults,
    /// Agents that only SIGKILL ends.
    pub(super) deaf: bool,
    /// Whether the disk of the output does not answer, so that nobody looks into a pipe.
    pub(super) hung: bool,
    pub(super) limits: Limits,
    pub(super) leftovers: Leftovers,
    pub(super) facts: BTreeMap<RunName, Vec<Fact>>,
    pub(super) totals: BTreeMap<RunName, Totals>,
    next: u32,
    /// How often a run began to execute, over all attempts.
    pub(super) executed: BTreeMap<RunId, u32>,
    /// Whose end somebody asked for.
    asked: BTreeSet<RunId>,
    /// Who was to be stopped before it ever executed, by this daemon.
    never: BTreeSet<RunId>,
    /// Who ended by itself, and how.
    pub(super) by_itself: BTreeMap<RunId, WaitStatus>,
    rebooted: bool,
    /// Every step as it was performed, in short.
    pub(super) said: Vec<String>,
}

fn take(count: &mut u32) -> bool {
    let fails = *count > 0;
    *count = count.saturating_sub(1);
    fails
}

fn word(stage: &Stage) -> &'static str {
    match stage {
        Stage::Queued => "queued",
        Stage::Intended(None) => "intended",
        Stage::Intended(Some(_)) => "withdrawing",
        Stage::Born(born) if born.stopping.is_some() => "stopping",
        Stage::Born(_) => "born",
        Stage::Ended(_) => "ended",
    }
}

pub(super) fn failure() -> LaunchFailure {
    LaunchFailure { step: "making the cgroup".into(), errno: Some(28) }
}

impl World {
    /// A host with a keeper and a daemon that has nothing to do yet.
    pub(super) fn new(max_agents: u32) -> Self {
        let settings = FleetSettings { max_agents };
        let mut world = Self {
            fleet: Fleet::new(settings),
            settings,
            now: SEC,
            slept: 0,
            boot: 1,
            store: BTreeMap::new(),
            host: BTreeMap::new(),
            keeper: Some(BTreeMap::new()),
            answers: VecDeque::new(),
            wake: None,
            faults: Faults::default(),
            deaf: false,
            hung: false,
            limits: Limits::default(),
            leftovers: Leftovers::Kill,
            facts: BTreeMap::new(),
            totals: BTreeMap::new(),
            next: 1,
            executed: BTreeMap::new(),
            asked: BTreeSet::new(),
            never: BTreeSet::new(),
            by_itself: BTreeMap::new(),
            rebooted: false,
            said: Vec::new(),
        };
        world.tell(FleetEvent::KeeperReady);
        world
    }

    fn boot_id(&self) -> String {
        format!("boot-{}", self.boot)
    }

    pub(super) fn clock(&self) -> Now {
        Now {
            boot: BootNs(self.now),
            awake: BootNs(self.now - self.slept),
            unix_ns: i64::try_from(u64::from(self.boot) * 1_000_000 * SEC + self.now).unwrap(),
        }
    }

    /// A run as the shell would submit it.
    pub(super) fn record(&mut self) -> RunRecord {
        self.next += 1;
        RunRecord {
            told: Vec::new(),
            id: RunId(Ulid::from_parts(u64::from(self.next), 7)),
            attempt: 1,
            submission: Submission {
                argv: vec!["agent".into()],
                env: Vec::new(),
                cwd: "/".into(),
                user: "agent".into(),
                stdin: None,
                limits: self.limits.clone(),
                grace: Duration::from_millis(100),
                leftovers: self.leftovers,
                asked_by: 0,
                withheld: false,
                part: None,
            },
            submitted_unix_ns: 0,
            boot_id: self.boot_id(),
            stage: Stage::Queued,
        }
    }

    pub(super) fn submit(&mut self) -> RunId {
        let record = self.record();
        let id = record.id;
        self.tell(FleetEvent::Submitted(Box::new(record)));
        id
    }

    /// A run whose command executes.
    pub(super) fn running(&mut self) -> RunId {
        let id = self.submit();
        self.settle();
        assert_eq!(self.fleet.state(id), Some("running"));
        id
    }

    pub(super) fn stop(&mut self, id: RunId) {
        self.asked.insert(id);
        if !self.executed.contains_key(&id) {
            self.never.insert(id);
        }
        self.tell(FleetEvent::StopAsked { id, reason: OPERATOR, told: ASKED.to_owned() });
    }

    /// The main process ends by itself.
    pub(super) fn die(&mut self, id: RunId, status: WaitStatus) {
        let name = self
            .host
            .iter()
            .find(|(name, agent)| name.id == id && agent.thawed && agent.status.is_none() && agent.main.is_some());
        let Some(name) = name.map(|(name, _)| *name) else { return };
        self.by_itself.insert(id, status);
        self.end(name, status);
    }

    /// Its end, with the record of the kernel and the answer of `waitid`.
    pub(super) fn end(&mut self, name: RunName, status: WaitStatus) {
        let agent = self.host.get_mut(&name).unwrap();
        let Some(key) = agent.main.filter(|_| agent.status.is_none()) else { return };
        agent.status = Some(status);
        let (run, at) = (agent.tag, BootNs(self.now));
        self.totals.entry(name).or_default().seen_exit += 1;
        let (ino, status) = (Some(PidfsIno(run.0)), Some(status));
        let death = Death { key, ino, run, forker: None, status, at, source: Source::Kernel };
        self.answers.push_back(FleetEvent::Of(name.id, Event::Died(death)));
        // Who is not the parent learns from the pidfd that it ended, and not how.
        let told = if self.keeper.is_some() { status } else { None };
        self.answers.push_back(FleetEvent::Of(name.id, Event::MainExited(told)));
    }

    /// Delivers the oldest answer.
    pub(super) fn answer(&mut self) -> bool {
        let Some(event) = self.answers.pop_front() else { return false };
        self.tell(event);
        true
    }

    /// Delivers all answers, and those to what they lead to.
    pub(super) fn settle(&mut self) {
        let mut count = 0;
        while self.answer() {
            count += 1;
            assert!(count < STORM, "a loop of actions: {:?}", self.said.iter().rev().take(8).collect::<Vec<_>>());
        }
    }

    /// Lets time pass, with each timer when it is due.
    pub(super) fn pass(&mut self, span: Duration) {
        let end = self.now + u64::try_from(span.as_nanos()).unwrap();
        let mut count = 0;
        self.settle();
        while let Some(wake) = self.wake.filter(|wake| *wake <= end) {
            self.now = self.now.max(wake);
            self.wake = None;
            self.tell(FleetEvent::Woke);
            self.settle();
            count += 1;
            assert!(count < STORM, "a loop of timers");
        }
        self.now = end;
    }

    /// The host sleeps: no timer is due meanwhile, all are overdue after.
    pub(super) fn sleep(&mut self, span: Duration) {
        let span = u64::try_from(span.as_nanos()).unwrap();
        self.now += span;
        self.slept += span;
    }

    /// Hands over an event and performs what comes back, in order.
    pub(super) fn tell(&mut self, event: FleetEvent) {
        for action in self.fleet.handle(self.clock(), event) {
            self.perform(action);
        }
        let live = self.host.values().filter(|agent| agent.main.is_some() && agent.status.is_none()).count();
        // Agents have so many slots, and steps of tasks as many of their own.
        assert!(live <= 2 * usize::try_from(self.settings.max_agents).unwrap(), "{live} agents live");
        let steps = self.fleet.records().any(|record| record.submission.part.is_some());
        assert!(steps || live <= usize::try_from(self.settings.max_agents).unwrap(), "{live} agents live");
    }

    fn perform(&mut self, action: FleetAction) {
        match action {
            FleetAction::Save(record) => self.save(*record),
            FleetAction::Prepare(name) => self.prepare(name),
            FleetAction::Launch(name) => self.launch(name),
            FleetAction::Of(id, action) => self.act(id, action),
            FleetAction::Remove(name) => self.remove(name),
            FleetAction::LookAtOutput(name) => {
                let looked = Some(BootNs(self.now)).filter(|_| !self.hung);
                self.answers.push_back(FleetEvent::Output { id: name.id, at: None, looked, over_budget: false });
            }
            FleetAction::WakeAt(at) => self.wake = Some(at.0),
        }
    }

    fn save(&mut self, record: RunRecord) {
        let id = record.id;
        let fails = take(&mut self.faults.saves);
        self.said.push(format!("save {}{}", word(&record.stage), if fails { " fails" } else { "" }));
        if fails {
            self.answers.push_back(FleetEvent::Saved { id, result: Err("no space left".into()) });
            return;
        }
        match (self.store.get(&id).map(|before| (before.attempt, &before.stage)), &record.stage) {
            (Some((_, Stage::Ended(before))), Stage::Ended(now)) => assert_eq!(before.outcome, now.outcome),
            (Some((_, Stage::Ended(_))), now) => panic!("over and not over: {now:?}"),
            (Some((attempt, Stage::Born(before))), Stage::Born(now)) => {
                assert_eq!(attempt, record.attempt, "a second birth");
                assert_eq!((before.at, before.deadline), (now.at, now.deadline), "a deadline that moved (I11)");
                assert!(before.stopping.is_none() || before.stopping == now.stopping);
            }
            (Some((_, Stage::Born(_))), now) => assert!(matches!(now, Stage::Ended(_)), "born and not born: {now:?}"),
            (Some((attempt, Stage::Queued | Stage::Intended(_))), _) => assert!(attempt <= record.attempt),
            (None, _) => {}
        }
        let by_asking =
            |end: &End| matches!(end.outcome, RunOutcome::Withdrawn | RunOutcome::Finished(Outcome::Stopped(OPERATOR)));
        match &record.stage {
            Stage::Ended(end) => {
                assert!(
                    !by_asking(end) || record.told.iter().any(|it| it == ASKED),
                    "who asked for its end is forgotten"
                );
                self.check_end(id, end, &record.boot_id);
            }
            Stage::Queued | Stage::Intended(_) | Stage::Born(_) => assert_eq!(record.boot_id, self.boot_id()),
        }
        self.store.insert(id, record);
        self.answers.push_back(FleetEvent::Saved { id, result: Ok(()) });
    }

    /// Holds an end against what happened.
    fn check_end(&self, id: RunId, end: &End, boot_id: &str) {
        let executed = self.executed.contains_key(&id);
        assert!(end.at_unix_ns > 0, "an end without a time");
        match &end.outcome {
            RunOutcome::Withdrawn => assert!(!executed && self.asked.contains(&id)),
            RunOutcome::LostToReboot => assert!(self.rebooted && boot_id != self.boot_id()),
            RunOutcome::Lost => panic!("a store that never lies remembers every run"),
            RunOutcome::Finished(Outcome::LaunchFailed(_)) => assert!(!executed),
            RunOutcome::Finished(Outcome::Ended) => {
                // A stop whose reason was never durable is told by the status alone: the signal that ended it.
                let truth = self.by_itself.get(&id).copied();
                assert!(
                    end.status.is_none_or(|told| truth == Some(told) || matches!(told, WaitStatus::Signaled { .. }))
                );
            }
            RunOutcome::Finished(Outcome::Stopped(reason)) => {
                assert!(*reason != OPERATOR || self.asked.contains(&id), "nobody asked");
                assert!(*reason != StopReason::Internal || !executed, "its birth was never durable");
            }
            RunOutcome::Finished(Outcome::NotEmpty { .. }) => panic!("nothing is given up"),
        }
        assert!(
            self.host.iter().all(|(name, agent)| name.id != id || agent.main.is_none() || agent.status.is_some()),
            "over and alive"
        );
    }

    /// Nothing of another boot is asked of the keeper.
    fn stored(&self, name: RunName) -> &RunRecord {
        let record = self.store.get(&name.id).expect("asked of the keeper and not durable");
        assert_eq!(record.boot_id, self.boot_id(), "asked of the keeper for a run of another boot");
        record
    }

    fn prepare(&mut self, name: RunName) {
        let record = self.stored(name);
        assert_eq!((word(&record.stage), record.attempt), ("intended", name.attempt), "prepared without intent (I19)");
        self.said.push("prepare".into());
        let id = name.id;
        let result = match &mut self.keeper {
            None => Err(StepFailed::Unsure),
            Some(_) if take(&mut self.faults.prepares) => Err(StepFailed::Refused(failure())),
            Some(held) => {
                self.next += 1;
                let tag = RunTag(u64::from(self.next));
                let agent = Agent { tag, main: None, thawed: false, status: None };
                assert!(self.host.insert(name, agent).is_none(), "a second cgroup of one name (I7)");
                held.insert(name, HeldRun { cgroup: tag, thawed: false });
                Ok(Totals::default())
            }
        };
        self.answers.push_back(FleetEvent::Prepared { id, result });
    }

    fn launch(&mut self, name: RunName) {
        assert_eq!(word(&self.stored(name).stage), "intended", "launched without intent (I19)");
        self.said.push("launch".into());
        let id = name.id;
        let result = match &mut self.keeper {
            None => Err(StepFailed::Unsure),
            Some(_) if take(&mut self.faults.launches) => Err(StepFailed::Refused(failure())),
            Some(_) => {
                self.next += 1;
                let key = ProcessKey::new(self.next, self.now);
                let agent = self.host.get_mut(&name).expect("prepared before");
                assert!(agent.main.replace(key).is_none());
                let (run, at, ino) = (agent.tag, BootNs(self.now), Some(PidfsIno(agent.tag.0)));
                self.totals.entry(name).or_default().seen_fork += 1;
                let birth =
                    Birth { key, ino, run, forker: None, parent_tgid: None, uid: None, at, discovery: Discovery::Fork };
                self.answers.push_back(FleetEvent::Of(id, Event::Born(birth)));
                Ok(Launched { key, ino, run, at, traced: true })
            }
        };
        self.answers.push_back(FleetEvent::Launched { id, result });
    }

    fn remove(&mut self, name: RunName) {
        assert_eq!(word(&self.stored(name).stage), "ended", "removed before its end is durable");
        let fails = take(&mut self.faults.removals);
        self.said.push(if fails { "remove fails".into() } else { "remove".into() });
        let result = match &mut self.keeper {
            Some(held) if !fails => {
                held.remove(&name);
                let agent = self.host.remove(&name);
                assert!(agent.is_none_or(|agent| agent.main.is_none() || agent.status.is_some()), "removed alive");
                Ok(())
            }
            Some(_) | None => Err("busy".into()),
        };
        self.answers.push_back(FleetEvent::Removed { id: name.id, result });
    }

    /// The name of the attempt that the fleet supervises.
    fn name(&self, id: RunId) -> RunName {
        self.fleet.record(id).map(RunRecord::name).expect("a run of the fleet")
    }

    fn act(&mut self, id: RunId, action: Action) {
        let name = self.name(id);
        let mut answer = |event| self.answers.push_back(FleetEvent::Of(id, event));
        match action {
            Action::Log(fact) => self.facts.entry(name).or_default().push(fact),
            Action::Thaw => self.thaw(name),
            // No tracer holds anybody here, and every cgroup can be killed at once.
            Action::WaitMain | Action::FreezeTree | Action::ThawTree => {}
            Action::Verify { key, .. } => {
                let alive = self.host.get(&name).is_some_and(|it| it.main == Some(key) && it.status.is_none());
                answer(Event::Verified { key, gone: !alive });
            }
            Action::ReadCounters => answer(Event::Counted(self.totals.get(&name).copied().unwrap_or_default())),
            Action::ReadLiveSet => {
                let live = |agent: &Agent| {
                    let key = agent.main.filter(|_| agent.status.is_none())?;
                    Some(Live { key, ino: Some(PidfsIno(agent.tag.0)), run: agent.tag, forker: None })
                };
                answer(Event::LiveSet(self.host.get(&name).and_then(live).into_iter().collect()));
            }
            Action::InspectTree => {
                let main = self.host.get(&name).and_then(|agent| agent.main.filter(|_| agent.status.is_none()));
                answer(Event::Tree(match main {
                    None => Tree::Empty { proven: true },
                    Some(key) => Tree::Populated(vec![Member {
                        pid: key.tgid,
                        key: Some(key),
                        state: Some('S'),
                        wchan: None,
                        comm: None,
                    }]),
                }));
            }
            Action::Signal { key, signal, .. } => self.signal(name, key.tgid, Some(key), signal),
            Action::SignalMember { pid, signal } => self.signal(name, pid, None, signal),
            Action::KillCgroup => {
                self.said.push("kill".into());
                let result = match &self.keeper {
                    None => Err("no keeper".into()),
                    Some(_) => {
                        self.end(name, killed(9));
                        Ok(())
                    }
                };
                self.answers.push_back(FleetEvent::Of(id, Event::CgroupKilled(result)));
            }
            Action::WakeAt(_) | Action::Finish(_) => panic!("kept by the fleet: {action:?}"),
        }
    }

    fn thaw(&mut self, name: RunName) {
        let stage = self.stored(name).stage.clone();
        let agent = self.host.get_mut(&name);
        let Stage::Born(born) = stage else { panic!("thawed before its birth is durable (I6)") };
        let (Some(agent), Some(held)) = (agent, &mut self.keeper) else { return };
        assert_eq!((born.cgroup, Some(born.main)), (agent.tag, agent.main));
        if agent.status.is_some() || agent.thawed {
            return;
        }
        assert!(!self.never.contains(&name.id), "executed though it was stopped before");
        self.said.push("thaw".into());
        agent.thawed = true;
        held.insert(name, HeldRun { cgroup: agent.tag, thawed: true });
        let times = self.executed.entry(name.id).or_default();
        *times += 1;
        assert_eq!(*times, 1, "executed a second time");
        let (key, run) = (born.main, agent.tag);
        self.totals.entry(name).or_default().seen_exec += 2;
        for (turn, words) in (1..).zip([["agent-loop", "launcher"], ["agent", "-x"]]) {
            let exec = Exec {
                key,
                run,
                at: BootNs(self.now + turn),
                filename: words[0].into(),
                argv: words.map(str::to_owned).into(),
                argc: 2,
                argv_total: 20,
                truncated: false,
                cwd: None,
                file: None,
                uid: None,
                source: Source::Kernel,
            };
            self.answers.push_back(FleetEvent::Of(name.id, Event::Execed(exec)));
        }
        self.answers.push_back(FleetEvent::Of(name.id, Event::Started));
    }

    fn signal(&mut self, name: RunName, pid: u32, key: Option<ProcessKey>, signal: u8) {
        let main = self.host.get(&name).and_then(|agent| {
            agent.main.filter(|main| agent.status.is_none() && main.tgid == pid).map(|_| agent.thawed)
        });
        let result = match (&self.keeper, main) {
            (None, _) => SignalResult::Refused("no keeper".into()),
            (Some(_), None) => SignalResult::Gone,
            (Some(_), Some(thawed)) => {
                self.said.push(format!("signal {signal}"));
                // The frozen take nothing but SIGKILL.
                if signal == 9 || thawed && !self.deaf {
                    self.end(name, killed(signal));
                }
                SignalResult::Sent(ProofKind::OwnChild)
            }
        };
        self.answers.push_back(FleetEvent::Of(name.id, Event::Signalled(Signalled { pid, key, signal, result })));
    }

    /// The keeper ends: what was asked of it may be done or not, and nobody will say.
    pub(super) fn lose_keeper(&mut self) {
        if self.keeper.take().is_none() {
            return;
        }
        for event in &mut self.answers {
            match event {
                FleetEvent::Prepared { result, .. } => *result = Err(StepFailed::Unsure),
                FleetEvent::Launched { result, .. } => *result = Err(StepFailed::Unsure),
                FleetEvent::Removed { result, .. } => *result = Err("no keeper".into()),
                _ => {}
            }
        }
        self.tell(FleetEvent::KeeperLost);
    }

    /// There is another keeper, which adopts what lives; of cut-off launches stock is taken.
    pub(super) fn find_keeper(&mut self) {
        if self.keeper.is_some() {
            return;
        }
        self.settle();
        let unsure: BTreeSet<RunId> = self.fleet.unsure().collect();
        let adopted = self.host.iter().filter(|(name, _)| self.fleet.core(name.id).is_some());
        self.keeper = Some(adopted.map(|(name, agent)| (*name, held(agent))).collect());
        let findings = Findings {
            records: unsure.iter().filter_map(|id| self.fleet.record(*id).cloned()).collect(),
            cgroups: self.cgroups(|name| unsure.contains(&name.id)),
            boot_id: self.boot_id(),
            ..Findings::default()
        };
        for step in plan(&findings) {
            match step {
                Step::Discard { name, cgroup, .. } => self.discard(name, cgroup),
                Step::Again(record) => self.tell(FleetEvent::Again(record.id)),
                Step::End(record, RunOutcome::Withdrawn) => self.tell(FleetEvent::Ended(record, RunOutcome::Withdrawn)),
                Step::Queue(_) | Step::GoOn { .. } | Step::End(..) => panic!("no cut-off launch: {step:?}"),
            }
        }
        self.tell(FleetEvent::KeeperReady);
    }

    fn cgroups(&self, of: impl Fn(&RunName) -> bool) -> BTreeMap<RunName, RunTag> {
        self.host.iter().filter(|(name, _)| of(name)).map(|(name, agent)| (*name, agent.tag)).collect()
    }

    fn discard(&mut self, name: RunName, cgroup: RunTag) {
        let agent = self.host.remove(&name).expect("a discard of what is there");
        assert_eq!(agent.tag, cgroup);
        match self.store.get(&name.id).map(|record| (&record.stage, &record.boot_id)) {
            Some((Stage::Born(born), boot_id)) => {
                assert!(*boot_id != self.boot_id() || born.cgroup != cgroup, "a discard of a live run");
            }
            Some((Stage::Queued | Stage::Intended(_) | Stage::Ended(_), _)) | None => {}
        }
        assert!(!agent.thawed || agent.status.is_some(), "a discard of what runs");
        self.said.push("discard".into());
        if let Some(held) = &mut self.keeper {
            held.remove(&name);
        }
    }

    /// The daemon ends; what is in the rings stays, and another takes stock.
    pub(super) fn crash(&mut self) {
        let records =
            |event: &FleetEvent| matches!(event, FleetEvent::Of(_, Event::Born(_) | Event::Execed(_) | Event::Died(_)));
        self.answers.retain(records);
        self.wake = None;
        self.said.push("crash".into());
        // A stop that is not durable is known to nobody any more.
        let known = |record: &RunRecord| matches!(word(&record.stage), "withdrawing" | "stopping" | "ended");
        let durable = |id: &RunId| self.store.get(id).is_some_and(known);
        self.never.retain(durable);
        let keeper_held = self.keeper.clone().unwrap_or_default();
        let known = |name: &RunName| keeper_held.contains_key(name);
        let (ended, open): (Vec<_>, Vec<_>) =
            self.store.values().cloned().partition(|record| matches!(record.stage, Stage::Ended(_)));
        let findings = Findings {
            records: open,
            ended: ended.iter().map(RunRecord::name).collect(),
            boot_id: self.boot_id(),
            held: keeper_held.clone(),
            cgroups: self.cgroups(|_| true),
        };
        self.keeper = Some(keeper_held.clone());
        self.fleet = Fleet::new(self.settings);
        for step in plan(&findings) {
            match step {
                Step::Discard { name, cgroup, .. } => self.discard(name, cgroup),
                Step::Queue(record) | Step::Again(record) => self.tell(FleetEvent::Requeued(record)),
                Step::GoOn { record, held: is_held, cgroup } => {
                    let name = record.name();
                    assert_eq!((is_held, cgroup), (known(&name), true));
                    let agent = self.host.get(&name).cloned().expect("its cgroup");
                    self.keeper.as_mut().unwrap().insert(name, held(&agent));
                    let core = self.resumed(&record, &agent, is_held);
                    self.tell(FleetEvent::Resumed { record, core: Box::new(core) });
                }
                Step::End(record, outcome) => self.tell(FleetEvent::Ended(record, outcome)),
            }
        }
        self.tell(FleetEvent::KeeperReady);
    }

    fn resumed(&self, record: &RunRecord, agent: &Agent, is_held: bool) -> Core {
        let Stage::Born(born) = &record.stage else { panic!("not born: {record:?}") };
        let launched = Launched { key: born.main, ino: born.ino, run: born.cgroup, at: born.at, traced: born.traced };
        let mut restored = Restored::new(launched, born.baseline);
        self.facts.get(&record.name()).into_iter().flatten().for_each(|fact| restored.take(fact));
        let mut core = Core::resumed(BootNs(self.now), settings_of(record, born.baseline), &restored);
        if agent.status.is_some() {
            core.main_had_ended(agent.status.filter(|_| is_held));
        }
        core
    }

    /// The host is started again: nothing is left but the store.
    pub(super) fn reboot(&mut self) {
        self.host.clear();
        self.keeper = None;
        self.answers.clear();
        self.boot += 1;
        self.rebooted = true;
        (self.now, self.slept) = (SEC, 0);
        self.crash();
    }

    /// Lets everything come to its end without further faults, and sees that nothing is left.
    pub(super) fn finish(&mut self) {
        self.faults = Faults::default();
        self.find_keeper();
        for _ in 0..400 {
            if self.fleet.records().next().is_none() {
                break;
            }
            let running: Vec<RunId> = self.host.keys().map(|name| name.id).collect();
            running.into_iter().for_each(|id| self.die(id, WaitStatus::Exited(0)));
            self.pass(Duration::from_secs(3));
        }
        let left: Vec<_> = self.fleet.records().map(|record| (record.id, self.fleet.state(record.id))).collect();
        assert!(left.is_empty(), "never over: {left:?}");
        assert!(self.host.is_empty(), "left on the host: {:?}", self.host);
        let lost: Vec<_> = self.store.values().filter(|record| word(&record.stage) != "ended").collect();
        assert!(lost.is_empty(), "accepted and lost: {lost:?}");
        for id in self.executed.keys() {
            assert!(self.store.contains_key(id), "executed and not remembered");
        }
    }

    pub(super) fn outcome(&self, id: RunId) -> Option<&RunOutcome> {
        match &self.store.get(&id)?.stage {
            Stage::Ended(end) => Some(&end.outcome),
            Stage::Queued | Stage::Intended(_) | Stage::Born(_) => None,
        }
    }
}

fn held(agent: &Agent) -> HeldRun {
    HeldRun { cgroup: agent.tag, thawed: agent.thawed }
}

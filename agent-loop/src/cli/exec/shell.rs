//! The shell of `exec`: turns what happens into events, and performs the actions the core answers with.

use std::collections::{BTreeSet, VecDeque};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use ulid::Ulid;

use super::Args;
use super::birth::{self, Main};
use super::ground::Ground;
use super::report::{self, Destinations, Report};
use super::scan::Scan;
use super::sink::SinkFailed;
use super::sources::{Sources, next_signal, readable, records, strikes, taken};
use crate::clock;
use crate::error;
use crate::event::{Action, Event, Fact, Outcome, Phase, SignalResult, Signalled, Summary, Tree};
use crate::keeper::guard::Guard;
use crate::keeper::launch;
use crate::keeper::signal::{self as keeper_signal, Delivery, Expected, Refusal};
use crate::keeper::terminal::{self, Terminal};
use crate::keeper::{reap, scan};
use crate::kernel::poll::register;
use crate::model::{BootNs, PidfsIno, ProcessKey, ProofKind, StopReason, Totals};
use crate::supervise::{Core, Settings};

/// How often the tree is looked at without eBPF.
const SCAN_EVERY: Duration = Duration::from_millis(200);

/// How many rounds an answer waits for at most: a ring of the largest size, read over and over in a storm.
const DRAIN_ROUNDS: usize = 64;

/// How long the end waits for orphans that are dead but not yet to be reaped.
const REAP_LIMIT: Duration = Duration::from_secs(1);

/// Supervises the command to its end and returns the exit code.
pub(super) async fn run(args: Args) -> anyhow::Result<u8> {
    let signals = launch::signals_at_start();
    let user = match args.user.as_deref().map(birth::find_user).transpose() {
        Ok(user) => user,
        Err(error) => {
            eprintln!("agent-loop: {error:#}");
            return Ok(error::USAGE);
        }
    };
    // Before any thread.
    let continued = terminal::listen().context("listening for job control")?;
    let (failed, failures) = unbounded_channel();
    let boot_id = report::boot_id()?;
    let to = Destinations::open(&args, &boot_id, &failed)?;
    // Before the birth: a signal that comes from now on is an event, not our end.
    let sources = Sources::new(&signals, continued)?;
    reap::become_subreaper().context("becoming the reaper of the tree's orphans")?;

    // What can fail comes before the ground: left without a word, its guard would say that we were killed.
    let id = Ulid::new();
    let ground = Ground::prepare(&args, id)?;
    let report = Report::new(&args, id, boot_id, &ground, to);
    let mut shell = Shell::new(&args, ground, report);
    shell.core.set_clock(shell.ground.clock_ahead);
    shell.watch_guard();
    shell.report.host(&shell.ground);
    if let Err(error) = shell.report.intent() {
        // Nothing was begun: the ground is given back, and the guard told so.
        shell.ground.clear().context("clearing up")?;
        return Err(error);
    }
    shell.launch(&args, &signals, user);
    let summary = shell.supervise(sources, failures).await;
    shell.end(summary).await
}

/// The shell of one run.
pub(super) struct Shell {
    pub(super) core: Core,
    pub(super) ground: Ground,
    pub(super) main: Option<Main>,
    pub(super) terminal: Terminal,
    pub(super) scan: Scan,
    pub(super) report: Report,
    guard_end: Option<AsyncFd<OwnedFd>>,
    pub(super) queue: VecDeque<Event>,
    pub(super) wake: Option<BootNs>,
    /// Stands in for a timer that could not be set.
    alarm: Option<tokio::time::Instant>,
    pub(super) totals: Totals,
    pub(super) launch_code: Option<u8>,
    pub(super) stop_asked: bool,
    pub(super) stopping: bool,
    pub(super) limited: bool,
    pub(super) more: bool,
}

impl Shell {
    fn new(args: &Args, ground: Ground, report: Report) -> Self {
        Self {
            core: Core::new(Settings {
                limit: args.limit,
                grace: args.grace,
                leftovers: args.leftovers.into(),
                give_up: args.give_up,
                ..Settings::default()
            }),
            ground,
            main: None,
            terminal: Terminal::of_caller(),
            scan: Scan::default(),
            report,
            guard_end: None,
            queue: VecDeque::new(),
            wake: None,
            alarm: None,
            totals: Totals::default(),
            launch_code: None,
            stop_asked: false,
            stopping: false,
            limited: args.limit.is_some(),
            more: false,
        }
    }

    /// The loop: one source wakes, its events go through the core, its actions are performed.
    async fn supervise(&mut self, mut sources: Sources, mut failures: UnboundedReceiver<SinkFailed>) -> Summary {
        let mut scan_tick = tokio::time::interval(SCAN_EVERY);
        scan_tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            if let Some(summary) = self.settle(&sources) {
                return summary;
            }
            tokio::select! {
                biased;
                number = next_signal(&mut sources.stop) => self.asked_to_stop(number),
                Some(failure) = failures.recv() => self.cannot_write(&failure),
                () = taken(&sources.elapsed) => self.queue.push_back(Event::Woke),
                () = strikes(self.alarm) => {
                    self.alarm = None;
                    self.queue.push_back(Event::Woke);
                }
                () = readable(self.main.as_ref().filter(|main| !main.dead).map(|main| &main.exit)) => self.main_exited(),
                () = readable(self.main.as_ref().and_then(|main| main.start.as_ref())) => self.main_started(),
                _ = sources.child.recv() => {
                    self.children_ended();
                    if self.main.as_ref().is_some_and(|main| main.dead) {
                        self.wait_main();
                    }
                    self.main_stopped();
                }
                () = taken(&sources.continued) => self.continued(),
                () = readable(self.guard_end.as_ref()) => self.guard_died(),
                () = records(&mut self.ground, self.more) => self.round(),
                _ = scan_tick.tick(), if self.ground.tracing.is_none() => self.look(),
            }
        }
    }

    /// Hands every queued event to the core and performs what it answers.
    fn settle(&mut self, sources: &Sources) -> Option<Summary> {
        loop {
            while let Some(event) = self.queue.pop_front() {
                let actions = self.core.handle(clock::boot(), event);
                for action in self.told(actions) {
                    if let Action::Finish(summary) = action {
                        return Some(summary);
                    }
                    self.perform(action);
                }
            }
            if let Some(at) = self.wake.take() {
                self.arm(sources, at);
            }
            // A timer that failed asks for a stop, which must not wait for the next wake-up.
            if self.queue.is_empty() {
                break;
            }
        }
        self.report.flush();
        None
    }

    /// Tells all facts of a list of actions, and makes them durable once before the first that acts; what is left to do.
    fn told(&mut self, actions: Vec<Action>) -> Vec<Action> {
        let (facts, acts): (Vec<Action>, Vec<Action>) =
            actions.into_iter().partition(|action| matches!(action, Action::Log(_)));
        for fact in facts {
            self.perform(fact);
        }
        let signals = |action: &Action| {
            matches!(action, Action::Signal { .. } | Action::SignalMember { .. } | Action::KillCgroup)
        };
        if acts.iter().any(signals) {
            self.report.stop_durable();
        }
        acts
    }

    /// Sets the timer. If that fails, the tree is stopped, by a clock that suspend may hold up.
    fn arm(&mut self, sources: &Sources, at: BootNs) {
        let had_failed = self.alarm.is_some();
        self.alarm = match sources.arm(at) {
            Ok(()) => None,
            Err(error) => {
                if !had_failed {
                    self.report.trouble("setting the timer", &error);
                    self.queue.push_back(Event::StopRequested(StopReason::Internal));
                }
                Some(tokio::time::Instant::now() + clock::boot().until(at))
            }
        };
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Log(fact) => self.log(fact),
            Action::Thaw => self.thaw(),
            Action::WakeAt(at) => self.wake = Some(at),
            Action::WaitMain => self.wait_main(),
            Action::ReadCounters => self.read_counters(),
            Action::ReadLiveSet => self.read_live_set(),
            Action::Signal { key, ino, signal } => {
                let result = self.signal_known(key, ino, signal);
                let signalled = Signalled { pid: key.tgid, key: Some(key), signal, result: outcome(result) };
                self.queue.push_back(Event::Signalled(signalled));
            }
            Action::Verify { key, ino } => {
                let gone = self.ground.is_gone(key, ino);
                self.queue.push_back(Event::Verified { key, gone });
            }
            Action::SignalMember { pid, signal } => {
                // For the record: who it is was known before the signal, or is not known.
                let key = self.core.tracker().registry().by_tgid(pid).map(|entry| entry.key);
                let result = self.ground.signal_member(pid, signal);
                let signalled = Signalled { pid, key, signal, result: outcome(result) };
                self.queue.push_back(Event::Signalled(signalled));
            }
            Action::KillCgroup => {
                let result = match &self.ground.cgroup {
                    Some(cgroup) => {
                        keeper_signal::kill_cgroup(cgroup.own(), cgroup.tag()).map_err(|why| why.to_string())
                    }
                    None => Err("the run has no cgroup".to_owned()),
                };
                self.queue.push_back(Event::CgroupKilled(result));
            }
            Action::FreezeTree => {
                if let Some(cgroup) = &self.ground.cgroup
                    && let Err(why) = keeper_signal::freeze_cgroup(cgroup.own(), cgroup.tag())
                {
                    self.report.trouble("freezing the tree to kill it", &why);
                }
            }
            Action::ThawTree => {
                // One that was removed by its own tree needs no thaw.
                if let Some(cgroup) = &self.ground.cgroup {
                    let _ = cgroup.thaw();
                }
            }
            Action::InspectTree => {
                let tree = self.ground.inspect().unwrap_or_else(|error| Tree::Unknown(error.to_string()));
                self.queue.push_back(Event::Tree(tree));
            }
            // Taken by the loop.
            Action::Finish(_) => {}
        }
    }

    fn signal_known(&self, key: ProcessKey, ino: Option<PidfsIno>, signal: u8) -> Result<Delivery, Refusal> {
        match &self.main {
            Some(main) if main.child.pid == key.tgid && !main.exited => main.signal(&self.ground, signal),
            Some(_) | None if self.ground.cgroup.is_none() => self.ground.signal_member(key.tgid, signal),
            Some(_) | None => {
                keeper_signal::open_and_send(Expected::Known { key, ino }, &self.ground.witnesses(), signal)
            }
        }
    }

    fn thaw(&mut self) {
        if let Err(error) = self.report.born_durable() {
            self.report.trouble("letting the command run", &format!("{error:#}"));
            self.queue.push_back(Event::StopRequested(StopReason::Internal));
            return;
        }
        let thawed = match (&self.ground.cgroup, &mut self.main) {
            (Some(cgroup), _) => cgroup.thaw(),
            (None, Some(main)) => main.child.release(),
            (None, None) => Ok(()),
        };
        if let Err(error) = thawed {
            self.report.trouble("letting the command run", &error);
            self.queue.push_back(Event::StopRequested(StopReason::Internal));
        }
    }

    fn read_counters(&mut self) {
        self.drain_all();
        if let Some(tracing) = &self.ground.tracing {
            match tracing.counters.read() {
                Ok(totals) => self.totals = totals,
                // The last totals stand: a loss is then found later, never missed.
                Err(error) => self.report.trouble("reading the kernel's counters", &error),
            }
        }
        self.queue.push_back(Event::Counted(self.totals));
    }

    fn read_live_set(&mut self) {
        // What is in the set was recorded before it was read: the records come first.
        self.drain_all();
        match self.ground.live() {
            Ok(live) => self.queue.push_back(Event::LiveSet(live)),
            Err(error) => {
                self.report.trouble("reading the live set", &error);
                self.queue.push_back(Event::LiveSetUnread);
            }
        }
    }

    /// Reads one round of the rings and says so.
    pub(super) fn round(&mut self) {
        self.drain();
        self.queue.push_back(Event::RoundEnded);
    }

    /// Reads all that was written until now, however much it is.
    fn drain_all(&mut self) {
        for _ in 0..DRAIN_ROUNDS {
            self.drain();
            if !self.more {
                return;
            }
        }
    }

    fn drain(&mut self) {
        let Some(tracing) = &mut self.ground.tracing else { return };
        let round = tracing.rings.round();
        self.more = round.more;
        for event in round.events {
            self.queue.push_back(enrich(event, tracing, self.report.wants_records()));
        }
    }

    /// Reaps orphans of the tree that fell to us, each after its record was read.
    fn children_ended(&mut self) {
        let ours: BTreeSet<u32> = self
            .main
            .iter()
            .map(|main| main.child.pid)
            .chain(self.ground.guard.iter().map(|guard| guard.pidfd.pid()))
            .collect();
        match reap::zombies(&ours) {
            Ok(zombies) if zombies.is_empty() => {}
            Ok(zombies) => {
                self.round();
                for pid in zombies {
                    if let Ok(Some(reaped)) = reap::reap(pid) {
                        self.scan.reaped(reaped.pid, reaped.status);
                    }
                }
            }
            Err(error) => self.report.trouble("looking for orphans", &error),
        }
    }

    /// Watches the guard, which somebody may kill.
    fn watch_guard(&mut self) {
        let Some(guard) = &self.ground.guard else { return };
        match guard.pidfd.as_fd().try_clone_to_owned().and_then(register) {
            Ok(end) => self.guard_end = Some(end),
            Err(error) => self.report.trouble("watching the guard", &error),
        }
    }

    /// The guard died before its time: another one takes its place.
    fn guard_died(&mut self) {
        self.guard_end = None;
        let (Some(cgroup), Some(guard)) = (&self.ground.cgroup, self.ground.guard.take()) else { return };
        let status = guard.dismiss().map_or_else(|error| error.to_string(), |status| status.to_string());
        self.report.trouble("the guard of the tree ended before its time, another one is started", &status);
        match Guard::start(cgroup) {
            Ok(guard) => self.ground.guard = Some(guard),
            Err(error) => self.report.trouble("should agent-loop be killed now, the tree would live on", &error),
        }
        self.watch_guard();
    }

    /// Reaps the last orphans of an empty tree: each is a zombie, or about to be one.
    async fn reap_the_rest(&mut self, summary: &Summary) {
        if matches!(summary.outcome, Outcome::NotEmpty { .. }) {
            return;
        }
        // A tracer that holds the main process may do so for ever.
        let held = self.main.as_ref().filter(|main| main.dead && !main.exited).map(|main| main.child.pid);
        let guard: BTreeSet<u32> = self.ground.guard.iter().map(|guard| guard.pidfd.pid()).collect();
        let began = clock::boot();
        while began.until(clock::boot()) < REAP_LIMIT {
            let _ = reap::reap_orphans(&guard);
            match scan::children(std::process::id()) {
                Ok(children) if children.iter().all(|&child| self.ground.is_ours(child) || Some(child) == held) => {
                    return;
                }
                Ok(_) => tokio::time::sleep(Duration::from_millis(1)).await,
                Err(_) => return,
            }
        }
    }

    /// One look at the tree, where no eBPF tells what happens in it.
    pub(super) fn look(&mut self) {
        let Some(main) = &self.main else { return };
        match self.ground.members() {
            Ok(pids) => {
                let events = self.scan.look(&pids, self.ground.tag, main.child.pid, clock::boot());
                self.queue.extend(events);
                self.queue.push_back(Event::RoundEnded);
            }
            Err(error) => self.report.trouble("looking at the tree", &error),
        }
    }

    fn asked_to_stop(&mut self, number: u8) {
        self.queue.push_back(if self.stop_asked {
            Event::Impatient
        } else {
            Event::StopRequested(StopReason::Operator { signal: number })
        });
        self.stop_asked = true;
    }

    fn cannot_write(&mut self, failure: &SinkFailed) {
        if self.report.cannot_write(failure) {
            self.queue.push_back(Event::StopRequested(StopReason::OutputFailed));
        }
    }

    /// Tells a fact. Of a signal that is intended it tells the proof it will need.
    pub(super) fn log(&mut self, fact: Fact) {
        let now = clock::both();
        self.stopping |= matches!(fact, Fact::Phase(Phase::Stopping { .. }));
        let proof = match &fact {
            Fact::SignalIntent { cgroup: true, .. } => Some(ProofKind::OwnCgroup),
            Fact::SignalIntent { pid, .. } if self.main.as_ref().is_some_and(|main| main.child.pid == *pid) => {
                Some(ProofKind::OwnChild)
            }
            Fact::SignalIntent { .. } if self.ground.cgroup.is_none() => Some(ProofKind::Descendant),
            Fact::SignalIntent { key: None, .. } => Some(ProofKind::OwnCgroup),
            Fact::SignalIntent { key: Some(key), .. } => {
                let known = self.core.tracker().registry().get(key).and_then(|entry| entry.ino);
                Some(if known.is_some() { ProofKind::PidfsIno } else { ProofKind::LiveSet })
            }
            Fact::RunBorn(_)
            | Fact::Fork { .. }
            | Fact::Exec(_)
            | Fact::Exit { .. }
            | Fact::Gap(_)
            | Fact::SignalResult(_)
            | Fact::Phase(_)
            | Fact::RunKilled { .. }
            | Fact::RunExit(_) => None,
        };
        self.report.fact(&fact, proof, now);
    }

    /// Draws the sum, removes the cgroup, gives the terminal back, and waits for what is still being written.
    async fn end(mut self, summary: Summary) -> anyhow::Result<u8> {
        let mut code = error::of_run(&summary, self.launch_code);
        let _ = self.terminal.take_back();
        self.reap_the_rest(&summary).await;
        if let Some(tracing) = &self.ground.tracing
            && let Ok(totals) = tracing.counters.read()
        {
            self.report.stats(&totals, self.core.tracker().accounts());
        }
        if matches!(summary.outcome, Outcome::NotEmpty { .. }) {
            // Our own end is told first: the guard then says what became of the rest.
            let code = self.report.end(&summary, code).await;
            self.ground.hand_over().context("leaving the rest of the tree to the guard")?;
            return Ok(code);
        }
        if let Err(error) = self.ground.clear() {
            self.report.trouble("clearing up", &format!("{error:#}"));
            code = error::INTERNAL;
        }
        Ok(self.report.end(&summary, code).await)
    }
}

/// Adds what only a look at the live process can tell: its working directory.
fn enrich(event: Event, tracing: &crate::kernel::Tracing, wanted: bool) -> Event {
    let Event::Execed(mut exec) = event else { return event };
    if wanted {
        exec.cwd = tracing.live.cwd_of(exec.key);
    }
    Event::Execed(exec)
}

pub(super) fn outcome(result: Result<Delivery, Refusal>) -> SignalResult {
    match result {
        Ok(Delivery::Sent(proof)) => SignalResult::Sent(proof),
        Ok(Delivery::Gone) => SignalResult::Gone,
        Err(refusal) => SignalResult::Refused(refusal.to_string()),
    }
}

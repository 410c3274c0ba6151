//! The loop of the daemon: one source wakes it, its events go through the fleet, the fleet's actions are performed.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use sd_notify::NotifyState;
use tokio::sync::mpsc;

use super::Setup;
use super::answers::{self, Accepted, Questions};
use super::feed::Feed;
use super::keeper::{Heard, Keeper};
use super::look_up::LookUp;
use super::remember::Remember;
use super::run_log::RunLog;
use super::sources::{Sources, Wake};
use super::tree::Root;
use crate::audit::log;
use crate::audit::log::{AuditLog, OpenError, Place, Settings};
use crate::audit::redact::{self, Redactor};
use crate::audit::{Line, OwnLines};
use crate::clock;
use crate::config::Config;
use crate::control::api::{Answer, Problem, Question};
use crate::event::{Event, LaunchFailure};
use crate::keeper::cgroup::OwnCgroup;
use crate::keeper::process::protocol::{Notice, OutputState, StartState};
use crate::kernel::pins::{self, Claim, Found};
use crate::kernel::{ROUND_BYTES, Tracing};
use crate::model::{BootNs, Death, RunTag, WaitStatus};
use crate::run::{RunId, RunName, Stage, Submission};
use crate::store::{Lock, LogDir, SqliteStore, StateDir};
use crate::supervise::fleet::{Fleet, FleetEvent, FleetSettings, Now};

/// How often a lost keeper is looked for, and what could not be removed is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// How often it is looked whether the kernel side is still attached: all that wakes a daemon at rest.
const HEART: Duration = Duration::from_secs(5);

/// So long events are handled before who asks, and what is due, has a turn.
const AT_ONCE: Duration = Duration::from_millis(20);

/// A daemon that has opened everything and taken stock: its agents are supervised from [`Started::run`] on.
pub struct Started {
    daemon: Daemon,
    sources: Sources,
}

/// Opens everything a daemon needs and goes on with what earlier ones left.
///
/// # Errors
/// What it cannot be without: its directories, the lock (another daemon), its database, eBPF.
pub async fn start(setup: Setup) -> anyhow::Result<Started> {
    let sources = Sources::new()?;
    Ok(Started { daemon: Daemon::start(setup).await?, sources })
}

impl Started {
    /// Says where the issue loop is asked.
    pub fn with_issues(&mut self, desk: super::within::Desk) {
        self.daemon.issues = Some(desk);
    }

    /// Runs until it is asked to stop. Its agents outlive it.
    ///
    /// `reload` reads the configuration again, at SIGHUP.
    ///
    /// # Errors
    /// None yet: what fails is told, and gone on without.
    pub async fn run(
        mut self,
        questions: mpsc::Receiver<Question>,
        reload: impl FnMut() -> anyhow::Result<Config>,
    ) -> anyhow::Result<()> {
        self.daemon.serve(self.sources, questions, reload).await;
        Ok(())
    }
}

/// What the shell keeps of a run.
pub(super) struct Watched {
    pub(super) log: RunLog,
    pub(super) cgroup: Option<OwnCgroup>,
    /// Its cgroup may be there and could not be opened: that is tried at each look.
    pub(super) unopened: bool,
    pub(super) tag: Option<RunTag>,
    /// Bytes of output, by the keepers that wrote it.
    pub(super) output: u64,
    /// What of it earlier keepers had written.
    pub(super) output_before: u64,
    /// Whether it was told that it can no longer be written.
    pub(super) output_failed: bool,
}

/// Something below the root that belongs to no run.
pub(super) struct Discard {
    pub(super) name: RunName,
    pub(super) cgroup: RunTag,
}

/// Why a keeper does not tell of the main process of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unproven {
    /// It does not hold the run.
    Run,
    /// It holds the run, but could not prove that process to be the recorded one.
    Main,
}

/// The daemon.
pub(super) struct Daemon {
    pub(super) setup: Setup,
    pub(super) fleet: Fleet,
    pub(super) queue: VecDeque<FleetEvent>,
    pub(super) store: Remember,
    pub(super) state: StateDir,
    pub(super) log: LogDir,
    /// Held as long as we live.
    pub(super) _lock: Lock,
    /// As the lock of the state: another daemon's state may be elsewhere.
    pub(super) _claim: Claim,
    pub(super) keeper: Keeper,
    /// Whether there was one when that was last looked at.
    pub(super) had_keeper: bool,
    pub(super) tracing: Tracing,
    pub(super) degraded: Vec<String>,
    /// Why the kernel side would not be found by the next daemon, nor by the keeper, if so.
    pub(super) unpinned: Option<String>,
    /// Runs that the kernel side knows only since this daemon loaded it.
    pub(super) fresh: HashSet<RunId>,
    /// Bytes of output that runs had written before they were gone on with.
    pub(super) written: HashMap<RunId, u64>,
    pub(super) root: Option<Root>,
    pub(super) runs: HashMap<RunId, Watched>,
    pub(super) tags: HashMap<RunTag, RunId>,
    pub(super) discards: Vec<Discard>,
    /// Runs that go on without the keeper's word on their main process, to be asked for again.
    pub(super) unproven: BTreeMap<RunId, Unproven>,
    /// Runs whose output nobody reads, since it could not be opened, and why.
    pub(super) unread: BTreeMap<RunId, String>,
    /// Runs of which nobody lived when another keeper could have read what they wrote last.
    pub(super) unheard: HashSet<RunId>,
    /// The reading ends of the pipes of runs: what was written and not read stays in them until the next keeper.
    pub(super) pipes: HashMap<RunId, [OwnedFd; 2]>,
    pub(super) feed: Feed,
    /// The audit log of this host.
    pub(super) audit: AuditLog,
    pub(super) own_lines: OwnLines,
    /// Why it cannot be written, as that was told last.
    pub(super) audit_trouble: Option<String>,
    /// Who asked for the end of which run, in the words of the log; of the latest runs.
    pub(super) asked: BTreeMap<RunId, Vec<String>>,
    /// What the log says of runs that are about to go on.
    pub(super) past: BTreeMap<RunId, Vec<u8>>,
    pub(super) unsaved: HashMap<RunId, String>,
    /// What was secret of runs that are not born yet, as they were submitted.
    pub(super) withheld: HashMap<RunId, Submission>,
    pub(super) boot_id: String,
    pub(super) since: i64,
    /// When something is due next.
    pub(super) wake: Option<BootNs>,
    /// What the timer is set to.
    pub(super) armed: Option<BootNs>,
    pub(super) more: bool,
    /// Records were read without the end of their round being told.
    pub(super) owes_round: bool,
    /// Whether stock was taken, so that every record that is read has its run.
    pub(super) serves: bool,
    pub(super) questions: Option<Questions>,
    /// Questions that came in the middle of something else.
    pub(super) deferred: VecDeque<Question>,
    /// Who waits for a run to be remembered, and so to be accepted.
    pub(super) accepting: HashMap<RunId, Accepted>,
    /// What is answered once all that is to be remembered until now is durable.
    pub(super) acknowledged: Vec<(super::within::Reply, Result<Answer, Problem>)>,
    /// Who waits for the end of which run.
    pub(super) awaited: HashMap<RunId, Vec<super::within::Reply>>,
    /// The issue loop, where there is one.
    pub(super) issues: Option<super::within::Desk>,
    /// Whether the issue loop says that its pass is over, and nothing more is to be done.
    pub(super) finished: bool,
    pub(super) accounts: LookUp,
    pub(super) ids: ulid::Generator,
}

impl Daemon {
    /// Opens everything and takes stock of what earlier daemons left.
    async fn start(setup: Setup) -> anyhow::Result<Self> {
        let state = StateDir::open(&setup.config.host.state_dir)?;
        let lock = state.lock()?;
        let key = log::tag_key(&Place::below(state.path()).keys)?;
        redact::settle(Redactor::new(setup.config.audit.policy(), key));
        let log = LogDir::open(&setup.config.host.log_dir)?;
        let store = SqliteStore::open(&state)?;
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").context("reading the boot id")?;
        let boot_id = boot_id.trim().to_owned();
        let keeper = Keeper::new(&setup, boot_id.clone());
        let claim = super::stock::claim(&setup)?;
        super::stock::refuse_strange_agents(&setup, &store)?;
        let (audit, troubles) = open_audit(&state, &log, &setup.config.audit.log(), &boot_id)?;
        let (tracing, found) = super::stock::tracing(&setup)?;
        let fleet = Fleet::new(FleetSettings { max_agents: setup.config.host.max_agents });
        let mut daemon = Self {
            setup,
            fleet,
            queue: VecDeque::new(),
            store: Remember::start(store).context("starting the thread of the store")?,
            state,
            log,
            _lock: lock,
            _claim: claim,
            keeper,
            had_keeper: false,
            tracing,
            degraded: Vec::new(),
            unpinned: None,
            fresh: HashSet::new(),
            written: HashMap::new(),
            root: None,
            runs: HashMap::new(),
            tags: HashMap::new(),
            discards: Vec::new(),
            unproven: BTreeMap::new(),
            unread: BTreeMap::new(),
            unheard: HashSet::new(),
            pipes: HashMap::new(),
            feed: Feed::new(),
            own_lines: OwnLines::new(&boot_id),
            audit,
            audit_trouble: None,
            asked: BTreeMap::new(),
            past: BTreeMap::new(),
            unsaved: HashMap::new(),
            withheld: HashMap::new(),
            boot_id,
            since: unix_ns(),
            wake: None,
            armed: None,
            more: false,
            owes_round: false,
            serves: false,
            questions: None,
            deferred: VecDeque::new(),
            accepting: HashMap::new(),
            acknowledged: Vec::new(),
            awaited: HashMap::new(),
            issues: None,
            finished: false,
            accounts: LookUp::start().context("starting the thread that looks users up")?,
            ids: ulid::Generator::new(),
        };
        match found {
            Found::Adopted => {}
            Found::Fresh { why } => daemon.say(&format!("the kernel side is loaded anew: {why}")),
        }
        troubles.iter().for_each(|trouble| daemon.trouble(trouble));
        daemon.host_starts();
        daemon.first_stock().await?;
        daemon.serves = true;
        Ok(daemon)
    }

    /// The loop.
    async fn serve(
        &mut self,
        mut sources: Sources,
        questions: mpsc::Receiver<Question>,
        mut reload: impl FnMut() -> anyhow::Result<Config>,
    ) {
        self.questions = Some(questions);
        let mut again = tokio::time::interval(AGAIN);
        again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut heart = tokio::time::interval(HEART);
        heart.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // An agent can write records faster than they are read: after each round, what comes below them has its turn.
        let mut turn = false;
        loop {
            self.settle(&sources).await;
            if self.finished {
                return self.stop();
            }
            if let Some(question) = self.deferred.pop_front() {
                self.answer(question);
                continue;
            }
            let busy = !self.keeper.is_up()
                || !self.discards.is_empty()
                || self.is_behind()
                || !self.unproven.is_empty()
                || !self.unread.is_empty();
            tokio::select! {
                biased;
                wake = sources.next() => match wake {
                    Wake::Stop => return self.stop(),
                    Wake::Timer => {
                        self.armed = None;
                        self.due();
                    }
                    Wake::Reload => self.reload(&mut reload),
                },
                heard = self.keeper.heard() => match heard {
                    Heard::Notice(notice) => self.noticed(notice),
                    // Told as every other loss is.
                    Heard::Lost | Heard::NotFound => {}
                    Heard::Found(held) => self.next_stock(held).await,
                },
                () = records(&mut self.tracing, self.more), if !turn => {
                    self.round();
                    turn = true;
                    continue;
                }
                Some(question) = answers::next(&mut self.questions) => self.answer(question),
                Some(then) = self.store.answered.recv() => then(self),
                Some(found) = self.accounts.found.recv() => self.looked_up(found).await,
                _ = again.tick(), if busy => self.again().await,
                _ = heart.tick() => {
                    self.beat();
                    self.look_for_the_pins();
                }
                () = tokio::task::yield_now(), if turn => {}
            }
            turn = false;
        }
    }

    /// Hands every queued event to the fleet and performs what it answers.
    pub(super) async fn settle(&mut self, sources: &Sources) {
        self.work().await;
        if std::mem::take(&mut self.owes_round) {
            self.end_round();
            self.work().await;
        }
        if let Some(at) = self.wake
            && self.armed != self.wake
        {
            match sources.arm(at) {
                Ok(()) => self.armed = Some(at),
                // Without a timer no deadline would be kept; the next wake-up of any kind tries again.
                Err(error) => self.trouble(&format!("setting the timer: {error}")),
            }
        }
    }

    /// Puts what is due before everything else that waits.
    fn due(&mut self) {
        if self.wake.is_some_and(|at| at <= clock::boot()) {
            self.wake = None;
            self.queue.push_front(FleetEvent::Woke);
        }
    }

    /// As [`Daemon::settle`], without arming the timer.
    pub(super) async fn work(&mut self) {
        let mut since = Instant::now();
        while let Some(event) = self.queue.pop_front() {
            let actions = self.fleet.handle(now(), event);
            for action in self.told(actions) {
                self.perform(action).await;
            }
            self.notice_a_loss();
            if since.elapsed() >= AT_ONCE {
                self.breathe().await;
                since = Instant::now();
            }
        }
        self.notice_a_loss();
        // Of a run that nobody knows any more nothing is to be told.
        self.unsaved.retain(|id, _| self.fleet.record(*id).is_some());
        for (reply, answer) in std::mem::take(&mut self.acknowledged) {
            self.store.ask(|_| (), move |_, ()| drop(reply.send(answer)));
        }
        self.flush();
    }

    /// Gives who asks a turn in the middle of much work, and what is due.
    async fn breathe(&mut self) {
        if !self.serves {
            return;
        }
        self.due();
        tokio::task::yield_now().await;
        while let Some(question) = self.questions.as_mut().and_then(|questions| questions.try_recv().ok()) {
            self.answer_soon(question);
        }
    }

    /// The keeper may be lost in the middle of a question as well as between two: either way it is told once.
    fn notice_a_loss(&mut self) {
        let up = self.keeper.is_up();
        if std::mem::replace(&mut self.had_keeper, up) && !up {
            self.keeper_lost();
        }
    }

    /// Tells systemd, where it asked to be told, that the loop which drains the rings goes round, and what it does.
    fn beat(&self) {
        let alive = self.fleet.records().filter(|record| !matches!(record.stage, Stage::Queued)).count();
        let waiting = self.fleet.records().count() - alive;
        let keeper = self.keeper.state().map_or_else(|_| "no keeper".to_owned(), |pid| format!("keeper {pid}"));
        let status = format!("{alive} runs, {waiting} wait for their turn; {keeper}");
        // Who does not hear it restarts us.
        let _ = sd_notify::notify(&[NotifyState::Watchdog, NotifyState::Status(&status)]);
    }

    fn stop(&mut self) {
        let _ = sd_notify::notify(&[NotifyState::Stopping]);
        let why = if self.finished { "its pass is over" } else { "the daemon was asked to stop; agents go on" };
        self.note(|lines, clock| lines.told("host.stop", why.to_owned(), clock));
        self.flush();
        let progress = self.audit.close();
        if let Some(why) = progress.failing {
            self.trouble(&format!("the audit log is not complete: {why}"));
        }
        let going_on = self.runs.values().filter(|watched| watched.tag.is_some()).count();
        self.say(&format!("stopping as asked; {going_on} runs go on under the keeper"));
    }

    /// Says once in what the keeper is another than it would be started now; nothing is launched meanwhile.
    pub(super) fn compare_the_keeper(&mut self) {
        let differs = self.keeper.differs();
        if let Some(what) = &differs {
            self.trouble(what);
        }
        self.queue.push_back(FleetEvent::LaunchesHeld(differs.is_some()));
    }

    fn keeper_lost(&mut self) {
        if let Err(why) = self.keeper.state() {
            self.trouble(&format!("{why}; agents run on, nothing is launched or stopped until there is one"));
        }
        self.queue.push_back(FleetEvent::KeeperLost);
    }

    /// Looks whether the kernel side is pinned as it was: we hold it open and go on by it in any case, but a keeper
    /// proves by the pins alone, and the next daemon goes on by nothing else.
    fn look_for_the_pins(&mut self) {
        let found = pins::check(&self.setup.config.host.pins, &self.tracing);
        let why = found.err().map(|error| {
            format!(
                "{error}; signals that need it as proof are refused, and what happens while no daemon runs is lost: \
                 start the daemon again"
            )
        });
        match (&self.unpinned, &why) {
            (None, Some(why)) => self.trouble(why),
            (Some(_), None) => self.say("the kernel side is pinned again"),
            (Some(_), Some(_)) | (None, None) => {}
        }
        self.unpinned = why;
    }

    /// What failed before is tried again.
    async fn again(&mut self) {
        self.keeper.look();
        self.discard_all().await;
        self.prove_again().await;
        self.read_again().await;
    }

    /// Reads the configuration again: says what changes, and takes it up or keeps the old one.
    fn reload(&mut self, reload: &mut impl FnMut() -> anyhow::Result<Config>) {
        let new = match reload() {
            Ok(new) => new,
            Err(error) => return self.trouble(&format!("reload: {error:#}; the old configuration stays")),
        };
        let changes = self.setup.config.difference(&new);
        if changes.is_empty() {
            self.say("reload: nothing changed");
        }
        for change in changes {
            self.say(&format!("reload: {change}"));
            self.note(|lines, clock| lines.told("config", change, clock));
        }
        self.setup.config = self.setup.config.reloaded(&new);
        self.keeper.set(&self.setup);
        self.compare_the_keeper();
        self.fleet.set(FleetSettings { max_agents: self.setup.config.host.max_agents });
        // More runs may be let in now.
        self.queue.push_back(FleetEvent::Woke);
    }

    /// Reads one round of the rings and says so to every run.
    pub(super) fn round(&mut self) {
        self.drain();
        self.end_round();
    }

    fn end_round(&mut self) {
        for id in self.tags.values() {
            self.queue.push_back(FleetEvent::Of(*id, Event::RoundEnded));
        }
    }

    /// Reads all that was written until now: as much as the rings hold, whatever is written meanwhile.
    pub(super) fn drain_all(&mut self) {
        let kernel = &self.setup.config.kernel;
        let ring = usize::try_from(kernel.ring_bytes.max(kernel.execs_ring_bytes)).unwrap_or(usize::MAX);
        for _ in 0..=ring.div_ceil(ROUND_BYTES) {
            self.drain();
            if !self.more {
                return;
            }
        }
    }

    fn drain(&mut self) {
        let round = self.tracing.rings.round();
        self.more = round.more;
        for event in round.events {
            let run = match &event {
                Event::Born(birth) => birth.run,
                Event::Execed(exec) => exec.run,
                Event::Died(death) => death.run,
                // The rings hold nothing else.
                Event::RoundEnded
                | Event::Counted(_)
                | Event::LiveSet(_)
                | Event::LiveSetUnread
                | Event::MainHeld(_)
                | Event::Launched(_)
                | Event::LaunchFailed(_)
                | Event::Started
                | Event::MainExited(_)
                | Event::Woke
                | Event::StopRequested(_)
                | Event::Impatient
                | Event::Tree(_)
                | Event::Signalled(_)
                | Event::Verified { .. }
                | Event::CgroupKilled(_) => continue,
            };
            // Of observed processes, and of runs that are over: nobody's.
            let Some(id) = self.tags.get(&run).copied() else { continue };
            let ended =
                if let Event::Died(death) = &event { self.is_main(id, death).then_some(death.status) } else { None };
            self.queue.push_back(FleetEvent::Of(id, enrich(event, &self.tracing)));
            // The keeper's word on its status follows, unless whoever traces it holds that back.
            self.queue.extend(ended.map(|status| FleetEvent::Of(id, Event::MainHeld(status))));
        }
    }

    /// Whether this is the end of the main process of a run.
    fn is_main(&self, id: RunId, death: &Death) -> bool {
        self.fleet.record(id).is_some_and(|record| match &record.stage {
            Stage::Born(born) => born.main == death.key,
            Stage::Queued | Stage::Intended(_) | Stage::Ended(_) => false,
        })
    }

    /// Tells each run of the end of its main process that the kernel's run table holds: who told it may be gone, and who
    /// could tell it now may be kept from it by a tracer.
    pub(super) fn ends_by_the_run_table(&mut self) {
        let tags: Vec<(RunId, RunTag)> = self.tags.iter().map(|(tag, id)| (*id, *tag)).collect();
        for (id, tag) in tags {
            if let Ok(Some(run)) = self.tracing.runs.get(tag)
                && let Some((status, _)) = run.exit
            {
                self.queue.push_back(FleetEvent::Of(id, Event::MainHeld(status)));
            }
        }
    }

    fn noticed(&mut self, notice: Notice) {
        match notice {
            // Told once, after the hello, and taken there.
            Notice::Held(_) => {}
            Notice::Start { run, start } => {
                if let Some(id) = self.id_of(&run) {
                    self.started(id, start);
                }
            }
            Notice::Exited { run, status } => {
                if let Some(id) = self.id_of(&run) {
                    // Its records first, then the authority on its status.
                    self.round();
                    self.main_exited(id, status);
                }
            }
            Notice::Output(output) => self.output(&output),
        }
    }

    /// What became of the start of a main process.
    pub(super) fn started(&mut self, id: RunId, start: StartState) {
        let event = match start {
            StartState::Started => Event::Started,
            StartState::Failed { step, errno, .. } => Event::LaunchFailed(LaunchFailure { step, errno: Some(errno) }),
            // Its status says what ended it; of an adopted one nothing is known.
            StartState::Pending | StartState::Died | StartState::Unknown => return,
        };
        self.queue.push_back(FleetEvent::Of(id, event));
    }

    /// The main process of a run ended: the keeper's answer, else what the kernel's run table holds.
    pub(super) fn main_exited(&mut self, id: RunId, raw: Option<i32>) {
        if raw.is_none() {
            self.fleet.main_is_told_by(id, crate::model::Source::RunTable);
        }
        let tag = self.runs.get(&id).and_then(|watched| watched.tag);
        let status = tag.and_then(|tag| self.exit_status(tag, raw));
        self.queue.push_back(FleetEvent::Of(id, Event::MainExited(status)));
    }

    /// A status that the keeper told, else what the kernel's run table holds.
    pub(super) fn exit_status(&self, tag: RunTag, raw: Option<i32>) -> Option<WaitStatus> {
        raw.map(WaitStatus::from_raw).or_else(|| self.recorded_exit(tag))
    }

    pub(super) fn output(&mut self, output: &OutputState) {
        let Some(id) = self.id_of(&output.run) else { return };
        if let Some(watched) = self.runs.get_mut(&id) {
            watched.output = watched.output_before + output.kept;
        }
        let failed = self
            .runs
            .get_mut(&id)
            .map(|watched| std::mem::replace(&mut watched.output_failed, output.failed.is_some()));
        if let (Some(why), Some(false)) = (&output.failed, failed) {
            self.trouble(&format!("run {id}: its output can no longer be written: {why}"));
        }
        let at = (output.last_ns > 0).then_some(BootNs(output.last_ns));
        self.queue.push_back(FleetEvent::Output { id, at, over_budget: output.over_budget });
    }

    /// The run whose present attempt has this name.
    pub(super) fn id_of(&self, name: &str) -> Option<RunId> {
        let name: RunName = name.parse().ok()?;
        self.fleet.record(name.id).filter(|record| record.name() == name).map(|record| record.id)
    }

    fn is_behind(&self) -> bool {
        self.audit_trouble.is_some()
    }

    pub(super) fn flush(&mut self) {
        self.audit.flush();
        // Before it serves it does not know yet which runs go on.
        if self.serves && self.audit.has_closed() {
            let runs: Vec<_> = self.runs.keys().copied().collect();
            let floor = crate::audit::floor_of(self.audit.dir(), &runs);
            if let Err(error) = floor.and_then(|floor| self.audit.retain(floor)) {
                self.trouble(&format!("removing old segments of the audit log: {error}"));
            }
        }
        let failing = self.audit.progress().failing;
        match (&self.audit_trouble, &failing) {
            (None, Some(why)) => {
                self.trouble(&format!(
                    "writing the audit log: {why}; agents go on and are stopped in time, none is launched"
                ));
            }
            (Some(_), None) => self.say("the audit log is written again"),
            (Some(_), Some(_)) | (None, None) => {}
        }
        self.audit_trouble = failing;
    }

    /// Appends a line of the daemon's own.
    pub(super) fn note(&mut self, make: impl FnOnce(&OwnLines, crate::audit::Clock) -> Line) {
        let line = make(&self.own_lines, clock::both());
        if let Some((_, text)) = self.audit.append(line) {
            self.feed.send(text.into());
        }
    }

    fn host_starts(&mut self) {
        let kernel = nix::sys::utsname::uname()
            .map_or_else(|_| String::new(), |name| name.release().to_string_lossy().into_owned());
        let host = crate::audit::Host {
            version: env!("CARGO_PKG_VERSION"),
            schema: crate::audit::SCHEMA,
            kernel,
            backend: "ebpf",
            degraded: Vec::new(),
        };
        self.note(|lines, clock| lines.host(host, clock));
    }

    /// Tells a person what goes on.
    pub(super) fn say(&self, text: &str) {
        eprintln!("agent-loop: {}", redact::said(text));
    }

    /// Tells a person what went wrong and is gone on without.
    pub(super) fn trouble(&self, text: &str) {
        eprintln!("agent-loop: warning: {}", redact::said(text));
    }

    /// Hands a line of the daemon's own to whoever follows the events.
    pub(super) fn tell(&self, line: &serde_json::Value) {
        self.feed.send(Arc::from(line.to_string()));
    }
}

/// Opens the audit log of the host; what is to be told of it beside. One that is not as it was left ends the start, one
/// that cannot be written now does not: agents may live, and are supervised without it.
fn open_audit(
    state: &StateDir,
    log: &LogDir,
    settings: &Settings,
    boot_id: &str,
) -> Result<(AuditLog, Vec<String>), OpenError> {
    let place = Place { audit: log.path().join("audit"), keys: state.path().join("audit-key") };
    match AuditLog::open(&place, settings.clone(), boot_id) {
        Ok((audit, opened)) => {
            let torn = opened.torn.map(|torn| {
                let path = torn.path.display();
                format!("the last line of the audit log was torn; its {} bytes are in {path}, and declared", torn.bytes)
            });
            Ok((audit, torn.into_iter().collect()))
        }
        Err(error @ (OpenError::Failed { .. } | OpenError::Store(crate::store::StoreError::Failed { .. }))) => {
            let why = error.to_string();
            let told = format!("{why}; until the next start of agent-loop nothing is kept in the audit log");
            Ok((AuditLog::nowhere(&place, settings.clone(), boot_id, why), vec![told]))
        }
        Err(error) => Err(error),
    }
}

/// Now, on all three clocks.
pub(super) fn now() -> Now {
    let both = clock::both();
    Now { boot: both.boot, awake: clock::awake(), unix_ns: i64::try_from(both.real_ns).unwrap_or(0) }
}

fn unix_ns() -> i64 {
    i64::try_from(clock::both().real_ns).unwrap_or(0)
}

/// Waits for records of the kernel.
async fn records(tracing: &mut Tracing, more: bool) {
    if more {
        tokio::task::yield_now().await;
    } else if tracing.rings.readable().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Adds what only a look at the live process can tell: its working directory.
fn enrich(event: Event, tracing: &Tracing) -> Event {
    let Event::Execed(mut exec) = event else { return event };
    exec.cwd = tracing.live.cwd_of(exec.key);
    Event::Execed(exec)
}

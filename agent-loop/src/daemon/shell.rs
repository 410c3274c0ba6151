//! The loop of the daemon: one source wakes it, its events go through the fleet, the fleet's actions are performed.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::sync::mpsc;

use super::Setup;
use super::answers::{self, Accepted, Questions};
use super::feed::Feed;
use super::keeper::{Heard, Keeper};
use super::look_up::LookUp;
use super::records::records;
use super::remember::{Beside, Files, Remember};
use super::run_log::RunLog;
use super::sources::{Sources, Wake};
use super::tree::Root;
use crate::audit::log::AuditLog;
use crate::audit::{Line, OwnLines};
use crate::clock;
use crate::config::Config;
use crate::control::api::{Answer, Problem, Question};
use crate::keeper::cgroup::OwnCgroup;
use crate::kernel::Tracing;
use crate::kernel::pins::Claim;
use crate::kernel::trial::Trial;
use crate::model::{BootNs, RunTag};
use crate::run::{RunId, RunName, Submission};
use crate::say::{self, About};
use crate::store::Lock;
use crate::supervise::fleet::{Fleet, FleetEvent, Now};

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
    /// `reload` reads the configuration again, at SIGHUP; `ready` says that we are ready, once the kernel side has told of
    /// a life.
    ///
    /// # Errors
    /// When the kernel side turns out to tell nothing, or saying that we are ready fails; what else fails is told, and
    /// gone on without.
    pub async fn run(
        mut self,
        questions: mpsc::Receiver<Question>,
        reload: impl FnMut() -> anyhow::Result<Config>,
        ready: impl FnOnce() -> anyhow::Result<()> + 'static,
    ) -> anyhow::Result<()> {
        self.daemon.ready = Some(Box::new(ready));
        self.daemon.tell_ready()?;
        self.daemon.serve(self.sources, questions, reload).await
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
    pub(super) files: Beside<Files>,
    /// Where the output of runs is.
    pub(super) outputs: PathBuf,
    /// The launches that wait for what is beside the loop: since when, and for what.
    pub(super) launching: BTreeMap<RunName, (BootNs, &'static str)>,
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
    /// Runs that are to be launched and wait for their intents to be durable: how many lines have to be.
    pub(super) intents: BTreeMap<RunId, u64>,
    /// Runs that are born and wait for their births to be durable: how many lines have to be.
    pub(super) frozen: BTreeMap<RunId, u64>,
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
    /// The trial whose records are awaited.
    pub(super) trial: Option<Trial>,
    /// Why no life was told by the kernel side yet, if so: then nothing is launched.
    pub(super) unseen: Option<String>,
    /// Says that we are ready, which is said once.
    pub(super) ready: Option<Box<dyn FnOnce() -> anyhow::Result<()>>>,
    /// Whether stock was taken, so that every record that is read has its run.
    pub(super) serves: bool,
    pub(super) questions: Option<Questions>,
    /// Questions that came in the middle of something else.
    pub(super) deferred: VecDeque<Question>,
    /// Who waits for a run to be remembered, and so to be accepted.
    pub(super) accepting: HashMap<RunId, Accepted>,
    /// What is answered once all that is to be remembered until now is durable.
    pub(super) acknowledged: Vec<(RunId, super::within::Reply, Result<Answer, Problem>)>,
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
    /// The loop.
    async fn serve(
        &mut self,
        mut sources: Sources,
        questions: mpsc::Receiver<Question>,
        mut reload: impl FnMut() -> anyhow::Result<Config>,
    ) -> anyhow::Result<()> {
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
                self.stop();
                return Ok(());
            }
            if let Some(question) = self.deferred.pop_front() {
                self.answer(question);
                continue;
            }
            let busy = !self.keeper.is_up()
                || !self.discards.is_empty()
                || self.is_behind()
                || !self.unproven.is_empty()
                || !self.frozen.is_empty()
                || !self.unread.is_empty()
                || self.unseen.is_some()
                || !self.launching.is_empty();
            tokio::select! {
                biased;
                wake = sources.next() => match wake {
                    Wake::Stop => {
                        self.stop();
                        return Ok(());
                    }
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
                Some(then) = self.files.answered.recv() => then(self),
                Some(found) = self.accounts.found.recv() => self.looked_up(found).await,
                _ = again.tick(), if busy => self.again().await?,
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
        self.intents.retain(|id, _| self.fleet.record(*id).is_some());
        for (id, reply, answer) in std::mem::take(&mut self.acknowledged) {
            // What was asked of the store before is done by then.
            self.store.ask(
                |_| (),
                move |daemon, ()| {
                    let unsaved = daemon.unsaved.get(&id).map(|why| {
                        Problem::Unavailable(format!("it is being stopped, which a restart would forget: {why}"))
                    });
                    drop(reply.send(unsaved.map_or(answer, Err)));
                },
            );
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
        if self.serves
            && let Some(retention) = self.audit.closed()
        {
            let runs: Vec<_> = self.runs.keys().copied().collect();
            self.files.ask(
                move |_| retention.look(&runs),
                |daemon, leaving| {
                    daemon.audit.retire(leaving.as_deref().unwrap_or_default());
                    if let Err(error) = leaving {
                        daemon.trouble(&format!("removing old segments of the audit log: {error}"));
                    }
                },
            );
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

    /// Tells a person what goes on.
    pub(super) fn say(&self, text: &str) {
        say::info(About::Itself, text);
    }

    /// Tells a person what went wrong and is gone on without.
    pub(super) fn trouble(&self, text: &str) {
        say::warning(About::Itself, text);
    }

    /// Tells a person what went wrong with a run, which is gone on without.
    pub(super) fn trouble_of(&self, id: RunId, text: &str) {
        say::warning(About::Run(id), &format!("run {id}: {text}"));
    }

    /// Hands a line of the daemon's own to whoever follows the events.
    pub(super) fn tell(&self, line: &serde_json::Value) {
        self.feed.send(Arc::from(line.to_string()));
    }
}

/// Now, on all three clocks.
pub(super) fn now() -> Now {
    let both = clock::both();
    Now { boot: both.boot, awake: clock::awake(), unix_ns: i64::try_from(both.real_ns).unwrap_or(0) }
}

pub(super) fn unix_ns() -> i64 {
    i64::try_from(clock::both().real_ns).unwrap_or(0)
}

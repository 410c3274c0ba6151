//! Performs what the fleet asks for: the one place where the daemon has an effect.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

use super::keeper::{done, process, signal_result};
use super::look_up::Account;
use super::run_log::RunLog;
use super::shell::{Daemon, Discard, Watched};
use super::{spec, tree};
use crate::audit::Stats;
use crate::clock;
use crate::config::OnFull;
use crate::event::{Action, Event, Fact, LaunchFailure, Launched, Signalled, Tree};
use crate::fault::{self, Role};
use crate::keeper::process::protocol::{Descriptors, Reply, Request};
use crate::keeper::tree::is_gone;
use crate::model::{Live, RunTag, StopReason, Totals};
use crate::run::{RunId, RunName, RunOutcome, RunRecord, Stage, Submission};
use crate::say::{self, About};
use crate::store::{RunFiles, Store as _};
use crate::supervise::fleet::{FleetAction, FleetEvent, StepFailed};

/// How long a launch waits for its own records to be durable: without them nothing is launched.
const LAUNCH_WITHIN: Duration = Duration::from_millis(500);

/// How long a stop, or an end, waits for its records to be durable: then it goes on without (I19).
const STOP_WITHIN: Duration = Duration::from_millis(250);

impl Daemon {
    /// Tells all facts of a list of actions, and makes them durable once before the first that signals; what is left to do.
    pub(super) fn told(&mut self, actions: Vec<FleetAction>) -> Vec<FleetAction> {
        let (facts, acts): (Vec<FleetAction>, Vec<FleetAction>) =
            actions.into_iter().partition(|action| matches!(action, FleetAction::Of(_, Action::Log(_))));
        for fact in facts {
            fault::step(Role::Daemon);
            if let FleetAction::Of(id, Action::Log(fact)) = fact {
                self.log_fact(id, &fact);
            }
        }
        let signals = |action: &FleetAction| {
            matches!(
                action,
                FleetAction::Of(_, Action::Signal { .. } | Action::SignalMember { .. } | Action::KillCgroup)
            )
        };
        if acts.iter().any(signals) {
            // Kept and written later where it cannot be now.
            self.audit.durable(STOP_WITHIN);
        }
        acts
    }

    fn log_fact(&mut self, id: RunId, fact: &Fact) {
        let Some(watched) = self.runs.get_mut(&id) else { return };
        if let Some(told) = watched.log.fact(&mut self.audit, fact) {
            self.trouble_of(id, &format!("{told}; it is awaited"));
        }
        let Some(watched) = self.runs.get(&id) else { return };
        if matches!(fact, Fact::RunExit(_)) && !watched.log.is_ended() {
            self.draw_the_sum(id);
        }
    }

    /// Records that a run is about to be launched, durably; without that nothing is (I19).
    fn intend(&mut self, record: &RunRecord) -> Result<(), String> {
        let progress = self.audit.progress();
        let stops = self.setup.config.audit.on_full == OnFull::StopLaunching;
        let full = (progress.full && stops).then(|| "its disk is full".to_owned());
        if let Some(why) = progress.failing.or(full) {
            return Err(format!("the audit log cannot be written: {why}; nothing is launched without it"));
        }
        self.watch(record);
        let Some(watched) = self.runs.get_mut(&record.id) else { return Ok(()) };
        // Said once: where the disk took longer than it was waited for, it is durable at the next try.
        if !self.intents.contains_key(&record.id) {
            watched.log.write(&mut self.audit, |log, now| log.intent(now));
            // Where the log has no room it is said again.
            if self.audit.refused() == 0 {
                self.intents.insert(record.id, self.audit.next());
            }
        }
        let next = self.intents.get(&record.id).copied().unwrap_or(u64::MAX);
        if next <= self.audit.progress().durable
            || self.audit.durable(LAUNCH_WITHIN)
            || next <= self.audit.progress().durable
        {
            self.intents.remove(&record.id);
            return Ok(());
        }
        let why = self.audit.progress().failing.unwrap_or_else(|| "its disk does not answer".to_owned());
        Err(format!("the audit log cannot be written: {why}; nothing is launched without it"))
    }

    pub(super) async fn perform(&mut self, action: FleetAction) {
        fault::step(Role::Daemon);
        match action {
            FleetAction::Save(record) => self.save(&record),
            FleetAction::Prepare(name) => {
                let result = self.prepare(name).await;
                self.queue.push_back(FleetEvent::Prepared { id: name.id, result });
            }
            FleetAction::Launch(name) => match self.record(name) {
                Ok(record) => self.gather(name, record.submission.user),
                Err(failed) => self.queue.push_back(FleetEvent::Launched { id: name.id, result: Err(failed) }),
            },
            FleetAction::Of(id, action) => self.perform_of(id, action).await,
            FleetAction::Remove(name) => match self.remove_cgroup(name).await {
                Ok(()) => self.remove_pipes(name.id),
                Err(why) => self.queue.push_back(FleetEvent::Removed { id: name.id, result: Err(why) }),
            },
            FleetAction::LookAtOutput(name) => {
                // Without an answer it is asked again, and a run that nobody can tell to be silent is not stopped for it.
                let _ = self.ask(Request::Look { run: name.to_string() }, &[]).await;
            }
            FleetAction::WakeAt(at) => self.wake = Some(at),
        }
        fault::step(Role::Daemon);
    }

    fn save(&mut self, record: &RunRecord) {
        // What its log says comes first: a run that is remembered as over has its last line.
        let intended = match &record.stage {
            Stage::Intended(None) => self.intend(record),
            Stage::Ended(_) => {
                self.audit.durable(STOP_WITHIN);
                Ok(())
            }
            // Its intent stands already; what is saved is that it is to be stopped.
            Stage::Intended(Some(_)) | Stage::Queued | Stage::Born(_) => Ok(()),
        };
        self.flush();
        fault::step(Role::Daemon);
        match intended {
            Err(why) => self.saved(record, Err(why)),
            Ok(()) => {
                let written = record.clone();
                self.store.ask(
                    move |store| (store.save(&written).map_err(|error| error.to_string()), written),
                    |daemon, (result, written)| daemon.saved(&written, result),
                );
            }
        }
    }

    /// Takes what became of a run that was to be remembered.
    fn saved(&mut self, record: &RunRecord, result: Result<(), String>) {
        fault::step(Role::Daemon);
        match &result {
            Ok(()) => drop(self.unsaved.remove(&record.id)),
            Err(why) => {
                // Told once, not at every try.
                if self.unsaved.insert(record.id, why.clone()).is_none() {
                    self.trouble_of(record.id, &format!("remembering it: {why}"));
                }
            }
        }
        if matches!(record.stage, Stage::Born(_) | Stage::Ended(_)) {
            self.withheld.remove(&record.id);
        }
        if let (Ok(()), Stage::Ended(end)) = (&result, &record.stage) {
            if end.outcome == RunOutcome::LostToReboot {
                // Nothing else of it is left to be removed.
                let id = record.id;
                self.files.order(move |files| drop(RunFiles::remove_pipes(&files.state, id)));
            }
            say::info(About::Run(record.id), &format!("run {} is over: {}", record.id, super::views::sentence(end)));
            self.tell_the_end(record);
        }
        let failed = result.as_ref().err().cloned();
        self.queue.push_back(FleetEvent::Saved { id: record.id, result });
        self.accepted(record.id, failed);
    }

    /// The log of a run, opened if it is not yet.
    pub(super) fn watch(&mut self, record: &RunRecord) {
        if !self.runs.contains_key(&record.id) {
            let log = RunLog::new(record, &self.boot_id, self.feed.clone());
            let watched = Watched {
                log,
                cgroup: None,
                unopened: false,
                tag: None,
                output: 0,
                output_before: 0,
                output_failed: false,
            };
            self.runs.insert(record.id, watched);
        }
    }

    async fn prepare(&mut self, name: RunName) -> Result<Totals, StepFailed> {
        let record = self.record(name)?;
        self.whole(&record)?;
        let limits = spec::cgroup_limits(&record.submission.limits);
        self.watch(&record);
        let request = Request::Prepare { run: name.to_string(), limits };
        let (cgroup, path, missing) = match self.ask(request, &[]).await.map(|answered| answered.reply) {
            Ok(Reply::Prepared { cgroup, path, missing, .. }) => (RunTag(cgroup), path, missing),
            Ok(Reply::Refused { why, .. }) => return Err(refused("making its cgroup", why)),
            Ok(other) => return Err(refused("making its cgroup", format!("the keeper answers with {other:?}"))),
            Err(_) => return Err(StepFailed::Unsure),
        };
        if let Some(missing) = missing.first() {
            let why = format!("{}: {}; leave the limit out, or enable the controller", missing.file, missing.why);
            return Err(refused("setting its limits", why));
        }
        let own = match self.root.as_ref().map(|root| root.cgroup(name, cgroup)) {
            Some(Ok(own)) => own,
            // The keeper made it: in a place that is another one than was opened, or there only now.
            Some(Err(_)) | None => {
                self.open_root().map_err(|error| refused("opening the place for runs", format!("{error:#}")))?;
                let root = self.root.as_ref().ok_or_else(|| refused("opening its cgroup", "the place is not there"))?;
                root.cgroup(name, cgroup).map_err(|error| refused("opening its cgroup", error))?
            }
        };
        self.tracing.runs.insert(cgroup).map_err(|error| refused("entering it into the kernel's run table", error))?;
        let baseline = self.totals(cgroup).map_err(|error| refused("reading the kernel's counters", error))?;
        self.tags.insert(cgroup, name.id);
        if let Some(watched) = self.runs.get_mut(&name.id) {
            watched.log.set_cgroup(cgroup.0, path);
            watched.cgroup = Some(own);
            watched.tag = Some(cgroup);
        }
        Ok(baseline)
    }

    /// A submission with what is secret in it.
    fn whole<'a>(&'a self, record: &'a RunRecord) -> Result<&'a Submission, StepFailed> {
        if !record.submission.withheld {
            return Ok(&record.submission);
        }
        let why = "secrets of its command line or environment are kept on no disk, and the daemon that knew them has \
                   ended; submit it again, or hand a secret over by a file that the agent reads";
        self.withheld.get(&record.id).ok_or_else(|| refused("launching it", why))
    }

    /// Has the main process of a run born.
    pub(super) async fn launch(
        &mut self,
        name: RunName,
        account: &Account,
        files: RunFiles,
    ) -> Result<Launched, StepFailed> {
        let record = self.record(name)?;
        let tag = self.runs.get(&name.id).and_then(|watched| watched.tag);
        let tag = tag.ok_or_else(|| refused("launching it", "it has no cgroup"))?;
        let whole = self.whole(&record)?;
        let spec = spec::launch(whole, &self.setup.config.agent, account);
        let stdin = whole.stdin.clone();
        let spec = spec::sealed(&spec).map_err(|error| refused("preparing its launch", format!("{error:#}")))?;
        let stdin = match stdin {
            Some(path) => Some(open_input(&path).map_err(|error| refused("opening its standard input", error))?),
            None => None,
        };
        let fds = Descriptors { stdin: stdin.is_some(), writers: true, drains: true };
        let request =
            Request::Launch { run: name.to_string(), fds, output_bytes: record.submission.limits.output_bytes };
        let mut send: Vec<BorrowedFd<'_>> = vec![spec.as_fd()];
        send.extend(stdin.iter().map(|fd| fd.as_fd()));
        send.extend(files.writers.iter().map(|fd| fd.as_fd()));
        send.extend(files.drains.iter().flat_map(|(pipe, file)| [pipe.as_fd(), file.as_fd()]));
        let answer = self.ask(request, &send).await.map(|answered| answered.reply);
        let RunFiles { drains: [(out, _), (err, _)], .. } = files;
        self.pipes.insert(name.id, [out, err]);
        let (pid, ino) = match answer {
            Ok(Reply::Born { pid, ino }) => (pid, ino.map(crate::model::PidfsIno)),
            Ok(Reply::Refused { why, .. }) => return Err(refused("bearing its process", why)),
            Ok(other) => return Err(refused("bearing its process", format!("the keeper answers with {other:?}"))),
            Err(_) => return Err(StepFailed::Unsure),
        };
        // The fork hook ran before clone3 returned: the birth is in the live set, or eBPF does not work.
        let live = self.tracing.live.lookup(pid).map_err(|error| refused("reading the live set", error))?;
        let live = live.filter(|live| live.run == tag && (ino.is_none() || live.ino == ino));
        let key = live.ok_or_else(|| refused("finding its birth", "the kernel's live set does not hold it"))?.key;
        // Its own record is read before its birth is remembered: whoever goes on with the run relies on that.
        self.drain_all();
        Ok(Launched { key, ino, run: tag, at: clock::boot(), traced: true })
    }

    /// Lets those run whose births have become durable meanwhile, and who are not being stopped.
    pub(super) async fn thaw_again(&mut self) {
        let durable = self.audit.progress().durable;
        let ready: Vec<RunId> = self.frozen.iter().filter(|(_, next)| **next <= durable).map(|(id, _)| *id).collect();
        for id in ready {
            self.frozen.remove(&id);
            if let Some(record) =
                self.fleet.record(id).filter(|_| matches!(self.fleet.state(id), Some("launching" | "running")))
            {
                self.thaw(id, record.name()).await;
            }
        }
        self.frozen.retain(|id, _| self.fleet.record(*id).is_some());
    }

    async fn thaw(&mut self, id: RunId, name: RunName) {
        let answer = self.ask(Request::Thaw { run: name.to_string() }, &[]).await;
        // Asked again after a crash or a lost keeper, it may find that the process has come and gone.
        let gone = self.fleet.record(id).is_some_and(|record| match &record.stage {
            Stage::Born(born) => is_gone(born.main, born.ino, true),
            Stage::Queued | Stage::Intended(_) | Stage::Ended(_) => false,
        });
        if let Err(why) = done(answer)
            && !gone
            && self.keeper.is_up()
            // Refused since the keeper has not proven it; what runs is not stopped for that.
            && !self.unproven.contains_key(&id)
        {
            self.trouble_of(id, &format!("letting it run: {why}"));
            self.of(id, Event::StopRequested(StopReason::Internal));
        }
    }

    async fn perform_of(&mut self, id: RunId, action: Action) {
        let Some(name) = self.fleet.record(id).map(RunRecord::name) else { return };
        match action {
            Action::Log(fact) => self.log_fact(id, &fact),
            // No instruction of it runs before its birth is durable in the log as well (I6).
            Action::Thaw if !self.audit.durable(LAUNCH_WITHIN) => {
                if self.audit.refused() > 0 {
                    self.trouble_of(id, "its birth cannot be recorded; it is not let run");
                    return self.of(id, Event::StopRequested(StopReason::Internal));
                }
                // It is no fault of the run that the disk is busy, and after a crash it may run since long.
                self.trouble_of(id, "its birth is not recorded yet; it is let run once it is");
                self.frozen.insert(id, self.audit.next());
            }
            Action::Thaw => self.thaw(id, name).await,
            Action::ReadCounters => self.read_counters(id),
            Action::ReadLiveSet => self.read_live_set(id),
            Action::Signal { key, ino, signal } => {
                let request = Request::Signal { run: name.to_string(), to: process(key, ino), signal };
                let result = signal_result(self.ask(request, &[]).await);
                self.of(id, Event::Signalled(Signalled { pid: key.tgid, key: Some(key), signal, result }));
            }
            Action::SignalMember { pid, signal } => {
                // For the record: who it is was known before the signal, or is not known.
                let key = self.fleet.core(id).and_then(|core| core.tracker().registry().by_tgid(pid)).map(|it| it.key);
                let request = Request::SignalMember { run: name.to_string(), pid, signal };
                let result = signal_result(self.ask(request, &[]).await);
                self.of(id, Event::Signalled(Signalled { pid, key, signal, result }));
            }
            Action::Verify { key, ino } => {
                let gone = is_gone(key, ino, true);
                self.of(id, Event::Verified { key, gone });
            }
            Action::FreezeTree => {
                let frozen = done(self.ask(Request::Freeze { run: name.to_string() }, &[]).await);
                if let Err(why) = frozen {
                    self.trouble_of(id, &format!("freezing its tree to kill it: {why}"));
                }
            }
            // Nobody is in it any more, and a frozen cgroup is removed like any other.
            Action::ThawTree => {}
            Action::KillCgroup => {
                let result = done(self.ask(Request::Kill { run: name.to_string() }, &[]).await);
                self.of(id, Event::CgroupKilled(result));
            }
            Action::InspectTree => {
                // Read while the cgroup is there: once the tree is empty it is removed.
                let kills = self.runs.get(&id).and_then(|watched| watched.cgroup.as_ref()?.oom_kills());
                if let Some(kills) = kills {
                    self.queue.push_back(FleetEvent::OomKills { id, kills });
                }
                let tree = self.inspect(id);
                self.of(id, Event::Tree(tree));
            }
            // The keeper tries again by itself, and says so once it has an answer.
            Action::WaitMain => {}
            // Taken by the fleet.
            Action::WakeAt(_) | Action::Finish(_) => {}
        }
    }

    /// The sum that an auditor checks, as the last line of a run.
    fn draw_the_sum(&mut self, id: RunId) {
        let Some(tag) = self.runs.get(&id).and_then(|watched| watched.tag) else { return };
        let (Ok(totals), Some(accounts)) = (self.totals(tag), self.fleet.accounts(id)) else { return };
        let stats = Stats::new(&totals, accounts);
        if let Some(watched) = self.runs.get_mut(&id) {
            watched.log.write(&mut self.audit, |recorder, clock| recorder.stats(stats, clock));
        }
    }

    fn of(&mut self, id: RunId, event: Event) {
        self.queue.push_back(FleetEvent::Of(id, event));
    }

    fn inspect(&mut self, id: RunId) -> Tree {
        if let Err(error) = self.open_again(id) {
            return Tree::Unknown(format!("opening its cgroup: {error}"));
        }
        let Some(watched) = self.runs.get(&id) else { return Tree::Unknown("the run is not watched".to_owned()) };
        self.live_of(watched.tag)
            .and_then(|live| tree::inspect(watched.cgroup.as_ref(), &live))
            .unwrap_or_else(|error| Tree::Unknown(error.to_string()))
    }

    /// Opens the cgroup of a run where that failed before.
    fn open_again(&mut self, id: RunId) -> std::io::Result<()> {
        let Some(watched) = self.runs.get_mut(&id).filter(|watched| watched.unopened) else { return Ok(()) };
        let (Some(root), Some(tag), Some(record)) = (&self.root, watched.tag, self.fleet.record(id)) else {
            return Err(std::io::Error::other("the place of the runs is not open"));
        };
        watched.cgroup = root.present(record.name(), tag)?;
        watched.unopened = false;
        Ok(())
    }

    /// The live, tracked processes of a run.
    pub(super) fn live_of(&self, tag: Option<RunTag>) -> std::io::Result<Vec<Live>> {
        let mut live = self.tracing.live.all()?;
        live.retain(|live| Some(live.run) == tag);
        Ok(live)
    }

    fn read_counters(&mut self, id: RunId) {
        self.drain_all();
        let Some(tag) = self.runs.get(&id).and_then(|watched| watched.tag) else { return };
        match self.totals(tag) {
            Ok(totals) => self.of(id, Event::Counted(totals)),
            // Asked again by the next round: a loss is then found later, never missed.
            Err(error) => self.trouble_of(id, &format!("reading the kernel's counters: {error}")),
        }
    }

    fn read_live_set(&mut self, id: RunId) {
        // What is in the set was recorded before it was read: the records come first.
        self.drain_all();
        match self.live_of(self.runs.get(&id).and_then(|watched| watched.tag)) {
            Ok(live) => self.of(id, Event::LiveSet(live)),
            Err(error) => {
                self.trouble_of(id, &format!("reading the live set: {error}"));
                self.of(id, Event::LiveSetUnread);
            }
        }
    }

    /// The kernel's counters of one run.
    ///
    /// # Errors
    /// When they cannot be read, or the run is not in the kernel's run table.
    pub(super) fn totals(&self, run: RunTag) -> std::io::Result<Totals> {
        let totals = self.tracing.runs.totals(run, &self.tracing.counters)?;
        totals.ok_or_else(|| std::io::Error::other("the run is not in the kernel's run table"))
    }

    /// How the main process of a run ended, by the kernel's run table.
    pub(super) fn recorded_exit(&self, run: RunTag) -> Option<crate::model::WaitStatus> {
        let run = self.tracing.runs.get(run).ok().flatten()?;
        run.exit.and_then(|(status, _)| status)
    }

    /// Removes the cgroup of a run that is over.
    async fn remove_cgroup(&mut self, name: RunName) -> Result<(), String> {
        let tag = self.runs.get(&name.id).and_then(|watched| watched.tag);
        let there = match &self.root {
            Some(root) => root.id(name).map_err(|error| error.to_string())?,
            None => None,
        };
        if let Some(cgroup) = there.filter(|there| tag.is_none_or(|tag| tag == *there)) {
            self.discard(&Discard { name, cgroup }).await?;
        }
        if let Some(tag) = tag {
            self.tags.remove(&tag);
            self.forget_run(tag);
        }
        Ok(())
    }

    /// Removes the pipes of a run that is over, beside the loop, and forgets it.
    fn remove_pipes(&mut self, id: RunId) {
        self.files.ask(
            move |files| RunFiles::remove_pipes(&files.state, id).map_err(|error| error.to_string()),
            move |daemon, result| {
                if result.is_ok() {
                    daemon.pipes.remove(&id);
                    daemon.unread.remove(&id);
                    daemon.runs.remove(&id);
                }
                daemon.queue.push_back(FleetEvent::Removed { id, result });
            },
        );
    }

    /// Takes a run out of the kernel's tables; one that is not there is none.
    pub(super) fn forget_run(&mut self, tag: RunTag) {
        let _ = self.tracing.runs.remove(tag);
    }

    fn record(&self, name: RunName) -> Result<RunRecord, StepFailed> {
        let record = self.fleet.record(name.id).filter(|record| record.name() == name);
        record.cloned().ok_or_else(|| refused("launching it", "it is not known"))
    }
}

fn refused(step: &str, why: impl std::fmt::Display) -> StepFailed {
    StepFailed::Refused(LaunchFailure { step: format!("{step}: {why}"), errno: None })
}

/// Opens what an agent reads, without waiting for the other end of a pipe.
///
/// It is opened with our rights, and long after it was named: a link on the way, in a directory that an agent may
/// write to, would hand it whatever file it likes.
fn open_input(path: &std::path::Path) -> std::io::Result<OwnedFd> {
    use nix::errno::Errno;
    use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    let fd = openat2(nix::fcntl::AT_FDCWD, path, how).map_err(|errno| {
        if errno != Errno::ELOOP {
            return errno.into();
        }
        std::io::Error::other(format!(
            "{0} goes through a symbolic link, which is not followed; name the file itself: `readlink -f {0}`",
            path.display()
        ))
    })?;
    nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_SETFL(OFlag::empty()))?;
    Ok(fd)
}

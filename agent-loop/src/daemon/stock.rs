//! Taking stock: what earlier daemons and keepers left is found, and each of it goes on, is ended or is discarded.
//!
//! Done at the start, and again whenever a keeper was lost and one is there again. The decisions are
//! [`crate::supervise::fleet::plan`]'s; nothing is signalled but through the keeper, which proves it.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd as _;

use anyhow::Context as _;

use super::Setup;
use super::keeper::{done, process, signal_result};
use super::run_log::RunLog;
use super::shell::{Daemon, Discard, Watched, now};
use super::tree::Root;
use crate::event::{Launched, SignalResult};
use crate::keeper::process::protocol::{Descriptors, Held, Reply, Request};
use crate::kernel::pins::{self, Found};
use crate::kernel::{self, RunsBy, Tracing};
use crate::model::RunTag;
use crate::run::{Born, RunId, RunName, RunRecord, Stage};
use crate::store::{Reopened, RunFiles, Store as _};
use crate::supervise::Core;
use crate::supervise::fleet::{Findings, FleetEvent, HeldRun, Step, plan, settings_of};
use crate::track::Restored;

/// The kernel side: the one that an earlier daemon left running, else a new one.
pub(super) fn tracing(setup: &Setup) -> anyhow::Result<(Tracing, Found)> {
    let kernel = &setup.config.kernel;
    let options = kernel::Options {
        // Runs are made directly below the root.
        runs: setup.root_level.map_or(RunsBy::Exact, |level| RunsBy::Level(level + 1)),
        events_bytes: kernel.ring_bytes,
        execs_bytes: kernel.execs_ring_bytes,
        live_entries: kernel.live_entries,
        watch: kernel.watch.iter().cloned().zip(0..).collect(),
        ..kernel::Options::default()
    };
    pins::open_or_load(&setup.config.host.pins, &options)
        .context("bringing up eBPF, without which `serve` knows no process; `agent-loop doctor` shows what mends it")
}

impl Daemon {
    /// The first stock: all that the store remembers, the keeper holds and the root of the runs shows.
    pub(super) async fn first_stock(&mut self) -> anyhow::Result<()> {
        let records = self.store.open_runs()?;
        for id in RunFiles::with_pipes(&self.state)? {
            if !records.iter().any(|record| record.id == id) {
                RunFiles::remove_pipes(&self.state, id)?;
            }
        }
        let held = match self.keeper.connect(&self.boot_id).await {
            Ok(held) => held,
            Err(error) => {
                self.trouble(&format!("no keeper: {error:#}; nothing is launched or stopped until there is one"));
                Vec::new()
            }
        };
        self.take_stock(records, held, true).await?;
        Ok(())
    }

    /// A stock taken again, once a lost keeper is back or another one has come.
    pub(super) async fn next_stock(&mut self) {
        let Ok(held) = self.keeper.connect(&self.boot_id).await else { return };
        let records = self.fleet.records().cloned().collect();
        if let Err(error) = self.take_stock(records, held, false).await {
            self.trouble(&format!("taking stock: {error:#}"));
        }
    }

    async fn take_stock(&mut self, records: Vec<RunRecord>, held: Vec<Held>, first: bool) -> anyhow::Result<()> {
        self.root = match Root::open(&self.setup.cgroup_root) {
            Ok(root) => Some(root),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => None,
            Err(error) => {
                return Err(error).with_context(|| format!("opening {}", self.setup.cgroup_root.display()));
            }
        };
        let by_name: BTreeMap<RunName, Held> =
            held.into_iter().filter_map(|held| Some((held.run.parse().ok()?, held))).collect();
        let cgroups = match &self.root {
            Some(root) => root.runs().context("listing the cgroups of runs")?.into_iter().collect(),
            None => BTreeMap::new(),
        };
        let findings = Findings {
            ended: self.ended(&by_name, &cgroups)?,
            held: by_name
                .iter()
                .map(|(name, held)| (*name, HeldRun { cgroup: RunTag(held.cgroup), thawed: held.thawed }))
                .collect(),
            boot_id: self.boot_id.clone(),
            records,
            cgroups,
        };
        let mut going_on = Vec::new();
        for step in plan(&findings) {
            match step {
                Step::Discard { name, cgroup, held: _, why } => {
                    self.say(&format!("discarding {name}: {}", why.text()));
                    self.discards.push(Discard { name, cgroup });
                }
                Step::Queue(record) | Step::Again(record) if first => {
                    self.queue.push_back(FleetEvent::Requeued(record));
                }
                Step::Queue(_) => {}
                Step::Again(record) => {
                    self.forget_attempt(record.id);
                    self.queue.push_back(FleetEvent::Again(record.id));
                }
                Step::End(record, outcome) => self.queue.push_back(FleetEvent::Ended(record, outcome)),
                Step::GoOn { record, held, cgroup } => going_on.push((record, held, cgroup)),
            }
        }
        let total = going_on.len();
        if first {
            self.enter_again(going_on.iter().map(|(record, ..)| record.as_ref()));
        }
        if first {
            self.forget_the_others(&going_on.iter().map(|(record, ..)| record.as_ref()).collect::<Vec<_>>());
        }
        let mut exits = Vec::new();
        for (record, is_held, cgroup) in going_on {
            let held = by_name.get(&record.name()).filter(|_| is_held);
            exits.extend(self.go_on(*record, held, cgroup, first).await);
        }
        // Their records first, then the authority on how each ended.
        self.work().await;
        self.drain_all();
        for (id, status) in exits {
            self.main_exited(id, status);
        }
        self.discard_all().await;
        if self.keeper.is_up() {
            // The keeper makes the root: it may not have been there before.
            self.root = Root::open(&self.setup.cgroup_root).ok();
            self.queue.push_back(FleetEvent::KeeperReady);
        }
        self.work().await;
        let keeper = self.keeper.state().map_or_else(|why| why, |pid| format!("keeper {pid}"));
        self.say(&format!("{total} runs go on, {keeper}"));
        Ok(())
    }

    /// Enters runs into a run table that was loaded after they were born, and finds who lives of them.
    fn enter_again<'a>(&mut self, records: impl Iterator<Item = &'a RunRecord>) {
        let mut entered = false;
        for record in records {
            let Stage::Born(born) = &record.stage else { continue };
            match self.tracing.runs.get(born.cgroup) {
                Ok(Some(_)) => continue,
                Ok(None) => {}
                Err(error) => self.trouble(&format!("run {}: reading the kernel's run table: {error}", record.id)),
            }
            entered = true;
            self.fresh.insert(record.id);
            if let Err(error) = self.tracing.runs.insert_born(born.cgroup, born.main) {
                self.trouble(&format!("run {}: entering it into the kernel's run table: {error}", record.id));
            }
        }
        if entered && let Err(error) = self.tracing.probes.snapshot() {
            self.trouble(&format!("looking for the processes of runs that go on: {error:#}"));
        }
    }

    /// Takes runs out of the run table that no daemon goes on with: entered by one that did not live to remember them.
    fn forget_the_others(&mut self, going_on: &[&RunRecord]) {
        let ours: BTreeSet<RunTag> = going_on
            .iter()
            .filter_map(|record| match &record.stage {
                Stage::Born(born) => Some(born.cgroup),
                Stage::Queued | Stage::Intended | Stage::Ended(_) => None,
            })
            .collect();
        // What is still to be discarded is forgotten once it is gone.
        let discarded: BTreeSet<RunTag> = self.discards.iter().map(|discard| discard.cgroup).collect();
        match self.tracing.runs.all() {
            Ok(runs) => {
                for (tag, _) in runs {
                    if !ours.contains(&tag) && !discarded.contains(&tag) {
                        self.forget_run(tag);
                    }
                }
            }
            Err(error) => self.trouble(&format!("reading the kernel's run table: {error}")),
        }
    }

    /// Those of the found names whose runs are remembered as over.
    fn ended(
        &self,
        held: &BTreeMap<RunName, Held>,
        cgroups: &BTreeMap<RunName, RunTag>,
    ) -> anyhow::Result<Vec<RunName>> {
        let names: BTreeSet<RunName> = held.keys().chain(cgroups.keys()).copied().collect();
        let mut ended = Vec::new();
        for name in names {
            if self.store.run(name.id)?.is_some_and(|record| matches!(record.stage, Stage::Ended(_))) {
                ended.push(name);
            }
        }
        Ok(ended)
    }

    /// Goes on with a run; its main process's end, if that has come, is returned to be told later.
    async fn go_on(
        &mut self,
        record: RunRecord,
        held: Option<&Held>,
        cgroup: bool,
        first: bool,
    ) -> Option<(RunId, Option<i32>)> {
        let id = record.id;
        let Stage::Born(born) = record.stage.clone() else { return None };
        let written = held.is_none().then(|| self.reopen_output(id));
        let exit = match held {
            // Adopted when its main process had gone already, it is held without one: its end is the kernel's to tell.
            Some(held) => held.exited.map(|exit| exit.status).or(held.main.is_none().then_some(None)),
            None => self.adopt(&record, &born, cgroup, written.flatten()).await,
        };
        if first && let Err(error) = self.resume(record, &born, cgroup, exit) {
            self.trouble(&format!("run {id}: going on with it: {error:#}"));
        }
        if let Some(held) = held {
            self.output(&held.output);
            self.started(id, held.start.clone());
        }
        exit.map(|status| (id, status))
    }

    /// Restores the state machine of a run from what its log says.
    fn resume(
        &mut self,
        record: RunRecord,
        born: &Born,
        cgroup: bool,
        exit: Option<Option<i32>>,
    ) -> anyhow::Result<()> {
        let id = record.id;
        let launched = Launched { key: born.main, ino: born.ino, run: born.cgroup, at: born.at, traced: born.traced };
        let mut restored = Restored::new(launched.clone(), born.baseline);
        let (mut log, past, trouble) =
            RunLog::open(&self.log, &record, &self.boot_id, self.feed.clone(), Some(&mut restored))?;
        if let Some(trouble) = trouble {
            self.trouble(&format!("run {id}: {trouble}; what it said is declared lost"));
        }
        let own = match &self.root {
            Some(root) if cgroup => Some(root.cgroup(record.name(), born.cgroup)?),
            Some(_) | None => None,
        };
        log.set_cgroup(born.cgroup.0, self.setup.cgroup_root.join(record.name().to_string()).display().to_string());
        if !past.born {
            log.fact(&crate::event::Fact::RunBorn(launched));
        }
        log.write(|recorder, clock| recorder.adopted("another daemon goes on with it".to_owned(), clock));
        if self.fresh.remove(&id) {
            // The kernel counts anew: the sum begins here, and the time before is declared.
            restored.forget_the_count(self.totals(born.cgroup).unwrap_or_default());
        }
        let mut core = Core::resumed(now().boot, settings_of(&record, born.baseline), &restored);
        if let Some(raw) = exit {
            core.main_had_ended(self.exit_status(born.cgroup, raw));
        }
        self.tags.insert(born.cgroup, id);
        let output = self.written.remove(&id).unwrap_or(0);
        let watched = Watched { log, cgroup: own, tag: Some(born.cgroup), output, output_before: output };
        self.runs.insert(id, watched);
        self.queue.push_back(FleetEvent::Resumed { record: Box::new(record), core: Box::new(core) });
        Ok(())
    }

    /// Opens the output of a run again, for another keeper to go on with.
    fn reopen_output(&mut self, id: RunId) -> Option<Reopened> {
        let output = match RunFiles::reopen(&self.state, &self.log, id) {
            Ok(output) => output,
            Err(error) => {
                self.trouble(&format!("run {id}: going on with its output: {error}"));
                return None;
            }
        };
        let written = output.held.iter().sum();
        match self.runs.get_mut(&id) {
            Some(watched) => (watched.output_before, watched.output) = (written, written),
            None => drop(self.written.insert(id, written)),
        }
        Some(output)
    }

    /// Has the keeper take up a run that another one launched; without a cgroup its tree is gone.
    ///
    /// The end of its main process is returned where it has come.
    async fn adopt(
        &mut self,
        record: &RunRecord,
        born: &Born,
        cgroup: bool,
        output: Option<Reopened>,
    ) -> Option<Option<i32>> {
        if !cgroup {
            return Some(None);
        }
        if !self.keeper.is_up() {
            return None;
        }
        let before = output.as_ref().map_or(0, |output| output.held.iter().sum());
        let request = Request::Adopt {
            run: record.name().to_string(),
            cgroup: born.cgroup.0,
            main: Some(process(born.main, born.ino)),
            fds: Descriptors { drains: output.is_some(), ..Descriptors::default() },
            output_bytes: record.submission.limits.output_bytes.map(|budget| budget.saturating_sub(before)),
        };
        let drains = output.iter().flat_map(|output| &output.drains);
        let fds: Vec<_> = drains.flat_map(|(pipe, file)| [pipe.as_fd(), file.as_fd()]).collect();
        match self.keeper.ask(request, &fds).await.map(|answered| answered.reply) {
            Ok(Reply::Adopted { main_alive: true }) => None,
            Ok(Reply::Adopted { main_alive: false }) => Some(None),
            Ok(other) => {
                self.trouble(&format!("run {}: the keeper does not adopt it: {other:?}", record.id));
                None
            }
            Err(why) => {
                self.trouble(&format!("run {}: having it adopted: {why}", record.id));
                None
            }
        }
    }

    /// Forgets what was prepared for an attempt that came to nothing.
    fn forget_attempt(&mut self, id: RunId) {
        let Some(watched) = self.runs.get_mut(&id) else { return };
        watched.cgroup = None;
        if let Some(tag) = watched.tag.take() {
            self.tags.remove(&tag);
            self.forget_run(tag);
        }
    }

    /// Tries to discard everything that is to be.
    pub(super) async fn discard_all(&mut self) {
        if !self.keeper.is_up() {
            return;
        }
        for discard in std::mem::take(&mut self.discards) {
            match self.discard(&discard).await {
                Ok(()) => {
                    self.forget_run(discard.cgroup);
                    self.tell(&serde_json::json!({ "kind": "host.discarded", "cgroup": discard.name.to_string() }));
                }
                // Told by its own line in status; tried again until it is gone.
                Err(_) => self.discards.push(discard),
            }
        }
    }

    /// Kills and removes a cgroup of the root; the keeper proves that it is this one.
    pub(super) async fn discard(&mut self, discard: &Discard) -> Result<(), String> {
        let run = discard.name.to_string();
        if self.try_remove(&run).await.is_ok() {
            return Ok(());
        }
        let fds = Descriptors::default();
        let adopt = Request::Adopt { run: run.clone(), cgroup: discard.cgroup.0, main: None, fds, output_bytes: None };
        // Refused where it is held already.
        let _ = self.keeper.ask(adopt, &[]).await?;
        let killed = done(self.keeper.ask(Request::Kill { run: run.clone() }, &[]).await);
        for pid in self.members(discard) {
            let request = Request::SignalMember { run: run.clone(), pid, signal: 9 };
            match signal_result(self.keeper.ask(request, &[]).await) {
                SignalResult::Sent(_) | SignalResult::Gone | SignalResult::Refused(_) => {}
            }
        }
        self.try_remove(&run).await.map_err(|why| match killed {
            Ok(()) => why,
            Err(kill) => format!("{kill}; {why}"),
        })
    }

    async fn try_remove(&mut self, run: &str) -> Result<(), String> {
        done(self.keeper.ask(Request::Remove { run: run.to_owned() }, &[]).await)
    }

    fn members(&self, discard: &Discard) -> Vec<u32> {
        let root = self.root.as_ref();
        let cgroup = root.and_then(|root| root.cgroup(discard.name, discard.cgroup).ok());
        cgroup.and_then(|cgroup| cgroup.procs().ok()).map(|procs| procs.pids.into_iter().collect()).unwrap_or_default()
    }
}

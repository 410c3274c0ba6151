//! Taking stock: what earlier daemons and keepers left is found, and each of it goes on, is ended or is discarded.
//!
//! Done at the start, and again whenever a keeper was lost and one is there again. The decisions are
//! [`crate::supervise::fleet::plan`]'s; nothing is signalled but through the keeper, which proves it.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd as _;
use std::path::Path;

use anyhow::Context as _;

use super::Setup;
use super::keeper::{done, process, signal_result};
use super::run_log::RunLog;
use super::shell::{Daemon, Discard, Unproven, Watched, now};
use super::tree::Root;
use crate::audit::Replayed;
use crate::event::{Launched, SignalResult};
use crate::keeper::process::protocol::{Descriptors, Held, Reply, Request};
use crate::keeper::tree::{is_gone, is_populated};
use crate::kernel::pins::{self, Found};
use crate::kernel::{self, LoadError, RunsBy, Tracing};
use crate::model::RunTag;
use crate::run::{Born, RunId, RunName, RunRecord, Stage};
use crate::store::{KEEP_ENDED, Reopened, RunFiles, Store as _, StoreError};
use crate::supervise::Core;
use crate::supervise::fleet::{Findings, FleetEvent, HeldRun, Step, plan, settings_of};
use crate::track::Restored;

/// The right to be the only one that opens or replaces the kernel side.
///
/// # Errors
/// [`StoreError::Busy`] while another daemon has it, whatever state that remembers its runs in.
pub(super) fn claim(setup: &Setup) -> anyhow::Result<pins::Claim> {
    let dir = &setup.config.host.pins;
    let claim = pins::claim(dir).map_err(|error| LoadError::Pins(error.to_string()))?;
    Ok(claim.ok_or_else(|| in_use(dir))?)
}

fn in_use(path: &Path) -> StoreError {
    StoreError::Busy { path: path.to_owned(), pid: None }
}

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
        // Before a keeper is started there.
        self.open_root()?;
        if let Err(error) = self.store.prune(KEEP_ENDED) {
            self.trouble(&format!("forgetting the oldest runs: {error}"));
        }
        let records = self.store.open_runs()?;
        if self.store.latest(1)?.is_empty() {
            self.refuse_strange_agents()?;
        }
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

    /// Refuses to start on a state that remembers nothing where agents live: they are another state's, and as unknown
    /// they would all be killed.
    fn refuse_strange_agents(&self) -> anyhow::Result<()> {
        let Some(root) = &self.root else { return Ok(()) };
        let mut living = Vec::new();
        for (name, tag) in root.runs().context("listing the cgroups of runs")? {
            // One that goes meanwhile holds nobody.
            if root.cgroup(name, tag).is_ok_and(|cgroup| is_populated(&cgroup).unwrap_or(true)) {
                living.push(name.to_string());
            }
        }
        let Some(first) = living.first() else { return Ok(()) };
        let (state, root) = (self.setup.config.host.state_dir.display(), self.setup.cgroup_root.display());
        Err(StoreError::Unsafe(format!(
            "{state} remembers no run, and {} live below {root}, {first} for one; start with the state that they belong \
             to, or end them by writing 1 to the file cgroup.kill of each",
            living.len()
        ))
        .into())
    }

    /// A stock taken again, once a lost keeper is back or another one has come.
    pub(super) async fn next_stock(&mut self) {
        let Ok(held) = self.keeper.connect(&self.boot_id).await else { return };
        let records = self.fleet.records().cloned().collect();
        if let Err(error) = self.take_stock(records, held, false).await {
            self.trouble(&format!("taking stock: {error:#}"));
            // Not left half done: what the keeper does not hold it cannot stop.
            self.keeper.hang_up("not all of what there is could be taken stock of");
        }
    }

    async fn take_stock(&mut self, records: Vec<RunRecord>, held: Vec<Held>, first: bool) -> anyhow::Result<()> {
        self.open_root()?;
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
                    // It may be waiting to be since the stock before.
                    self.discards.retain(|discard| (discard.name, discard.cgroup) != (name, cgroup));
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
            if self.root.is_none() {
                // The keeper makes it.
                self.open_root()?;
            }
            self.queue.push_back(FleetEvent::KeeperReady);
        }
        self.work().await;
        let keeper = self.keeper.state().map_or_else(|why| why, |pid| format!("keeper {pid}"));
        self.say(&format!("{total} runs go on, {keeper}"));
        Ok(())
    }

    /// Opens the place for runs anew, if it is there.
    fn open_root(&mut self) -> anyhow::Result<()> {
        // The claim of the old one stands against the new one too.
        self.root = None;
        let path = &self.setup.cgroup_root;
        self.root = match Root::open(path) {
            Ok(root) => Some(root),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => None,
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => return Err(in_use(path).into()),
            Err(error) => return Err(error).with_context(|| format!("opening {}", path.display())),
        };
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
        self.unproven.remove(&id);
        let exit = match held {
            // Adopted when its main process had gone already, it is held without one: its end is the kernel's to tell.
            Some(Held { exited: None, main: None, .. }) => self.without_main(id, &born),
            Some(held) => held.exited.map(|exit| exit.status),
            None => self.adopt(&record, &born, cgroup).await,
        };
        if first {
            self.resume(record, &born, cgroup, exit);
        }
        if let Some(held) = held {
            self.output(&held.output);
            self.started(id, held.start.clone());
        }
        exit.map(|status| (id, status))
    }

    /// Restores the state machine of a run from what its log says.
    ///
    /// Nothing that fails here leaves the run alone: it would be shown as over, kept to no limit, and taken for
    /// nobody's by the next stock.
    fn resume(&mut self, record: RunRecord, born: &Born, cgroup: bool, exit: Option<Option<i32>>) {
        let id = record.id;
        let launched = Launched { key: born.main, ino: born.ino, run: born.cgroup, at: born.at, traced: born.traced };
        let mut restored = Restored::new(launched.clone(), born.baseline);
        let feed = self.feed.clone();
        let opened = RunLog::open(&self.log, &record, &self.boot_id, feed.clone(), Some(&mut restored));
        let (mut log, past, trouble) = opened.unwrap_or_else(|error| {
            let log = RunLog::nowhere(&record, &self.boot_id, feed);
            (
                log,
                Replayed::default(),
                Some(format!("{error}; until the next start of agent-loop nothing is kept in it")),
            )
        });
        if let Some(trouble) = trouble {
            self.trouble(&format!("run {id}: {trouble}; what it said is declared lost"));
        }
        let own = match &self.root {
            Some(root) if cgroup => root.present(record.name(), born.cgroup),
            Some(_) | None => Ok(None),
        };
        let unopened = own.is_err();
        let own = own.unwrap_or_else(|error| {
            self.trouble(&format!("run {id}: opening its cgroup: {error}"));
            None
        });
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
        let watched = Watched { log, cgroup: own, unopened, tag: Some(born.cgroup), output, output_before: output };
        self.runs.insert(id, watched);
        self.queue.push_back(FleetEvent::Resumed { record: Box::new(record), core: Box::new(core) });
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
    /// The end of its main process is returned where it has come. A refusal is not for good: it is asked again.
    async fn adopt(&mut self, record: &RunRecord, born: &Born, cgroup: bool) -> Option<Option<i32>> {
        let output = self.reopen_output(record.id);
        if !cgroup {
            self.unproven.remove(&record.id);
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
            Ok(Reply::Adopted { main_alive: true }) => {
                self.unproven.remove(&record.id);
                None
            }
            Ok(Reply::Adopted { main_alive: false }) => self.without_main(record.id, born),
            Ok(other) => {
                // Told once, not at every try.
                if self.unproven.insert(record.id, Unproven::Run).is_none() {
                    self.trouble(&format!("run {}: the keeper does not adopt it: {other:?}", record.id));
                }
                None
            }
            Err(why) => {
                self.trouble(&format!("run {}: having it adopted: {why}", record.id));
                None
            }
        }
    }

    /// The end of a main process that the keeper does not hold: it is dead, or it could not be proven.
    fn without_main(&mut self, id: RunId, born: &Born) -> Option<Option<i32>> {
        if is_gone(born.main, born.ino, true) {
            self.unproven.remove(&id);
            return Some(None);
        }
        if self.unproven.insert(id, Unproven::Main) != Some(Unproven::Main) {
            self.trouble(&format!(
                "run {id}: the keeper cannot prove its main process {}, which lives; its end is looked for each second",
                born.main.tgid
            ));
        }
        None
    }

    /// Asks again for what the keeper could not take up or prove.
    pub(super) async fn prove_again(&mut self) {
        for (id, unproven) in self.unproven.clone() {
            let record = self.fleet.record(id).cloned();
            let Some((record, born)) = record.and_then(|record| match record.stage.clone() {
                Stage::Born(born) => Some((record, born)),
                Stage::Queued | Stage::Intended | Stage::Ended(_) => None,
            }) else {
                self.unproven.remove(&id);
                continue;
            };
            let exit = match unproven {
                Unproven::Main => self.without_main(id, &born),
                // The next stock asks for all of them.
                Unproven::Run if !self.keeper.is_up() => return,
                Unproven::Run => {
                    let root = self.root.as_ref();
                    let there =
                        root.is_none_or(|root| root.id(record.name()).map_or(true, |id| id == Some(born.cgroup)));
                    let exit = self.adopt(&record, &born, there).await;
                    // What may be frozen can be thawed from now on.
                    self.queue.push_back(FleetEvent::KeeperReady);
                    exit
                }
            };
            if let Some(status) = exit {
                self.round();
                self.main_exited(id, status);
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
        // Refused where it is held already; where it is neither held nor there, nothing is left to be discarded.
        let adopted = self.keeper.ask(adopt, &[]).await?.reply;
        let there = |root: &Root| root.id(discard.name).map_or(true, |id| id == Some(discard.cgroup));
        if matches!(adopted, Reply::Refused { errno: Some(libc::ENOENT), .. }) && !self.root.as_ref().is_some_and(there)
        {
            return Ok(());
        }
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

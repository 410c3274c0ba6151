//! Taking stock: what earlier daemons and keepers left is found, and each of it goes on, is ended or is discarded.
//!
//! Done at the start, and again whenever a keeper was lost and one is there again. The decisions are
//! [`crate::supervise::fleet::plan`]'s; nothing is signalled but through the keeper, which proves it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Context as _;

use super::Setup;
use super::remember::ANSWER_WITHIN;
use super::shell::{Daemon, Discard};
use super::tree::Root;
use crate::keeper::process::protocol::Held;
use crate::keeper::tree::is_populated;
use crate::kernel::pins::{self, Found};
use crate::kernel::{self, LoadError, RunsBy, Tracing};
use crate::model::RunTag;
use crate::run::{RunId, RunName, RunRecord, Stage};
use crate::store::{KEEP_ENDED, RunFiles, SqliteStore, Store as _, StoreError};
use crate::supervise::fleet::{Findings, FleetEvent, HeldRun, Step, plan};

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

/// Opens the place for runs, if it is there.
///
/// # Errors
/// [`StoreError::Busy`] while another daemon has it.
fn root(path: &Path) -> anyhow::Result<Option<Root>> {
    match Root::open(path) {
        Ok(root) => Ok(Some(root)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => Err(in_use(path).into()),
        Err(error) => Err(error).with_context(|| format!("opening {}", path.display())),
    }
}

/// Refuses to start on a state that remembers nothing where agents live: they are another state's, and as unknown
/// they would all be killed.
///
/// # Errors
/// [`StoreError::Unsafe`], with what to do.
pub(super) fn refuse_strange_agents(setup: &Setup, store: &SqliteStore) -> anyhow::Result<()> {
    if !store.latest(1)?.is_empty() {
        return Ok(());
    }
    let Some(root) = root(&setup.cgroup_root)? else { return Ok(()) };
    let mut living = Vec::new();
    for (name, tag) in root.runs().context("listing the cgroups of runs")? {
        // One that goes meanwhile holds nobody.
        if root.cgroup(name, tag).is_ok_and(|cgroup| is_populated(&cgroup).unwrap_or(true)) {
            living.push(name.to_string());
        }
    }
    let Some(first) = living.first() else { return Ok(()) };
    let (state, root) = (setup.config.host.state_dir.display(), setup.cgroup_root.display());
    Err(StoreError::Unsafe(format!(
        "{state} remembers no run, and {} live below {root}, {first} for one; start with the state that they belong \
         to, or end them by writing 1 to the file cgroup.kill of each",
        living.len()
    ))
    .into())
}

impl Daemon {
    /// The first stock: all that the store remembers, the keeper holds and the root of the runs shows.
    pub(super) async fn first_stock(&mut self) -> anyhow::Result<()> {
        // Before a keeper is started there.
        self.open_root()?;
        if let Err(error) = self.store.now(ANSWER_WITHIN, |store| store.prune(KEEP_ENDED)).await {
            self.trouble(&format!("forgetting the oldest runs: {error}"));
        }
        let records = self.store.now(ANSWER_WITHIN, |store| store.open_runs()).await?;
        let known: BTreeSet<RunId> = records.iter().map(|record| record.id).collect();
        let removed = self.files.now(ANSWER_WITHIN, move |files| {
            let mut left = RunFiles::with_pipes(&files.state)?.into_iter().filter(|id| !known.contains(id));
            left.try_for_each(|id| RunFiles::remove_pipes(&files.state, id))
        });
        removed.await?;
        let held = match self.keeper.connect().await {
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
    pub(super) async fn next_stock(&mut self, held: Vec<Held>) {
        let records = self.fleet.records().cloned().collect();
        if let Err(error) = self.take_stock(records, held, false).await {
            self.trouble(&format!("taking stock: {error:#}"));
            // Not left half done: what the keeper does not hold it cannot stop.
            self.keeper.hang_up("not all of what there is could be taken stock of");
        }
    }

    async fn take_stock(&mut self, records: Vec<RunRecord>, held: Vec<Held>, first: bool) -> anyhow::Result<()> {
        self.open_root()?;
        let mut by_name: BTreeMap<RunName, Held> =
            held.into_iter().filter_map(|held| Some((held.run.parse().ok()?, held))).collect();
        let mut cgroups: BTreeMap<RunName, RunTag> = match &self.root {
            Some(root) => root.runs().context("listing the cgroups of runs")?.into_iter().collect(),
            None => BTreeMap::new(),
        };
        let names: BTreeSet<RunName> = by_name.keys().chain(cgroups.keys()).copied().collect();
        let unknown: BTreeSet<RunName> =
            names.into_iter().filter(|name| !records.iter().any(|record| record.id == name.id)).collect();
        let ended = match self.ended(&unknown).await {
            Ok(ended) => ended,
            Err(error) if first => return Err(error.into()),
            Err(error) => {
                // What is known goes on without them: a disk that does not answer keeps no run from its end.
                self.trouble(&format!("{} runs that are not known are left as they are: {error}", unknown.len()));
                by_name.retain(|name, _| !unknown.contains(name));
                cgroups.retain(|name, _| !unknown.contains(name));
                Vec::new()
            }
        };
        let findings = Findings {
            ended,
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
        if first {
            self.read_the_past(&going_on.iter().map(|(record, ..)| record.id).collect::<Vec<_>>());
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
        self.ends_by_the_run_table();
        if first {
            self.try_out()?;
        }
        self.discard_all().await;
        if self.keeper.is_up() {
            if self.root.is_none() {
                // The keeper makes it.
                self.open_root()?;
            }
            self.compare_the_keeper();
            self.queue.push_back(FleetEvent::KeeperReady);
        }
        self.work().await;
        let keeper = self.keeper.state().map_or_else(|why| why, |pid| format!("keeper {pid}"));
        self.say(&format!("{total} runs go on, {keeper}"));
        Ok(())
    }

    /// Reads what the audit log says of runs that go on. What cannot be read is declared by the kernel's count.
    fn read_the_past(&mut self, runs: &[RunId]) {
        match crate::audit::lines_of(self.audit.dir(), runs) {
            Ok(past) => self.past = past,
            Err(error) => self.trouble(&format!("reading the audit log: {error}; what it said is declared lost")),
        }
    }

    /// Opens the place for runs anew, if it is there.
    pub(super) fn open_root(&mut self) -> anyhow::Result<()> {
        // The claim of the old one stands against the new one too.
        self.root = None;
        self.root = root(&self.setup.cgroup_root)?;
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
                Err(error) => self.trouble_of(record.id, &format!("reading the kernel's run table: {error}")),
            }
            entered = true;
            self.fresh.insert(record.id);
            if let Err(error) = self.tracing.runs.insert_born(born.cgroup, born.main) {
                self.trouble_of(record.id, &format!("entering it into the kernel's run table: {error}"));
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
                Stage::Queued | Stage::Intended(_) | Stage::Ended(_) => None,
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
    async fn ended(&self, unknown: &BTreeSet<RunName>) -> Result<Vec<RunName>, StoreError> {
        if unknown.is_empty() {
            return Ok(Vec::new());
        }
        let unknown = unknown.clone();
        let ended = self.store.now(ANSWER_WITHIN, move |store| {
            let mut ended = Vec::new();
            for name in unknown {
                if store.run(name.id)?.is_some_and(|record| matches!(record.stage, Stage::Ended(_))) {
                    ended.push(name);
                }
            }
            Ok(ended)
        });
        ended.await
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
}

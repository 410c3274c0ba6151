//! One run goes on: its state machine is restored from its log, and the keeper takes it up by proof.

use std::os::fd::AsFd as _;
use std::time::Duration;

use super::keeper::{done, process};
use super::run_log::RunLog;
use super::shell::{Daemon, Unproven, Watched, now};
use crate::event::Launched;
use crate::keeper::process::protocol::{Descriptors, Held, Reply, Request};
use crate::keeper::tree::{is_gone, is_populated};
use crate::run::{Born, RunId, RunRecord, Stage};
use crate::say::{self, About};
use crate::store::{Reopened, RunFiles};
use crate::supervise::Core;
use crate::supervise::fleet::{FleetEvent, settings_of};
use crate::track::Restored;

/// How long the output of a run is waited for; it is tried again each second.
const REOPEN_WITHIN: Duration = Duration::from_millis(250);

impl Daemon {
    /// Goes on with a run; its main process's end, if that has come, is returned to be told later.
    pub(super) async fn go_on(
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
        self.declare_unheard(id);
        if let Some(held) = held {
            if !held.drained {
                self.unread.entry(id).or_insert_with(|| "another daemon could not open it".to_owned());
            }
            self.output(&held.output);
            self.started(id, held.start.clone());
        }
        exit.map(|status| (id, status))
    }

    /// Restores the state machine of a run from what its log says.
    ///
    /// Nothing that fails here leaves the run alone: it would be shown as over, kept to no limit, and taken for
    /// nobody's by the next stock.
    fn resume(&mut self, mut record: RunRecord, born: &Born, cgroup: bool, exit: Option<Option<i32>>) {
        let id = record.id;
        let launched = Launched { key: born.main, ino: born.ino, run: born.cgroup, at: born.at, traced: born.traced };
        let mut restored = Restored::new(launched.clone(), born.baseline);
        let feed = self.feed.clone();
        let lines = self.past.remove(&id).unwrap_or_default();
        let (mut log, past, trouble) = RunLog::go_on(&record, &self.boot_id, feed, &lines, &mut restored);
        // What its daemon had written to the log and did not live to remember.
        for told in &past.told {
            record.tell(told.clone());
        }
        if let Some(trouble) = trouble {
            self.trouble_of(id, &format!("{trouble}; what it said is declared lost"));
        }
        let own = match &self.root {
            Some(root) if cgroup => root.present(record.name(), born.cgroup),
            Some(_) | None => Ok(None),
        };
        let unopened = own.is_err();
        let own = own.unwrap_or_else(|error| {
            self.trouble_of(id, &format!("opening its cgroup: {error}"));
            None
        });
        log.set_cgroup(born.cgroup.0, self.setup.cgroup_root.join(record.name().to_string()).display().to_string());
        if !past.born {
            log.fact(&mut self.audit, &crate::event::Fact::RunBorn(launched));
        }
        log.write(&mut self.audit, |recorder, clock| {
            recorder.adopted("another daemon goes on with it".to_owned(), clock)
        });
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
        let watched = Watched {
            log,
            cgroup: own,
            unopened,
            tag: Some(born.cgroup),
            output,
            output_before: output,
            output_failed: false,
        };
        self.runs.insert(id, watched);
        self.queue.push_back(FleetEvent::Resumed { record: Box::new(record), core: Box::new(core) });
    }

    /// Opens the output of a run again, for another keeper to go on with.
    async fn reopen_output(&mut self, id: RunId) -> Option<Reopened> {
        let reopened = self.files.now(REOPEN_WITHIN, move |files| RunFiles::reopen(&files.state, &files.log, id)).await;
        let output = match reopened {
            Ok(output) => output,
            Err(error) => {
                // Told once, not at every try.
                if self.unread.insert(id, error.to_string()).is_none() {
                    self.trouble_of(id, &format!("going on with its output: {error}; it waits once its pipe is full"));
                }
                return None;
            }
        };
        self.unread.remove(&id);
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
        let output = self.reopen_output(record.id).await;
        // What it wrote is in its pipes as long as anybody has them open: itself, its keeper, or we.
        if !self.pipes.contains_key(&record.id) && !self.lives(record, born) {
            self.unheard.insert(record.id);
        }
        if !cgroup {
            self.read_the_rest(record, output);
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
        let answer = self.ask(request, &fds).await.map(|answered| answered.reply);
        if let Some(Reopened { drains: [(out, _), (err, _)], .. }) = output {
            self.pipes.insert(record.id, [out, err]);
        }
        match answer {
            Ok(Reply::Adopted { main_alive: true }) => {
                self.unproven.remove(&record.id);
                None
            }
            Ok(Reply::Adopted { main_alive: false }) => self.without_main(record.id, born),
            Ok(other) => {
                // Told once, not at every try.
                if self.unproven.insert(record.id, Unproven::Run).is_none() {
                    self.trouble_of(record.id, &format!("the keeper does not adopt it: {other:?}"));
                }
                None
            }
            Err(why) => {
                self.trouble_of(record.id, &format!("having it adopted: {why}"));
                None
            }
        }
    }

    /// Whether a process of a run lives, in its cgroup or elsewhere; whoever could have been seen has its pipes.
    fn lives(&self, record: &RunRecord, born: &Born) -> bool {
        let cgroup = self.root.as_ref().and_then(|root| root.present(record.name(), born.cgroup).ok().flatten());
        cgroup.is_some_and(|cgroup| is_populated(&cgroup).unwrap_or(true))
            || self.live_of(Some(born.cgroup)).map_or(true, |live| !live.is_empty())
    }

    /// Declares that what a run wrote last may be missing.
    fn declare_unheard(&mut self, id: RunId) {
        if !self.unheard.remove(&id) {
            return;
        }
        let why = "its keeper and all of its processes had ended before another keeper could read its pipes";
        self.trouble_of(id, &format!("the end of its output may be missing: {why}"));
        if let Some(watched) = self.runs.get_mut(&id) {
            watched.log.write(&mut self.audit, |recorder, clock| recorder.output_unheard(why.to_owned(), clock));
        }
        self.queue.push_back(FleetEvent::Told { id, told: crate::audit::output_unheard(why) });
    }

    /// Reads what is left in the pipes of a run whose cgroup is gone, so that no keeper can hold it.
    fn read_the_rest(&mut self, record: &RunRecord, output: Option<Reopened>) {
        let Some(output) = output else { return };
        match output.read_the_rest(record.submission.limits.output_bytes) {
            Ok(0) => {}
            Ok(bytes) => {
                if let Some(watched) = self.runs.get_mut(&record.id) {
                    watched.output += bytes;
                }
            }
            Err(error) => self.trouble_of(record.id, &format!("reading the end of its output: {error}")),
        }
    }

    /// Tries again to have the output read that could not be opened before.
    pub(super) async fn read_again(&mut self) {
        if !self.keeper.is_up() {
            return;
        }
        for id in self.unread.keys().copied().collect::<Vec<_>>() {
            let Some(record) = self.fleet.record(id).cloned() else {
                self.unread.remove(&id);
                continue;
            };
            let Some(output) = self.reopen_output(id).await else { continue };
            let before: u64 = output.held.iter().sum();
            let request = Request::Drain {
                run: record.name().to_string(),
                fds: Descriptors { drains: true, ..Descriptors::default() },
                output_bytes: record.submission.limits.output_bytes.map(|budget| budget.saturating_sub(before)),
            };
            let fds: Vec<_> = output.drains.iter().flat_map(|(pipe, file)| [pipe.as_fd(), file.as_fd()]).collect();
            if let Err(why) = done(self.ask(request, &fds).await) {
                self.unread.insert(id, why);
            } else {
                say::info(About::Run(id), &format!("run {id}: its output is read again"));
                let Reopened { drains: [(out, _), (err, _)], .. } = output;
                self.pipes.insert(id, [out, err]);
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
            self.trouble_of(
                id,
                &format!(
                    "the keeper cannot prove its main process {}, which lives; its end is looked for each second",
                    born.main.tgid
                ),
            );
        }
        None
    }

    /// Asks again for what the keeper could not take up or prove.
    pub(super) async fn prove_again(&mut self) {
        for (id, unproven) in self.unproven.clone() {
            let record = self.fleet.record(id).cloned();
            let Some((record, born)) = record.and_then(|record| match record.stage.clone() {
                Stage::Born(born) => Some((record, born)),
                Stage::Queued | Stage::Intended(_) | Stage::Ended(_) => None,
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
}

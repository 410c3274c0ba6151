//! What the kernel tells: the rings are read in rounds, and each record goes to the run whose it is.

use std::time::Duration;

use anyhow::Context as _;

use super::shell::Daemon;
use crate::event::Event;
use crate::fault;
use crate::kernel::trial::{self, Trial, Verdict};
use crate::kernel::{ROUND_BYTES, Tracing};
use crate::model::{Death, RunTag};
use crate::run::{RunId, Stage};
use crate::supervise::fleet::FleetEvent;

/// What was being done when a trial fails.
const TRIAL: &str = "trying out whether the eBPF program tells of births and deaths";

/// How often that is tried while records are lost, before who lives is supervised without it.
const TRIALS: usize = 3;

/// How long the processes of a trial may take where runs are supervised meanwhile.
const TRIAL_WITHIN: Duration = Duration::from_secs(1);

impl Daemon {
    /// Reads one round of the rings and says so to every run.
    pub(super) fn round(&mut self) {
        self.drain();
        self.end_round();
    }

    pub(super) fn end_round(&mut self) {
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
            // The rings hold records and nothing else.
            let Some(run) = event.run() else { continue };
            if Trial::is_of(run) {
                if let Some(trial) = &mut self.trial {
                    trial.take(event);
                }
                continue;
            }
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

    /// Has the kernel side tell the life of processes of our own before anybody is told that we are ready.
    ///
    /// Called once every run that goes on is known: the records of runs that are read meanwhile have their places.
    /// While records are lost, and counted, it is tried again: those that live are supervised, none is launched, and we
    /// are not ready.
    ///
    /// # Errors
    /// When a step of those lives was neither told nor counted as lost: births and deaths of agents would not be either.
    pub(super) fn try_out(&mut self) -> anyhow::Result<()> {
        for _ in 0..TRIALS {
            if self.is_told(trial::PATIENCE).context(TRIAL)? {
                return Ok(());
            }
        }
        let why = format!(
            "{TRIAL}: records were lost in each try, and counted: the host is very busy; runs are supervised and stopped \
             in time, none is launched, and agent-loop is not ready until a life was told from birth to death"
        );
        self.trouble(&why);
        self.unseen = Some(why);
        Ok(())
    }

    /// Tries it again where it was not told yet, while runs are supervised.
    ///
    /// # Errors
    /// As [`Daemon::try_out`]; what says that we are ready.
    pub(super) fn try_again(&mut self) -> anyhow::Result<()> {
        if self.unseen.is_none() {
            return Ok(());
        }
        match self.is_told(TRIAL_WITHIN) {
            Ok(true) => {
                self.unseen = None;
                self.say("a life was told from birth to death");
                self.compare_the_keeper();
                self.tell_ready()
            }
            Ok(false) => Ok(()),
            Err(error) if error.is::<Blind>() => Err(error.context(TRIAL)),
            // The host is too busy for its processes.
            Err(_) => Ok(()),
        }
    }

    /// Has one trial live and die; whether all of it was told.
    fn is_told(&mut self, patience: Duration) -> anyhow::Result<bool> {
        // A full ring would have no room for them.
        self.drain_all();
        let program = self.setup.program.clone();
        let trial = self.tracing.try_out(&program, patience)?;
        self.trial = Some(trial);
        fault::blind(|| drop(self.tracing.rings.round()));
        self.drain_all();
        let Some(trial) = self.trial.take() else { return Ok(false) };
        match self.tracing.verdict(&trial)? {
            Verdict::Told => Ok(!fault::is_lossy()),
            Verdict::Lost => Ok(false),
            Verdict::Blind(what) => Err(Blind(what).into()),
        }
    }
}

/// The kernel side does not tell, and does not count that as a loss.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0}; without it no birth and no death of an agent is known, so nothing is started: `agent-loop doctor` shows what \
     this kernel can do; agents that live are left alone"
)]
struct Blind(String);

/// Waits for records of the kernel.
pub(super) async fn records(tracing: &mut Tracing, more: bool) {
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

//! A run that goes on under another daemon. [pure]

use super::ladder::Goal;
use super::run::{Core, State};
use super::{Leftovers, Settings};
use crate::model::{BootNs, Source, WaitStatus};
use crate::track::{Restored, Tracker};

impl Core {
    /// A run whose main process was born and thawed under an earlier daemon.
    ///
    /// Its deadline counts from that birth (I11). That the main process has ended meanwhile is told before anything
    /// else, by [`Core::main_had_ended`]; the records from the rings come as events afterwards.
    #[must_use]
    pub fn resumed(now: BootNs, settings: Settings, restored: &Restored) -> Self {
        let mut core = Self::new(settings);
        core.tracker = Tracker::restored(now, restored);
        core.begun = Some(restored.launched.at);
        core.main = Some(restored.launched.clone());
        core.recorded = restored.main_died.flatten().map(|status| (status, Source::Kernel));
        core.started = restored.main_execed || restored.main_died.is_some();
        core.state = State::Running;
        core
    }

    /// Tells a run that goes on that its main process ended while no daemon ran, before its first event: neither a
    /// deadline that passed since nor a stop is the cause of that end. `None` is a status that nobody knows.
    pub fn main_had_ended(&mut self, status: Option<WaitStatus>) {
        self.tracker.main_had_ended(status);
        self.ended_before = Some(status);
    }

    /// Whether its main process was born and may not have been thawed; a thaw of what runs changes nothing.
    #[must_use]
    pub fn may_be_frozen(&self) -> bool {
        match &self.state {
            State::Born => !self.main_dead(),
            State::Running => !self.started && !self.main_dead(),
            State::Intent(_)
            | State::Failed { .. }
            | State::Draining { .. }
            | State::Stopping(_)
            | State::Unkillable(_)
            | State::Closing(_)
            | State::Ended => false,
        }
    }

    /// Whether a stop is at work whose end will be told as that of the main process, which ended by itself.
    #[must_use]
    pub fn stops_leftovers(&self) -> bool {
        match &self.state {
            State::Stopping(stop) | State::Unkillable(stop) => stop.goal == Goal::MainEnded,
            State::Intent(_)
            | State::Born
            | State::Running
            | State::Failed { .. }
            | State::Draining { .. }
            | State::Closing(_)
            | State::Ended => false,
        }
    }

    /// Names who tells how the main process ended, where that is not `waitid`: the keeper that launched it is gone.
    pub fn main_is_told_by(&mut self, source: Source) {
        self.reaped_source = source;
    }

    /// Whether it runs and nobody is stopping it; leftovers that are waited for are part of it.
    #[must_use]
    pub fn runs_free(&self) -> bool {
        match &self.state {
            State::Born | State::Running => true,
            State::Draining { .. } => self.settings.leftovers == Leftovers::Wait,
            State::Intent(_)
            | State::Failed { .. }
            | State::Stopping(_)
            | State::Unkillable(_)
            | State::Closing(_)
            | State::Ended => false,
        }
    }

    /// Its state as a word for people.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match &self.state {
            State::Intent(_) | State::Born => "launching",
            State::Running => "running",
            State::Failed { .. } | State::Draining { .. } | State::Closing(_) => "draining",
            State::Stopping(_) => "stopping",
            State::Unkillable(_) => "unkillable",
            State::Ended => "ended",
        }
    }
}

//! A run that goes on under another daemon. [pure]

use super::Settings;
use super::run::{Core, State};
use crate::model::{BootNs, Source};
use crate::track::{Restored, Tracker};

impl Core {
    /// A run whose main process was born and thawed under an earlier daemon.
    ///
    /// Its deadline counts from that birth (I11). What happened meanwhile comes as events afterwards: the records
    /// from the rings, [`crate::event::Event::MainExited`] where the main process has ended, a stop that had begun.
    #[must_use]
    pub fn resumed(now: BootNs, settings: Settings, restored: &Restored) -> Self {
        let mut core = Self::new(settings);
        core.tracker = Tracker::restored(now, restored);
        core.begun = Some(restored.launched.at);
        core.main = Some(restored.launched.clone());
        core.recorded = restored.main_died.flatten().map(|status| (status, Source::Kernel));
        core.state = State::Running;
        core
    }

    /// Names who tells how the main process ended, where that is not `waitid`: the keeper that launched it is gone.
    pub fn main_is_told_by(&mut self, source: Source) {
        self.reaped_source = source;
    }

    /// Whether it runs and nobody is stopping it.
    #[must_use]
    pub fn runs_free(&self) -> bool {
        match &self.state {
            State::Born | State::Running => true,
            State::Intent(_)
            | State::Failed { .. }
            | State::Draining { .. }
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

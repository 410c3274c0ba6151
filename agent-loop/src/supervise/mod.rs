//! Decides what a run does: (state, event, now) -> actions. [pure]
//! Inside: the state machine of one run, the ladder of its stop, its end. Not inside: any effect.
//! Called by the shell alone, which performs the actions in order and answers each that asks, in that order;
//! an answer comes after all records that were read before it.

mod finish;
pub mod fleet;
mod ladder;
mod leftovers;
mod look;
mod resume;
mod run;
mod sweep;

use std::time::Duration;

pub use run::Core;

use crate::model::Totals;

/// What becomes of processes that outlive the main process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Leftovers {
    /// They are stopped.
    #[default]
    Kill,
    /// The run goes on until they end; its limit still holds.
    Wait,
}

/// How a run is to be supervised.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How long the run may take from its birth, on CLOCK_BOOTTIME.
    pub limit: Option<Duration>,
    /// How long each polite step of a stop is given.
    pub grace: Duration,
    /// What becomes of processes that outlive the main process.
    pub leftovers: Leftovers,
    /// How long after the kill began an unkillable rest is given up; never if `None`.
    pub give_up: Option<Duration>,
    /// The kernel's counters when the run began; zero if the hooks were attached for it.
    pub baseline: Totals,
    /// Whether the kernel's counters count this run alone, so that their sum can be checked at its end.
    pub sole: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            limit: None,
            grace: Duration::from_secs(10),
            leftovers: Leftovers::Kill,
            give_up: None,
            baseline: Totals::default(),
            sole: true,
        }
    }
}

#[cfg(test)]
pub(crate) mod property;
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "numbers of a test fit")]
#[expect(clippy::wildcard_enum_match_arm, reason = "a shadow picks the fact it needs")]
pub(crate) mod shadow;
#[cfg(test)]
#[expect(clippy::wildcard_enum_match_arm, reason = "a test picks the fact it is about")]
mod tests;

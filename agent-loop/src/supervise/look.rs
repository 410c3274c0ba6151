//! Looking at the tree: one question at a time, with growing delays. [pure]

use std::time::Duration;

use crate::event::{Action, Member};
use crate::model::BootNs;

const FIRST: Duration = Duration::from_millis(1);

/// What the last look at the tree found, and when the next is due.
#[derive(Debug)]
pub(super) struct Look {
    asked: bool,
    due: Option<BootNs>,
    delay: Duration,
    /// What was found; `None` before the first answer and when it could not be told.
    pub(super) members: Option<Vec<Member>>,
    /// Since when nothing is found.
    pub(super) empty_since: Option<BootNs>,
    /// Whether the live set, read since, holds nobody of the run either.
    pub(super) cleared: bool,
    /// Whether that nothing was found is proven.
    pub(super) proven: bool,
}

impl Look {
    pub(super) fn new() -> Self {
        Self { asked: false, due: None, delay: FIRST, members: None, empty_since: None, cleared: false, proven: false }
    }

    /// Looks at once, and soon again.
    pub(super) fn at_once(&mut self, out: &mut Vec<Action>) {
        self.delay = FIRST;
        self.ask(out);
    }

    /// Looks if it is time to.
    pub(super) fn if_due(&mut self, now: BootNs, out: &mut Vec<Action>) {
        if self.due.is_some_and(|due| due <= now) {
            self.ask(out);
        }
    }

    /// Looks again after the present delay, which grows up to `max`.
    pub(super) fn later(&mut self, now: BootNs, max: Duration) {
        if !self.asked {
            self.due = Some(now.after(self.delay));
            self.delay = self.delay.saturating_mul(2).min(max);
        }
    }

    pub(super) fn due(&self) -> Option<BootNs> {
        self.due
    }

    pub(super) fn answered(&mut self) {
        self.asked = false;
        self.due = None;
    }

    /// The tree is not empty, or not known to be.
    pub(super) fn not_empty(&mut self) {
        self.empty_since = None;
        self.cleared = false;
    }

    fn ask(&mut self, out: &mut Vec<Action>) {
        self.due = None;
        if !self.asked {
            self.asked = true;
            out.push(Action::InspectTree);
        }
    }
}

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
    /// How often in a row nothing was found, and since when.
    pub(super) empty_since: Option<BootNs>,
    /// Whether that is proven.
    pub(super) proven: bool,
}

impl Look {
    pub(super) fn new() -> Self {
        Self { asked: false, due: None, delay: FIRST, members: None, empty_since: None, proven: false }
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

    fn ask(&mut self, out: &mut Vec<Action>) {
        self.due = None;
        if !self.asked {
            self.asked = true;
            out.push(Action::InspectTree);
        }
    }
}

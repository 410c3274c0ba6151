//! Lines of the event logs as they are written: for who follows them, and the latest for who asks.

use std::sync::Arc;

use crate::control::api::EventFeed;
use crate::control::feed::Lines;

/// How many of the latest lines are told to who asks, and how many bytes of them.
const RECENT: usize = 1_000;
const RECENT_BYTES: usize = 8 << 20;

/// How many lines a follower may be behind, and how many bytes: a line may hold a whole command line.
const FOLLOW: usize = 65_536;
const FOLLOW_BYTES: usize = 32 << 20;

/// The lines of all runs, in the order of their writing. A clone is the same feed.
#[derive(Clone)]
pub(super) struct Feed(Lines);

impl Feed {
    /// Without a line yet.
    pub(super) fn new() -> Self {
        Self(Lines::new(FOLLOW, FOLLOW_BYTES))
    }

    /// Hands on a line, to nobody where nobody follows. Never waits for one that does.
    pub(super) fn send(&self, line: Arc<str>) {
        self.0.send(line);
    }

    /// The latest lines, and those after them.
    pub(super) fn read(&self) -> EventFeed {
        EventFeed { recent: self.0.latest(RECENT, RECENT_BYTES), live: self.0.follow() }
    }
}

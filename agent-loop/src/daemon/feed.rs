//! Lines of the event logs as they are written: for who follows them, and the latest for who asks.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::broadcast;

use crate::control::api::EventFeed;

/// How many of the latest lines are kept.
const RECENT: usize = 1_000;

/// How many bytes they have at most: a line may hold a whole command line.
const RECENT_BYTES: usize = 8 << 20;

/// How many lines a follower may be behind.
const FOLLOW: usize = 65_536;

/// The lines of all runs, in the order of their writing. A clone is the same feed.
#[derive(Clone)]
pub(super) struct Feed {
    live: broadcast::Sender<Arc<str>>,
    recent: Arc<Mutex<Recent>>,
}

#[derive(Default)]
struct Recent {
    lines: VecDeque<Arc<str>>,
    bytes: usize,
}

impl Feed {
    /// Without a line yet.
    pub(super) fn new() -> Self {
        Self { live: broadcast::channel(FOLLOW).0, recent: Arc::default() }
    }

    /// Hands on a line, to nobody where nobody follows. Never waits for one that does.
    pub(super) fn send(&self, line: Arc<str>) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.push(line.clone());
        let _ = self.live.send(line);
    }

    /// The latest lines, and those after them.
    pub(super) fn read(&self) -> EventFeed {
        // Under the lock: no line is in both or in neither.
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        EventFeed { recent: recent.lines.iter().cloned().collect(), live: self.live.subscribe() }
    }
}

impl Recent {
    fn push(&mut self, line: Arc<str>) {
        self.bytes += line.len();
        self.lines.push_back(line);
        while self.lines.len() > RECENT || self.bytes > RECENT_BYTES {
            let Some(oldest) = self.lines.pop_front() else { return };
            self.bytes -= oldest.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recent(feed: &Feed) -> Vec<String> {
        feed.read().recent.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_latest_lines_are_kept_and_no_more() {
        let feed = Feed::new();
        for number in 0..RECENT + 5 {
            feed.send(number.to_string().into());
        }
        let kept = recent(&feed);
        assert_eq!((kept.len(), kept[0].as_str(), kept[RECENT - 1].as_str()), (RECENT, "5", "1004"));
    }

    #[test]
    fn long_lines_are_kept_up_to_a_number_of_bytes() {
        let feed = Feed::new();
        for _ in 0..20 {
            feed.send("x".repeat(1 << 20).into());
        }
        assert_eq!(recent(&feed).len(), RECENT_BYTES >> 20);
        feed.send("y".repeat(RECENT_BYTES + 1).into());
        assert_eq!(recent(&feed).len(), 0, "one that is longer than all is for followers alone");
        feed.send("z".into());
        assert_eq!(recent(&feed), ["z"]);
    }

    #[test]
    fn a_line_is_among_the_latest_or_followed_and_never_both() {
        let feed = Feed::new();
        feed.send("before".into());
        let mut read = feed.read();
        feed.send("after".into());
        assert_eq!(read.recent.iter().map(AsRef::as_ref).collect::<Vec<&str>>(), ["before"]);
        assert_eq!(read.live.try_recv().as_deref(), Ok("after"));
        assert!(read.live.try_recv().is_err());
    }
}

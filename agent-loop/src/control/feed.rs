//! Lines for whoever follows them: the latest are kept, bounded in number and in bytes, and who falls behind learns
//! how many it missed. Whoever sends never waits.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

/// The sending end. A clone sends to the same followers.
#[derive(Clone, Debug)]
pub struct Lines {
    kept: Arc<Mutex<Kept>>,
    /// Wakes those who wait for the next line.
    wake: watch::Sender<()>,
}

/// What is kept for followers, one copy for all of them.
#[derive(Debug)]
struct Kept {
    lines: VecDeque<Arc<str>>,
    bytes: usize,
    /// The number of the first one kept.
    first: u64,
    most_lines: usize,
    most_bytes: usize,
}

/// Why there is no line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoLine {
    /// None yet.
    Empty,
    /// So many lines were thrown away before they were taken; the next one taken is the first after them.
    Missed(u64),
    /// Nobody sends any more, and all were taken.
    Closed,
}

/// One who follows.
#[derive(Debug)]
pub struct Follower {
    kept: Arc<Mutex<Kept>>,
    wake: watch::Receiver<()>,
    /// The number of the next line.
    next: u64,
}

impl Lines {
    /// Keeps so many lines at most, and so many bytes.
    #[must_use]
    pub fn new(most_lines: usize, most_bytes: usize) -> Self {
        let kept = Kept { lines: VecDeque::new(), bytes: 0, first: 0, most_lines, most_bytes };
        Self { kept: Arc::new(Mutex::new(kept)), wake: watch::Sender::new(()) }
    }

    /// Hands a line to all who follow, and to nobody where nobody does.
    pub fn send(&self, line: Arc<str>) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        let _ = self.wake.send(());
    }

    /// Follows, from the next line on.
    #[must_use]
    pub fn follow(&self) -> Follower {
        // In this order: a line that is sent in between is seen without a call.
        let wake = self.wake.subscribe();
        let next = self.kept.lock().unwrap_or_else(PoisonError::into_inner).end();
        Follower { kept: Arc::clone(&self.kept), wake, next }
    }

    /// How many follow.
    #[must_use]
    pub fn followers(&self) -> usize {
        self.wake.receiver_count()
    }

    /// The latest lines, so many at most in number and in bytes.
    #[must_use]
    pub fn latest(&self, most_lines: usize, most_bytes: usize) -> Vec<Arc<str>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = 0;
        let fits = |line: &&Arc<str>| {
            bytes += line.len();
            bytes <= most_bytes
        };
        let mut latest: Vec<Arc<str>> = kept.lines.iter().rev().take(most_lines).take_while(fits).cloned().collect();
        latest.reverse();
        latest
    }
}

impl Kept {
    fn end(&self) -> u64 {
        self.first + self.lines.len() as u64
    }

    fn push(&mut self, line: Arc<str>) {
        self.bytes += line.len();
        self.lines.push_back(line);
        while self.lines.len() > self.most_lines || self.bytes > self.most_bytes {
            let Some(oldest) = self.lines.pop_front() else { return };
            self.bytes -= oldest.len();
            self.first += 1;
        }
    }
}

impl Follower {
    /// The next line, if it is there.
    ///
    /// # Errors
    /// [`NoLine`]; [`NoLine::Closed`] is not told by this one.
    pub fn try_next(&mut self) -> Result<Arc<str>, NoLine> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let missed = kept.first.saturating_sub(self.next);
        if missed > 0 {
            self.next = kept.first;
            return Err(NoLine::Missed(missed));
        }
        let at = usize::try_from(self.next - kept.first).unwrap_or(usize::MAX);
        let line = kept.lines.get(at).cloned().ok_or(NoLine::Empty)?;
        self.next += 1;
        Ok(line)
    }

    /// Waits for the next line. Cancel-safe: none is lost.
    ///
    /// # Errors
    /// [`NoLine::Missed`] and [`NoLine::Closed`].
    pub async fn next(&mut self) -> Result<Arc<str>, NoLine> {
        loop {
            match self.try_next() {
                Err(NoLine::Empty) => {}
                other => return other,
            }
            if self.wake.changed().await.is_err() {
                // The last ones may have come with the end.
                return self.try_next().map_err(|why| if why == NoLine::Empty { NoLine::Closed } else { why });
            }
        }
    }

    /// How many lines wait to be taken.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).end().saturating_sub(self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(follower: &mut Follower) -> Vec<String> {
        std::iter::from_fn(|| follower.try_next().ok()).map(|line| line.to_string()).collect()
    }

    #[test]
    fn a_line_is_among_the_latest_or_followed_and_never_both() {
        let lines = Lines::new(8, 1_000);
        lines.send("before".into());
        let (latest, mut follower) = (lines.latest(8, 1_000), lines.follow());
        lines.send("after".into());
        assert_eq!(latest.iter().map(AsRef::as_ref).collect::<Vec<&str>>(), ["before"]);
        assert_eq!(taken(&mut follower), ["after"]);
        assert_eq!(follower.try_next(), Err(NoLine::Empty));
    }

    #[test]
    fn who_falls_behind_by_lines_or_by_bytes_learns_how_many_it_missed() {
        let lines = Lines::new(4, 1_000);
        let mut follower = lines.follow();
        (0..6).for_each(|number| lines.send(number.to_string().into()));
        assert_eq!(follower.try_next(), Err(NoLine::Missed(2)));
        assert_eq!(taken(&mut follower), ["2", "3", "4", "5"]);
        for _ in 0..3 {
            lines.send("x".repeat(400).into());
        }
        assert_eq!((follower.try_next(), follower.waiting()), (Err(NoLine::Missed(1)), 2));
        lines.send("y".repeat(1_001).into());
        assert_eq!(follower.try_next(), Err(NoLine::Missed(3)), "a line beyond all bounds reaches nobody");
        assert_eq!(lines.kept.lock().expect("whole").bytes, 0);
    }

    #[test]
    fn the_latest_are_bounded_in_number_and_in_bytes() {
        let lines = Lines::new(100, 10_000);
        (0..20).for_each(|number| lines.send(format!("{number:02}").into()));
        assert_eq!(lines.latest(2, 1_000).iter().map(AsRef::as_ref).collect::<Vec<&str>>(), ["18", "19"]);
        assert_eq!(lines.latest(100, 7).len(), 3);
    }

    #[tokio::test]
    async fn the_end_of_the_sender_is_told_after_its_last_line() {
        let lines = Lines::new(4, 1_000);
        let mut follower = lines.follow();
        lines.send("last".into());
        assert_eq!(lines.followers(), 1);
        drop(lines);
        assert_eq!(follower.next().await.as_deref(), Ok("last"));
        assert_eq!(follower.next().await, Err(NoLine::Closed));
    }
}

//! Which closed segments go: looked at beside whoever appends, decided here.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::layout::{self, Segment};
use crate::audit::past;
use crate::clock;
use crate::run::RunId;

/// How much is kept of closed segments; `None` is all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// Bytes of all segments, as they lie there.
    pub bytes: Option<u64>,
    /// Time since the last line of a segment.
    pub age: Option<Duration>,
}

/// What may be kept of a log in which segments were closed: looked at by any thread, since it reads the disk.
#[derive(Clone, Debug)]
pub struct Retention {
    pub(super) audit: PathBuf,
    pub(super) keep: Keep,
    /// The first line that is kept: what is before it goes already.
    pub(super) from: u64,
    /// The first line of the segment that was open then: what is closed later may be of runs that nobody knew.
    pub(super) until: u64,
}

/// A closed segment that is kept no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaving {
    /// Its first line.
    pub(super) first: u64,
    pub(super) lines: u64,
    pub(super) reason: &'static str,
}

impl Retention {
    /// The oldest closed segments that are larger or older than may be kept. None that these runs may need is among them,
    /// nor one after that.
    ///
    /// # Errors
    /// When the segments cannot be listed, or their heads not be read.
    pub fn look(&self, runs: &[RunId]) -> io::Result<Vec<Leaving>> {
        let mut segments = layout::segments(&self.audit)?;
        segments.retain(|segment| segment.first >= self.from);
        let size = |segment: &Segment| {
            // It may be compressed by now.
            let names = layout::names(segment.first);
            names.iter().filter_map(|name| fs::metadata(self.audit.join(name)).ok()).map(|it| it.len()).min()
        };
        let sizes: Vec<u64> = segments.iter().map(|segment| size(segment).unwrap_or(0)).collect();
        let mut total: u64 = sizes.iter().sum();
        let now = u64::try_from(clock::both().real_ns / 1_000_000).unwrap_or(0);
        let needed_since = runs.iter().map(|run| run.0.timestamp_ms()).min();
        let mut leaving = Vec::new();
        for (pair, size) in segments.windows(2).zip(sizes) {
            let [segment, next] = pair else { break };
            if next.first > self.until {
                break;
            }
            // It ended when the next one began; what does not say when may be needed.
            let ended = past::begun(next)?;
            if needed_since.is_some_and(|since| ended.is_none_or(|ended| ended >= since)) {
                break;
            }
            let Some(reason) = reason(self.keep, total, ended, now) else { break };
            total -= size.min(total);
            leaving.push(Leaving { first: segment.first, lines: next.first - segment.first, reason });
        }
        Ok(leaving)
    }
}

/// Why the oldest segment goes, by a word: `size` or `age`. `total` are the bytes of all that are left, `ended` and `now`
/// milliseconds since 1970; of a segment that does not say when it ended the age is not known.
pub(super) fn reason(keep: Keep, total: u64, ended: Option<u64>, now: u64) -> Option<&'static str> {
    let is_old = |age: Duration| ended.is_some_and(|ended| u128::from(now.saturating_sub(ended)) > age.as_millis());
    if keep.bytes.is_some_and(|most| total > most) {
        Some("size")
    } else {
        keep.age.is_some_and(is_old).then_some("age")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_goes_by_size_or_age_and_what_is_not_known_is_no_age() {
        let keep = Keep { bytes: Some(100), age: Some(Duration::from_secs(60)) };
        assert_eq!(reason(keep, 101, None, 0), Some("size"));
        assert_eq!(reason(keep, 100, Some(1_000), 61_000), None, "to the millisecond");
        assert_eq!(reason(keep, 100, Some(1_000), 61_001), Some("age"));
        assert_eq!(reason(keep, 100, None, u64::MAX), None);
        assert_eq!(reason(keep, 100, Some(70_000), 1_000), None, "the wall clock was set back");
        assert_eq!(reason(Keep::default(), u64::MAX, Some(0), u64::MAX), None, "all is kept");
    }
}

//! Which closed segments go: a decision of the front end. [pure]

use std::time::Duration;

/// How much is kept of closed segments; `None` is all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// Bytes of all segments, as they lie there.
    pub bytes: Option<u64>,
    /// Time since the last line of a segment.
    pub age: Option<Duration>,
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

//! When a checkpoint is handed out: a decision of the anchoring thread. [pure]

use std::time::Duration;

/// A moment of the thread: time since its start.
type Moment = Duration;

/// What one anchor has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// How many lines the newest checkpoint that it keeps covers.
    anchored: u64,
    tried_at: Option<Moment>,
}

impl Plan {
    /// Whether there is something that it does not cover. A record of an anchoring alone is not worth another.
    pub(super) fn lacks(&self, signed: u64, of_others: u64) -> bool {
        signed.min(of_others) > self.anchored
    }

    /// When it gets the newest checkpoint next: the first at once, then one in each span.
    pub(super) fn due(&self, signed: u64, of_others: u64, every: Duration) -> Option<Moment> {
        self.lacks(signed, of_others).then(|| self.tried_at.map_or(Moment::ZERO, |at| at.saturating_add(every)))
    }

    /// Takes that it was tried; `kept` is the size of what it keeps now.
    pub(super) fn tried(&mut self, kept: Option<u64>, now: Moment) {
        self.anchored = kept.unwrap_or(self.anchored);
        self.tried_at = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(600);

    fn s(seconds: u64) -> Moment {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_first_is_handed_out_at_once_and_the_next_after_the_span() {
        let mut plan = Plan::default();
        assert_eq!(plan.due(0, 0, EVERY), None, "nothing is signed");
        assert_eq!(plan.due(9, 9, EVERY), Some(s(0)));
        plan.tried(Some(9), s(5));
        assert_eq!(plan.due(9, 9, EVERY), None, "it has that");
        assert_eq!(plan.due(12, 12, EVERY), Some(s(605)));
    }

    #[test]
    fn a_failure_is_tried_again_after_the_span_and_not_before() {
        let mut plan = Plan::default();
        plan.tried(None, s(5));
        assert_eq!(plan.due(9, 9, EVERY), Some(s(605)));
    }

    #[test]
    fn the_record_of_an_anchoring_is_not_anchored_for_itself() {
        let mut plan = Plan::default();
        plan.tried(Some(9), s(5));
        // Line 9 tells of that anchoring, nothing else was written.
        assert_eq!(plan.due(10, 9, EVERY), None);
        assert_eq!(plan.due(10, 11, EVERY), Some(s(605)), "line 10 is another, and signed soon");
    }
}

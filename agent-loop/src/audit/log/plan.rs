//! When to sync and when to sign: decisions of the writing thread. [pure]

use std::time::Duration;

/// How many lines may be written and not durable.
pub(super) const MOST_UNSYNCED: u64 = 1_000;

/// How long a line may be written and not durable.
pub(super) const SYNC_WITHIN: Duration = Duration::from_millis(100);

/// How long a line may be durable and not signed.
const SIGN_WITHIN: Duration = Duration::from_secs(5);

/// The shortest time between two signatures, the last ones of a segment and of a log apart.
const SIGN_APART: Duration = Duration::from_secs(1);

/// How long a log may be silent before it signs that it lives.
const HEARTBEAT: Duration = Duration::from_secs(60);

/// How long to wait before a disk that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// A moment of the thread: time since its start.
type Moment = Duration;

/// What is outstanding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Lines written and not durable, the time of the first, and whether somebody waits for them.
    pub(super) unsynced: u64,
    pub(super) unsynced_since: Option<Moment>,
    pub(super) urgent: bool,
    /// The time of the first line that no checkpoint covers, and whether it is to be signed at once.
    pub(super) unsigned_since: Option<Moment>,
    pub(super) sign_now: bool,
    pub(super) signed_at: Option<Moment>,
    /// When the disk failed last, while it does.
    pub(super) failed_at: Option<Moment>,
}

impl Plan {
    /// Takes lines that were written.
    pub(super) fn wrote(&mut self, lines: u64, urgent: bool, sign: bool, now: Moment) {
        self.unsynced += lines;
        self.unsynced_since.get_or_insert(now);
        self.unsigned_since.get_or_insert(now);
        self.urgent |= urgent;
        self.sign_now |= sign;
    }

    /// Whether what was written is to be made durable now.
    pub(super) fn must_sync(&self, now: Moment) -> bool {
        let waited = self.unsynced_since.is_some_and(|since| now.saturating_sub(since) >= SYNC_WITHIN);
        self.unsynced > 0 && self.may_try(now) && (self.urgent || waited || self.unsynced >= MOST_UNSYNCED)
    }

    /// Takes that all is durable.
    pub(super) fn synced(&mut self) {
        (self.unsynced, self.unsynced_since, self.urgent) = (0, None, false);
    }

    /// Whether a checkpoint is to be signed now; all that is written has to be durable.
    pub(super) fn must_sign(&self, now: Moment) -> bool {
        self.unsynced == 0 && self.may_try(now) && self.sign_due().is_some_and(|due| now >= due)
    }

    fn sign_due(&self) -> Option<Moment> {
        let apart = self.signed_at.map_or(Duration::ZERO, |at| at + SIGN_APART);
        match self.unsigned_since {
            Some(since) if self.sign_now => Some(since.max(apart)),
            Some(since) => Some((since + SIGN_WITHIN).max(apart)),
            None => self.signed_at.map(|at| at + HEARTBEAT),
        }
    }

    /// Takes that a checkpoint was signed.
    pub(super) fn signed(&mut self, now: Moment) {
        (self.unsigned_since, self.sign_now, self.signed_at) = (None, false, Some(now));
    }

    /// Whether a disk that failed may be tried again.
    pub(super) fn may_try(&self, now: Moment) -> bool {
        self.failed_at.is_none_or(|at| now.saturating_sub(at) >= RETRY)
    }

    /// How long nothing has to be done where nothing comes.
    pub(super) fn sleep(&self, now: Moment) -> Duration {
        let retry = self.failed_at.map(|at| at + RETRY);
        let sync = self.unsynced_since.map(|since| since + SYNC_WITHIN);
        let due = match (retry, sync) {
            (Some(retry), _) => retry,
            (None, Some(sync)) => sync,
            (None, None) => self.sign_due().unwrap_or(now + HEARTBEAT),
        };
        due.saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Moment {
        Duration::from_millis(ms)
    }

    #[test]
    fn lines_are_durable_at_once_in_time_or_by_number() {
        let mut plan = Plan::default();
        assert!(!plan.must_sync(ms(0)), "nothing is written");
        plan.wrote(1, false, false, ms(0));
        assert!(!plan.must_sync(ms(99)) && plan.must_sync(ms(100)));
        assert_eq!(plan.sleep(ms(40)), ms(60));
        plan.wrote(999, false, false, ms(10));
        assert!(plan.must_sync(ms(10)), "by number");
        plan.synced();
        plan.wrote(1, true, false, ms(20));
        assert!(plan.must_sync(ms(20)), "somebody waits");
    }

    #[test]
    fn a_checkpoint_comes_within_five_seconds_and_not_twice_in_one() {
        let mut plan = Plan::default();
        plan.wrote(1, false, false, ms(0));
        assert!(!plan.must_sign(ms(9_000)), "what is not durable is not signed");
        plan.synced();
        assert!(!plan.must_sign(ms(4_999)) && plan.must_sign(ms(5_000)));
        plan.signed(ms(5_000));
        plan.wrote(1, true, true, ms(5_100));
        plan.synced();
        assert!(!plan.must_sign(ms(5_999)) && plan.must_sign(ms(6_000)), "at once, but a second apart");
        plan.signed(ms(6_000));
        assert!(!plan.must_sign(ms(65_999)) && plan.must_sign(ms(66_000)), "at rest once a minute");
        assert_eq!(plan.sleep(ms(6_000)), ms(60_000), "and nothing else wakes it");
    }

    #[test]
    fn a_disk_that_failed_is_tried_once_a_second() {
        let mut plan = Plan::default();
        plan.wrote(5, true, false, ms(0));
        plan.failed_at = Some(ms(50));
        assert!(!plan.must_sync(ms(1_049)) && plan.must_sync(ms(1_050)));
        assert_eq!(plan.sleep(ms(50)), ms(1_000));
    }

    #[test]
    fn an_idle_log_signs_once_a_minute_and_wakes_for_nothing_else() {
        let mut plan = Plan::default();
        plan.wrote(1, true, true, ms(0));
        plan.synced();
        plan.signed(ms(0));
        // Its clock goes as far as it would sleep.
        let (mut now, mut wakes, mut signed) = (ms(0), 0, 0);
        while now < ms(3_600_000) {
            now += plan.sleep(now);
            wakes += 1;
            assert!(!plan.must_sync(now));
            if plan.must_sign(now) {
                plan.signed(now);
                signed += 1;
            }
        }
        assert_eq!((wakes, signed, now), (60, 60, ms(3_600_000)));
    }
}

//! What the kernel counted, what was lost of it, and how far the repair has come. [pure]

use std::collections::HashMap;
use std::time::Duration;

use crate::event::{Action, Gap, GapCause, GapId};
use crate::model::{BootNs, Live, ProcessKey, Totals};

/// The counters are read at most this often while records flow.
pub(super) const COUNT_EVERY: Duration = Duration::from_millis(50);
/// A difference to the live set counts only if a second look, this much later, still shows it.
pub(super) const CONFIRM_AFTER: Duration = Duration::from_millis(20);
/// How often the main process may be looked for again before its `waitid` has answered.
pub(super) const MAIN_TRIES: u32 = 10;

/// What became of the records of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Records written as facts.
    pub emitted: u64,
    /// Records left out on purpose: the main process's fork, the launcher's exec.
    pub filtered: u64,
    /// Records that came after the repair had inferred what they say.
    pub late: u64,
    /// Records delivered again; not part of any sum.
    pub duplicates: u64,
    /// Facts inferred without a record.
    pub inferred: u64,
    /// Records the kernel counted.
    pub seen: u64,
    /// Records the kernel could not deliver, by its own count.
    pub lost: u64,
    /// Records that no counter missed and that never came, declared by a gap when the run was over.
    pub declared: u64,
}

impl Tally {
    /// Records the kernel counted that nothing accounts for.
    #[must_use]
    pub fn unexplained(&self) -> u64 {
        self.seen.saturating_sub(self.emitted + self.filtered + self.late + self.lost + self.declared)
    }
}

/// The sum of I20 by kind: seen = emitted + filtered + late + lost + declared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accounts {
    /// Births.
    pub births: Tally,
    /// Execs.
    pub execs: Tally,
    /// Deaths.
    pub deaths: Tally,
}

impl Accounts {
    /// Whether everything the kernel counted is accounted for.
    #[must_use]
    pub fn balanced(&self) -> bool {
        [self.births, self.execs, self.deaths].iter().all(|tally| tally.unexplained() == 0)
    }

    /// What nothing accounts for: births, execs, deaths.
    pub(super) fn unexplained(&self) -> [u64; 3] {
        [self.births, self.execs, self.deaths].map(|tally| tally.unexplained())
    }

    /// Moves what nothing accounts for into a gap; only when no record can be on its way any more.
    pub(super) fn declare(&mut self, gap: &mut Gap) {
        self.declare_at_most(gap, [u64::MAX; 3]);
    }

    /// As [`Accounts::declare`], of each kind no more than this: the rest may be on its way.
    pub(super) fn declare_at_most(&mut self, gap: &mut Gap, most: [u64; 3]) {
        let tallies = [&mut self.births, &mut self.execs, &mut self.deaths];
        let lost = [&mut gap.lost_fork, &mut gap.lost_exec, &mut gap.lost_exit];
        for ((tally, lost), most) in tallies.into_iter().zip(lost).zip(most) {
            let unexplained = tally.unexplained().min(most);
            tally.declared += unexplained;
            *lost += unexplained;
        }
    }

    pub(super) fn count(&mut self, base: &Totals, totals: &Totals) {
        self.births.seen = totals.seen_fork.saturating_sub(base.seen_fork);
        self.births.lost = totals.lost_fork.saturating_sub(base.lost_fork);
        self.execs.seen = totals.seen_exec.saturating_sub(base.seen_exec);
        self.execs.lost = totals.lost_exec.saturating_sub(base.lost_exec);
        self.deaths.seen = totals.seen_exit.saturating_sub(base.seen_exit);
        self.deaths.lost = totals.lost_exit.saturating_sub(base.lost_exit);
    }
}

/// A question to the kernel of which at most one is open.
#[derive(Debug, Default)]
pub(super) struct Ask {
    open: bool,
    again: bool,
}

impl Ask {
    /// Asks unless an answer is on its way.
    pub(super) fn any(&mut self, action: Action, out: &mut Vec<Action>) {
        if !self.open {
            self.open = true;
            out.push(action);
        }
    }

    /// Asks for an answer from now on: one that is on its way already does not do.
    pub(super) fn fresh(&mut self, action: Action, out: &mut Vec<Action>) {
        if self.open {
            self.again = true;
        } else {
            self.any(action, out);
        }
    }

    /// Takes an answer; false if it is older than what was asked for, which is then asked again.
    pub(super) fn answered(&mut self, action: Action, out: &mut Vec<Action>) -> bool {
        let stale = self.again;
        self.again = false;
        self.open = false;
        if stale {
            self.any(action, out);
        }
        !stale
    }

    /// Puts a question again that had no answer: the new one is as fresh as any that was asked for meanwhile.
    fn retry(&mut self, action: Action, out: &mut Vec<Action>) {
        if self.open {
            self.again = false;
            out.push(action);
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.open
    }
}

/// How often the live set may fail to be read in a row before nothing is made to depend on it.
const BLIND_AFTER: u32 = 6;
/// The pause before it is read again; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The failures in a row to read the live set: its question stays open, and is put again.
#[derive(Debug, Default)]
pub(super) struct Unread {
    times: u32,
    due: Option<BootNs>,
}

impl Unread {
    pub(super) fn failed(&mut self, now: BootNs) {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.times.min(10)).min(LONGEST_PAUSE);
        self.times = self.times.saturating_add(1);
        self.due = Some(now.after(pause));
    }

    pub(super) fn due(&self) -> Option<BootNs> {
        self.due
    }

    pub(super) fn is_blind(&self) -> bool {
        self.times >= BLIND_AFTER
    }
}

/// What the first look at the live set left to be confirmed.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    /// In the live set, not in the registry.
    pub(super) births: HashMap<ProcessKey, Live>,
    /// Alive in the registry, not in the live set.
    pub(super) deaths: Vec<ProcessKey>,
}

impl Suspects {
    pub(super) fn is_empty(&self) -> bool {
        self.births.is_empty() && self.deaths.is_empty()
    }
}

/// How far a repair has come.
#[derive(Debug)]
pub(super) enum Stage {
    /// The first look at the live set is awaited.
    Look,
    /// The time of the second look is awaited.
    Wait {
        /// When to look again.
        due: BootNs,
        /// What to confirm.
        suspects: Suspects,
    },
    /// The second look is awaited.
    Confirm(Suspects),
    /// The counters are awaited, to see whether the loss goes on.
    Recount,
}

/// A gap that is not closed yet.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) gap: Gap,
    pub(super) stage: Stage,
    /// More was lost since the first look was asked for.
    pub(super) grew: bool,
    pub(super) tries: u32,
}

/// The counters and the gap they opened.
#[derive(Debug)]
pub(super) struct Loss {
    pub(super) traced: bool,
    pub(super) base: Totals,
    pub(super) last: Totals,
    /// The last time the counters showed no loss.
    pub(super) clean_at: BootNs,
    pub(super) counted_at: Option<BootNs>,
    /// Records came since the counters were asked for.
    pub(super) flow: bool,
    pub(super) count: Ask,
    pub(super) set: Ask,
    pub(super) unread: Unread,
    pub(super) open: Option<Open>,
    next_id: u64,
    untracked: u64,
    /// A new daemon has not compared the kernel's count with the log of an earlier one yet.
    pub(super) unchecked: bool,
    /// Nobody watched for a time before it began: a gap of unknown size is to be told.
    pub(super) unwatched: bool,
    /// What that comparison left unexplained: births, execs, deaths.
    pub(super) suspected: [u64; 3],
}

impl Loss {
    pub(super) fn new(base: Totals) -> Self {
        Self {
            traced: false,
            base,
            last: base,
            clean_at: BootNs(0),
            counted_at: None,
            flow: false,
            count: Ask::default(),
            set: Ask::default(),
            unread: Unread::default(),
            open: None,
            next_id: 1,
            untracked: 0,
            unchecked: false,
            unwatched: false,
            suspected: [0; 3],
        }
    }

    /// Goes on with the gaps of an earlier daemon's log, which told of these losses.
    pub(super) fn restore(&mut self, next_gap: u64, told: Totals) {
        self.next_id = next_gap;
        self.untracked = told.live_full;
        let Totals { seen_fork, seen_exec, seen_exit, .. } = self.base;
        self.last = Totals {
            seen_fork,
            seen_exec,
            seen_exit,
            lost_fork: self.base.lost_fork.saturating_add(told.lost_fork),
            lost_exec: self.base.lost_exec.saturating_add(told.lost_exec),
            lost_exit: self.base.lost_exit.saturating_add(told.lost_exit),
            live_full: self.base.live_full.saturating_add(told.live_full),
            stale: self.base.stale.saturating_add(told.stale),
            missed: self.base.missed.saturating_add(told.missed),
        };
        self.unchecked = true;
        self.flow = true;
    }

    /// When the counters are due, `held` saying whether a record waits for another.
    pub(super) fn count_due(&self, held: bool) -> Option<BootNs> {
        let wanted = self.traced && !self.count.is_open() && (self.flow || held);
        wanted.then(|| self.counted_at.map_or(BootNs(0), |at| at.after(COUNT_EVERY)))
    }

    /// Asks for the counters if they are due.
    pub(super) fn count_if_due(&mut self, now: BootNs, held: bool, out: &mut Vec<Action>) {
        if self.count_due(held).is_some_and(|due| due <= now) {
            self.counted_at = Some(now);
            self.flow = false;
            self.count.any(Action::ReadCounters, out);
        }
    }

    /// Reads the live set again once the pause after a failure is over.
    pub(super) fn read_again_if_due(&mut self, now: BootNs, out: &mut Vec<Action>) {
        if self.unread.due.is_some_and(|due| due <= now) {
            self.unread.due = None;
            self.set.retry(Action::ReadLiveSet, out);
        }
    }

    /// The open gap's id; opens one if there is none.
    pub(super) fn gap(&mut self, now: BootNs, cause: GapCause, out: &mut Vec<Action>) -> GapId {
        if let Some(open) = &self.open {
            return open.gap.id;
        }
        let id = self.number();
        let gap = Gap {
            id,
            cause,
            lost_fork: 0,
            lost_exec: 0,
            lost_exit: 0,
            untracked: 0,
            missed: 0,
            from: self.clean_at,
            to: now,
            inferred_births: 0,
            inferred_deaths: 0,
            repaired: false,
        };
        self.open = Some(Open { gap, stage: Stage::Look, grew: false, tries: 0 });
        self.set.fresh(Action::ReadLiveSet, out);
        id
    }

    /// Takes the counters: any increase of a loss opens the gap or extends the open one.
    pub(super) fn compare(&mut self, now: BootNs, totals: Totals, out: &mut Vec<Action>) {
        let last = std::mem::replace(&mut self.last, totals);
        let fork = totals.lost_fork.saturating_sub(last.lost_fork);
        let exec = totals.lost_exec.saturating_sub(last.lost_exec);
        let exit = totals.lost_exit.saturating_sub(last.lost_exit);
        let untracked = totals.live_full.saturating_sub(last.live_full);
        let missed = totals.missed.saturating_sub(last.missed);
        // A stale entry replaced is a death whose hook never ran, found when its number came round again.
        let stale = totals.stale.saturating_sub(last.stale);
        if fork + exec + exit + untracked + missed + stale == 0 {
            // What an earlier daemon did not write was lost before this count.
            if self.open.is_none() && !self.unchecked {
                self.clean_at = now;
            }
            return;
        }
        let known = self.open.is_some();
        self.gap(now, if self.unchecked { GapCause::Restart } else { GapCause::Missed }, out);
        self.untracked += untracked;
        if let Some(open) = &mut self.open {
            open.grew = known;
            open.gap.lost_fork += fork;
            open.gap.lost_exec += exec;
            open.gap.lost_exit += exit;
            open.gap.untracked += untracked;
            open.gap.missed += missed;
            open.gap.to = now;
        }
    }

    /// Takes the open gap out, closed; its cause is what the counters say, else what was suspected.
    pub(super) fn close(&mut self, now: BootNs, repaired: bool) -> Option<Gap> {
        let Open { mut gap, .. } = self.open.take()?;
        self.clean_at = now;
        gap.repaired = repaired;
        if gap.lost_fork + gap.lost_exec + gap.lost_exit > 0 {
            gap.cause = GapCause::RingFull;
        } else if gap.untracked > 0 {
            gap.cause = GapCause::LiveFull;
        } else if gap.missed > 0 {
            gap.cause = GapCause::Missed;
        }
        Some(gap)
    }

    /// A number for a gap that is told at once.
    pub(super) fn number(&mut self) -> GapId {
        let id = GapId(self.next_id);
        self.next_id += 1;
        id
    }

    /// Takes back the number of a gap that was never told.
    pub(super) fn forget(&mut self, id: GapId) {
        if self.next_id == id.0 + 1 {
            self.next_id = id.0;
        }
    }

    /// Runs of hooks that left nothing in the live set.
    pub(super) fn unseen(&self) -> u64 {
        let untracked = self.last.live_full.saturating_sub(self.base.live_full);
        untracked + self.last.missed.saturating_sub(self.base.missed)
    }

    /// Processes never tracked since the live set was full.
    pub(super) fn untracked(&self) -> u64 {
        self.untracked
    }
}

//! The merge: the gate before it, the request, and finding out what became of it. [pure]

use super::{Act, Decision, Or, State, Why, write};
use crate::work::act::{Kind, Need, Write};
use crate::work::ci::Verdict;
use crate::work::seen::{Mergeable, Reply};
use crate::work::task::{Head, Purpose};

/// How long to wait before a pull request is read again whose merge is in doubt, seconds; then a person is asked.
const READS: [u64; 3] = [2, 5, 15];

/// How often it is read where its head is on the base already and it is not shown as merged.
const LATE: u32 = 12;

impl Decision<'_> {
    pub(super) fn gate(&mut self, head: Head, asked: u32) -> Or<()> {
        let Some(pull) = self.pull_at(&head)? else { return Ok(()) };
        if self.verdict(&head)? != Verdict::Green {
            // Green is of now, not of then.
            return self.to(State::CiWait(Head { since: self.now, ..head }));
        }
        if self.task.paused || !self.rules.merge || pull.draft {
            return Err(self.wait(self.rules.poll));
        }
        match pull.mergeable {
            Mergeable::Blocked => Err(self.wait(self.rules.poll)),
            Mergeable::Conflict | Mergeable::Behind => self.fix_conflict(head),
            Mergeable::Unknown => {
                let wait = u64::from(asked + 1).saturating_mul(5).min(self.rules.poll.max(5));
                self.to(State::MergeGate { head, asked: asked.saturating_add(1) })?;
                Err(self.wait(wait))
            }
            Mergeable::Yes if self.task.spent.merges >= self.rules.budgets.merges => {
                self.ask_a_person(Why::MergeFailed("it was asked for as often as it may be".to_owned()))
            }
            Mergeable::Yes => {
                let sha = head.sha.clone();
                self.to(State::Merging(head))?;
                Err(write(Write::Merge { pull: pull.number, head: sha }))
            }
        }
    }

    fn fix_conflict(&mut self, head: Head) -> Or<()> {
        if self.task.spent.conflict_fixes >= self.rules.budgets.conflict_fixes {
            return self.ask_a_person(Why::Conflicts);
        }
        self.task.spent.conflict_fixes += 1;
        self.to(State::Preparing(Purpose::FixConflict { head: head.sha }))
    }

    /// The merge was asked for: whatever was answered, the pull request is read.
    pub(super) fn merging(&mut self, head: Head) -> Or<()> {
        if self.pull_at(&head)?.is_none() {
            return Ok(());
        }
        // It is open at this head.
        let reply = self.reply_to(Kind::Merge).cloned();
        // What was decided and not sent, by a crash or for want of a network, costs nothing of the budget.
        let was_sent = match reply {
            Some(Reply::Done | Reply::Doubt(_) | Reply::NotNow(_) | Reply::Conflict(_) | Reply::Refused(_)) => true,
            Some(Reply::Local(_) | Reply::Limited(_)) | None => false,
        };
        self.task.spent.merges += u32::from(was_sent);
        match reply {
            Some(Reply::Refused(why)) => self.ask_a_person(Why::MergeFailed(why)),
            Some(Reply::Limited(until)) if until > self.now => Err(Act::Wait(until)),
            // Not sent, or certainly not done.
            Some(Reply::NotNow(_) | Reply::Conflict(_) | Reply::Local(_) | Reply::Limited(_)) => {
                self.to(State::MergeGate { head, asked: 0 })?;
                Err(self.wait(self.pause(1)))
            }
            // Accepted and not to be seen, in doubt, or asked for by a daemon that is gone.
            Some(Reply::Done | Reply::Doubt(_)) | None => {
                self.to(State::MergeUnknown { head, reads: 0 })?;
                Err(self.wait(READS[0]))
            }
        }
    }

    pub(super) fn unknown(&mut self, head: Head, reads: u32) -> Or<()> {
        if self.pull_at(&head)?.is_none() {
            return Ok(());
        }
        let base = self.task.base.clone();
        let need = Need::OnBase { head: head.sha.clone(), base };
        let on_base = self.seen.on_base.ok_or(Act::Read(need))?;
        let reads = reads.saturating_add(1);
        let next = usize::try_from(reads).ok().and_then(|reads| READS.get(reads));
        match (on_base, next) {
            (true, _) if reads >= LATE => {
                self.ask_a_person(Why::MergeFailed("its commits are on the base, and it is shown as open".to_owned()))
            }
            (_, Some(seconds)) => {
                self.to(State::MergeUnknown { head, reads })?;
                Err(self.wait(*seconds))
            }
            (true, None) => {
                self.to(State::MergeUnknown { head, reads })?;
                Err(self.wait(READS[2]))
            }
            // Read three times as open with this head, which is not on the base: it was not merged.
            (false, None) => self.to(State::MergeGate { head, asked: 0 }),
        }
    }
}

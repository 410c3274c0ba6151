//! What people see on the forge: labels, the status comment, notices; each written only where it differs. [pure]

use std::collections::BTreeSet;

use super::{Act, Decision, Or, write};
use crate::work::act::{Kind, Need, Write};
use crate::work::comment::{self, digest};
use crate::work::seen::{Claim, Mark, Reply};
use crate::work::task::{Gone, WayPart, Writing};

/// How long a comment that was written may not be shown, seconds, before it is taken for not written.
const SHOWN: u64 = 30;

impl Decision<'_> {
    pub(super) fn tell(&mut self) -> Or<()> {
        match self.task.state.part() {
            // Not ours to write in; or something more urgent is in the middle.
            WayPart::Before
            | WayPart::Stopping
            | WayPart::Merge
            | WayPart::Withdrawn(Gone::ClaimLost)
            | WayPart::Nothing => return Ok(()),
            WayPart::Work | WayPart::Judged | WayPart::Person | WayPart::Done | WayPart::Withdrawn(_) => {}
        }
        // Given up, or taken over: whoever has it writes there.
        if !self.task.claimed || !matches!(self.claim_seen()?, Claim::Ours { .. }) {
            return Ok(());
        }
        self.written()?;
        self.label()?;
        let status = comment::status(self.task);
        if self.task.status.digest.as_ref() != Some(&digest(&status)) {
            return Err(self.write_comment(Mark::Status, &status)?);
        }
        if let Some((key, notice)) = comment::notice(self.task)
            && !self.task.notices.contains(&key)
        {
            return Err(self.write_comment(Mark::Notice(key), &notice)?);
        }
        Ok(())
    }

    /// Finds out what became of the comment that was written last, by reading.
    fn written(&mut self) -> Or<()> {
        let Some(writing) = self.task.writing.clone() else { return Ok(()) };
        let comments = self.seen.comments.as_ref().ok_or(Act::Read(Need::Comments))?;
        let mut ours = comments.iter().filter(|comment| comment.mark == writing.mark);
        let first = ours.next();
        if let Some(extra) = ours.next() {
            // Somebody wrote it at the same time, or an answer came late: the oldest stays.
            return Err(write(Write::DropComment(extra.id)));
        }
        let there = first.is_some_and(|comment| comment.digest == writing.digest);
        let refused = self
            .seen
            .reply
            .as_ref()
            .is_some_and(|answered| answered.kind == Kind::Comment && matches!(answered.reply, Reply::Refused(_)));
        if !there && !refused && self.now.since(writing.since) < SHOWN {
            return match self.limit_of(Kind::Comment) {
                Some(until) => Err(Act::Wait(until)),
                None => Err(self.wait(5)),
            };
        }
        if there || refused {
            // What is refused (a locked conversation) is not tried again until there is something else to say.
            match writing.mark {
                Mark::Status => {
                    self.task.status.id = first.map(|comment| comment.id);
                    self.task.status.digest = Some(writing.digest);
                }
                Mark::Notice(key) => drop(self.task.notices.insert(key)),
            }
        }
        self.task.writing = None;
        Ok(())
    }

    fn limit_of(&self, kind: Kind) -> Option<crate::work::words::At> {
        let answered = self.seen.reply.as_ref().filter(|answered| answered.kind == kind)?;
        match answered.reply {
            Reply::Limited(until) if until > self.now => Some(until),
            Reply::Limited(_)
            | Reply::Done
            | Reply::Conflict(_)
            | Reply::NotNow(_)
            | Reply::Refused(_)
            | Reply::Doubt(_)
            | Reply::Local(_) => None,
        }
    }

    /// Writes a comment, where it is not there already: that is read first, always (I14, I18).
    fn write_comment(&mut self, mark: Mark, text: &str) -> Or<Act> {
        let comments = self.seen.comments.as_ref().ok_or(Act::Read(Need::Comments))?;
        let there = comments.iter().find(|comment| comment.mark == mark);
        let digest = digest(text);
        let edit = there.map(|comment| comment.id);
        if there.is_some_and(|comment| comment.digest == digest || mark != Mark::Status) {
            // An earlier daemon, or another host's, wrote it.
            match mark {
                Mark::Status => {
                    self.task.status.id = edit;
                    self.task.status.digest = Some(digest);
                }
                Mark::Notice(key) => drop(self.task.notices.insert(key)),
            }
            return Err(self.wait(1));
        }
        self.task.writing = Some(Writing { mark: mark.clone(), digest: digest.clone(), since: self.now });
        let text = format!("{}\n{text}", comment::marker(&self.task.key, &mark, &digest));
        Ok(write(Write::Comment { edit, mark, text }))
    }

    fn label(&self) -> Or<()> {
        let labels = &self.rules.labels;
        let (wanted, unwanted): (BTreeSet<&String>, BTreeSet<&String>) = match self.task.state.part() {
            WayPart::Person => ([&labels.question].into(), [&labels.in_progress].into()),
            WayPart::Done => (BTreeSet::new(), [&labels.in_progress, &labels.question, &labels.ready].into()),
            WayPart::Withdrawn(_) => (BTreeSet::new(), [&labels.in_progress].into()),
            WayPart::Before
            | WayPart::Work
            | WayPart::Stopping
            | WayPart::Judged
            | WayPart::Merge
            | WayPart::Nothing => ([&labels.in_progress].into(), [&labels.ready, &labels.question].into()),
        };
        let there: BTreeSet<&String> = self.issue()?.labels.iter().collect();
        let add: Vec<String> = wanted.difference(&there).map(|label| (*label).clone()).collect();
        let remove: Vec<String> = unwanted.intersection(&there).map(|label| (*label).clone()).collect();
        if add.is_empty() && remove.is_empty() {
            return Ok(());
        }
        if matches!(self.reply_to(Kind::Label), Some(Reply::Refused(_))) {
            // Labels are for people: the work goes on without.
            return Ok(());
        }
        self.again(Kind::Label)?;
        Err(write(Write::Label { add, remove }))
    }
}

//! The checks of a head: what becomes of it. [pure]

use super::{Act, Decision, Or, State, Why};
use crate::work::act::Need;
use crate::work::ci::{Verdict, verdict};
use crate::work::seen::{Pull, PullState};
use crate::work::task::{Gone, Head, Purpose};

impl Decision<'_> {
    /// The open pull request at this head; where it is anything else, the task goes there.
    pub(super) fn pull_at(&mut self, head: &Head) -> Or<Option<Pull>> {
        let Some(pull) = self.pull()?.cloned() else {
            // One that was there is shown again in a while, or a person looks at it.
            if self.now.since(head.since) > self.rules.ci_timeout {
                self.ask_a_person(Why::Refused("the pull request is not shown any more".to_owned()))?;
                return Ok(None);
            }
            return Err(self.wait(self.rules.poll));
        };
        let elsewhere = match &pull.state {
            PullState::Merged(proof) if *proof.head() == head.sha => State::Closing { head: head.clone(), tries: 0 },
            PullState::Merged(_) => State::Superseded(Gone::MergedElsewhere),
            PullState::Closed => State::Superseded(Gone::PullClosed),
            PullState::Open if pull.base != self.task.base => {
                State::NeedsHuman(Why::Refused(format!("the pull request goes into {} now", pull.base)))
            }
            PullState::Open if pull.head != head.sha => {
                // Whoever pushed it: it is judged anew, by its own checks.
                self.task.pushed = Some(pull.head.clone());
                State::CiWait(Head { sha: pull.head, since: self.now })
            }
            PullState::Open => return Ok(Some(pull)),
        };
        self.to(elsewhere)?;
        Ok(None)
    }

    pub(super) fn verdict(&self, head: &Head) -> Or<Verdict> {
        match &self.seen.ci {
            Some((of, ci)) if *of == head.sha => Ok(verdict(ci, &self.rules.ci)),
            Some(_) | None => Err(Act::Read(Need::Ci(head.sha.clone()))),
        }
    }

    pub(super) fn ci_wait(&mut self, head: Head) -> Or<()> {
        if self.pull_at(&head)?.is_none() {
            return Ok(());
        }
        let age = self.now.since(head.since);
        match self.verdict(&head)? {
            Verdict::Green => self.to(State::MergeGate { head, asked: 0 }),
            Verdict::Failed(names) => self.fix_checks(head, names),
            Verdict::Missing if age > self.rules.ci_start_grace => self.to(State::CiMissing(head)),
            Verdict::Approval => self.to(State::CiApproval(head)),
            Verdict::Queue => self.ask_a_person(Why::MergeQueue),
            Verdict::Pending if age > self.rules.ci_timeout => {
                self.ask_a_person(Why::ChecksStuck("they did not come to an end in time".to_owned()))
            }
            Verdict::Stuck(why) if age > self.rules.ci_timeout => self.ask_a_person(Why::ChecksStuck(why)),
            // Checks that were cancelled or left out may be started again by whoever did that.
            Verdict::Pending | Verdict::Missing | Verdict::Stuck(_) => Err(self.wait(self.rules.poll)),
        }
    }

    fn fix_checks(&mut self, head: Head, failed: Vec<String>) -> Or<()> {
        if self.task.spent.check_fixes >= self.rules.budgets.check_fixes {
            return self.ask_a_person(Why::ChecksFailed(failed));
        }
        self.task.spent.check_fixes += 1;
        self.to(State::Preparing(Purpose::FixChecks { head: head.sha, failed }))
    }

    pub(super) fn ci_missing(&mut self, head: Head) -> Or<()> {
        if self.pull_at(&head)?.is_none() {
            return Ok(());
        }
        match self.verdict(&head)? {
            Verdict::Missing => Err(self.wait(self.rules.poll)),
            Verdict::Green
            | Verdict::Failed(_)
            | Verdict::Pending
            | Verdict::Approval
            | Verdict::Stuck(_)
            | Verdict::Queue => self.to(State::CiWait(Head { since: self.now, ..head })),
        }
    }

    pub(super) fn ci_approval(&mut self, head: Head) -> Or<()> {
        if self.pull_at(&head)?.is_none() {
            return Ok(());
        }
        match self.verdict(&head)? {
            Verdict::Approval => Err(self.wait(self.rules.poll)),
            Verdict::Green
            | Verdict::Failed(_)
            | Verdict::Pending
            | Verdict::Missing
            | Verdict::Stuck(_)
            | Verdict::Queue => self.to(State::CiWait(Head { since: self.now, ..head })),
        }
    }
}

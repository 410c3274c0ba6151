//! The end of a task: the issue closed by proof, what is left put away; or a person decides. [pure]

use super::{Act, Decision, Or, State, Why, write};
use crate::work::act::{Kind, Need, Write};
use crate::work::seen::{Claim, PullState, Reply, Run};
use crate::work::task::{Gone, Head, Purpose, Spent};

/// How often closing the issue is tried.
const TRIES: u32 = 5;

impl Decision<'_> {
    pub(super) fn closing(&mut self, head: Head, tries: u32) -> Or<()> {
        let proof = match self.pull()?.map(|pull| &pull.state) {
            Some(PullState::Merged(proof)) if *proof.head() == head.sha => proof.clone(),
            // What was read before is not to be seen now: without proof nothing is closed (I16).
            Some(PullState::Merged(_) | PullState::Open | PullState::Closed) | None => {
                return Err(self.wait(self.rules.poll));
            }
        };
        if !self.issue()?.open {
            return self.to(State::Done);
        }
        if let Some(Reply::Refused(why)) = self.reply_to(Kind::Close) {
            let why = why.clone();
            return self.ask_a_person(Why::NotClosed(why));
        }
        self.again(Kind::Close)?;
        if tries >= TRIES {
            return self.ask_a_person(Why::NotClosed("it stays open".to_owned()));
        }
        self.to(State::Closing { head, tries: tries + 1 })?;
        Err(write(Write::Close(proof)))
    }

    /// A person decides: by the label of what is ready, by asking for another try, or at the pull request itself.
    pub(super) fn human(&mut self, why: Why) -> Or<()> {
        let ready = self.issue()?.labels.contains(&self.rules.labels.ready);
        if let Some(pull) = self.task.pull.map(|_| self.pull()).transpose()?.flatten().cloned() {
            match pull.state {
                PullState::Merged(proof) if self.task.pushed.as_ref() == Some(proof.head()) => {
                    let head = Head { sha: proof.head().clone(), since: self.now };
                    return self.to(State::Closing { head, tries: 0 });
                }
                PullState::Merged(_) => return self.to(State::Superseded(Gone::MergedElsewhere)),
                PullState::Closed => return self.to(State::Superseded(Gone::PullClosed)),
                PullState::Open if self.task.pushed.as_ref() != Some(&pull.head) => {
                    self.task.pushed = Some(pull.head.clone());
                    self.task.labelled = false;
                    return self.to(State::CiWait(Head { sha: pull.head, since: self.now }));
                }
                PullState::Open => {}
            }
        }
        if !ready && !self.task.retry {
            return Err(self.wait(self.rules.poll));
        }
        match self.run()? {
            Run::Never | Run::Over(_) => {}
            // A second agent beside one that may live is nobody's to ask for (I13).
            Run::Alive | Run::Unproven => return Err(self.wait(self.rules.poll)),
        }
        self.task.retry = false;
        self.task.labelled = false;
        self.task.spent = Spent::default();
        self.to(self.tried_again(&why))
    }

    fn tried_again(&self, why: &Why) -> State {
        let head = self.task.pushed.clone().filter(|_| self.task.pull.is_some());
        let judged = |since| head.clone().map(|sha| State::CiWait(Head { sha, since }));
        match why {
            _ if !self.task.claimed => State::Eligible,
            Why::ChecksStuck(_) | Why::MergeQueue | Why::MergeFailed(_) | Why::NotClosed(_) | Why::Refused(_) => {
                judged(self.now).unwrap_or(State::Preparing(Purpose::Again))
            }
            Why::AgentFailed(_)
            | Why::NothingCommitted
            | Why::HostFailed(_)
            | Why::ChecksFailed(_)
            | Why::Conflicts
            | Why::ForeignBranch(_)
            | Why::TreeNotProven => State::Preparing(Purpose::Again),
        }
    }

    pub(super) fn put_away(&mut self) -> Or<()> {
        match self.run()? {
            Run::Never | Run::Over(_) => {}
            // Its clone is not taken from under an agent, and no other host takes the issue while it may live (I13).
            Run::Alive | Run::Unproven => {
                self.renew()?;
                return Err(self.wait(self.rules.poll));
            }
        }
        if !matches!(self.reply_to(Kind::Clean), Some(Reply::Done)) && !self.cleaned() {
            self.again(Kind::Clean)?;
            let merged = self.task.state == State::Done && self.rules.delete_branch;
            return Err(write(Write::Clean { branch: self.task.pushed.clone().filter(|_| merged) }));
        }
        // Also where it was let go before the claim was seen to be ours.
        if self.task.state != State::Superseded(Gone::ClaimLost) {
            if let Claim::Ours { at, .. } = self.seen.claim.as_ref().ok_or(Act::Read(Need::Claim))? {
                self.again(Kind::Release)?;
                return Err(write(Write::Release { at: at.clone() }));
            }
            self.task.claimed = false;
        }
        self.to(State::Cleaned)
    }

    /// Whether the clone was put away in this step: the claim is given up after that alone.
    fn cleaned(&self) -> bool {
        self.seen.reply.as_ref().is_some_and(|it| it.kind == Kind::Release && it.step == self.task.step)
    }
}

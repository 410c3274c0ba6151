//! From the claim to the pull request: all that an agent is needed for. [pure]

use super::{Act, Decision, Or, State, Why, write};
use crate::work::act::{Kind, Need, Write};
use crate::work::seen::{Claim, Commits, Pull, PullState, Reply, Run, RunEnd};
use crate::work::task::{Gone, Head, Purpose};
use crate::work::words::{At, PullNumber, Sha};

/// How long a pull request that was asked for may not be shown, seconds, before it is asked for again.
const SHOWN: u64 = 30;

impl Decision<'_> {
    pub(super) fn claim(&mut self) -> Or<()> {
        if self.task.paused {
            return Err(self.wait(self.rules.poll));
        }
        let issue = self.issue()?;
        if !issue.open {
            return self.to(State::Superseded(Gone::IssueClosed));
        }
        let (ready, begun) = {
            let has = |label| issue.labels.contains(label);
            (has(&self.rules.labels.ready), has(&self.rules.labels.in_progress))
        };
        if !ready {
            // Begun by us, or by a host that is gone; else somebody was quicker than we: it is not to be worked on any more.
            let goes_on = match self.claim_seen()? {
                Claim::Ours { .. } => begun,
                Claim::Theirs { time, .. } => begun && self.now.since(*time) > self.rules.claim_stale,
                Claim::Free => false,
            };
            if !goes_on {
                return self.to(State::Superseded(Gone::LabelRemoved));
            }
        }
        match self.claim_seen()?.clone() {
            Claim::Ours { heads, .. } => {
                self.task.claimed = true;
                self.inherit(&heads)
            }
            Claim::Free => self.claim_by(Write::Claim),
            Claim::Theirs { at, time, heads, .. } if self.now.since(time) > self.rules.claim_stale => {
                self.claim_by(Write::TakeClaim { from: at, heads })
            }
            Claim::Theirs { .. } => self.to(State::Superseded(Gone::ClaimLost)),
        }
    }

    /// Goes on with what a host that is gone had pushed under this claim, or begins.
    fn inherit(&mut self, heads: &[Sha]) -> Or<()> {
        if let Some(last) = heads.first() {
            let remote = self.seen.remote.clone().ok_or(Act::Read(Need::Remote))?;
            // The branch may have gone with a merge: then it is the commit that was pushed last.
            let head = remote.clone().filter(|at| heads.contains(at)).unwrap_or_else(|| last.clone());
            self.task.pushed = Some(head.clone());
            let pulls = self.seen.pulls.as_ref().ok_or(Act::Read(Need::Pulls))?;
            if !pulls.is_empty() || remote.as_ref() == Some(&head) {
                return self.to(State::Opening(Head { sha: head, since: self.now }));
            }
            self.task.pushed = None;
        }
        self.to(State::Preparing(Purpose::Work))
    }

    fn claim_by(&mut self, claim: Write) -> Or<()> {
        if let Some(Reply::Refused(why)) = self.reply_to(claim.kind()) {
            // Without a claim nothing is ours, not even a comment that says so: it is shown on this host alone.
            let why = format!("the claim: {why}");
            return self.ask_a_person(Why::Refused(why));
        }
        self.again(claim.kind())?;
        Err(write(claim))
    }

    pub(super) fn prepare(&mut self, purpose: Purpose) -> Or<()> {
        if self.task.paused {
            return Err(self.wait(self.rules.poll));
        }
        // No second agent beside one that may live (I13).
        match self.run()? {
            Run::Never | Run::Over(_) => {}
            Run::Alive => return Err(self.wait(self.rules.poll)),
            Run::Unproven => return self.ask_a_person(Why::TreeNotProven),
        }
        // A branch that this task did not push is found here, not when an agent has worked for nothing.
        if self.task.pushed.is_none()
            && let Some(foreign) = self.seen.remote.clone().ok_or(Act::Read(Need::Remote))?
        {
            return self.ask_a_person(Why::ForeignBranch(foreign));
        }
        match self.reply_to(Kind::Prepare) {
            None => Err(write(Write::Prepare(purpose))),
            Some(Reply::Done) => {
                self.task.attempt += 1;
                let attempt = self.task.attempt;
                self.task.come_to(State::Running { purpose: purpose.clone(), stop: None }, self.now);
                Err(write(Write::Launch { attempt, purpose }))
            }
            Some(reply) => {
                let why = reply.text();
                self.host_failed(why, purpose)
            }
        }
    }

    pub(super) fn running(&mut self, purpose: Purpose, stop: Option<Gone>) -> Or<()> {
        match (self.run()?.clone(), stop) {
            (Run::Alive, Some(gone)) => {
                // Asked for again and again: its end may have been forgotten by a crash, and twice does no harm.
                self.again(Kind::Stop)?;
                Err(write(Write::Stop(gone)))
            }
            (Run::Alive, None) => Err(self.wait(self.rules.poll)),
            (Run::Never | Run::Over(_), Some(gone)) => {
                let state = self.taken(gone)?;
                self.to(state)
            }
            // It was never accepted, by our own store: the claim was read just now.
            (Run::Never, None) => match self.reply_to(Kind::Launch) {
                None | Some(Reply::Done) => Err(write(Write::Launch { attempt: self.task.attempt, purpose })),
                Some(reply) => {
                    let why = reply.text();
                    self.host_failed(why, purpose)
                }
            },
            (Run::Over(end), None) => self.to(State::Exited(end)),
            (Run::Unproven, Some(Gone::ClaimLost)) => Err(self.wait(self.rules.poll)),
            (Run::Unproven, _) => self.ask_a_person(Why::TreeNotProven),
        }
    }

    pub(super) fn exited(&mut self, end: RunEnd) -> Or<()> {
        match end {
            RunEnd::Worked => match self.seen.commits.clone().ok_or(Act::Read(Need::Commits))? {
                // What was pushed before is no work of this attempt.
                Commits::Upto(head) if self.task.pushed.as_ref() != Some(&head) => self.to(State::Pushing(head)),
                Commits::Upto(_) | Commits::None => self.failed("it committed nothing".to_owned(), true),
                Commits::Refused(why) => self.failed(format!("its commits cannot be taken: {why}"), false),
            },
            RunEnd::Failed(why) | RunEnd::Stopped(why) => self.failed(why, false),
            // Nobody failed: the time has not come yet.
            RunEnd::WaitUntil(until) => {
                let most = self.now.after(24 * 3_600);
                self.to(State::Backoff { until: until.clamp(self.now, most), purpose: Purpose::Again, why: None })
            }
            RunEnd::Infrastructure(why) => self.host_failed(why, Purpose::Again),
        }
    }

    fn failed(&mut self, why: String, nothing: bool) -> Or<()> {
        self.task.spent.failures += 1;
        if self.task.spent.failures >= self.rules.budgets.failures {
            return self.ask_a_person(if nothing { Why::NothingCommitted } else { Why::AgentFailed(why) });
        }
        let until = self.now.after(self.pause(self.task.spent.failures));
        self.to(State::Backoff { until, purpose: Purpose::Again, why: Some(why) })
    }

    /// This host or its network failed: it has a budget of its own, and the agent is not blamed.
    pub(super) fn host_failed(&mut self, why: String, purpose: Purpose) -> Or<()> {
        self.task.spent.host += 1;
        if self.task.spent.host >= self.rules.budgets.host {
            return self.ask_a_person(Why::HostFailed(why));
        }
        let until = self.now.after(self.pause(self.task.spent.host));
        self.to(State::Backoff { until, purpose, why: Some(why) })
    }

    pub(super) fn backoff(&mut self, until: At, purpose: Purpose) -> Or<()> {
        if self.now < until {
            return Err(Act::Wait(until.min(self.now.after(self.rules.claim_renew.max(self.rules.poll)))));
        }
        self.to(State::Preparing(purpose))
    }

    pub(super) fn push(&mut self, head: Sha) -> Or<()> {
        let remote = self.seen.remote.clone().ok_or(Act::Read(Need::Remote))?;
        if remote.as_ref() == Some(&head) {
            self.task.pushed = Some(head.clone());
            self.task.spent.host = 0;
            return self.to(State::Opening(Head { sha: head, since: self.now }));
        }
        if remote != self.task.pushed
            && let Some(theirs) = remote.clone()
        {
            // Somebody else pushed; a branch that is gone was theirs to remove, and is made anew.
            if self.task.pull.is_none() {
                return self.ask_a_person(Why::ForeignBranch(theirs));
            }
            // To our own pull request: it is judged anew, by its own checks.
            self.task.pushed = Some(theirs.clone());
            return self.to(State::CiWait(Head { sha: theirs, since: self.now }));
        }
        self.name(&head)?;
        match self.reply_to(Kind::Push) {
            Some(Reply::Refused(why)) => {
                let why = format!("the push of the branch: {why}");
                return self.ask_a_person(Why::Refused(why));
            }
            Some(Reply::Doubt(why) | Reply::Local(why) | Reply::Conflict(why) | Reply::NotNow(why)) => {
                let why = format!("the push of the branch: {why}");
                self.again(Kind::Push)?;
                self.host_may_fail(why)?;
            }
            None | Some(Reply::Done | Reply::Limited(_)) => self.again(Kind::Push)?,
        }
        Err(write(Write::Push { head, expect: remote }))
    }

    /// Has the claim name a commit before it is pushed: so whoever takes over from us knows it for ours.
    fn name(&mut self, head: &Sha) -> Or<()> {
        let (at, named) = match self.claim_seen()? {
            Claim::Ours { at, heads, .. } => (at.clone(), heads.contains(head)),
            // It is lost, as the next decision finds.
            Claim::Free | Claim::Theirs { .. } => return Err(self.wait(1)),
        };
        if named { Ok(()) } else { self.claim_by(Write::TakeClaim { from: at, heads: self.heads() }) }
    }

    /// The commits that the branch may be at by what was, or is about to be, pushed; newest first.
    pub(super) fn heads(&self) -> Vec<Sha> {
        let named = self.task.state.head();
        let before = self.task.pushed.as_ref().filter(|pushed| named != Some(*pushed));
        named.into_iter().chain(before).cloned().collect()
    }

    pub(super) fn open(&mut self, head: Head) -> Or<()> {
        let pulls = self.seen.pulls.clone().ok_or(Act::Read(Need::Pulls))?;
        if let Some(open) = pulls.iter().find(|pull| pull.state == PullState::Open && pull.base == self.task.base) {
            if self.task.pull.is_none_or(|number| number == open.number) {
                self.task.pull = Some(open.number);
                self.task.pushed = Some(open.head.clone());
                let head = if open.head == head.sha { head } else { Head { sha: open.head.clone(), since: self.now } };
                return self.to(State::CiWait(head));
            }
        } else if let Some(known) = self.task.pull.or_else(|| over(&pulls, &head.sha)) {
            self.task.pull = Some(known);
            return match pulls.iter().find(|pull| pull.number == known).map(|pull| &pull.state) {
                Some(PullState::Merged(proof)) if *proof.head() == head.sha => {
                    self.to(State::Closing { head, tries: 0 })
                }
                Some(PullState::Merged(_)) => self.to(State::Superseded(Gone::MergedElsewhere)),
                Some(PullState::Open | PullState::Closed) | None => self.to(State::Superseded(Gone::PullClosed)),
            };
        }
        match self.reply_to(Kind::Open).cloned() {
            None => Err(write(Write::Open)),
            Some(Reply::Refused(why)) => self.ask_a_person(Why::Refused(format!("the pull request: {why}"))),
            // It may be there and not be shown yet (I18): it is asked for again once it has had its time.
            Some(_) if self.now.since(head.since) < SHOWN => {
                self.again(Kind::Open)?;
                Err(self.wait(5))
            }
            Some(reply) => {
                self.host_may_fail(format!("the pull request was asked for and is not shown: {}", reply.text()))?;
                self.to(State::Opening(Head { since: self.now, ..head }))
            }
        }
    }

    /// Counts a failure of this host or its network where the state stays; the last one that may be is not gone on with.
    fn host_may_fail(&mut self, why: String) -> Or<()> {
        self.task.spent.host += 1;
        if self.task.spent.host >= self.rules.budgets.host {
            self.ask_a_person(Why::HostFailed(why))?;
            // What is said to people about it comes with the next decision.
            return Err(self.wait(1));
        }
        Ok(())
    }
}

/// A pull request of this commit that is over: a person or a host that is gone was quicker than we with all of it.
fn over(pulls: &[Pull], head: &Sha) -> Option<PullNumber> {
    pulls.iter().find(|pull| pull.head == *head && pull.state != PullState::Open).map(|pull| pull.number)
}

impl Reply {
    /// What it says, for people.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Done => "done".to_owned(),
            Self::Conflict(why) | Self::NotNow(why) | Self::Refused(why) | Self::Doubt(why) | Self::Local(why) => {
                why.clone()
            }
            Self::Limited(_) => "the forge asks to wait".to_owned(),
        }
    }
}

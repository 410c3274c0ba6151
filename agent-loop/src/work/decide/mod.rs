//! The decision: every state answers everything that can be seen. [pure]
//!
//! Inside: one function for each part of the way. Called by [`decide`] alone.

mod agent;
mod end;
mod judge;
mod merge;
mod tell;

use super::act::{Act, Kind, Need, Write};
use super::rules::Rules;
use super::seen::{Claim, Issue, Pull, PullState, Reply, Run, Seen};
use super::task::{Gone, Head, State, Task, WayPart, Why};
use super::words::At;

/// A decision: the task as it is from now on, and the one thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The task, to be made durable before the act.
    pub task: Task,
    /// The act.
    pub act: Act,
}

/// Decides what is to be done next for a task.
#[must_use]
pub fn decide(task: &Task, seen: &Seen, now: At, rules: &Rules) -> Step {
    let mut task = task.clone();
    if seen.is_old(now) {
        return Step { task, act: Act::Forget };
    }
    let act = Decision { task: &mut task, seen, now, rules }.act();
    Step { task, act }
}

/// What stops a decision short: something has to be done first.
type Or<T> = Result<T, Act>;

struct Decision<'a> {
    task: &'a mut Task,
    seen: &'a Seen,
    now: At,
    rules: &'a Rules,
}

/// How many states may be passed within one decision: more than any way through them has.
const STATES: u32 = 16;

impl Decision<'_> {
    fn act(&mut self) -> Act {
        // A state that needs nothing from outside is passed at once.
        for _ in 0..STATES {
            match self.next() {
                Ok(()) => {}
                Err(act) => return act,
            }
        }
        self.wait(self.rules.poll)
    }

    fn next(&mut self) -> Or<()> {
        self.withdrawal()?;
        self.tell()?;
        match self.task.state.clone() {
            State::Eligible => self.claim(),
            State::Preparing(purpose) => self.prepare(purpose),
            State::Running { purpose, stop } => self.running(purpose, stop),
            State::Exited(end) => self.exited(end),
            State::Pushing(head) => self.push(head),
            State::Opening(head) => self.open(head),
            State::CiWait(head) => self.ci_wait(head),
            State::CiMissing(head) => self.ci_missing(head),
            State::CiApproval(head) => self.ci_approval(head),
            State::MergeGate { head, asked } => self.gate(head, asked),
            State::Merging(head) => self.merging(head),
            State::MergeUnknown { head, reads } => self.unknown(head, reads),
            State::Closing { head, tries } => self.closing(head, tries),
            State::Backoff { until, purpose, why: _ } => self.backoff(until, purpose),
            State::NeedsHuman(why) => self.human(why),
            State::Done | State::Superseded(_) => self.put_away(),
            State::Cleaned => Err(Act::Rest),
        }
    }

    /// Finds out whether a person or another host took the task away, wherever that may be.
    fn withdrawal(&mut self) -> Or<()> {
        match self.task.state.part() {
            // Nothing is ours yet, or any more; or the pull request has the first word.
            WayPart::Before | WayPart::Merge | WayPart::Done | WayPart::Withdrawn(_) | WayPart::Nothing => {
                return Ok(());
            }
            // It is gone, and its agent may live for long: no other host takes the issue meanwhile (I13).
            WayPart::Stopping => return self.renew(),
            WayPart::Work | WayPart::Judged | WayPart::Person => {}
        }
        let Some(gone) = self.gone()? else { return self.renew() };
        if let State::Running { purpose, .. } = self.task.state.clone() {
            // Its tree is stopped and proven empty before anything else is done.
            return self.to(State::Running { purpose, stop: Some(gone) });
        }
        let state = self.taken(gone)?;
        self.to(state)
    }

    /// Says that we live where that was last said long ago: all that follows is far from the time at which another host
    /// may take over.
    fn renew(&self) -> Or<()> {
        if self.task.claimed
            && let Claim::Ours { at, time, .. } = self.claim_seen()?
            && self.now.since(*time) > self.rules.claim_renew
        {
            self.again(Kind::TakeClaim)?;
            return Err(write(Write::TakeClaim { from: at.clone(), heads: self.heads() }));
        }
        Ok(())
    }

    fn gone(&mut self) -> Or<Option<Gone>> {
        if self.task.claimed && !matches!(self.claim_seen()?, Claim::Ours { .. }) {
            return Ok(Some(Gone::ClaimLost));
        }
        let labels = &self.rules.labels;
        let asks_a_person = matches!(self.task.state, State::NeedsHuman(_));
        let issue = self.issue()?;
        if !issue.open {
            return Ok(Some(Gone::IssueClosed));
        }
        let there = issue.labels.contains(&labels.in_progress);
        let taken = self.task.labelled && !there && !asks_a_person;
        self.task.labelled |= there;
        if taken {
            return Ok(Some(Gone::LabelRemoved));
        }
        self.pull_gone()
    }

    /// A person may have merged or closed the pull request while an agent is at work on it again: it has nothing left to do.
    fn pull_gone(&self) -> Or<Option<Gone>> {
        // Everywhere else the pull request is looked at anyway.
        if self.task.pull.is_none() || self.task.state.part() != WayPart::Work {
            return Ok(None);
        }
        Ok(match self.pull()?.map(|pull| &pull.state) {
            Some(PullState::Merged(_)) => Some(Gone::MergedElsewhere),
            Some(PullState::Closed) => Some(Gone::PullClosed),
            Some(PullState::Open) | None => None,
        })
    }

    /// Where a task comes to that was taken out of our hands; what was merged as we pushed it is closed on its proof.
    fn taken(&self, gone: Gone) -> Or<State> {
        if gone == Gone::MergedElsewhere
            && let Some(PullState::Merged(proof)) = self.pull()?.map(|pull| &pull.state)
            && self.task.pushed.as_ref() == Some(proof.head())
        {
            let head = Head { sha: proof.head().clone(), since: self.now };
            return Ok(State::Closing { head, tries: 0 });
        }
        Ok(State::Superseded(gone))
    }

    fn issue(&self) -> Or<&Issue> {
        self.seen.issue.as_ref().ok_or(Act::Read(Need::Issue))
    }

    fn claim_seen(&self) -> Or<&Claim> {
        self.seen.claim.as_ref().ok_or(Act::Read(Need::Claim))
    }

    fn run(&self) -> Or<&Run> {
        self.seen.run.as_ref().ok_or(Act::Read(Need::Run))
    }

    /// The pull request of the task, if it has made one.
    fn pull(&self) -> Or<Option<&Pull>> {
        let pulls = self.seen.pulls.as_ref().ok_or(Act::Read(Need::Pulls))?;
        Ok(self.task.pull.and_then(|number| pulls.iter().find(|pull| pull.number == number)))
    }

    /// The answer to the last write, where that was of this kind and in this step.
    fn reply_to(&self, kind: Kind) -> Option<&Reply> {
        let answered = self.seen.reply.as_ref()?;
        (answered.kind == kind && answered.step == self.task.step).then_some(&answered.reply)
    }

    /// Waits before a write that was answered is made again: as long as the forge says, or for what it did to be seen.
    fn again(&self, kind: Kind) -> Or<()> {
        let aged = self.seen.reply.as_ref().is_some_and(|answered| answered.aged);
        match self.reply_to(kind) {
            Some(Reply::Limited(until)) if *until > self.now => Err(Act::Wait(*until)),
            Some(Reply::Done) if !aged => Err(self.wait(5)),
            Some(_) if !aged => Err(self.wait(self.pause(1))),
            Some(_) | None => Ok(()),
        }
    }

    fn to(&mut self, state: State) -> Or<()> {
        self.task.come_to(state, self.now);
        Ok(())
    }

    fn ask_a_person(&mut self, why: Why) -> Or<()> {
        self.to(State::NeedsHuman(why))
    }

    fn wait(&self, seconds: u64) -> Act {
        Act::Wait(self.now.after(seconds.max(1)))
    }

    /// How long to wait after the `nth` failure in a row, from 1: doubling, capped, and spread so that hosts do not
    /// come back together.
    fn pause(&self, nth: u32) -> u64 {
        let doubled = self.rules.backoff.saturating_mul(1 << nth.saturating_sub(1).min(20));
        let wait = doubled.min(self.rules.backoff_most).max(1);
        let spread = self.task.key.number.wrapping_mul(0x9E37_79B9_7F4A_7C15)
            ^ u64::from(nth).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        wait.saturating_sub(spread % (wait / 4 + 1))
    }
}

/// A write, as what stops a decision short.
const fn write(write: Write) -> Act {
    Act::Write(write)
}

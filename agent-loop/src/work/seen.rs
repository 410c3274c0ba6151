//! What was read of the forge and of this host since the last write: all that a decision may rest on. [pure]
//!
//! A part that is `None` was not read since something could have changed it; a decision that needs it asks for it.
//! Nothing here is remembered over a restart.

use super::act::Kind;
use super::ci::Ci;
use super::words::{At, Branch, CommentId, PullNumber, Sha};
use crate::forge::MergedProof;

/// Everything that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub(super) issue: Option<Issue>,
    pub(super) claim: Option<Claim>,
    pub(super) comments: Option<Vec<Comment>>,
    pub(super) pulls: Option<Vec<Pull>>,
    pub(super) remote: Option<Option<Sha>>,
    pub(super) ci: Option<(Sha, Ci)>,
    pub(super) on_base: Option<bool>,
    pub(super) run: Option<Run>,
    pub(super) commits: Option<Commits>,
    /// How the last write went, as far as the answer says; `None` after a restart, when it is not known.
    pub(super) reply: Option<Answered>,
    /// When the oldest of it was read.
    pub(super) since: Option<At>,
}

/// A part that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// The issue.
    Issue(Issue),
    /// The claim on it.
    Claim(Claim),
    /// Our own comments on it, lowest id first.
    Comments(Vec<Comment>),
    /// The pull requests from the task's branch that we made: open, or over with the commit that was pushed last.
    Pulls(Vec<Pull>),
    /// What the forge's branch of the task points at; `None` where there is none.
    Remote(Option<Sha>),
    /// The checks of the commit that they were asked for.
    Ci(Sha, Ci),
    /// Whether the commit is on the base branch.
    OnBase(bool),
    /// The latest attempt of the task, on this host.
    Run(Run),
    /// What the agent committed, out of its clone by the safe path.
    Commits(Commits),
}

/// How long what was read may be decided on, seconds: a host may sleep in the middle of a decision.
const FRESH: u64 = 60;

impl Seen {
    /// Takes a part that was read now.
    pub fn read(&mut self, now: At, part: Part) {
        self.since.get_or_insert(now);
        match part {
            Part::Issue(issue) => self.issue = Some(issue),
            Part::Claim(claim) => self.claim = Some(claim),
            Part::Comments(comments) => self.comments = Some(comments),
            Part::Pulls(pulls) => self.pulls = Some(pulls),
            Part::Remote(remote) => self.remote = Some(remote),
            Part::Ci(head, ci) => self.ci = Some((head, ci)),
            Part::OnBase(there) => self.on_base = Some(there),
            Part::Run(run) => self.run = Some(run),
            Part::Commits(commits) => self.commits = Some(commits),
        }
    }

    /// Takes the answer to a write that was asked for in this step of the task, and forgets every part that the write
    /// may have changed, and the issue.
    pub fn written(&mut self, kind: Kind, step: u64, reply: Reply) {
        // A write takes its time: what a person did to the issue meanwhile is read before anything rests on it.
        self.issue = None;
        match kind {
            Kind::Claim | Kind::TakeClaim | Kind::Release => self.claim = None,
            Kind::Label | Kind::Close => {}
            Kind::Comment | Kind::DropComment => self.comments = None,
            Kind::Prepare => self.commits = None,
            Kind::Launch | Kind::Stop => (self.run, self.commits) = (None, None),
            Kind::Push => (self.remote, self.pulls, self.ci) = (None, None, None),
            Kind::Open => (self.pulls, self.ci) = (None, None),
            Kind::Merge => (self.pulls, self.on_base, self.remote) = (None, None, None),
            Kind::Clean => (self.remote, self.commits) = (None, None),
        }
        self.reply = Some(Answered { kind, step, reply, aged: false });
    }

    /// Forgets everything but the last answer, which has had its time: after [`super::Act::Wait`] and
    /// [`super::Act::Forget`].
    pub fn forget(&mut self) {
        let reply = self.reply.take().map(|reply| Answered { aged: true, ..reply });
        *self = Self { reply, ..Self::default() };
    }

    /// Whether it is too old to be decided on.
    pub(super) fn is_old(&self, now: At) -> bool {
        self.since.is_some_and(|since| now.since(since) > FRESH)
    }
}

/// An issue, as far as it matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// Whether it is open.
    pub open: bool,
    /// Its labels.
    pub labels: Vec<String>,
}

/// Whose an issue is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Nobody's.
    Free,
    /// Ours: the commit that the claim points at, and when we last said so.
    Ours {
        /// The commit.
        at: Sha,
        /// When.
        time: At,
        /// The commits that the branch may be at by what this host, and those it took over from, pushed; newest first.
        heads: Vec<Sha>,
    },
    /// Of another host, or of another task of this one.
    Theirs {
        /// The commit.
        at: Sha,
        /// Who says to hold it.
        host: String,
        /// When they last said so.
        time: At,
        /// The commits that the branch may be at by what they pushed, newest first.
        heads: Vec<Sha>,
    },
}

/// What a comment of ours is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    /// The status of the task: one for each issue.
    Status,
    /// A notice: one for each state and head.
    Notice(String),
}

/// A comment of ours, as its hidden marker says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comment {
    /// Which.
    pub id: CommentId,
    /// What it is.
    pub mark: Mark,
    /// The digest of the text that it was written with.
    pub digest: String,
}

/// Whether a pull request can be merged, as the forge has worked out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mergeable {
    /// It can.
    Yes,
    /// It has conflicts with its base.
    Conflict,
    /// It is behind its base, and the branch wants it not to be.
    Behind,
    /// A rule stands in the way: a review, a check.
    Blocked,
    /// The forge has not worked it out yet, or says a word that is not known.
    Unknown,
}

/// A pull request of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pull {
    /// Its number.
    pub number: PullNumber,
    /// What it is now.
    pub state: PullState,
    /// The head commit.
    pub head: Sha,
    /// The base branch.
    pub base: Branch,
    /// Whether it is a draft.
    pub draft: bool,
    /// Whether it can be merged.
    pub mergeable: Mergeable,
}

/// Where a pull request has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PullState {
    /// Open.
    Open,
    /// Closed and not merged.
    Closed,
    /// Merged.
    Merged(MergedProof),
}

/// The run of a task, on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Run {
    /// Nothing of it was ever accepted.
    Never,
    /// It waits or lives, or its tree is not proven empty yet.
    Alive,
    /// It is over and its tree was proven empty.
    Over(RunEnd),
    /// It is over, and whether its tree is empty is not known.
    Unproven,
}

/// What came out of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunEnd {
    /// The agent says that it did its work.
    Worked,
    /// The agent failed; in its words or ours.
    Failed(String),
    /// A limit of its own provider was reached; work can go on from then on.
    WaitUntil(At),
    /// It was stopped: a limit of ours, or a person.
    Stopped(String),
    /// It could not be begun, or its host went away: not the agent's fault.
    Infrastructure(String),
}

/// What the agent committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Commits {
    /// Nothing beyond what it was given.
    None,
    /// Up to this commit; it is in our own repository now.
    Upto(Sha),
    /// They could not be taken out, and why.
    Refused(String),
}

/// The answer to a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// To which kind.
    pub kind: Kind,
    /// In which step of the task it was asked for.
    pub step: u64,
    /// What it says.
    pub reply: Reply,
    /// Whether time was given to it since: what it caused should be seen by now.
    pub aged: bool,
}

/// How a write went, as its answer says. It is never the evidence of success: that is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Accepted.
    Done,
    /// Somebody was first: the claim is taken, the branch or the head moved, the thing exists.
    Conflict(String),
    /// Not now: it cannot be merged as things stand.
    NotNow(String),
    /// Never: it is not permitted or not valid.
    Refused(String),
    /// Not before then: a limit of the forge.
    Limited(At),
    /// No answer, or one that says nothing: it may have happened or not (I18).
    Doubt(String),
    /// It failed on this host, before anything was sent.
    Local(String),
}

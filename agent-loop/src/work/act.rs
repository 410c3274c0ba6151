//! What a decision asks for: one thing at a time, a read, a write, or to wait. [pure]

use super::seen::{Answered, Mark, MergedProof, Reply, Seen};
use super::task::{Gone, Purpose};
use super::words::{At, Branch, CommentId, PullNumber, Sha};

/// The one thing to do next.
///
/// The task as decided is made durable first, and for a write its intent is recorded (I19). The answer to a write goes into
/// [`Seen::reply`], what it may have changed out of [`Seen`]: so nothing is written twice without a read between (I18).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Read this part of what is seen.
    Read(Need),
    /// Write.
    Write(Write),
    /// Wait until then, or until the run is over, or somebody asks; then everything of the forge is read anew.
    Wait(At),
    /// Nothing, ever again.
    Rest,
}

/// A part of what is seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// [`Seen::issue`]
    Issue,
    /// [`Seen::claim`]
    Claim,
    /// [`Seen::comments`]
    Comments,
    /// [`Seen::pulls`]
    Pulls,
    /// [`Seen::remote`]
    Remote,
    /// [`Seen::ci`] of this commit.
    Ci(Sha),
    /// [`Seen::on_base`]: whether this commit is on the base.
    OnBase {
        /// The commit.
        head: Sha,
        /// The base.
        base: Branch,
    },
    /// [`Seen::run`]
    Run,
    /// [`Seen::commits`]
    Commits,
}

/// A write, to the forge or to this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Make the claim, where there is none.
    Claim,
    /// Make the claim ours by a commit on top of this one, which no other host can do at the same time.
    TakeClaim {
        /// The commit that it points at, ours (to say that we live) or of a host that gave no sign.
        from: Sha,
    },
    /// Give the claim up, where it still points at this commit.
    Release {
        /// The commit.
        at: Sha,
    },
    /// Change labels.
    Label {
        /// To be there.
        add: Vec<String>,
        /// To be gone.
        remove: Vec<String>,
    },
    /// Write a comment, or change the one with this id.
    Comment {
        /// Which, where it is there.
        edit: Option<CommentId>,
        /// What it is.
        mark: Mark,
        /// Its text, markers included.
        text: String,
    },
    /// Delete a comment of ours that is one too many.
    DropComment(CommentId),
    /// Make the clone, at the head that the purpose names, and the prompt. Done again it begins anew.
    Prepare(Purpose),
    /// Submit this attempt as a run; one that was submitted before is the same one.
    Launch {
        /// Which attempt.
        attempt: u32,
        /// What for.
        purpose: Purpose,
    },
    /// Have the run end.
    Stop(Gone),
    /// Push the commit to the task's branch, where that is still at `expect`.
    Push {
        /// The commit.
        head: Sha,
        /// What the branch points at now; `None` where there is none.
        expect: Option<Sha>,
    },
    /// Make the pull request.
    Open,
    /// Merge the pull request at this head, and at no other (I16).
    Merge {
        /// Which.
        pull: PullNumber,
        /// The head for which green was recorded.
        head: Sha,
    },
    /// Close the issue.
    Close(MergedProof),
    /// Remove what is left of it on this host, and the branch where it was merged.
    Clean {
        /// Whether the branch goes too, where it is at this commit.
        branch: Option<Sha>,
    },
}

/// The kind of a write: a reply counts for its own kind alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// [`Write::Claim`]
    Claim,
    /// [`Write::TakeClaim`]
    TakeClaim,
    /// [`Write::Release`]
    Release,
    /// [`Write::Label`]
    Label,
    /// [`Write::Comment`]
    Comment,
    /// [`Write::DropComment`]
    DropComment,
    /// [`Write::Prepare`]
    Prepare,
    /// [`Write::Launch`]
    Launch,
    /// [`Write::Stop`]
    Stop,
    /// [`Write::Push`]
    Push,
    /// [`Write::Open`]
    Open,
    /// [`Write::Merge`]
    Merge,
    /// [`Write::Close`]
    Close,
    /// [`Write::Clean`]
    Clean,
}

impl Write {
    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Claim => Kind::Claim,
            Self::TakeClaim { .. } => Kind::TakeClaim,
            Self::Release { .. } => Kind::Release,
            Self::Label { .. } => Kind::Label,
            Self::Comment { .. } => Kind::Comment,
            Self::DropComment(_) => Kind::DropComment,
            Self::Prepare(_) => Kind::Prepare,
            Self::Launch { .. } => Kind::Launch,
            Self::Stop(_) => Kind::Stop,
            Self::Push { .. } => Kind::Push,
            Self::Open => Kind::Open,
            Self::Merge { .. } => Kind::Merge,
            Self::Close(_) => Kind::Close,
            Self::Clean { .. } => Kind::Clean,
        }
    }
}

impl Seen {
    /// Takes the answer to a write that was asked for in this step of the task, and forgets every part that the write may have changed.
    pub fn written(&mut self, kind: Kind, step: u64, reply: Reply) {
        match kind {
            Kind::Claim | Kind::TakeClaim | Kind::Release => self.claim = None,
            Kind::Label => self.issue = None,
            Kind::Comment | Kind::DropComment => self.comments = None,
            Kind::Prepare => self.commits = None,
            Kind::Launch | Kind::Stop => (self.run, self.commits) = (None, None),
            Kind::Push => (self.remote, self.pulls, self.ci) = (None, None, None),
            Kind::Open => (self.pulls, self.ci) = (None, None),
            Kind::Merge => (self.issue, self.pulls, self.on_base, self.remote) = (None, None, None, None),
            Kind::Close => self.issue = None,
            Kind::Clean => (self.remote, self.commits) = (None, None),
        }
        self.reply = Some(Answered { kind, step, reply, aged: false });
    }

    /// Forgets everything but the last answer: time has passed.
    pub fn waited(&mut self) {
        let reply = self.reply.take().map(|reply| Answered { aged: true, ..reply });
        *self = Self { reply, ..Self::default() };
    }
}

//! What a decision asks for: one thing at a time, a read, a write, or to wait. [pure]

use super::seen::Mark;
use super::task::{Gone, Purpose};
use super::words::{At, Branch, CommentId, PullNumber, Sha};
use crate::forge::MergedProof;

/// The one thing to do next.
///
/// The task as decided is made durable first, and for a write its intent is recorded (I19). The answer to a write goes into
/// [`super::Seen::written`], which forgets what it may have changed: so nothing is written twice without a read between (I18).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Read this part of what is seen.
    Read(Need),
    /// Write.
    Write(Write),
    /// Wait until then, or until the run is over, or somebody asks; then everything of the forge is read anew.
    Wait(At),
    /// Forget what was read: it is too old.
    Forget,
    /// Nothing, ever again.
    Rest,
}

/// A part of what is seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// [`super::Part::Issue`]
    Issue,
    /// [`super::Part::Claim`]
    Claim,
    /// [`super::Part::Comments`]
    Comments,
    /// [`super::Part::Pulls`]
    Pulls,
    /// [`super::Part::Remote`]
    Remote,
    /// [`super::Part::Ci`] of this commit.
    Ci(Sha),
    /// [`super::Part::OnBase`]: whether this commit is on the base.
    OnBase {
        /// The commit.
        head: Sha,
        /// The base.
        base: Branch,
    },
    /// [`super::Part::Run`]
    Run,
    /// [`super::Part::Commits`]
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
        /// The commits that the branch may be at by what was pushed under this claim, for who takes it over from us.
        heads: Vec<Sha>,
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
    /// Push the commit to the task's branch, where that is still at `expect`. The claim names the commit by then.
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

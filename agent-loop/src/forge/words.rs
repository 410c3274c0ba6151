//! The words of a forge: issues, comments, refs, pull requests, limits. [pure]
//!
//! What a forge may leave out is an `Option`, a word that is not known is kept as it came.

use std::fmt;
use std::time::Duration;

use secrecy::SecretString;

use crate::work::{At, Branch, CommentId, PullNumber, Sha};

/// The number of an issue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IssueNumber(pub u64);

impl fmt::Display for IssueNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// The name of an account; forges ignore its case, and so does the comparison.
#[derive(Clone, Debug)]
pub struct Login(pub String);

impl PartialEq for Login {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for Login {}

impl fmt::Display for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether an issue is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IssueState {
    /// Open.
    Open,
    /// Closed.
    Closed,
    /// Another word.
    Other(String),
}

/// An issue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// Its number.
    pub number: IssueNumber,
    /// Its title.
    pub title: String,
    /// Its text; empty where it has none.
    pub text: String,
    /// Whether it is open.
    pub state: IssueState,
    /// Who wrote it; nobody where the account is gone.
    pub author: Option<Login>,
    /// Its labels.
    pub labels: Vec<String>,
    /// When it was made.
    pub created: At,
    /// When anything of it last changed.
    pub updated: At,
    /// Whether it is a pull request, which forges number like issues.
    pub is_pull: bool,
    /// Where people read it.
    pub url: String,
}

/// A label that was put on an issue, or taken off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelEvent {
    /// The label.
    pub label: String,
    /// Whether it was put on.
    pub added: bool,
    /// By whom; nobody where the account is gone.
    pub by: Option<Login>,
    /// When.
    pub at: At,
}

/// A comment on an issue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comment {
    /// Which.
    pub id: CommentId,
    /// Who wrote it; nobody where the account is gone.
    pub author: Option<Login>,
    /// The id of the app through which it was written.
    pub app: Option<u64>,
    /// Its text.
    pub text: String,
    /// When it was written.
    pub created: At,
    /// When it was last changed.
    pub updated: At,
}

/// The full name of a ref, safe as an argument of git and as a part of a URL.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RefName(String);

impl RefName {
    /// The claim on an issue. It is no branch, so it starts no CI.
    #[must_use]
    pub fn claim(issue: IssueNumber) -> Self {
        Self(format!("refs/agent-loop/claims/{}", issue.0))
    }

    /// What all claims are below.
    #[must_use]
    pub fn claims() -> Self {
        Self("refs/agent-loop/claims/".to_owned())
    }

    /// A branch.
    #[must_use]
    pub fn branch(branch: &Branch) -> Self {
        Self(format!("refs/heads/{branch}"))
    }

    /// The whole name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name without `refs/`.
    #[must_use]
    pub fn short(&self) -> &str {
        self.0.strip_prefix("refs/").unwrap_or(&self.0)
    }

    /// The issue, where this is a claim.
    #[must_use]
    pub fn claimed(&self) -> Option<IssueNumber> {
        let digits = self.0.strip_prefix("refs/agent-loop/claims/")?;
        digits.parse().ok().map(IssueNumber).filter(|issue| Self::claim(*issue) == *self)
    }
}

impl fmt::Display for RefName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A ref, as a list of them tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Its whole name, as the forge writes it.
    pub name: String,
    /// What it points at.
    pub at: Sha,
}

impl Reference {
    /// The issue, where this is a claim.
    #[must_use]
    pub fn claimed(&self) -> Option<IssueNumber> {
        RefName(self.name.clone()).claimed()
    }
}

/// A commit object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Its id.
    pub id: Sha,
    /// Its tree.
    pub tree: Sha,
    /// Its parents, the first one first.
    pub parents: Vec<Sha>,
    /// Its message.
    pub message: String,
    /// When it says that it was committed.
    pub committed: At,
}

/// What came of the wish to make a ref.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Create {
    /// It is made.
    Created,
    /// There is one of this name.
    Taken,
}

/// What came of the wish to move a ref.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moved {
    /// It is moved.
    Moved,
    /// It has moved meanwhile, or is gone: in the forge's words.
    Refused(String),
}

/// What came of the wish that something be gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// It is gone.
    Gone,
    /// It was not there.
    WasNot,
    /// It is something else than was expected, and was left.
    Kept,
}

/// Whether a pull request is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PullState {
    /// Open.
    Open,
    /// Closed, merged or not.
    Closed,
    /// Another word.
    Other(String),
}

/// What a list tells of a pull request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullSummary {
    /// Its number.
    pub number: PullNumber,
    /// Whether it is open.
    pub state: PullState,
    /// Whether it is a draft.
    pub draft: bool,
    /// The head commit.
    pub head: Sha,
    /// The head's branch.
    pub head_branch: String,
    /// The head's repository (`owner/name`); nobody's where it is gone.
    pub head_repository: Option<String>,
    /// The base branch.
    pub base: String,
    /// Who made it; nobody where the account is gone.
    pub author: Option<Login>,
    /// When it was made.
    pub created: At,
    /// When it was merged, where it was.
    pub merged_at: Option<At>,
    /// Where people read it.
    pub url: String,
}

/// A pull request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullRequest {
    /// What a list tells too.
    pub summary: PullSummary,
    /// Whether it was merged.
    pub merged: bool,
    /// Who merged it, where that is told.
    pub merged_by: Option<Login>,
    /// The commit on the base once merged. Before, GitHub names a trial merge here.
    pub merge_commit: Option<Sha>,
    /// Whether it can be merged; `None` while the forge works it out.
    pub mergeable: Option<bool>,
    /// Why not, in one word.
    pub merge_state: MergeState,
}

/// What stands between a pull request and its merge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MergeState {
    /// Nothing.
    Clean,
    /// Conflicts with the base.
    Dirty,
    /// It is behind the base, and the branch wants it not to be.
    Behind,
    /// A rule: a review, a check.
    Blocked,
    /// It is a draft.
    Draft,
    /// Checks that are not required have failed.
    Unstable,
    /// It can be merged; hooks of the forge will run.
    HasHooks,
    /// Not worked out yet.
    Unknown,
    /// Another word.
    Other(String),
}

/// How a pull request becomes a part of its base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MergeMethod {
    /// A merge commit.
    Merge,
    /// One commit of all.
    Squash,
    /// Each commit anew.
    Rebase,
}

/// What the forge said to a merge. None of it is a proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MergeAnswer {
    /// Accepted; it says whether it merged, and by which commit.
    Accepted {
        /// Whether the forge says that it is merged.
        merged: bool,
        /// The commit that it names.
        commit: Option<Sha>,
    },
    /// It cannot be merged as it is now (405).
    NotMergeable(String),
    /// The head is another one (409).
    HeadMoved(String),
    /// A conflict of another kind, which may pass (409).
    NotNow(String),
}

/// Who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The account, as the author of our comments.
    pub login: Login,
    /// The app's id, where we are one.
    pub app: Option<u64>,
    /// What the token may do.
    pub scopes: Scopes,
}

/// What a token may do, as far as the forge tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scopes {
    /// These scopes of a classic token.
    Classic(Vec<String>),
    /// A token whose rights are not told (fine-grained, or of an app).
    Untold,
}

/// A repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    /// Its name (`owner/name`), as the forge writes it.
    pub name: String,
    /// Its default branch.
    pub default_branch: String,
    /// Whether it is read-only.
    pub archived: bool,
    /// Whether we may push; `None` where the forge does not tell.
    pub push: Option<bool>,
    /// The ways of merging that it allows; `None` where the forge does not tell.
    pub methods: Option<Vec<MergeMethod>>,
}

/// What is left of the hourly limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// So many in an hour.
    pub limit: u64,
    /// So many are left.
    pub remaining: u64,
    /// When all are there again, by the forge's clock.
    pub reset: At,
}

/// What is known of the forge's limits, and what was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// The hourly limit, as the last answer told it.
    pub hourly: Option<RateLimit>,
    /// How long nothing will be sent, from now.
    pub paused: Option<Duration>,
    /// Requests that were sent.
    pub requests: u64,
    /// Of these, those that were answered "not modified", which cost nothing.
    pub not_modified: u64,
    /// Of these, writes.
    pub writes: u64,
}

/// What git logs in to the forge with.
#[derive(Clone, Debug)]
pub struct Credential {
    /// The account's name.
    pub user: String,
    /// The token. It does not print itself.
    pub password: SecretString,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_names_its_issue_and_nothing_else_does() {
        assert_eq!(RefName::claim(IssueNumber(42)).claimed(), Some(IssueNumber(42)));
        for other in
            ["refs/heads/42", "refs/agent-loop/claims/042", "refs/agent-loop/claims/4/2", "refs/agent-loop/claims/"]
        {
            assert_eq!(RefName(other.to_owned()).claimed(), None, "{other}");
        }
    }

    #[test]
    fn a_login_is_the_same_in_any_case() {
        assert_eq!(Login("Octo-Cat".into()), Login("octo-cat".into()));
        assert_ne!(Login("octo-cat".into()), Login("octo-cat2".into()));
    }

    #[test]
    fn a_credential_does_not_print_itself() {
        let credential = Credential { user: "u".into(), password: "hunter2".to_owned().into() };
        assert!(!format!("{credential:?}").contains("hunter2"));
    }
}

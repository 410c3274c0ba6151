//! The forge: where issues, pull requests and checks are.
//!
//! - [`Forge`] is what the shell of the issue loop asks; nothing in it is GitHub's alone
//! - the words it speaks (`words`, `checks`, `merged`) and what can go wrong (`error`) [pure]
//! - `github`: the API of GitHub and GitHub Enterprise
//!
//! Not inside: a decision, git, what people read. Called by the shell of the loop alone.

mod checks;
mod error;
pub mod github;
mod merged;
mod words;

use std::fmt;

use async_trait::async_trait;

pub use checks::{
    CheckRun, CheckStatus, CommitStatus, Conclusion, Job, JobId, RequiredCheck, Requirements, RunId, StatusState,
    WorkflowRun,
};
pub use error::{Doubt, DoubtWhy, ForgeError, LimitKind, WriteError};
pub use merged::{MergeSeen, MergedProof};
pub use words::{
    Comment, Commit, Create, Credential, Deleted, Identity, Issue, IssueNumber, IssueState, LabelEvent, Limits, Login,
    MergeAnswer, MergeMethod, MergeState, Moved, PullRequest, PullState, PullSummary, RateLimit, RefName, Reference,
    Repository, Scopes,
};

pub use crate::work::{At, Branch, CommentId, PullNumber, RepoName, Sha};

/// One repository of a forge, as its holder of a token sees it.
///
/// A list is whole or an error, never its first page. Reads are repeated where that helps. **A write is sent once**:
/// where it is not known whether it happened the answer is a [`Doubt`], and only a read can tell (I18). Text that comes
/// back was written by anybody.
#[async_trait]
pub trait Forge: fmt::Debug + Send + Sync {
    /// Which repository this is.
    fn name(&self) -> &RepoName;

    /// Now, by the forge's own clock; `None` before its first answer.
    fn now(&self) -> Option<At>;

    /// What is left of the forge's patience, and what was asked of it so far.
    fn limits(&self) -> Limits;

    /// Where git pushes to and fetches from, without a credential.
    fn git_url(&self) -> String;

    /// What git logs in with; it expires, so it is asked for before each use.
    async fn credential(&self) -> Result<Credential, ForgeError>;

    /// Who we are here, and what the token may do as far as the forge tells.
    async fn identity(&self) -> Result<Identity, ForgeError>;

    /// The repository: its default branch, and what we may do in it.
    async fn repository(&self) -> Result<Repository, ForgeError>;

    /// The names of the labels that the repository has.
    async fn labels(&self) -> Result<Vec<String>, ForgeError>;

    /// The open issues that have every one of `labels`, oldest first; none of them is a pull request.
    async fn open_issues(&self, labels: &[String]) -> Result<Vec<Issue>, ForgeError>;

    /// An issue.
    async fn issue(&self, issue: IssueNumber) -> Result<Issue, ForgeError>;

    /// Who put which label on an issue and took it off, oldest first.
    async fn label_events(&self, issue: IssueNumber) -> Result<Vec<LabelEvent>, ForgeError>;

    /// The comments of an issue, oldest first.
    async fn comments(&self, issue: IssueNumber) -> Result<Vec<Comment>, ForgeError>;

    /// What a ref points at; `None` where there is none of this name.
    async fn reference(&self, name: &RefName) -> Result<Option<Sha>, ForgeError>;

    /// All refs below a prefix, such as [`RefName::claims`].
    async fn references(&self, below: &RefName) -> Result<Vec<Reference>, ForgeError>;

    /// A commit object: its message, tree and parents.
    async fn commit(&self, commit: &Sha) -> Result<Commit, ForgeError>;

    /// Whether `commit` is `base` or one of its ancestors.
    async fn contains(&self, base: &Branch, commit: &Sha) -> Result<bool, ForgeError>;

    /// A file of the repository at a branch, at most 1 MiB; `None` where there is none.
    async fn file(&self, path: &str, at: &Branch) -> Result<Option<Vec<u8>>, ForgeError>;

    /// A pull request.
    async fn pull(&self, pull: PullNumber) -> Result<PullRequest, ForgeError>;

    /// Every pull request, open or not, whose head is this branch of this very repository; newest first.
    async fn pulls_from(&self, branch: &Branch) -> Result<Vec<PullSummary>, ForgeError>;

    /// Reads a pull request anew, past every cache: the only maker of a [`MergedProof`] (I16).
    async fn merged(&self, pull: PullNumber, head: &Sha) -> Result<MergeSeen, ForgeError>;

    /// The latest check run of each name and maker for a commit.
    async fn check_runs(&self, commit: &Sha) -> Result<Vec<CheckRun>, ForgeError>;

    /// The latest status of each context for a commit.
    async fn statuses(&self, commit: &Sha) -> Result<Vec<CommitStatus>, ForgeError>;

    /// The workflow runs for a commit. The forge's list lags: an empty one proves nothing.
    async fn workflow_runs(&self, commit: &Sha) -> Result<Vec<WorkflowRun>, ForgeError>;

    /// The jobs of the latest attempt of a workflow run.
    async fn jobs(&self, run: RunId) -> Result<Vec<Job>, ForgeError>;

    /// The last `most` bytes of a job's log.
    async fn job_log(&self, job: JobId, most: usize) -> Result<Vec<u8>, ForgeError>;

    /// What a branch requires of a pull request into it.
    async fn requirements(&self, branch: &Branch) -> Result<Requirements, ForgeError>;

    /// Adds labels; those that are there stay. Returns all of them.
    async fn add_labels(&self, issue: IssueNumber, labels: &[String]) -> Result<Vec<String>, WriteError>;

    /// Removes a label.
    async fn remove_label(&self, issue: IssueNumber, label: &str) -> Result<Deleted, WriteError>;

    /// Writes a comment.
    async fn create_comment(&self, issue: IssueNumber, text: &str) -> Result<Comment, WriteError>;

    /// Gives a comment another text.
    async fn edit_comment(&self, comment: CommentId, text: &str) -> Result<Comment, WriteError>;

    /// Deletes a comment.
    async fn delete_comment(&self, comment: CommentId) -> Result<Deleted, WriteError>;

    /// Closes an issue as completed. The answer is no proof: read it again.
    async fn close_issue(&self, issue: IssueNumber, proof: &MergedProof) -> Result<(), WriteError>;

    /// Makes a commit object with the tree of `like` and these parents; nothing points at it yet.
    async fn create_commit(&self, message: &str, like: &Sha, parents: &[Sha]) -> Result<Sha, WriteError>;

    /// Makes a ref where none of its name is; of several who try at once one succeeds.
    async fn create_ref(&self, name: &RefName, at: &Sha) -> Result<Create, WriteError>;

    /// Moves a ref to `to`, a commit whose first parent is where the ref was read to be. It is refused where the ref has moved
    /// meanwhile: of several who try at once, each with a commit of its own, one succeeds.
    async fn advance_ref(&self, name: &RefName, to: &Sha) -> Result<Moved, WriteError>;

    /// Deletes a ref if a read says that it points at `expected`. **Between that read and the deletion somebody may move
    /// it**: no forge deletes by comparison. Where that matters, advance it to a commit that says "released" first.
    async fn delete_ref(&self, name: &RefName, expected: &Sha) -> Result<Deleted, WriteError>;

    /// Makes a pull request from a branch of this repository.
    async fn create_pull(
        &self,
        head: &Branch,
        base: &Branch,
        title: &str,
        text: &str,
    ) -> Result<PullRequest, WriteError>;

    /// Merges a pull request if its head is `head` (I16). No answer is a proof: ask [`Forge::merged`] after every one.
    async fn merge(&self, pull: PullNumber, head: &Sha, method: MergeMethod) -> Result<MergeAnswer, WriteError>;
}

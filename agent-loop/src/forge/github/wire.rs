//! What answers of GitHub look like, as far as they matter, and what they mean.
//!
//! Only what a caller cannot do without has to be there; what may be null is an `Option`, a word is a `String` first.

use secrecy::SecretString;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::nonsense;
use crate::forge::{
    At, CheckRun, CheckStatus, Comment, CommentId, Commit, CommitStatus, Conclusion, ForgeError, Issue, IssueNumber,
    IssueState, Job, JobId, LabelEvent, Login, MergeMethod, MergeState, PullNumber, PullRequest, PullState,
    PullSummary, Reference, Repository, RunId, Sha, StatusState, WorkflowRun,
};

/// Reads an answer.
pub(super) fn parse<T: DeserializeOwned>(doing: &str, body: &[u8]) -> Result<T, ForgeError> {
    serde_json::from_slice(body).map_err(|error| nonsense(doing, &error))
}

/// A moment, as RFC 3339 with any offset.
#[derive(Clone, Copy, Debug)]
pub(super) struct Time(At);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        let time: jiff::Timestamp = text.parse().map_err(serde::de::Error::custom)?;
        Ok(Self(At(time.as_second())))
    }
}

fn at(time: Option<Time>) -> Option<At> {
    time.map(|time| time.0)
}

/// The id of a commit.
#[derive(Clone, Debug)]
pub(super) struct Id(pub(super) Sha);

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        text.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Account {
    pub(super) login: String,
}

fn login(account: Option<Account>) -> Option<Login> {
    account.map(|account| Login(account.login))
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum WireLabel {
    Name(String),
    Whole { name: Option<String> },
}

pub(super) fn labels(labels: Vec<WireLabel>) -> Vec<String> {
    let name = |label| match label {
        WireLabel::Name(name) => Some(name),
        WireLabel::Whole { name } => name,
    };
    labels.into_iter().filter_map(name).collect()
}

#[derive(Debug, Deserialize)]
pub(super) struct WireIssue {
    number: u64,
    title: String,
    body: Option<String>,
    state: String,
    user: Option<Account>,
    #[serde(default)]
    labels: Vec<WireLabel>,
    created_at: Time,
    updated_at: Time,
    pull_request: Option<serde::de::IgnoredAny>,
    html_url: String,
}

impl From<WireIssue> for Issue {
    fn from(wire: WireIssue) -> Self {
        Self {
            number: IssueNumber(wire.number),
            title: wire.title,
            text: wire.body.unwrap_or_default(),
            state: match wire.state.as_str() {
                "open" => IssueState::Open,
                "closed" => IssueState::Closed,
                _ => IssueState::Other(wire.state),
            },
            author: login(wire.user),
            labels: labels(wire.labels),
            created: wire.created_at.0,
            updated: wire.updated_at.0,
            is_pull: wire.pull_request.is_some(),
            url: wire.html_url,
        }
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct WireEvent {
    event: String,
    label: Option<WireLabel>,
    actor: Option<Account>,
    created_at: Time,
}

impl WireEvent {
    /// The event, where it is about a label.
    pub(super) fn about_a_label(self) -> Option<LabelEvent> {
        let added = match self.event.as_str() {
            "labeled" => true,
            "unlabeled" => false,
            _ => return None,
        };
        let label = labels(self.label.into_iter().collect()).pop()?;
        Some(LabelEvent { label, added, by: login(self.actor), at: self.created_at.0 })
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct App {
    pub(super) id: u64,
    #[serde(default)]
    pub(super) slug: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct WireComment {
    id: u64,
    user: Option<Account>,
    performed_via_github_app: Option<App>,
    #[serde(default)]
    body: Option<String>,
    created_at: Time,
    updated_at: Time,
}

impl From<WireComment> for Comment {
    fn from(wire: WireComment) -> Self {
        Self {
            id: CommentId(wire.id),
            author: login(wire.user),
            app: wire.performed_via_github_app.map(|app| app.id),
            text: wire.body.unwrap_or_default(),
            created: wire.created_at.0,
            updated: wire.updated_at.0,
        }
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct WireRef {
    #[serde(rename = "ref")]
    name: String,
    object: Object,
}

#[derive(Debug, Deserialize)]
pub(super) struct Object {
    pub(super) sha: Id,
}

impl From<WireRef> for Reference {
    fn from(wire: WireRef) -> Self {
        Self { name: wire.name, at: wire.object.sha.0 }
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct WireCommit {
    sha: Id,
    tree: Object,
    parents: Vec<Object>,
    message: String,
    committer: Signature,
}

#[derive(Debug, Deserialize)]
struct Signature {
    date: Time,
}

impl From<WireCommit> for Commit {
    fn from(wire: WireCommit) -> Self {
        Self {
            id: wire.sha.0,
            tree: wire.tree.sha.0,
            parents: wire.parents.into_iter().map(|parent| parent.sha.0).collect(),
            message: wire.message,
            committed: wire.committer.date.0,
        }
    }
}

#[derive(Debug, Deserialize)]
struct End {
    #[serde(rename = "ref")]
    branch: String,
    sha: Id,
    repo: Option<Named>,
}

#[derive(Debug, Deserialize)]
struct Named {
    full_name: String,
}

/// A pull request, of a list or alone: a list leaves out the last five.
#[derive(Debug, Deserialize)]
pub(super) struct WirePull {
    number: u64,
    state: String,
    #[serde(default)]
    draft: Option<bool>,
    head: End,
    base: End,
    user: Option<Account>,
    created_at: Time,
    merged_at: Option<Time>,
    html_url: String,
    #[serde(default)]
    merge_commit_sha: Option<Id>,
    #[serde(default)]
    merged: Option<bool>,
    #[serde(default)]
    merged_by: Option<Account>,
    #[serde(default)]
    mergeable: Option<bool>,
    #[serde(default)]
    mergeable_state: Option<String>,
}

impl From<WirePull> for PullRequest {
    fn from(wire: WirePull) -> Self {
        let state = match wire.state.as_str() {
            "open" => PullState::Open,
            "closed" => PullState::Closed,
            _ => PullState::Other(wire.state),
        };
        Self {
            summary: PullSummary {
                number: PullNumber(wire.number),
                state,
                draft: wire.draft.unwrap_or(false),
                head: wire.head.sha.0,
                head_branch: wire.head.branch,
                head_repository: wire.head.repo.map(|repo| repo.full_name),
                base: wire.base.branch,
                author: login(wire.user),
                created: wire.created_at.0,
                merged_at: at(wire.merged_at),
                url: wire.html_url,
            },
            merged: wire.merged.unwrap_or(false),
            merged_by: login(wire.merged_by),
            merge_commit: wire.merge_commit_sha.map(|id| id.0),
            mergeable: wire.mergeable,
            merge_state: merge_state(wire.mergeable_state),
        }
    }
}

fn merge_state(word: Option<String>) -> MergeState {
    let Some(word) = word else { return MergeState::Unknown };
    match word.as_str() {
        "clean" => MergeState::Clean,
        "dirty" => MergeState::Dirty,
        "behind" => MergeState::Behind,
        "blocked" => MergeState::Blocked,
        "draft" => MergeState::Draft,
        "unstable" => MergeState::Unstable,
        "has_hooks" => MergeState::HasHooks,
        "unknown" => MergeState::Unknown,
        _ => MergeState::Other(word),
    }
}

fn status(word: Option<String>) -> CheckStatus {
    let Some(word) = word else { return CheckStatus::Untold };
    match word.as_str() {
        "queued" => CheckStatus::Queued,
        "in_progress" => CheckStatus::InProgress,
        "completed" => CheckStatus::Completed,
        "waiting" => CheckStatus::Waiting,
        "requested" => CheckStatus::Requested,
        "pending" => CheckStatus::Pending,
        _ => CheckStatus::Other(word),
    }
}

fn conclusion(word: Option<String>) -> Option<Conclusion> {
    let word = word?;
    Some(match word.as_str() {
        "success" => Conclusion::Success,
        "failure" => Conclusion::Failure,
        "neutral" => Conclusion::Neutral,
        "cancelled" => Conclusion::Cancelled,
        "skipped" => Conclusion::Skipped,
        "timed_out" => Conclusion::TimedOut,
        "action_required" => Conclusion::ActionRequired,
        "stale" => Conclusion::Stale,
        "startup_failure" => Conclusion::StartupFailure,
        _ => Conclusion::Other(word),
    })
}

#[derive(Debug, Deserialize)]
pub(super) struct CheckRuns {
    pub(super) check_runs: Vec<WireCheck>,
}

#[derive(Debug, Deserialize)]
pub(super) struct WireCheck {
    id: u64,
    name: String,
    app: Option<App>,
    head_sha: Id,
    status: Option<String>,
    conclusion: Option<String>,
    started_at: Option<Time>,
    completed_at: Option<Time>,
    details_url: Option<String>,
}

impl From<WireCheck> for CheckRun {
    fn from(wire: WireCheck) -> Self {
        Self {
            id: wire.id,
            name: wire.name,
            app: wire.app.map(|app| (app.id, app.slug.unwrap_or_default())),
            head: wire.head_sha.0,
            status: status(wire.status),
            conclusion: conclusion(wire.conclusion),
            started: at(wire.started_at),
            completed: at(wire.completed_at),
            url: wire.details_url,
        }
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Statuses {
    pub(super) statuses: Vec<WireStatus>,
}

#[derive(Debug, Deserialize)]
pub(super) struct WireStatus {
    id: u64,
    context: String,
    state: String,
    updated_at: Option<Time>,
    target_url: Option<String>,
}

impl From<WireStatus> for CommitStatus {
    fn from(wire: WireStatus) -> Self {
        let state = match wire.state.as_str() {
            "success" => StatusState::Success,
            "pending" => StatusState::Pending,
            "failure" => StatusState::Failure,
            "error" => StatusState::Error,
            _ => StatusState::Other(wire.state),
        };
        Self { id: wire.id, context: wire.context, state, updated: at(wire.updated_at), url: wire.target_url }
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Runs {
    pub(super) workflow_runs: Vec<WireRun>,
}

#[derive(Debug, Deserialize)]
pub(super) struct WireRun {
    id: u64,
    name: Option<String>,
    event: String,
    head_sha: Id,
    head_branch: Option<String>,
    status: Option<String>,
    conclusion: Option<String>,
    run_attempt: Option<u32>,
    created_at: Time,
    html_url: String,
}

impl From<WireRun> for WorkflowRun {
    fn from(wire: WireRun) -> Self {
        Self {
            id: RunId(wire.id),
            name: wire.name,
            event: wire.event,
            head: wire.head_sha.0,
            branch: wire.head_branch,
            status: status(wire.status),
            conclusion: conclusion(wire.conclusion),
            attempt: wire.run_attempt.unwrap_or(1),
            created: wire.created_at.0,
            url: wire.html_url,
        }
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Jobs {
    pub(super) jobs: Vec<WireJob>,
}

#[derive(Debug, Deserialize)]
pub(super) struct WireJob {
    id: u64,
    run_id: u64,
    name: String,
    status: Option<String>,
    conclusion: Option<String>,
    html_url: Option<String>,
}

impl From<WireJob> for Job {
    fn from(wire: WireJob) -> Self {
        Self {
            id: JobId(wire.id),
            run: RunId(wire.run_id),
            name: wire.name,
            status: status(wire.status),
            conclusion: conclusion(wire.conclusion),
            url: wire.html_url,
        }
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct WireRepository {
    full_name: String,
    default_branch: String,
    #[serde(default)]
    archived: bool,
    permissions: Option<Permissions>,
    allow_merge_commit: Option<bool>,
    allow_squash_merge: Option<bool>,
    allow_rebase_merge: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct Permissions {
    push: bool,
}

impl From<WireRepository> for Repository {
    fn from(wire: WireRepository) -> Self {
        let ways = [
            (wire.allow_merge_commit, MergeMethod::Merge),
            (wire.allow_squash_merge, MergeMethod::Squash),
            (wire.allow_rebase_merge, MergeMethod::Rebase),
        ];
        // The three are told together, to those who may push.
        let told = ways.iter().any(|(allowed, _)| allowed.is_some());
        let allowed = ways.into_iter().filter(|(allowed, _)| *allowed == Some(true)).map(|(_, way)| way);
        Self {
            name: wire.full_name,
            default_branch: wire.default_branch,
            archived: wire.archived,
            push: wire.permissions.map(|permissions| permissions.push),
            methods: told.then(|| allowed.collect()),
        }
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Compared {
    pub(super) status: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Merged {
    #[serde(default)]
    pub(super) merged: bool,
    pub(super) sha: Option<Id>,
}

/// The token of an installation.
#[derive(Debug)]
pub(super) struct Token {
    pub(super) token: SecretString,
    pub(super) expires: Option<At>,
}

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Plain {
            token: String,
            expires_at: Option<Time>,
        }
        let plain = Plain::deserialize(from)?;
        Ok(Self { token: plain.token.into(), expires: at(plain.expires_at) })
    }
}

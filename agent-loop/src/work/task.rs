//! A task: one issue on its way to a verified merge, as it is remembered. [pure]

use std::collections::BTreeSet;

use super::seen::RunEnd;
use super::words::{At, Branch, CommentId, IssueKey, PullNumber, Sha};

/// One issue on its way.
///
/// Everything here is durable before the write it announces; what the forge says is read again after a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Which issue.
    pub key: IssueKey,
    /// The branch that its commits go to.
    pub branch: Branch,
    /// The branch that it is merged into.
    pub base: Branch,
    /// Where it has come to.
    pub state: State,
    /// Counts the states it came to: the answer to a write counts in the state that asked for it.
    pub step: u64,
    /// How many runs were asked for; the number of the latest, from 1.
    pub attempt: u32,
    /// What it has used up of its budgets.
    pub spent: Spent,
    /// The pull request that it made; no other is ever merged.
    pub pull: Option<PullNumber>,
    /// The head that it last knew on the forge's branch: its own push, or one that it took up.
    pub pushed: Option<Sha>,
    /// Whether the claim was seen to be ours: that it is not any more is then a loss.
    pub claimed: bool,
    /// Whether the label of work in progress was seen: that it is gone is then somebody's wish.
    pub labelled: bool,
    /// Whether a person holds it back.
    pub paused: bool,
    /// Whether a person wants it to be tried again.
    pub retry: bool,
    /// What the issue's status comment is.
    pub status: Status,
    /// The notices that were posted, or that were given up.
    pub notices: BTreeSet<String>,
    /// The comment that is being written, if one is.
    pub writing: Option<Writing>,
    /// What became of it so far, oldest first.
    pub history: Vec<Passed>,
}

/// Where a task has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It is to be claimed.
    Eligible,
    /// Its clone, branch and prompt are made.
    Preparing(Purpose),
    /// Its agent waits for its turn or runs.
    Running {
        /// What for.
        purpose: Purpose,
        /// Why it is to end, once it is.
        stop: Option<Gone>,
    },
    /// Its agent is over; what it committed is taken out of its clone.
    Exited(RunEnd),
    /// Its commits are brought to the forge.
    Pushing(Sha),
    /// Its pull request is made.
    Opening(Head),
    /// The checks of the head are awaited.
    CiWait(Head),
    /// No check has started in time.
    CiMissing(Head),
    /// A person has to let the checks run.
    CiApproval(Head),
    /// The head was green; everything else that a merge needs is looked at.
    MergeGate {
        /// The head for which green was recorded.
        head: Head,
        /// How often the forge was asked whether it can be merged.
        asked: u32,
    },
    /// The merge of this head was asked for.
    Merging(Head),
    /// Whether the merge happened is not known.
    MergeUnknown {
        /// The head.
        head: Head,
        /// How often that was read.
        reads: u32,
    },
    /// It is merged; its issue is closed.
    Closing {
        /// The head.
        head: Head,
        /// How often that was tried.
        tries: u32,
    },
    /// It waits before its agent runs again.
    Backoff {
        /// Until when.
        until: At,
        /// What for.
        purpose: Purpose,
        /// What went wrong before; `None` where nobody failed, or where an older version wrote it.
        why: Option<String>,
    },
    /// A person has to decide.
    NeedsHuman(Why),
    /// Its issue is closed by it; what is left of it is put away.
    Done,
    /// It was taken out of our hands; what is left of it is put away.
    Superseded(Gone),
    /// Nothing of it is left.
    Cleaned,
}

/// A part of a task's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WayPart {
    /// Nothing is ours yet.
    Before,
    /// An agent is needed, or its commits are brought to the forge.
    Work,
    /// Its agent is being stopped.
    Stopping,
    /// Its head is judged.
    Judged,
    /// Its merge was asked for, or its issue is to be closed: the pull request has the first word.
    Merge,
    /// A person has to decide.
    Person,
    /// Its issue is closed by us.
    Done,
    /// It was taken out of our hands.
    Withdrawn(Gone),
    /// Nothing of it is left.
    Nothing,
}

/// A head commit and when the forge got it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The commit.
    pub sha: Sha,
    /// When it was first seen there.
    pub since: At,
}

/// What an agent is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The issue.
    Work,
    /// Go on after an attempt that did not succeed.
    Again,
    /// Mend what these checks of the head found.
    FixChecks {
        /// The head.
        head: Sha,
        /// Their names.
        failed: Vec<String>,
    },
    /// Bring the head up to its base.
    FixConflict {
        /// The head.
        head: Sha,
    },
}

/// Why a task was taken out of our hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Gone {
    /// A person closed the issue.
    IssueClosed,
    /// A person took the label of work in progress away.
    LabelRemoved,
    /// Another host has the claim now.
    ClaimLost,
    /// A person closed the pull request.
    PullClosed,
    /// A person merged the pull request; where that was at the head that we pushed, the issue is closed all the same.
    MergedElsewhere,
}

impl Gone {
    /// The word used in records.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::IssueClosed => "issue_closed",
            Self::LabelRemoved => "label_removed",
            Self::ClaimLost => "claim_lost",
            Self::PullClosed => "pull_closed",
            Self::MergedElsewhere => "merged_elsewhere",
        }
    }
}

/// Why a person has to decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// The agent did not succeed as often as it may fail; the last failure.
    AgentFailed(String),
    /// The agent committed nothing.
    NothingCommitted,
    /// This host failed too often.
    HostFailed(String),
    /// The checks failed as often as they may.
    ChecksFailed(Vec<String>),
    /// The head conflicts with its base as often as it may.
    Conflicts,
    /// The checks did not come to an end in time, or will not by themselves.
    ChecksStuck(String),
    /// The base branch has a merge queue.
    MergeQueue,
    /// The merge was refused, or its outcome cannot be found out.
    MergeFailed(String),
    /// The forge refuses what is needed.
    Refused(String),
    /// The branch holds commits that are not this task's.
    ForeignBranch(Sha),
    /// The issue could not be closed.
    NotClosed(String),
    /// Whether the last agent's tree is empty is not known.
    TreeNotProven,
}

/// What a task has used up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Runs that did not succeed.
    pub failures: u32,
    /// Failures of this host or its network, since the last success.
    pub host: u32,
    /// Runs to mend checks.
    pub check_fixes: u32,
    /// Runs to mend conflicts.
    pub conflict_fixes: u32,
    /// Merges that were asked for and answered, or whose answer is in doubt.
    pub merges: u32,
}

/// What the status comment is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Its id, once it was read.
    pub id: Option<CommentId>,
    /// The digest of its text as it was last read, or as it was refused.
    pub digest: Option<String>,
}

/// A comment on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writing {
    /// What it is.
    pub mark: super::seen::Mark,
    /// The digest of its text.
    pub digest: String,
    /// Since when.
    pub since: At,
}

/// A step that a task has passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// When.
    pub at: At,
    /// What it came to.
    pub word: &'static str,
    /// The attempt.
    pub attempt: u32,
    /// The head, where there is one.
    pub head: Option<Sha>,
}

/// How many steps are kept: the oldest after the first few go first.
const HISTORY: usize = 60;

impl Task {
    /// A task that is to be claimed.
    #[must_use]
    pub fn new(key: IssueKey, branch: Branch, base: Branch) -> Self {
        Self {
            key,
            branch,
            base,
            state: State::Eligible,
            step: 0,
            attempt: 0,
            spent: Spent::default(),
            pull: None,
            pushed: None,
            claimed: false,
            labelled: false,
            paused: false,
            retry: false,
            status: Status::default(),
            notices: BTreeSet::new(),
            writing: None,
            history: Vec::new(),
        }
    }

    /// Comes to a state, and remembers that it did.
    pub(super) fn come_to(&mut self, state: State, now: At) {
        let word = state.word();
        // A wait within one step is no step; a person reads what changed.
        if word != self.state.word() || state.head() != self.state.head() {
            let head = state.head().cloned();
            self.history.push(Passed { at: now, word, attempt: self.attempt, head });
            if self.history.len() > HISTORY {
                self.history.remove(2);
            }
        }
        self.state = state;
        self.step += 1;
    }
}

impl State {
    /// Its word in records and for people.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Eligible => "eligible",
            Self::Preparing(_) => "preparing",
            Self::Running { stop: None, .. } => "running",
            Self::Running { stop: Some(_), .. } => "stopping",
            Self::Exited(_) => "exited",
            Self::Pushing(_) => "pushing",
            Self::Opening(_) => "opening",
            Self::CiWait(_) => "ci_wait",
            Self::CiMissing(_) => "ci_missing",
            Self::CiApproval(_) => "ci_approval",
            Self::MergeGate { .. } => "merge_gate",
            Self::Merging(_) => "merging",
            Self::MergeUnknown { .. } => "merge_unknown",
            Self::Closing { .. } => "closing",
            Self::Backoff { .. } => "backoff",
            Self::NeedsHuman(_) => "needs_human",
            Self::Done => "done",
            Self::Superseded(_) => "superseded",
            Self::Cleaned => "cleaned",
        }
    }

    /// The words of all states, in the order of a task's way.
    pub const WORDS: [&str; 19] = [
        "eligible",
        "preparing",
        "running",
        "stopping",
        "exited",
        "pushing",
        "opening",
        "ci_wait",
        "ci_missing",
        "ci_approval",
        "merge_gate",
        "merging",
        "merge_unknown",
        "closing",
        "backoff",
        "needs_human",
        "done",
        "superseded",
        "cleaned",
    ];

    /// The word of a state among those that there are, as it is kept in a history.
    #[must_use]
    pub fn known_word(text: &str) -> Option<&'static str> {
        Self::WORDS.into_iter().find(|word| *word == text)
    }

    /// On which part of its way it is: what holds for a whole part is asked of this, and not of each state.
    pub(super) const fn part(&self) -> WayPart {
        match self {
            Self::Eligible => WayPart::Before,
            Self::Preparing(_)
            | Self::Running { stop: None, .. }
            | Self::Exited(_)
            | Self::Pushing(_)
            | Self::Opening(_)
            | Self::Backoff { .. } => WayPart::Work,
            Self::Running { stop: Some(_), .. } => WayPart::Stopping,
            Self::CiWait(_) | Self::CiMissing(_) | Self::CiApproval(_) | Self::MergeGate { .. } => WayPart::Judged,
            Self::Merging(_) | Self::MergeUnknown { .. } | Self::Closing { .. } => WayPart::Merge,
            Self::NeedsHuman(_) => WayPart::Person,
            Self::Done => WayPart::Done,
            Self::Superseded(gone) => WayPart::Withdrawn(*gone),
            Self::Cleaned => WayPart::Nothing,
        }
    }

    /// The head that it is about.
    #[must_use]
    pub const fn head(&self) -> Option<&Sha> {
        match self {
            Self::Pushing(sha) => Some(sha),
            Self::Opening(head)
            | Self::CiWait(head)
            | Self::CiMissing(head)
            | Self::CiApproval(head)
            | Self::MergeGate { head, .. }
            | Self::Merging(head)
            | Self::MergeUnknown { head, .. }
            | Self::Closing { head, .. } => Some(&head.sha),
            Self::Eligible
            | Self::Preparing(_)
            | Self::Running { .. }
            | Self::Exited(_)
            | Self::Backoff { .. }
            | Self::NeedsHuman(_)
            | Self::Done
            | Self::Superseded(_)
            | Self::Cleaned => None,
        }
    }
}

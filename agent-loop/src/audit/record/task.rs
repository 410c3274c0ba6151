//! The lines of the issue loop: what it decided, what it writes on the forge, what came of that.

use serde::Serialize;

use super::{Clock, Line, OwnLines, Shared};
use crate::audit::redact;

/// What kind of line it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskKind {
    /// `task.state`: a task came to another state.
    State,
    /// `ci.verdict`: what the checks of a commit say.
    Verdict,
    /// `comment.intent`, `merge.intent`, `forge.intent`: a write is about to be sent.
    Intent(Area),
    /// `comment.result`, `merge.result`, `forge.result`: what its answer says; only a read is evidence.
    Result(Area),
}

/// What a write is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Area {
    /// What people read.
    Comment,
    /// A merge.
    Merge,
    /// Everything else: claim, labels, branch, pull request, issue, and what is done for it on this host.
    Forge,
}

impl TaskKind {
    const fn word(self) -> &'static str {
        match self {
            Self::State => "task.state",
            Self::Verdict => "ci.verdict",
            Self::Intent(Area::Comment) => "comment.intent",
            Self::Intent(Area::Merge) => "merge.intent",
            Self::Intent(Area::Forge) => "forge.intent",
            Self::Result(Area::Comment) => "comment.result",
            Self::Result(Area::Merge) => "merge.result",
            Self::Result(Area::Forge) => "forge.result",
        }
    }
}

/// A line of the issue loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskLine {
    /// Its kind.
    pub kind: TaskKind,
    /// The issue: `owner/name#number`.
    pub issue: String,
    /// The task as it is.
    pub task: TaskBody,
    /// The write, where the line is of one.
    pub write: Option<WriteBody>,
    /// The verdict, where the line is of one.
    pub ci: Option<CiBody>,
}

/// A task, as a line shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub struct TaskBody {
    /// The word of its state.
    pub state: &'static str,
    /// How many states it came to.
    pub step: u64,
    /// The attempt.
    pub attempt: u32,
    /// Its branch.
    pub branch: String,
    /// What it is merged into.
    pub base: String,
    /// Its pull request.
    pub pull: Option<u64>,
    /// The commit that its state is about.
    pub head: Option<String>,
    /// Why it came here, where that is more than the state says.
    pub why: Option<String>,
}

/// A write, as a line shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub struct WriteBody {
    /// `claim`, `label`, `comment`, `push`, `merge` and so on.
    pub what: &'static str,
    /// What it is about: labels, a comment's mark, a branch.
    pub about: Option<String>,
    /// The commit that it names.
    pub head: Option<String>,
    /// The SHA-256 of the text that it sends.
    pub sha256: Option<String>,
    /// In a result: `done`, `conflict`, `not_now`, `refused`, `limited`, `doubt`, `local`.
    pub answer: Option<&'static str>,
    /// In a result: the words of it.
    pub said: Option<String>,
}

/// A verdict, as a line shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub struct CiBody {
    /// The commit.
    pub head: String,
    /// `green`, `failed`, `pending`, `missing`, `approval`, `stuck`, `queue`.
    pub verdict: &'static str,
    /// The names of required checks; `null` where they could not be read.
    pub required: Option<Vec<String>>,
    /// Each check as `name: word`.
    pub checks: Vec<String>,
}

impl OwnLines {
    /// A line of the issue loop.
    #[must_use]
    pub fn task(&self, line: TaskLine, clock: Clock) -> Line {
        let TaskLine { kind, issue, mut task, mut write, mut ci } = line;
        let redact = redact::ours();
        let texts = [task.why.as_mut(), write.as_mut().and_then(|it| it.said.as_mut())];
        texts.into_iter().flatten().for_each(|text| redact.string(text));
        ci.iter_mut().flat_map(|ci| &mut ci.checks).for_each(|text| redact.string(text));
        Line {
            issue: Some(Shared(issue.as_str().into())),
            task: Some(task),
            write,
            ci,
            ..self.line(kind.word(), clock)
        }
    }
}

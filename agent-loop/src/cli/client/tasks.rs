//! `agent-loop queue`, `retry`, `pause`, `resume`: the issues that are worked on.

use std::str::FromStr;

use clap::Args as ClapArgs;

use super::output::{page, print, print_json};
use super::{Common, Failure, doing, draw};
use crate::control::api::{RepoRequest, RepoVerb, TaskRequest, TaskVerb};
use crate::error;
use crate::work::{IssueKey, NotAName, RepoName};

/// Shows the repositories, the issues that are worked on, and those that wait.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  agent-loop queue
  agent-loop queue --json | jq -r '.repos[].tasks[] | select(.state == \"needs_human\") | .issue'")]
pub(in crate::cli) struct QueueArgs {
    #[command(flatten)]
    common: Common,
}

/// Tries an issue again that needs a person, with new budgets.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  agent-loop retry owner/name#42")]
pub(in crate::cli) struct RetryArgs {
    #[command(flatten)]
    task: TaskArgs,
}

/// Begins nothing new for an issue, or takes no issue of a repository any more. What runs goes on.
///
/// `agent-loop kill` stops what runs. A repository stays paused over restarts, until `agent-loop resume`; issues of it that
/// are worked on go on to their end.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  agent-loop pause owner/name#42
  agent-loop pause owner/name; agent-loop resume owner/name")]
pub(in crate::cli) struct PauseArgs {
    #[command(flatten)]
    target: TargetArgs,
}

/// Goes on with an issue that was paused, or takes issues of a repository again.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  agent-loop resume owner/name#42
  agent-loop resume owner/name")]
pub(in crate::cli) struct ResumeArgs {
    #[command(flatten)]
    target: TargetArgs,
}

#[derive(Debug, ClapArgs)]
struct TargetArgs {
    /// The issue, OWNER/NAME#NUMBER, or the repository, OWNER/NAME.
    #[arg(value_name = "ISSUE|REPO")]
    target: Target,
    #[command(flatten)]
    common: Common,
}

/// What is paused.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    Issue(IssueKey),
    Repo(RepoName),
}

impl FromStr for Target {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        if text.contains('#') { text.parse().map(Self::Issue) } else { text.parse().map(Self::Repo) }
    }
}

#[derive(Debug, ClapArgs)]
struct TaskArgs {
    /// The issue: OWNER/NAME#NUMBER.
    #[arg(value_name = "ISSUE")]
    issue: IssueKey,
    #[command(flatten)]
    common: Common,
}

pub(super) async fn queue(args: QueueArgs) -> Result<u8, Failure> {
    let view = args.common.client().queue().await.map_err(doing("asking for the queue"))?;
    if args.common.json { print_json(&view) } else { print(&draw::queue(&view, page())) }?;
    Ok(error::DONE)
}

pub(super) async fn retry(args: RetryArgs) -> Result<u8, Failure> {
    act(&args.task.issue, TaskVerb::Retry, &args.task.common).await
}

pub(super) async fn pause(args: PauseArgs) -> Result<u8, Failure> {
    hold(&args.target, TaskVerb::Pause, RepoVerb::Pause).await
}

pub(super) async fn resume(args: ResumeArgs) -> Result<u8, Failure> {
    hold(&args.target, TaskVerb::Resume, RepoVerb::Resume).await
}

async fn hold(TargetArgs { target, common }: &TargetArgs, of_task: TaskVerb, of_repo: RepoVerb) -> Result<u8, Failure> {
    let repo = match target {
        Target::Issue(issue) => return act(issue, of_task, common).await,
        Target::Repo(repo) => repo,
    };
    let wish = RepoRequest { repo: repo.to_string(), verb: of_repo };
    let view = common.client().repo(&wish).await.map_err(doing("asking for the repository"))?;
    if common.json {
        print_json(&view)?;
    } else {
        let done = match of_repo {
            RepoVerb::Pause => "is paused: no issue of it is taken, those that are worked on go on",
            RepoVerb::Resume => "goes on: its issues are taken",
        };
        print(&format!("{repo} {done}; see `agent-loop queue`\n"))?;
    }
    Ok(error::DONE)
}

/// Has something done with an issue, and says so.
pub(super) async fn act(issue: &IssueKey, verb: TaskVerb, common: &Common) -> Result<u8, Failure> {
    let wish = TaskRequest { issue: issue.to_string(), verb };
    let view = common.client().task(&wish).await.map_err(doing("asking for the issue"))?;
    if common.json {
        print_json(&view)?;
    } else {
        let done = match verb {
            TaskVerb::Start => "is taken at the next look",
            TaskVerb::Retry => "is tried again",
            TaskVerb::Pause => "is paused: what runs goes on, nothing new is begun",
            TaskVerb::Resume => "goes on",
        };
        print(&format!("{issue} {done}; see `agent-loop queue`\n"))?;
    }
    Ok(error::DONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issue_and_a_repository_are_told_apart() {
        assert!(matches!("o/r#7".parse(), Ok(Target::Issue(key)) if key.number == 7));
        assert!(matches!("o/r".parse(), Ok(Target::Repo(repo)) if repo.to_string() == "o/r"));
        for bad in ["o", "o/r#", "#7", "o/r#x", "o/r/s", ""] {
            assert!(bad.parse::<Target>().is_err(), "{bad:?}");
        }
    }
}

//! `agent-loop queue`, `retry`, `pause`, `resume`: the issues that are worked on.

use clap::Args as ClapArgs;

use super::output::{page, print, print_json};
use super::{Common, Failure, doing, draw};
use crate::control::api::{TaskRequest, TaskVerb};
use crate::error;
use crate::work::IssueKey;

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

/// Begins nothing new for an issue. What runs goes on: `agent-loop kill` stops it.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  agent-loop pause owner/name#42
  agent-loop resume owner/name#42")]
pub(in crate::cli) struct PauseArgs {
    #[command(flatten)]
    task: TaskArgs,
}

/// Goes on with an issue that was paused.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  agent-loop resume owner/name#42")]
pub(in crate::cli) struct ResumeArgs {
    #[command(flatten)]
    task: TaskArgs,
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
    act(&args.task.issue, TaskVerb::Pause, &args.task.common).await
}

pub(super) async fn resume(args: ResumeArgs) -> Result<u8, Failure> {
    act(&args.task.issue, TaskVerb::Resume, &args.task.common).await
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

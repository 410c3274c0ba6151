//! `agent-loop status` and `why`: the daemon, a run or an issue, in full.

use clap::Args as ClapArgs;

use super::output::{page, print, print_json};
use super::{Common, Failure, doing, draw, which};
use crate::error;

/// Shows the daemon's state, or all that is known of a run.
#[derive(Debug, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct Args {
    /// The run; without it the daemon.
    #[arg(value_name = "RUN")]
    run: Option<String>,
    #[command(flatten)]
    common: Common,
}

const EXAMPLES: &str = "\
Examples:
  agent-loop status
  agent-loop status 8QK3M2ZP
  agent-loop status --json | jq '.degraded'";

/// Says why a run was stopped or ended: what ended it, by whom, on what evidence; or tells the story of an issue.
#[derive(Debug, ClapArgs)]
#[command(after_help = WHY_EXAMPLES)]
pub(in crate::cli) struct WhyArgs {
    /// The run; or an issue, OWNER/NAME#NUMBER.
    #[arg(value_name = "RUN|ISSUE")]
    run: String,
    #[command(flatten)]
    common: Common,
}

const WHY_EXAMPLES: &str = "\
Examples:
  agent-loop why 8QK3M2ZP
  agent-loop why owner/name#42";

pub(super) async fn run(args: Args) -> Result<u8, Failure> {
    let client = args.common.client();
    let now = jiff::Timestamp::now();
    match args.run {
        None => {
            let view = client.status().await.map_err(doing("asking for the daemon's state"))?;
            if args.common.json { print_json(&view) } else { print(&draw::status(&view, now, page())) }?;
        }
        Some(run) => {
            let run = which::run(&client, &run).await?;
            let view = client.run(&run).await.map_err(doing("asking for the run"))?;
            if args.common.json { print_json(&view) } else { print(&draw::run(&view, now, page())) }?;
        }
    }
    Ok(error::DONE)
}

pub(super) async fn why(args: WhyArgs) -> Result<u8, Failure> {
    let client = args.common.client();
    if let Some(issue) = which::issue(&args.run)? {
        let view = client.story(&issue).await.map_err(doing("asking for the issue"))?;
        if args.common.json { print_json(&view) } else { print(&draw::story(&view, page())) }?;
        return Ok(error::DONE);
    }
    let run = which::run(&client, &args.run).await?;
    let view = client.run(&run).await.map_err(doing("asking for the run"))?;
    if args.common.json { print_json(&view) } else { print(&draw::why(&view, page())) }?;
    Ok(error::DONE)
}

//! `agent-loop kill`: stops a run and its whole tree.

use clap::Args as ClapArgs;

use super::output::{page, print, print_json};
use super::{Common, Failure, doing, draw, which};
use crate::control::api::KillRequest;
use crate::error;

/// Stops a run: its whole tree, politely first, and proven empty.
///
/// It takes a run and never a process number. It returns when the stop has begun; `agent-loop status RUN` shows
/// its end.
#[derive(Debug, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct Args {
    /// The run.
    #[arg(value_name = "RUN")]
    run: String,
    /// Why, in words for the log.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Only say what would be stopped.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    common: Common,
}

const EXAMPLES: &str = "\
Examples:
  agent-loop kill 8QK3M2ZP --reason 'works on the wrong branch' --dry-run
  agent-loop kill 8QK3M2ZP --reason 'works on the wrong branch'";

pub(super) async fn run(args: Args) -> Result<u8, Failure> {
    let wish = KillRequest { reason: args.reason, dry_run: args.dry_run };
    wish.check().map_err(|problem| Failure::Usage(problem.to_string()))?;
    let client = args.common.client();
    let run = which::run(&client, &args.run).await?;
    let view = client.kill(&run, &wish).await.map_err(doing("stopping the run"))?;
    if args.common.json { print_json(&view) } else { print(&draw::killing(&view, page())) }?;
    Ok(error::DONE)
}

//! `agent-loop tree`: the live processes of runs.

use clap::Args as ClapArgs;

use super::output::{page, print, print_line};
use super::{Common, Failure, doing, draw, which};
use crate::control::client::ClientError;
use crate::error;

/// Draws the live processes of a run, or of all that are open.
#[derive(Debug, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct Args {
    /// The run; without it all open ones.
    #[arg(value_name = "RUN")]
    run: Option<String>,
    #[command(flatten)]
    common: Common,
}

const EXAMPLES: &str = "\
Examples:
  agent-loop tree
  agent-loop tree 8QK3M2ZP --json | jq '.processes | length'

With --json each run is one object on a line of its own.";

pub(super) async fn run(args: Args) -> Result<u8, Failure> {
    let client = args.common.client();
    let one = args.run.is_some();
    let runs = match args.run {
        Some(run) => vec![which::run(&client, &run).await?],
        None => {
            let open = client.runs(false).await.map_err(doing("listing the runs"))?.runs;
            open.into_iter().map(|view| view.run).collect()
        }
    };
    for run in runs {
        let view = match client.tree(&run).await {
            // It ended since it was listed.
            Err(ClientError::Answered { status: 404 | 409, .. }) if !one => continue,
            answer => answer.map_err(doing("asking for the processes"))?,
        };
        if args.common.json { print_line(&view) } else { print(&draw::tree(&view, page())) }?;
    }
    Ok(error::DONE)
}

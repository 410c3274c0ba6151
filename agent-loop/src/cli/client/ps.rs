//! `agent-loop ps`: the runs.

use clap::Args as ClapArgs;

use super::output::{page, print, print_json};
use super::{Common, Failure, doing, draw};
use crate::error;

/// Lists the runs.
#[derive(Debug, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct Args {
    /// Ended ones too.
    #[arg(long, short)]
    all: bool,
    #[command(flatten)]
    common: Common,
}

const EXAMPLES: &str = "\
Examples:
  agent-loop ps
  agent-loop ps --all --json | jq -r '.runs[] | select(.outcome == \"deadline\") | .run'

A run is named by its id, or by at least 4 characters from its beginning or end.";

pub(super) async fn run(args: Args) -> Result<u8, Failure> {
    let view = args.common.client().runs(args.all).await.map_err(doing("listing the runs"))?;
    if args.common.json {
        print_json(&view)?;
    } else if view.runs.is_empty() {
        let hint = if args.all { "" } else { "; `agent-loop ps --all` shows those that ended" };
        eprintln!("agent-loop: no runs{hint}");
    } else {
        print(&draw::table(&view.runs, jiff::Timestamp::now(), page()))?;
    }
    Ok(error::DONE)
}

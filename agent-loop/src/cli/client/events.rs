//! `agent-loop events`: lines of the event log as they are written.

use clap::Args as ClapArgs;

use super::output::{page, print};
use super::{Common, Failure, doing, draw};
use crate::control::api::MissedView;
use crate::error;

/// Shows the latest events: births, deaths, signals and decisions of all runs.
#[derive(Debug, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct Args {
    /// Go on with events as they happen.
    #[arg(long, short)]
    follow: bool,
    #[command(flatten)]
    common: Common,
}

const EXAMPLES: &str = "\
Examples:
  agent-loop events -f
  agent-loop events -f --json | jq 'select(.kind == \"run.killed\")'

With --json each event is the line of the event log as it is written. A reader that is too slow is
told how many lines it missed, and hung up on.";

/// The longest line that is held; the log has no such line.
const LONGEST: usize = 4 << 20;

pub(super) async fn run(args: Args) -> Result<u8, Failure> {
    let mut pieces = args.common.client().events(args.follow).await.map_err(doing("asking for events"))?;
    let page = page();
    let mut rest = Vec::new();
    while let Some(piece) = pieces.next().await.map_err(doing("following the events"))? {
        rest.extend_from_slice(&piece);
        let Some(end) = rest.iter().rposition(|byte| *byte == b'\n') else {
            if rest.len() > LONGEST {
                rest.clear();
            }
            continue;
        };
        let whole: Vec<u8> = rest.drain(..=end).collect();
        for line in String::from_utf8_lossy(&whole).lines() {
            if let Some(missed) = missed(line) {
                return Err(Failure::Missed(missed));
            }
            if args.common.json {
                print(&format!("{line}\n"))?;
            } else {
                print(&(draw::event(line, page) + "\n"))?;
            }
        }
    }
    Ok(error::DONE)
}

/// How many lines were missed, if this line says so.
fn missed(line: &str) -> Option<u64> {
    let missed: MissedView = line.contains(MissedView::KIND).then(|| serde_json::from_str(line).ok())??;
    (missed.kind == MissedView::KIND).then_some(missed.lines)
}

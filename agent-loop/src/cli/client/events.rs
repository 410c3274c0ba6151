//! `agent-loop events`: lines of the event log as they are written.

use clap::Args as ClapArgs;

use super::output::{page, print};
use super::{Common, Failure, doing, draw};
use crate::control::api::MissedView;
use crate::control::client::{ClientError, Pieces};
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
    let pieces = args.common.client().events(args.follow).await.map_err(doing("asking for events"))?;
    let page = page();
    let mut lines = Lines::of(pieces);
    while let Some(whole) = lines.next().await.map_err(doing("following the events"))? {
        for line in whole.lines() {
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

/// The events as whole lines, whatever pieces they come in.
pub(super) struct Lines {
    pieces: Pieces,
    rest: Vec<u8>,
}

impl Lines {
    pub(super) const fn of(pieces: Pieces) -> Self {
        Self { pieces, rest: Vec::new() }
    }

    /// The next lines, one or more of them, whole; `None` once the daemon hung up.
    ///
    /// # Errors
    /// When the connection fails.
    pub(super) async fn next(&mut self) -> Result<Option<String>, ClientError> {
        while let Some(piece) = self.pieces.next().await? {
            self.rest.extend_from_slice(&piece);
            if let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') {
                let whole: Vec<u8> = self.rest.drain(..=end).collect();
                return Ok(Some(String::from_utf8_lossy(&whole).into_owned()));
            }
            if self.rest.len() > LONGEST {
                self.rest.clear();
            }
        }
        Ok(None)
    }
}

/// How many lines were missed, if this line says so.
fn missed(line: &str) -> Option<u64> {
    let missed: MissedView = line.contains(MissedView::KIND).then(|| serde_json::from_str(line).ok())??;
    (missed.kind == MissedView::KIND).then_some(missed.lines)
}

//! The exit codes, and which outcome has which. Only this file and `main` know them.

use crate::event::{Outcome, Summary};
use crate::model::StopReason;

/// Done.
pub const DONE: u8 = 0;
/// The work failed.
pub const FAILED: u8 = 1;
/// The command line is wrong.
pub const USAGE: u8 = 2;
/// Refused for safety.
pub const REFUSED: u8 = 5;
/// Already running.
pub const ALREADY_RUNNING: u8 = 8;
/// `exec`: a limit or budget was reached.
pub const LIMIT: u8 = 124;
/// `exec`: agent-loop itself failed, or could not prove the tree gone.
pub const INTERNAL: u8 = 125;
/// `exec`: the command is there and cannot be executed.
pub const NOT_EXECUTABLE: u8 = 126;
/// `exec`: the command was not found.
pub const NOT_FOUND: u8 = 127;

/// The exit code of `exec` for a run that came to its end.
///
/// `launch` is the code of a command that could not be executed.
#[must_use]
pub fn of_run(summary: &Summary, launch: Option<u8>) -> u8 {
    match &summary.outcome {
        Outcome::Ended => summary.status.map_or(INTERNAL, |status| status.shell_code()),
        Outcome::LaunchFailed(_) => launch.unwrap_or(INTERNAL),
        Outcome::NotEmpty { .. } => INTERNAL,
        Outcome::Stopped(reason) => match reason {
            StopReason::Deadline | StopReason::OutputBudget => LIMIT,
            StopReason::Operator { signal } => 128 + (signal & 0x7f),
            StopReason::OutputFailed | StopReason::Internal => INTERNAL,
            StopReason::Leftovers => summary.status.map_or(INTERNAL, |status| status.shell_code()),
        },
    }
}

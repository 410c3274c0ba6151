//! The exit codes, and which outcome has which. Only this file and `main` know them.

use crate::audit::log::OpenError;
use crate::control::api::RunView;
use crate::control::client::ClientError;
use crate::event::{Outcome, Summary};
use crate::model::StopReason;
use crate::store::StoreError;

/// Done.
pub const DONE: u8 = 0;
/// The work failed.
pub const FAILED: u8 = 1;
/// The command line is wrong.
pub const USAGE: u8 = 2;
/// The configuration is wrong.
pub const CONFIG: u8 = 3;
/// The forge failed or refused.
pub const FORGE: u8 = 4;
/// Refused for safety.
pub const REFUSED: u8 = 5;
/// Not permitted to who asked.
pub const PERMISSION: u8 = 6;
/// What was asked for is not running or not there.
pub const NOT_RUNNING: u8 = 7;
/// It is running already.
pub const ALREADY_RUNNING: u8 = 8;
/// `exec`: a limit or budget was reached.
pub const LIMIT: u8 = 124;
/// `exec`: agent-loop itself failed, or could not prove the tree gone.
pub const INTERNAL: u8 = 125;
/// `exec`: the command is there and cannot be executed.
pub const NOT_EXECUTABLE: u8 = 126;
/// `exec`: the command was not found.
pub const NOT_FOUND: u8 = 127;

/// The exit code of a command that could not open its state.
#[must_use]
pub const fn of_store(error: &StoreError) -> u8 {
    match error {
        StoreError::Unsafe(_) | StoreError::Corrupt(_) | StoreError::Newer(_) => REFUSED,
        StoreError::Busy { .. } => ALREADY_RUNNING,
        StoreError::Failed { .. } => FAILED,
    }
}

/// The exit code of a command that could not open its audit log.
#[must_use]
pub const fn of_audit(error: &OpenError) -> u8 {
    match error {
        OpenError::Store(store) => of_store(store),
        OpenError::Failed { .. } => FAILED,
        OpenError::NotAKey(_) | OpenError::Tampered { .. } | OpenError::OtherFormat { .. } => REFUSED,
    }
}

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
            StopReason::Deadline | StopReason::ActiveLimit | StopReason::Idle | StopReason::OutputBudget => LIMIT,
            StopReason::Operator { signal } => 128 + (signal & 0x7f),
            StopReason::OutputFailed | StopReason::Internal => INTERNAL,
            StopReason::Leftovers => summary.status.map_or(INTERNAL, |status| status.shell_code()),
        },
    }
}

/// The exit code of a command whose question to the daemon has no answer.
#[must_use]
pub const fn of_question(error: &ClientError) -> u8 {
    match error {
        ClientError::NotRunning(_) => NOT_RUNNING,
        ClientError::NotPermitted(_) => PERMISSION,
        ClientError::Answered { status, .. } => match *status {
            400 | 413 => USAGE,
            403 => PERMISSION,
            404 => NOT_RUNNING,
            409 | 429 => REFUSED,
            _ => FAILED,
        },
        ClientError::Broken { .. } => FAILED,
    }
}

/// The exit code of `start --wait` for a run that has ended: the run's own where it ended by itself.
///
/// What was stopped never returns 0, and what nobody saw is 125 (I9).
#[must_use]
pub fn of_waited(view: &RunView) -> u8 {
    let own = || view.code.or_else(|| view.signal.map(|signal| 128 + (signal & 0x7f)));
    // SIGTERM, where the command made its own end of an operator's wish.
    let asked = || view.signal.map_or(128 + 15, |signal| 128 + (signal & 0x7f));
    match view.outcome.as_deref() {
        Some("ended" | "leftovers") => own().unwrap_or(INTERNAL),
        Some("deadline" | "active_limit" | "active" | "idle" | "output_budget") => LIMIT,
        Some("operator") => asked(),
        Some("launch_failed") => view.code.filter(|code| *code != 0).unwrap_or(INTERNAL),
        Some(_) | None => INTERNAL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waited(outcome: Option<&str>, code: Option<u8>, signal: Option<u8>) -> u8 {
        of_waited(&RunView { outcome: outcome.map(str::to_owned), code, signal, ..RunView::default() })
    }

    #[test]
    fn who_waits_for_a_run_gets_its_code() {
        for code in [0, 1, 125, 255] {
            assert_eq!(waited(Some("ended"), Some(code), None), code);
        }
        assert_eq!(waited(Some("ended"), None, Some(9)), 137);
        assert_eq!(waited(Some("leftovers"), Some(3), None), 3);
        assert_eq!(waited(Some("launch_failed"), Some(127), None), 127);
    }

    #[test]
    fn i09_what_was_stopped_or_is_not_known_is_no_success() {
        for limit in ["deadline", "idle", "output_budget"] {
            assert_eq!(waited(Some(limit), Some(0), None), LIMIT, "{limit}");
        }
        assert_eq!(waited(Some("operator"), Some(0), None), 143);
        assert_eq!(waited(Some("operator"), None, Some(9)), 137);
        for unknown in [Some("ended"), Some("lost_to_reboot"), Some("withdrawn"), Some("a word of the future"), None] {
            assert_eq!(waited(unknown, None, None), INTERNAL, "{unknown:?}");
        }
        for unknown in [Some("lost_to_reboot"), Some("withdrawn"), Some("internal"), Some("not_empty"), None] {
            assert_eq!(waited(unknown, Some(0), None), INTERNAL, "{unknown:?}");
        }
        assert_eq!(waited(Some("launch_failed"), Some(0), None), INTERNAL);
    }

    #[test]
    fn each_answer_has_its_exit_code() {
        let answered =
            |status| of_question(&ClientError::Answered { status, code: String::new(), message: String::new() });
        let codes = [400, 403, 404, 409, 413, 429, 500, 503].map(answered);
        assert_eq!(codes, [2, 6, 7, 5, 2, 5, 1, 1]);
        assert_eq!(of_question(&ClientError::NotRunning("/s".into())), 7);
        assert_eq!(of_question(&ClientError::NotPermitted("/s".into())), 6);
    }
}

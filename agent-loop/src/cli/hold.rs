//! `agent-loop hold`: keeps the cgroup of the runs for a unit of systemd.

use clap::Args as ClapArgs;
use nix::sys::signal::{SigSet, Signal};
use sd_notify::NotifyState;

use crate::error;
use crate::keeper::hold::{self, HoldError};

/// Keeps the cgroup that runs are made in, with its controllers enabled, until it is told to end.
///
/// For `agent-loop-runs.service`, which agents are in: the daemon and the keeper are in units of their own and can be
/// restarted without them. It starts nothing and stops nothing.
#[derive(Debug, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {}

const EXAMPLES: &str = "\
Example:
  ExecStart=/usr/bin/agent-loop hold      # in a unit with Delegate=yes

Runs are made in `runs` below the cgroup of the unit: `cgroup_root` of the configuration names it.
Exit codes: 0 told to end; 1 it failed; 5 refused: it is not alone in its cgroup.";

/// Holds the cgroup and returns the exit code.
pub(super) fn run(_: &Args) -> u8 {
    let mut ends = SigSet::empty();
    ends.add(Signal::SIGTERM);
    ends.add(Signal::SIGINT);
    // Blocked before it is said that we are ready: none is missed.
    if let Err(why) = ends.thread_block() {
        eprintln!("agent-loop hold: blocking signals: {why}");
        return error::FAILED;
    }
    let held = match hold::hold() {
        Ok(held) => held,
        Err(why) => {
            eprintln!("agent-loop hold: {why}");
            return match why {
                HoldError::NotOurs(_) => error::REFUSED,
                HoldError::Io { .. } => error::FAILED,
            };
        }
    };
    for missing in &held.missing {
        eprintln!("agent-loop hold: warning: limits that need a controller are refused: {missing}");
    }
    let status = format!("runs are made in {}; controllers: {}", held.runs.display(), held.enabled.join(" "));
    if let Err(why) = sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(&status)]) {
        eprintln!("agent-loop hold: telling that it is ready: {why}");
        return error::FAILED;
    }
    eprintln!("agent-loop hold: {status}");
    match ends.wait() {
        Ok(_) => error::DONE,
        Err(why) => {
            eprintln!("agent-loop hold: waiting for a signal: {why}");
            error::FAILED
        }
    }
}

//! `agent-loop keeper`: the small process that launches and signals.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use crate::error;
use crate::fatal;
use crate::keeper::process::{self, KeeperError, Options};

/// Launches, watches and signals the agents of a daemon, and refuses what it cannot prove.
///
/// It is the parent of every agent. The daemon asks it over a socket and may be restarted or upgraded meanwhile; the
/// agents outlive the keeper too, in their cgroups, where the next keeper adopts them. It decides nothing by itself.
#[derive(Debug, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Where to listen: in a directory of its own user that nobody else may enter.
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// The directory of the cgroup (version 2) below which runs are made; made where it is missing.
    #[arg(long, value_name = "DIR")]
    runs: PathBuf,
    /// The directory below a bpffs where the daemon pins its live set.
    #[arg(long, value_name = "DIR")]
    pins: Option<PathBuf>,
    /// An account that runs may be launched as, and no other; may be given again. Its numbers and groups are looked up
    /// for each launch.
    #[arg(long = "user", value_name = "NAME")]
    users: Vec<String>,
    /// Let such an account be root.
    #[arg(long)]
    allow_root: bool,
    /// The limit on open files that agents get; without it the one that the keeper was started with.
    #[arg(long, value_name = "N")]
    open_files: Option<u64>,
}

const EXAMPLES: &str = "\
Example:
  agent-loop keeper --socket /run/agent-loop/keeper/socket --runs /sys/fs/cgroup/agent-loop --user agent

Exit codes: 0 ended by a signal, the agents go on; 1 it failed; 2 usage; 5 refused for safety; 8 already running.";

/// Runs the keeper and returns its exit code.
pub(super) fn run(args: Args) -> u8 {
    fatal::ends_all("agent-loop keeper");
    let Args { socket, runs, pins, users, allow_root, open_files } = args;
    match process::keep(Options { socket, runs, pins, users, allow_root, open_files }) {
        Ok(()) => error::DONE,
        Err(failed) => {
            eprintln!("agent-loop keeper: {failed}");
            match failed {
                KeeperError::AlreadyRunning(_) => error::ALREADY_RUNNING,
                KeeperError::Unsafe(_) => error::REFUSED,
                KeeperError::Runs { .. } | KeeperError::Io { .. } => error::FAILED,
            }
        }
    }
}

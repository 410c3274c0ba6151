//! `agent-loop audit`: works on the files of an audit log, without a daemon, on any host.
//!
//! Inside: a file for each verb, and where the log is. Not inside: reading and judging (`crate::audit`).

mod verify;

use std::path::{Path, PathBuf};

use clap::{Args as ClapArgs, Subcommand};

use crate::audit::log::layout;
use crate::config::Config;

/// Checks and reads audit logs; each verb works on files alone, also on a copy of them.
#[derive(Debug, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

const EXAMPLES: &str = "\
Examples:
  agent-loop audit verify
  agent-loop audit verify --account --pubkey epoch-1.pub /mnt/copy/audit

DIR is the directory of a log (it holds `seg/`) or the one that holds it as `audit/`; without DIR it is the one of the
daemon.";

#[derive(Debug, Subcommand)]
enum Verb {
    Verify(verify::Args),
}

/// Runs `audit` and returns its exit code.
pub(super) fn run(args: &Args) -> u8 {
    match &args.verb {
        Verb::Verify(args) => verify::run(args),
    }
}

/// The directory of the log that is meant.
fn dir(given: Option<&Path>) -> Result<PathBuf, String> {
    let dir = given.map_or_else(|| Config::default().host.log_dir, Path::to_owned);
    layout::find(&dir).ok_or_else(|| {
        format!(
            "{} is no audit log: neither it nor {} holds a directory `seg`; name the directory of one",
            dir.display(),
            dir.join("audit").display()
        )
    })
}

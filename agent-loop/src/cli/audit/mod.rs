//! `agent-loop audit`: works on the files of an audit log, without a daemon, on any host.
//!
//! Inside: a file for each verb, and where the log is. Not inside: reading and judging (`crate::audit`).

mod bar;
mod export;
mod follow;
mod prove;
mod query;
mod redact_test;
mod report;
mod select;
mod story;
mod verify;

use std::path::{Path, PathBuf};

use clap::{Args as ClapArgs, Subcommand};

use crate::audit::log::layout;
use crate::config::Config;
use crate::error;

/// Checks and reads audit logs; each verb works on files alone, also on a copy of them.
#[derive(Debug, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

const EXAMPLES: &str = "\
Examples:
  agent-loop audit query --since 2h --kind signal
  agent-loop audit why 01M89B3Q
  agent-loop audit report -o night.html
  agent-loop audit verify
  agent-loop audit verify --account --pubkey epoch-1.pub /mnt/copy/audit
  agent-loop audit prove --run 01JD6E4X8Q0Z3VJ5N7K9M2P4R6 -o run.bundle
  agent-loop audit verify-bundle run.bundle

DIR is the directory of a log (it holds `seg/`) or the one that holds it as `audit/`; without DIR it is the one of the
daemon.";

#[derive(Debug, Subcommand)]
enum Verb {
    Query(query::Args),
    Tail(query::TailArgs),
    Show(query::ShowArgs),
    Why(story::WhyArgs),
    Tree(story::TreeArgs),
    Export(export::Args),
    Report(report::Args),
    Verify(verify::Args),
    RedactTest(redact_test::Args),
    Prove(prove::Args),
    VerifyBundle(prove::BundleArgs),
}

/// Runs `audit` and returns its exit code.
pub(super) fn run(args: &Args) -> u8 {
    match &args.verb {
        Verb::Query(args) => code(query::run(args)),
        Verb::Tail(args) => code(query::tail(args)),
        Verb::Show(args) => code(query::show(args)),
        Verb::Why(args) => code(story::why(args)),
        Verb::Tree(args) => code(story::tree(args)),
        Verb::Export(args) => code(export::run(args)),
        Verb::Report(args) => report::run(args),
        Verb::Verify(args) => verify::run(args),
        Verb::RedactTest(args) => redact_test::run(args),
        Verb::Prove(args) => prove::run(args),
        Verb::VerifyBundle(args) => prove::run_bundle(args),
    }
}

/// The exit code of a verb that reads: 4 where the log cannot be read, or what was asked for is not in it.
fn code(done: Result<(), String>) -> u8 {
    match done {
        Ok(()) => error::DONE,
        Err(why) => {
            eprintln!("agent-loop: reading the audit log: {why}");
            verify::UNREADABLE
        }
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

//! `agent-loop exec`: supervises one command, without a daemon.
//!
//! Inside: its arguments, the ground it stands on (cgroup, guard, eBPF), the shell that performs what the core
//! decides, and what a person reads. Not inside: a decision about the run.

mod birth;
mod ground;
mod human;
mod job;
mod process;
mod pump;
mod report;
mod scan;
mod shell;
mod sink;
mod sources;
mod tree;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args as ClapArgs, ValueEnum};

use crate::error;
use crate::supervise::Leftovers;

/// Supervises one command: a `timeout` that cannot be fooled.
///
/// Births and deaths of the command's whole tree are reported as they happen. At the limit, or when the
/// command ends and leaves others behind, the tree is stopped (SIGINT to the command, SIGTERM to all, then a
/// kill of its cgroup) and proven empty.
#[derive(Debug, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Stop the tree after this time, suspend included, e.g. `90s`, `1h 30m`; without it there is no limit.
    #[arg(long, value_name = "TIME", value_parser = span)]
    limit: Option<Duration>,
    /// How long each polite step of a stop is given.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    grace: Duration,
    /// What becomes of processes that outlive the command.
    #[arg(long, value_enum, default_value_t = After::Kill)]
    leftovers: After,
    /// Run the command as this user: all ids, groups and capabilities are dropped, and cannot be regained.
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Append every event as a JSON line to this file; `-` is stdout, the command's own output then goes to stderr.
    #[arg(long, value_name = "FILE")]
    events: Option<PathBuf>,
    /// Keep the audit log in this directory (`audit/`, its key in `audit-key/`); several runs may follow each other in it.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Append the command's output and errors to this file instead of the terminal.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Give up on processes that cannot be killed after this time, list them and exit 125.
    #[arg(long, value_name = "TIME", value_parser = span)]
    give_up: Option<Duration>,
    /// Print nothing but failures.
    #[arg(long, short)]
    quiet: bool,
    /// How processes are watched: by eBPF where possible, by eBPF or not at all, or by pidfds alone.
    #[arg(long, value_enum, default_value_t = Backend::Auto)]
    backend: Backend,
    /// The size of each ring, for tests of loss: a power of two, at least a page.
    #[arg(long, hide = true, value_name = "BYTES", value_parser = ring)]
    ring_bytes: Option<u32>,
    /// Do without cgroup.kill, as kernels before Linux 5.14 have to; for tests of that way.
    #[arg(long, hide = true)]
    no_cgroup_kill: bool,
    /// The command and its arguments.
    #[arg(required = true, value_name = "CMD", trailing_var_arg = true)]
    command: Vec<OsString>,
}

const EXAMPLES: &str = "\
Examples:
  agent-loop exec --limit 1h -- claude -p 'fix the failing test'
  agent-loop exec --limit 10m --events run.jsonl --output run.log -- make check
  agent-loop exec --user agent --grace 5s -- ./nightly.sh
  agent-loop exec --state-dir /var/lib/nightly -- ./nightly.sh && agent-loop audit verify /var/lib/nightly

Exit codes: the command's own; 124 the limit was reached; 125 agent-loop failed or could not prove the tree
gone; 126 not executable; 127 not found; 128+n the command, or agent-loop itself, was ended by signal n.";

/// What becomes of leftovers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum After {
    /// They are stopped.
    Kill,
    /// They are waited for; the limit still holds.
    Wait,
}

impl From<After> for Leftovers {
    fn from(after: After) -> Self {
        match after {
            After::Kill => Self::Kill,
            After::Wait => Self::Wait,
        }
    }
}

/// How processes are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Backend {
    /// By eBPF; where that is not possible by pidfds, and it is said.
    Auto,
    /// By eBPF; where that is not possible the command is not started.
    Ebpf,
    /// By pidfds and looks at the tree.
    Pidfd,
}

/// A time that is not zero.
fn span(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(span) if span.is_zero() => Err("it must be longer than 0; leave it out for no limit".to_owned()),
        Ok(span) => Ok(span),
        Err(error) => Err(format!("{error}; write it like `90s`, `10m` or `1h 30m`")),
    }
}

fn ring(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(bytes) if bytes.is_power_of_two() && bytes >= 4096 => Ok(bytes),
        Ok(_) | Err(_) => Err("it must be a power of two, at least 4096".to_owned()),
    }
}

/// Runs `exec` and returns its exit code.
pub(super) fn run(args: Args) -> u8 {
    match try_run(args) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("agent-loop: {failure:#}");
            error::INTERNAL
        }
    }
}

fn try_run(args: Args) -> anyhow::Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .context("starting the event loop")?;
    runtime.block_on(shell::run(args))
}

//! The measuring half of `cargo xtask bench`: one subcommand for each side of each row, a JSON object on stdout.
//!
//! Nothing here judges: rounds, ratios and targets are `xtask`'s. Everything is bounded in time and number.

mod append;
mod blocks;
mod exits;
mod gate;
mod hooks;
mod journal;
mod latency;
mod log;
mod records;
mod spawn;
mod stop;
mod usage;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use serde_json::Value;

use crate::sys;

/// Measures one thing.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// From a process's exit to the moment that the core has handled it, or that a bare epoll loop has woken for it.
    Latency {
        #[arg(value_enum)]
        side: latency::Side,
        /// Exits in a second.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=20_000))]
        rate: u32,
        #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=60))]
        seconds: u64,
    },
    /// Births and deaths one after the other, as fast as they go.
    Spawn {
        #[arg(value_enum)]
        how: spawn::How,
        #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..=30_000))]
        ms: u64,
        /// Write the result there instead of to stdout.
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Runs `spawn fork` while the kernel takes the time of each program that this process has loaded.
    Hooks {
        /// The process whose programs are meant; without it the `agent-loop exec` above this one's gate.
        #[arg(long)]
        of: Option<i32>,
        #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..=30_000))]
        ms: u64,
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Kills a tree that ignores TERM, until it is proven empty.
    Stop {
        #[arg(value_enum)]
        side: stop::Side,
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..=5000))]
        count: u16,
        /// The directory of the built programs.
        #[arg(long)]
        bin: PathBuf,
    },
    /// Writes an audit log of one segment.
    Log {
        /// An empty directory that is closed to others.
        dir: PathBuf,
        /// About how large it is to be.
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..=4_096))]
        mib: u64,
        /// About how long a line is to be, bytes.
        #[arg(long, default_value_t = 330)]
        line: u64,
    },
    /// Hashes as many blocks as the lines of a segment and the nodes above them have, and nothing else.
    Blocks {
        /// A segment that is not compressed.
        segment: PathBuf,
    },
    /// Appends records to an audit log as a daemon does, and some that are durable first beside bare syncs.
    Append {
        /// An empty directory that is closed to others.
        dir: PathBuf,
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
        records: u64,
    },
    /// Writes an audit log of many runs, in segments as a daemon has them.
    Records {
        /// An empty directory that is closed to others.
        dir: PathBuf,
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
        records: u64,
    },
    /// Sends records to the journal of this host, which keeps them.
    Journal {
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
        records: u64,
    },
    /// Runs a command without its output; its time and the most memory that it had.
    Usage {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Says that it is there, waits, runs a command, says so, and waits again.
    Gate {
        /// The directory of the four marks: `here`, `go`, `done`, `leave`.
        marks: PathBuf,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Signals a process, through a pidfd.
    Signal {
        #[arg(value_enum)]
        signal: Signal,
        pid: i32,
    },
}

/// A signal for a program under measurement.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Signal {
    /// As from a terminal: it writes what it holds back and ends.
    Interrupt,
    /// It reads nothing until it may go on.
    Stop,
    /// It goes on.
    Continue,
}

/// Measures what the command line names.
#[must_use]
pub fn run() -> ExitCode {
    match measure(Cli::parse().what) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(what: What) -> anyhow::Result<()> {
    let (value, out) = match what {
        What::Latency { side, rate, seconds } => (latency::measure(side, rate, Duration::from_secs(seconds))?, None),
        What::Spawn { how, ms, out } => (spawn::measure(how, Duration::from_millis(ms))?, out),
        What::Hooks { of, ms, out } => (hooks::measure(of, Duration::from_millis(ms))?, out),
        What::Stop { side, count, bin } => (stop::measure(side, count, &bin)?, None),
        What::Log { dir, mib, line } => (log::write(&dir, mib << 20, line)?, None),
        What::Blocks { segment } => (blocks::measure(&segment)?, None),
        What::Append { dir, records } => (append::measure(&dir, records)?, None),
        What::Records { dir, records } => (records::write(&dir, records)?, None),
        What::Journal { records } => (journal::measure(records)?, None),
        What::Usage { command } => (usage::of(&command)?, None),
        What::Gate { marks, command } => return gate::pass(&marks, &command),
        What::Signal { signal, pid } => {
            let signal = match signal {
                Signal::Interrupt => libc::SIGINT,
                Signal::Stop => libc::SIGSTOP,
                Signal::Continue => libc::SIGCONT,
            };
            return Ok(sys::pidfd_signal(sys::pidfd_open(pid)?, signal)?);
        }
    };
    tell(&value, out)
}

fn tell(value: &Value, out: Option<PathBuf>) -> anyhow::Result<()> {
    match out {
        Some(path) => std::fs::write(path, value.to_string())?,
        None => writeln!(std::io::stdout(), "{value}")?,
    }
    Ok(())
}

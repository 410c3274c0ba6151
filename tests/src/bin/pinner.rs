//! Opens or loads the pinned eBPF program, as the daemon does, says what it found, and then does nothing until its
//! standard input ends or somebody kills it.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use agent_loop::kernel::pins::{self, Found};
use agent_loop::kernel::{Options, RunsBy};
use agent_loop::model::RunTag;
use agent_loop_tests::sys;
use clap::Parser;

/// Opens or loads the pinned eBPF program.
#[derive(Debug, Parser)]
struct Cli {
    /// Where the pins are.
    dir: PathBuf,
    /// The depth of run cgroups; without it only a run's own cgroup counts.
    #[arg(long)]
    level: Option<u32>,
    /// The size of the ring of births and deaths.
    #[arg(long, default_value_t = 4 << 20)]
    events: u32,
    /// The size of the live set.
    #[arg(long, default_value_t = 65_536)]
    live: u32,
    /// The tag of a run to enter.
    #[arg(long)]
    run: Option<u64>,
    /// End at once.
    #[arg(long)]
    once: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    sys::die_after(Duration::from_secs(100))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let _inside = runtime.enter();
    let options = Options {
        runs: cli.level.map_or(RunsBy::Exact, RunsBy::Level),
        events_bytes: cli.events,
        live_entries: cli.live,
        ..Options::default()
    };
    let (mut tracing, found) = pins::open_or_load(&cli.dir, &options)?;
    if let Some(run) = cli.run {
        tracing.runs.insert(RunTag(run))?;
    }
    let mut out = io::stdout().lock();
    match found {
        Found::Adopted => writeln!(out, "adopted")?,
        Found::Fresh { why } => writeln!(out, "fresh: {why}")?,
    }
    out.flush()?;
    if !cli.once {
        io::stdin().read_to_end(&mut Vec::new())?;
    }
    Ok(ExitCode::SUCCESS)
}

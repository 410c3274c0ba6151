//! Forces PID recycles against one method and prints a tally for each point as a JSON line.
//!
//! The methods by number run in a PID namespace of their own: there is nobody else there to hit.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use agent_loop::keeper::{launch, launcher};
use agent_loop_tests::recycle::{self, ByNumber, Method, OwnChild, PidfdInode, Point, Product, Proof, Span, Stopgap};
use agent_loop_tests::sys;
use clap::{Parser, ValueEnum};

/// Forces PID recycles.
#[derive(Debug, Parser)]
struct Cli {
    /// Who signals.
    #[arg(value_enum)]
    method: Who,
    /// Where the number changes hands; every point without it.
    #[arg(long, value_enum)]
    point: Option<Point>,
    /// Recycles at each point.
    #[arg(long, default_value_t = 10_000)]
    rounds: u64,
    /// Time for each point.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Of the random instants.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Who {
    /// `kill(pid, 0)`, then `kill(pid, 9)`.
    AgentLoopPy,
    /// Name and start time, then `kill(pid, 9)`.
    Stopgap,
    /// A pidfd, its inode, then a signal through it.
    Pidfd,
    /// agent-loop's own, by the recorded inode.
    Inode,
    /// agent-loop's own, by the kernel's live set.
    LiveSet,
    /// agent-loop's own, by the run's cgroup.
    Member,
    /// agent-loop's own, for a child that it launched.
    OwnChild,
}

fn main() -> ExitCode {
    // The keeper launches this program again, as agent-loop.
    let mut args = std::env::args_os();
    if args.nth(1).is_some_and(|first| first == launch::LAUNCHER) {
        launcher::launcher_main(args);
    }
    let cli = Cli::parse();
    match recycle(&cli) {
        Ok(code) => ExitCode::from(code),
        Err(err) => {
            eprintln!("recycler: {err}");
            ExitCode::FAILURE
        }
    }
}

fn recycle(cli: &Cli) -> io::Result<u8> {
    sys::die_after(Duration::from_secs((cli.seconds + 5) * 4))?;
    match cli.method {
        Who::Pidfd => points(cli, &mut PidfdInode),
        Who::Inode => points(cli, &mut Product::new(Proof::Inode)?),
        Who::LiveSet => points(cli, &mut Product::new(Proof::LiveSet)?),
        Who::Member => points(cli, &mut Product::new(Proof::Member)?),
        Who::OwnChild => points(cli, &mut OwnChild::default()),
        Who::AgentLoopPy => recycle::in_own_pid_namespace(|space| points(cli, &mut ByNumber::contained(space))),
        Who::Stopgap => recycle::in_own_pid_namespace(|space| points(cli, &mut Stopgap::contained(space))),
    }
}

fn points<M: Method>(cli: &Cli, method: &mut M) -> io::Result<u8> {
    let span = Span { rounds: cli.rounds, within: Duration::from_secs(cli.seconds), seed: cli.seed };
    for point in cli.point.map_or(Point::ALL.to_vec(), |point| vec![point]) {
        let tally = recycle::run(method, point, span)?;
        let mut out = io::stdout().lock();
        serde_json::to_writer(&mut out, &serde_json::json!({ "point": point, "tally": tally }))?;
        writeln!(out)?;
        out.flush()?;
    }
    Ok(0)
}

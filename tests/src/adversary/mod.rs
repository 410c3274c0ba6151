//! Small programs that try to escape supervision, one subcommand each.
//!
//! Each is bounded: SIGKILL from a kernel timer after `--limit-ms`, and counts have upper bounds. Most build
//! something, say so with `--ready`, then live on for `--hold-ms`.

mod cgroups;
mod crowd;
mod daemons;
mod ends;
mod report;
mod storm;
mod terminal;
mod threads;

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};

use crate::oracle::{Life, Oracle};
use crate::sys;

/// One adversary.
#[derive(Debug, Parser)]
struct Cli {
    /// Append what waitid said of each child to this file, as JSON lines.
    #[arg(long, global = true)]
    oracle: Option<PathBuf>,
    /// Create this file once everything is built.
    #[arg(long, global = true)]
    ready: Option<PathBuf>,
    /// How long to live on.
    #[arg(long, global = true, default_value_t = 50_000)]
    hold_ms: u64,
    /// When the kernel ends it, whatever it does.
    #[arg(long, global = true, default_value_t = 60_000, value_parser = clap::value_parser!(u64).range(1..=120_000))]
    limit_ms: u64,
    /// Do it in a child; wait for the child.
    #[arg(long, global = true)]
    as_child: bool,
    /// With --as-child and --ready: exit 0 as soon as it is ready, leaving the child behind.
    #[arg(long, global = true)]
    leave: bool,
    #[command(subcommand)]
    act: Act,
}

/// What it does.
#[derive(Clone, Debug, Subcommand)]
enum Act {
    /// The leader thread exits; another lives on, then the process exits with CODE.
    LeaderExitsFirst {
        #[arg(long, default_value_t = 0)]
        code: u8,
        /// End the last thread alone instead of the process.
        #[arg(long)]
        by_thread: bool,
    },
    /// A thread that is not the leader executes this program again, which holds, then exits with CODE.
    ExecByThread {
        #[arg(long, default_value_t = 0)]
        code: u8,
    },
    /// Starts and ends COUNT threads, then exits.
    Threads {
        #[arg(default_value_t = 20, value_parser = clap::value_parser!(u16).range(..=1000))]
        count: u16,
    },
    /// ROUNDS children with eight threads each, which end in all the ways there are.
    ThreadEnds {
        #[arg(default_value_t = 50, value_parser = clap::value_parser!(u16).range(..=2000))]
        rounds: u16,
    },
    /// Calls itself NAME by prctl, then COUNT children, who inherit the name, live on.
    Rename {
        name: String,
        #[arg(default_value_t = 2, value_parser = clap::value_parser!(u16).range(..=100))]
        count: u16,
    },
    /// A child born into the cgroup of directory DIR exits with 7.
    BornIn { dir: PathBuf },
    /// Makes a child of its own parent (CLONE_PARENT), which exits with 5.
    Sibling,
    /// setsid, two forks, chdir /, all descriptors closed, lives on; the starter holds too.
    DoubleForkDaemon,
    /// COUNT generations, each setsid, fork, exit of the parent; the last lives on.
    SetsidChain {
        #[arg(default_value_t = 30, value_parser = clap::value_parser!(u16).range(..=500))]
        count: u16,
    },
    /// A child becomes a subreaper; its grandchild, orphaned, falls to it.
    SubreaperDaemon,
    /// Ignores INT, TERM and HUP; COUNT children do too.
    TermIgnorer {
        #[arg(default_value_t = 0, value_parser = clap::value_parser!(u16).range(..=5000))]
        count: u16,
    },
    /// Stops itself with SIGSTOP.
    Stopper,
    /// Forks for ever, with at most ALIVE processes at a time and LIVES in all.
    ForkBomb {
        #[arg(default_value_t = 100, value_parser = clap::value_parser!(u32).range(..=3000))]
        alive: u32,
        #[arg(default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(..=100_000))]
        lives: u32,
    },
    /// Makes cgroups below its own and moves children into them.
    NestedCgroup {
        /// Freeze one of them.
        #[arg(long)]
        freeze: bool,
        /// Make a single one that is threaded, which refuses cgroup.kill.
        #[arg(long, conflicts_with = "freeze")]
        threaded: bool,
    },
    /// Makes WIDTH cgroups below its own, and in the last of them a line of DEPTH, each in the one before; a child lives
    /// in the deepest.
    ManyCgroups {
        #[arg(value_parser = clap::value_parser!(u16).range(1..=1000))]
        width: u16,
        #[arg(value_parser = clap::value_parser!(u16).range(..=1000))]
        depth: u16,
    },
    /// COUNT lines of children, each of which forks its successor at once and ends: no number lives for long.
    Phoenix {
        #[arg(default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=100))]
        count: u16,
    },
    /// COUNT children that hop between cgroups below the own one and fork a successor on the way.
    Hopper {
        #[arg(default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
        count: u16,
    },
    /// COUNT children that only exit, with codes 0, 1, … 255, 0, …
    ForkNoExec {
        #[arg(default_value_t = 256, value_parser = clap::value_parser!(u32).range(..=20_000))]
        count: u32,
    },
    /// COUNT children by vfork and exec, then as many by vfork alone.
    VforkSpawner {
        #[arg(default_value_t = 10, value_parser = clap::value_parser!(u16).range(..=1000))]
        count: u16,
    },
    /// Exits with CODE; what follows is ignored.
    ExitCode {
        code: u8,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        ignored: Vec<String>,
    },
    /// Dies by SIGNAL.
    DieBySignal {
        signal: i32,
        /// Allow a core dump, in the current directory.
        #[arg(long)]
        core: bool,
    },
    /// One child for each signal that kills, which dies by it.
    EverySignal,
    /// Forks, vforks and execs at full rate, from several generators.
    Storm {
        #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(..=90_000))]
        for_ms: u64,
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
        generators: u8,
        /// One birth in this many is an exec.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
        exec_every: u32,
    },
    /// Writes as JSON what this process was given.
    Report {
        /// Where to; the standard output without it.
        file: Option<PathBuf>,
    },
    /// Writes BYTES to the standard output.
    PrintFlood {
        #[arg(value_parser = clap::value_parser!(u64).range(..=1 << 32))]
        bytes: u64,
    },
    /// Asks on the terminal for a line and repeats it.
    Interactive,
    /// Waits for FILE to exist.
    WaitFor { file: PathBuf },
    /// Executes itself with an argv of BYTES.
    ManyArgs {
        #[arg(value_parser = clap::value_parser!(u32).range(..=1_500_000))]
        bytes: u32,
    },
    /// Does nothing for the time to hold, then exits with CODE.
    Hold {
        #[arg(long, default_value_t = 0)]
        code: u8,
    },
}

/// What every act is given.
#[derive(Debug)]
struct Stage {
    oracle: Oracle,
    ready: Option<PathBuf>,
    hold: Duration,
    limit: Duration,
}

/// Plays the adversary that the command line names; returns its exit code.
#[must_use]
pub fn run() -> u8 {
    if let Some(code) = exit_code_at_once() {
        return code;
    }
    match Cli::try_parse() {
        Ok(cli) => play(cli).unwrap_or_else(|err| {
            eprintln!("adversary: {err}");
            240
        }),
        Err(err) => {
            eprintln!("{err}");
            2
        }
    }
}

/// `exit-code CODE`, without the cost of a parser: storms start thousands of these.
fn exit_code_at_once() -> Option<u8> {
    let mut args = std::env::args_os().skip(1);
    (args.next()? == "exit-code").then_some(())?;
    args.next()?.to_str()?.parse().ok()
}

fn play(cli: Cli) -> io::Result<u8> {
    if cli.leave && !(cli.as_child && cli.ready.is_some()) {
        return Err(io::Error::other("--leave needs --as-child and --ready"));
    }
    let limit = Duration::from_millis(cli.limit_ms);
    sys::die_after(limit)?;
    let stage = Stage {
        oracle: Oracle::open(cli.oracle.as_deref())?,
        ready: cli.ready.map(std::path::absolute).transpose()?,
        hold: Duration::from_millis(cli.hold_ms),
        limit,
    };
    if !cli.as_child {
        return stage.act(cli.act);
    }
    let child = stage.fork("adversary", || stage.act(cli.act.clone()))?;
    if cli.leave {
        stage.wait_ready();
        return Ok(0);
    }
    stage.wait_for(child)?;
    Ok(0)
}

impl Stage {
    fn act(&self, act: Act) -> io::Result<u8> {
        match act {
            Act::LeaderExitsFirst { code, by_thread } => threads::leader_exits_first(self, code, by_thread),
            Act::ExecByThread { code } => threads::exec_by_thread(self, code),
            Act::Threads { count } => threads::come_and_go(self, count),
            Act::ThreadEnds { rounds } => threads::ends(self, rounds),
            Act::Rename { name, count } => daemons::rename(self, &name, count),
            Act::BornIn { dir } => cgroups::born_in(self, &dir),
            Act::Sibling => daemons::sibling(),
            Act::DoubleForkDaemon => daemons::double_fork(self),
            Act::SetsidChain { count } => daemons::setsid_chain(self, count),
            Act::SubreaperDaemon => daemons::subreaper(self),
            Act::TermIgnorer { count } => daemons::term_ignorer(self, count),
            Act::Stopper => daemons::stopper(self),
            Act::ForkBomb { alive, lives } => crowd::fork_bomb(self, alive, lives),
            Act::ManyCgroups { width, depth } => cgroups::many(self, width, depth),
            Act::Phoenix { count } => cgroups::phoenix(self, count),
            Act::Hopper { count } => cgroups::hopper(self, count),
            Act::ForkNoExec { count } => crowd::fork_no_exec(self, count),
            Act::VforkSpawner { count } => crowd::vfork_spawner(self, count),
            Act::NestedCgroup { freeze, threaded } => cgroups::nested(self, freeze, threaded),
            Act::ExitCode { code, ignored: _ } => Ok(code),
            Act::DieBySignal { signal, core } => ends::die_by_signal(signal, core),
            Act::EverySignal => ends::every_signal(self),
            Act::Storm { for_ms, generators, exec_every } => {
                storm::storm(self, Duration::from_millis(for_ms), generators, exec_every)
            }
            Act::Report { file } => report::report(file.as_deref()),
            Act::PrintFlood { bytes } => terminal::print_flood(bytes),
            Act::Interactive => terminal::interactive(),
            Act::WaitFor { file } => Ok(u8::from(!appears(&file, self.hold))),
            Act::ManyArgs { bytes } => ends::many_args(bytes),
            Act::Hold { code } => {
                self.ready()?;
                self.live_on();
                Ok(code)
            }
        }
    }

    /// Forks a child that runs `act`; what it cannot do becomes exit code 241.
    fn fork(&self, role: &'static str, act: impl FnOnce() -> io::Result<u8>) -> io::Result<Life> {
        let after_ns = sys::boot_ns();
        let pid = sys::fork(|| {
            act().unwrap_or_else(|err| {
                eprintln!("adversary: {role}: {err}");
                241
            })
        })?;
        Ok(Life { pid, parent: me(), role: role.to_owned(), after_ns, before_ns: sys::boot_ns(), status: None })
    }

    /// Waits for the child and tells the oracle.
    fn wait_for(&self, mut child: Life) -> io::Result<()> {
        child.status = Some(sys::wait(child.pid)?);
        self.oracle.write(&[child])
    }

    /// Says that everything is built.
    fn ready(&self) -> io::Result<()> {
        self.ready.as_ref().map_or(Ok(()), |path| fs::write(path, me().to_string()))
    }

    /// Waits until somebody said so.
    fn wait_ready(&self) {
        if let Some(path) = &self.ready {
            appears(path, self.limit);
        }
    }

    fn live_on(&self) {
        thread::sleep(self.hold);
    }

    /// This program, to be executed with the same places and times.
    fn again(&self, args: &[&str]) -> io::Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(args).arg("--hold-ms").arg(self.hold.as_millis().to_string());
        if let Some(path) = &self.ready {
            command.arg("--ready").arg(path);
        }
        Ok(command)
    }
}

/// The own number.
fn me() -> i32 {
    std::process::id().cast_signed()
}

/// Waits for a file to exist, at most this long.
fn appears(path: &std::path::Path, within: Duration) -> bool {
    let end = Instant::now() + within;
    while Instant::now() < end {
        if path.exists() {
            return true;
        }
        thread::sleep(Duration::from_millis(2));
    }
    false
}

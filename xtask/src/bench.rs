//! `cargo xtask bench`: figures beside their references, each pair measured in the same run.
//!
//! A row is a file: it measures, and says what it compares. [`table`] prints, [`spread`] sums up rounds, [`peers`]
//! are the tools we are compared with, [`tool`] starts programs with a bound. No figure is judged by a test.

mod audit;
mod daemon;
mod deaths;
mod hooks;
mod host;
mod latency;
mod logs;
mod peers;
mod read;
mod slowdown;
mod spread;
mod startup;
mod stop;
mod supervisors;
mod table;
mod tool;
mod unpacked;
mod verify;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde_json::{Value, json};

use crate::{ebpf, place, progress, setup};
use peers::Peers;
use table::Table;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Row {
    /// From a process's exit to the decision, against a bare pidfd epoll loop.
    Latency,
    /// What each hook costs, by the kernel's clock, against those of exitsnoop and execsnoop.
    Hooks,
    /// How much slower forks and execs become.
    Slowdown,
    /// Deaths seen in a storm, and what each costs.
    Deaths,
    /// The time to stop a large tree, against a bare write to the cgroup's kill file.
    Stop,
    /// The time to start, and the memory.
    Startup,
    /// The daemon: a launch, a restart after a crash, an adopted agent's death, and what it takes at rest.
    Daemon,
    /// The time to notice a death, and what is told after a SIGKILL of its own, beside pueue and supervisord.
    Supervisors,
    /// The verification of an audit log, against that of a journal.
    Verify,
    /// What an audit log takes, against a bare sync and the journal of this host.
    Audit,
    /// What reading an audit log takes, against jq.
    Read,
}

impl Row {
    const ALL: [Self; 11] = [
        Self::Latency,
        Self::Hooks,
        Self::Slowdown,
        Self::Deaths,
        Self::Stop,
        Self::Startup,
        Self::Daemon,
        Self::Supervisors,
        Self::Verify,
        Self::Audit,
        Self::Read,
    ];
}

/// How it is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// What to measure; everything without it.
    #[arg(value_enum)]
    rows: Vec<Row>,
    /// How often each side is measured, the sides in turn.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// How long a storm lasts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=30))]
    seconds: u32,
    /// How many records an audit log gets.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..=100_000_000))]
    records: u64,
    /// Where the figures go.
    #[arg(long, value_name = "FILE", default_value_os_t = place::root().join("target/bench.json"))]
    json: PathBuf,
}

/// What every row is given.
pub(crate) struct Bench {
    /// The built programs.
    bin: PathBuf,
    /// An empty directory.
    scratch: PathBuf,
    rounds: u32,
    seconds: u32,
    records: u64,
    peers: Peers,
}

impl Bench {
    fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// What a command took, which has to end with this code: `seconds`, `cpu_seconds`, `peak_kib`.
    fn used(&self, command: &[String], code: i64) -> Result<Value> {
        let used = audit::said(Command::new(self.program("bench")).arg("usage").arg("--").args(command))?;
        if used["code"] != code {
            bail!("{command:?} ended with {}", used["code"]);
        }
        Ok(used)
    }

    /// An empty directory for one measurement.
    fn fresh(&self, name: &str) -> Result<PathBuf> {
        let dir = self.scratch.join(name);
        if dir.exists() {
            fs::remove_dir_all(&dir).with_context(|| format!("emptying {}", dir.display()))?;
        }
        fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        Ok(dir)
    }
}

/// The words of a command.
fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Runs `cargo xtask bench`.
pub(crate) fn command(options: &Options) -> Result<()> {
    if !setup::is_root() {
        bail!("the figures need eBPF and cgroups: run as root");
    }
    let toolchain = setup::ensure()?;
    ebpf::build(&toolchain)?;
    let bin = build()?;
    let rows = if options.rows.is_empty() { Row::ALL.to_vec() } else { options.rows.clone() };
    let needs_peers = rows.iter().any(|row| matches!(row, Row::Hooks | Row::Slowdown | Row::Deaths));
    let peers = if needs_peers { Peers::find()? } else { Peers::default() };
    let scratch = place::scratch().join("bench");
    let Options { rounds, seconds, records, .. } = *options;
    let bench = Bench { bin, scratch, rounds, seconds, records, peers };

    let mut figures = serde_json::Map::new();
    let host = host(&bench);
    println!("\n{}\n", table::host(&host));
    figures.insert("host".to_owned(), host);
    let mut failed = Vec::new();
    for row in rows {
        let name = row.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
        progress::say(&format!("bench: {name}"));
        let before = load();
        match measure(row, &bench) {
            Ok((table, mut value)) => {
                value["loadavg"] = json!([before, load()]);
                println!("\n{table}");
                figures.insert(name, value);
            }
            Err(error) => {
                eprintln!("error: {name}: {error:#}");
                figures.insert(name.clone(), json!({ "error": format!("{error:#}") }));
                failed.push(name);
            }
        }
    }
    let text = serde_json::to_string_pretty(&Value::Object(figures)).context("writing the figures as JSON")?;
    fs::write(&options.json, text + "\n").with_context(|| format!("writing {}", options.json.display()))?;
    progress::say(&format!("figures are in {}", options.json.display()));
    if failed.is_empty() { Ok(()) } else { bail!("not measured: {}", failed.join(", ")) }
}

fn measure(row: Row, bench: &Bench) -> Result<(Table, Value)> {
    match row {
        Row::Latency => latency::measure(bench),
        Row::Hooks => hooks::measure(bench),
        Row::Slowdown => slowdown::measure(bench),
        Row::Deaths => deaths::measure(bench),
        Row::Stop => stop::measure(bench),
        Row::Startup => startup::measure(bench),
        Row::Daemon => daemon::measure(bench),
        Row::Supervisors => supervisors::measure(bench),
        Row::Verify => verify::measure(bench),
        Row::Audit => audit::measure(bench),
        Row::Read => read::measure(bench),
    }
}

/// Builds for release and returns where the programs are.
fn build() -> Result<PathBuf> {
    progress::say("building for release");
    let target = place::target_dir();
    let mut build = place::host_cargo();
    build.args(["build", "--release", "--package", "agent-loop", "--package", "agent-loop-tests", "--bins"]);
    if !progress::show("build", build.arg("--target-dir").arg(&target), |_| {})?.success() {
        bail!("the build failed");
    }
    Ok(target.join("release"))
}

fn host(bench: &Bench) -> Value {
    let read = |path: &str| fs::read_to_string(path).map_or_else(|_| "?".to_owned(), |text| text.trim().to_owned());
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    json!({
        "kernel": read("/proc/sys/kernel/osrelease"),
        "cpus": cpus,
        "pid_max": read("/proc/sys/kernel/pid_max"),
        "clocksource": read("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "loadavg": load(),
        "date": tool::said("date", &["-u", "+%Y-%m-%dT%H:%MZ"]),
        "agent_loop": tool::said(&bench.program("agent-loop").to_string_lossy(), &["--version"]),
        "commit": tool::said("git", &["-C", &place::root().to_string_lossy(), "describe", "--always", "--dirty"]),
        "rounds": bench.rounds,
        "seconds": bench.seconds,
        "peers": bench.peers.versions(),
    })
}

fn load() -> String {
    fs::read_to_string(Path::new("/proc/loadavg")).map_or_else(|_| "?".to_owned(), |text| text.trim().to_owned())
}

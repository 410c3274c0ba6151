//! `cargo xtask vm`: Debian's kernels, each in a virtual machine of its own, with the tests of the kernel side.
//!
//! [`debian`] fetches kernels and QEMU by apt into `target/vm`, and installs nothing. [`payload`] puts the tests, and what
//! they run, into an initramfs. [`machine`] boots one kernel with it, and tells what was said. [`life`] boots a Debian with
//! systemd instead, and plays the life of the service. There is no network in a machine, and where KVM boots no kernel its
//! processor is emulated.

mod debian;
mod life;
mod machine;
mod payload;
mod verdict;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{place, progress};

/// The kernels that are looked at when none is named.
const KERNELS: [&str; 5] = ["5.10", "6.1", "6.12", "6.18", "newest"];
/// The tests that are run when none is named.
const TESTS: [&str; 7] = ["doctor", "kernel_truth", "tree_empty", "probes", "keeper", "degraded", "serve:limits"];

/// What `cargo xtask vm` is told.
#[derive(Args)]
#[command(after_help = "Examples:
  cargo xtask vm                                       all kernels, all tests of the kernel side
  cargo xtask vm --kernel 6.1                          one kernel
  cargo xtask vm --kernel newest --test serve:limits   one module of one test program on the newest kernel
  cargo xtask vm --service --kernel 6.12               the package under systemd: kills, upgrade, shutdown, power cut
  cargo xtask vm --kernel 6.1 --word agent_loop.without=cgroup2 --test doctor")]
pub(crate) struct Options {
    /// A kernel of Debian, as 6.12, or `newest`; can be given more than once. 5.10, 6.1, 6.12, 6.18 and newest without.
    #[arg(long, value_name = "VERSION")]
    kernel: Vec<String>,
    /// A test program of `tests/tests/`, and a part of the tests' names after a colon; can be given more than once.
    #[arg(long, value_name = "PROGRAM[:PART]")]
    test: Vec<String>,
    /// Plays the life of the service, with systemd as PID 1, instead of the tests.
    #[arg(long, conflicts_with = "test")]
    service: bool,
    /// A word more for the kernel's command line, as cgroup_disable=memory; `agent_loop.without=` cgroup2, bpffs or btf
    /// takes that from the tests' machine. Can be given more than once.
    #[arg(long, value_name = "WORD", conflicts_with = "service")]
    word: Vec<String>,
    /// How long one machine may run.
    #[arg(long, default_value_t = 3_600)]
    seconds: u64,
}

/// Boots a kernel, once or more often.
type Play<'a> = dyn Fn(&debian::Kernel) -> Result<Vec<machine::Seen>> + 'a;

/// Where everything of this command lies.
fn home() -> PathBuf {
    place::root().join("target/vm")
}

/// Runs `cargo xtask vm`.
pub(crate) fn command(options: &Options) -> Result<()> {
    let or_all = |given: &[String], all: &[&str]| match given {
        [] => all.iter().map(|it| (*it).to_owned()).collect(),
        given => given.to_vec(),
    };
    let kernels = or_all(&options.kernel, &KERNELS);
    let tests: Vec<payload::Test> = or_all(&options.test, &TESTS).iter().map(|it| payload::Test::parse(it)).collect();
    fs::create_dir_all(home()).context("creating target/vm")?;

    progress::say("virtual machines: what is needed, by apt, into target/vm");
    let tools = debian::tools()?;
    let (mut found, mut troubles) = (Vec::new(), Vec::new());
    for wanted in &kernels {
        match debian::kernel(wanted) {
            Ok(kernel) => {
                progress::note(&format!("{wanted}: {} {}", kernel.release, kernel.package_version));
                found.push(kernel);
            }
            Err(error) => {
                progress::note(&format!("{wanted}: not had: {error:#}"));
                troubles.push(format!("{wanted} was not had"));
            }
        }
    }
    if found.is_empty() {
        bail!("no kernel could be had: is the network there, and does `apt-get update` work?");
    }

    let accelerator = machine::accelerator(&tools, &found[0], &payload::trial(&tools)?)?;
    let limit = Duration::from_secs(options.seconds);
    let play: Box<Play<'_>> = if options.service {
        progress::say("virtual machines: a Debian with the package");
        let root = life::root()?;
        let tools = &tools;
        Box::new(move |kernel| life::play(tools, kernel, accelerator, &root, limit))
    } else {
        progress::say("virtual machines: the tests, and what they run");
        let (initramfs, words, tools) = (payload::build(&tools, &tests)?, options.word.join(" "), &tools);
        Box::new(move |kernel| {
            let (root, words) = (machine::Root::Initramfs(&initramfs), words.as_str());
            let boot = machine::Boot { accelerator, name: "", root, words, limit };
            Ok(vec![machine::run(tools, kernel, &boot)?])
        })
    };
    println!("| kernel | package | processor | verdict | passed | failed | skipped | seconds |");
    println!("|---|---|---|---|---:|---:|---:|---:|");
    let mut rows = Vec::new();
    for kernel in &found {
        for seen in play(kernel)? {
            for line in seen.details() {
                println!("    {line}");
            }
            let row = row(kernel, accelerator, &seen);
            println!("{row}");
            rows.push(row);
            if seen.verdict != machine::Verdict::Passed {
                let log = seen.log.display();
                troubles.push(format!("{}: {}; {log} has all that was said", kernel.release, seen.verdict));
            }
        }
    }
    progress::say("virtual machines: summary");
    println!("{}", rows.join("\n"));
    if !troubles.is_empty() {
        bail!("{}", troubles.join("\n"));
    }
    Ok(())
}

/// A line of the table.
fn row(kernel: &debian::Kernel, accelerator: machine::Accelerator, seen: &machine::Seen) -> String {
    format!(
        "| {} | {} | {accelerator} | {} | {} | {} | {} | {:.0} |",
        seen.release.as_deref().unwrap_or(&kernel.release),
        kernel.package_version,
        seen.verdict,
        seen.passed,
        seen.failed.len(),
        seen.skipped.len(),
        seen.took.as_secs_f64()
    )
}

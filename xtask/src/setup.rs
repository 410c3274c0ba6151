//! `cargo xtask setup`: what the eBPF build needs, found or installed.
//!
//! [`facts`] looks at the machine, [`plan`] decides on the next step from those facts alone, and this file
//! performs it, looks again, and goes on until nothing is missing or nothing can be done.

mod facts;
mod plan;

use std::process::Command;

use anyhow::{Result, bail};

use crate::{place, progress};
pub(crate) use facts::{Compiler, Linker, is_root};
use facts::{Facts, LINKER_VERSION};
use plan::{Next, Step};

/// The pair that builds the eBPF program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Toolchain {
    /// The compiler with its library source.
    pub(crate) compiler: Compiler,
    /// The linker, whose LLVM is at least the compiler's.
    pub(crate) linker: Linker,
}

/// Runs `cargo xtask setup`.
pub(crate) fn command(check: bool) -> Result<()> {
    if check {
        let facts = Facts::gather();
        facts.print();
        return match plan::next(&facts) {
            Next::Ready(toolchain) => {
                report(&toolchain);
                Ok(())
            }
            Next::Do(step) => bail!("something is missing; `cargo xtask setup` would begin with: {}", step.what()),
            Next::Stuck(advice) => bail!("something is missing\n{advice}"),
        };
    }
    report(&ensure()?);
    Ok(())
}

/// Installs what is missing, and returns the toolchain.
pub(crate) fn ensure() -> Result<Toolchain> {
    let mut facts = Facts::gather();
    let mut done: Vec<Step> = Vec::new();
    loop {
        let step = match plan::next(&facts) {
            Next::Ready(toolchain) => return Ok(toolchain),
            Next::Do(step) => step,
            Next::Stuck(advice) => bail!("the eBPF program cannot be built yet\n{advice}"),
        };
        if done.contains(&step) {
            bail!("{} was done and changed nothing; `cargo xtask setup --check` shows what was found", step.what());
        }
        if done.is_empty() {
            progress::say("setting up what the eBPF build needs (once)");
        }
        let listed = perform(&step, facts.listed)?;
        done.push(step);
        facts = Facts { listed, ..Facts::gather() };
    }
}

/// The toolchain that is there already; installs nothing.
pub(crate) fn installed() -> Result<Toolchain> {
    match plan::next(&Facts::gather()) {
        Next::Ready(toolchain) => Ok(toolchain),
        Next::Do(step) => bail!("the eBPF program cannot be built yet: {}\nrun `cargo xtask setup`", step.why()),
        Next::Stuck(advice) => bail!("the eBPF program cannot be built yet\n{advice}"),
    }
}

fn report(Toolchain { compiler, linker }: &Toolchain) {
    println!("compiler  {compiler}");
    println!("linker    {linker}");
    println!("nothing is missing");
}

/// Performs one step; returns whether apt's package lists are fresh afterwards.
fn perform(step: &Step, listed: bool) -> Result<bool> {
    progress::note(&format!("{}: {}", step.what(), step.why()));
    match step {
        Step::ListPackages => {
            refresh()?;
            Ok(true)
        }
        Step::Packages { names, .. } => {
            if !listed {
                refresh()?;
            }
            apt_install(&names.iter().map(String::as_str).collect::<Vec<_>>())?;
            Ok(true)
        }
        Step::BuildLinker { llvm, prefix } => {
            let mut install = place::clean_cargo();
            install
                .env("LLVM_PREFIX", prefix)
                .args(["install", "bpf-linker", "--version", LINKER_VERSION, "--locked", "--force"])
                .args(["--no-default-features", "--features", &format!("llvm-{llvm}")]);
            progress::run(&format!("cargo install bpf-linker {LINKER_VERSION}"), &mut install)?;
            Ok(listed)
        }
    }
}

/// Installs packages of the distribution; what is installed already stays.
pub(crate) fn install(names: &[&str]) -> Result<()> {
    if place::which("apt-get").is_none() {
        bail!("this system has no apt-get");
    }
    apt_install(names).or_else(|_| refresh().and_then(|()| apt_install(names)))
}

fn apt_install(names: &[&str]) -> Result<()> {
    let mut install = apt_get();
    install.args(["install", "--yes", "--no-install-recommends", "--no-remove"]).args(names);
    progress::run(&format!("apt-get install {}", names.join(" ")), &mut install)
}

fn refresh() -> Result<()> {
    progress::run("apt-get update", apt_get().arg("update"))
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args(["-o", "DPkg::Lock::Timeout=120"]);
    command
}

//! The command line: parses arguments, runs one command, returns its exit code.
//!
//! Inside: what a person types and reads, and the shells that perform what the core decides.
//! Not inside: any decision about a run. Called by `main` alone.

mod audit;
mod bugreport;
mod client;
mod config;
mod doctor;
mod exec;
mod hold;
mod import;
mod keeper;
mod serve;
mod tick;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::keeper::{guard, launch, launcher};
use crate::kernel::{object, trial};

/// Runs coding agents, sees every birth and death of their processes, and leaves nothing behind.
#[derive(Debug, Parser)]
#[command(name = "agent-loop", version, arg_required_else_help = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Exec(exec::Args),
    Doctor(doctor::Args),
    Serve(serve::Args),
    Tick(tick::Args),
    Import(import::Args),
    Config(config::Args),
    Audit(audit::Args),
    Bugreport(bugreport::Args),
    #[command(flatten)]
    Client(client::Command),
    Keeper(keeper::Args),
    Hold(hold::Args),
}

/// The command line, for manual pages and completions.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the command that the arguments name.
#[must_use]
pub fn main() -> ExitCode {
    let mut args = std::env::args_os();
    // Three subcommands are agent-loop's own: they come before the parser, which would allocate and explain.
    match args.nth(1).as_deref().and_then(|name| name.to_str()) {
        Some(launch::LAUNCHER) => launcher::launcher_main(args),
        Some(guard::GUARD) => guard::guard_main(args),
        Some(trial::TRIAL) => trial::trial_main(args),
        Some(_) | None => ExitCode::from(run(std::env::args_os())),
    }
}

fn run(args: impl IntoIterator<Item = OsString>) -> u8 {
    let version: &'static str = version().leak();
    let parsed =
        Cli::command().version(version).try_get_matches_from(args).and_then(|matches| Cli::from_arg_matches(&matches));
    match parsed {
        Ok(Cli { command: Command::Exec(args) }) => exec::run(args),
        Ok(Cli { command: Command::Doctor(args) }) => doctor::run(&args),
        Ok(Cli { command: Command::Serve(args) }) => serve::run(&args),
        Ok(Cli { command: Command::Tick(args) }) => tick::run(&args),
        Ok(Cli { command: Command::Import(args) }) => import::run(&args),
        Ok(Cli { command: Command::Config(args) }) => config::run(&args),
        Ok(Cli { command: Command::Audit(args) }) => audit::run(&args),
        Ok(Cli { command: Command::Bugreport(args) }) => bugreport::run(&args),
        Ok(Cli { command: Command::Client(command) }) => client::run(command),
        Ok(Cli { command: Command::Hold(args) }) => hold::run(&args),
        Ok(Cli { command: Command::Keeper(args) }) => keeper::run(args),
        Err(error) => {
            let _ = error.print();
            u8::try_from(error.exit_code()).unwrap_or(crate::error::USAGE)
        }
    }
}

/// The version, and whether the eBPF program is inside.
fn version() -> String {
    let object = match object::embedded() {
        Some(object) => format!("with its eBPF program, {} KiB", object.len() / 1024),
        None => "WITHOUT its eBPF program: build it with `cargo xtask build-ebpf`".to_owned(),
    };
    format!("{} ({object})", env!("CARGO_PKG_VERSION"))
}

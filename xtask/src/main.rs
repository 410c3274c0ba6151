//! The developer's commands: `cargo xtask <command>`.
#![forbid(unsafe_code)]

mod bench;
mod claude;
mod crashes;
mod demo;
mod dist;
mod ebpf;
mod faults;
mod fuzz;
mod kills;
mod leaks;
mod lint;
mod lives;
mod model;
mod openapi;
mod place;
mod progress;
mod sbom;
mod service;
mod setup;
mod strangers;
mod test;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Sets up, builds, shows, tests, measures and checks agent-loop.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Finds what is missing to build the eBPF program, and installs it.
    Setup {
        /// Only tell what is missing; install nothing.
        #[arg(long)]
        check: bool,
    },
    /// Builds the eBPF program to `target/agent-loop-ebpf.o` and prints the size of each of its programs.
    BuildEbpf,
    /// Fetches the real `claude` command that the tests run, by npm, to `target/claude/claude`.
    Claude,
    /// Sets up what is missing, builds, and shows the main job on a real process tree; `demo issue` another one.
    Demo {
        #[command(subcommand)]
        what: Option<demo::What>,
    },
    /// Sets up what is missing, builds, runs all tests, then lints.
    Test {
        /// Leave out the tests that need a real kernel and real process trees, and say so.
        #[arg(long)]
        quick: bool,
    },
    /// Forces PID recycles against every way to signal, ours and those by number; needs root.
    Strangers {
        /// Recycles against each of our own ways, over all points.
        #[arg(long, default_value_t = 100_000)]
        count: u64,
    },
    /// Ends daemons and keepers at every step while agents end at random, and checks what must hold; needs root.
    Faults {
        /// How many hosts are played, one crash in each.
        #[arg(long, default_value_t = 1_000)]
        seeds: u64,
        /// The first seed: a failure names its own.
        #[arg(long, default_value_t = 0)]
        first: u64,
    },
    /// Kills the daemon, and the whole host, at every boundary of the life of an issue; a life for each; needs root.
    Crashes {
        /// Up to this boundary; a life that passes fewer ends it.
        #[arg(long, default_value_t = 1_000)]
        boundaries: u64,
    },
    /// Plays every act of a person at every moment of the life of an issue, and every fault at every write; needs root.
    Lives,
    /// Kills a writer of the audit log again and again, and verifies what it left.
    Kills {
        /// How often.
        #[arg(long, default_value_t = 1_000)]
        count: u64,
    },
    /// Hands any bytes to everything that reads bytes of others, under libFuzzer; installs cargo-fuzz once.
    Fuzz {
        /// For so long each.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// One of `fuzz/fuzz_targets/`; all of them without.
        target: Option<String>,
    },
    /// Plays many runs, and many short lives, under a daemon, and looks at what stays of them; needs root.
    Leaks {
        /// Runs.
        #[arg(long, default_value_t = 10_000)]
        runs: u64,
        /// Lives.
        #[arg(long, default_value_t = 1_000_000)]
        lives: u64,
    },
    /// Looks at every state of the signal protocol, and prints the ways on which others go wrong.
    Model,
    /// Measures, beside what we are compared with: a table, and JSON.
    Bench(bench::Options),
    /// Builds the Debian package to `target/dist/deb`; installs cargo-deb once.
    Dist {
        /// Pack a debug build: sooner made, to try the package out.
        #[arg(long)]
        debug: bool,
    },
    /// Installs the package under a real systemd (in a container) and plays the life of the service; needs root.
    Service {
        /// Pack a release build, as it is shipped.
        #[arg(long)]
        release: bool,
    },
    /// Fetches GitHub's description of its API by npm, and reduces it to what the tests check against.
    Openapi,
    /// Boots Debian's kernels under QEMU, each with the tests of the kernel side; needs Debian and the network once.
    Vm(vm::Options),
    /// Checks format, clippy and the project's own rules.
    Lint,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Setup { check } => setup::command(check),
        Command::BuildEbpf => ebpf::command(),
        Command::Claude => claude::command(),
        Command::Demo { what } => demo::command(what),
        Command::Test { quick } => test::command(quick),
        Command::Strangers { count } => strangers::command(count),
        Command::Faults { seeds, first } => faults::command(seeds, first),
        Command::Service { release } => service::command(release),
        Command::Dist { debug } => dist::command(debug),
        Command::Crashes { boundaries } => crashes::command(boundaries),
        Command::Lives => lives::command(),
        Command::Kills { count } => kills::command(count),
        Command::Fuzz { seconds, target } => fuzz::command(target.as_deref(), seconds),
        Command::Leaks { runs, lives } => leaks::command(runs, lives),
        Command::Model => model::command(),
        Command::Bench(options) => bench::command(&options),
        Command::Openapi => openapi::command(),
        Command::Vm(options) => vm::command(&options),
        Command::Lint => lint::command(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use clap::error::ErrorKind;

    use super::{Cli, place};

    /// Whatever stands behind `cargo xtask` in a document, up to what no argument holds.
    fn written(text: &str) -> Vec<Vec<&str>> {
        let ends = |c: char| matches!(c, '`' | '#' | '[' | '\n' | ',' | '(' | ')' | ';' | '|');
        let lines = text.split("cargo xtask ").skip(1).map(|rest| rest.split(ends).next().unwrap_or_default());
        lines.map(|line| line.split_whitespace().collect()).collect()
    }

    #[test]
    fn every_command_of_the_documents_is_one_that_is_there() {
        let top = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "ARCHITECTURE.md"];
        let mut files = top.map(|name| place::root().join(name)).to_vec();
        for entry in std::fs::read_dir(place::root().join("docs")).expect("the documents") {
            let path = entry.expect("an entry").path();
            files.extend(path.extension().is_some_and(|end| end == "md").then(|| path.clone()));
        }
        let mut seen = 0;
        for file in files {
            let text = std::fs::read_to_string(&file).expect("a document");
            for words in written(&text) {
                seen += 1;
                let parsed = Cli::try_parse_from(["cargo xtask"].into_iter().chain(words.iter().copied()));
                let told = parsed.err().is_none_or(|error| {
                    matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::MissingRequiredArgument)
                });
                assert!(told, "{}: cargo xtask {}", file.display(), words.join(" "));
            }
        }
        assert!(seen > 10, "{seen}");
    }
}

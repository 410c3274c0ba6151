//! What `cargo xtask bench` measures with: each subcommand does one thing and prints one JSON object.

use std::process::ExitCode;

fn main() -> ExitCode {
    agent_loop_tests::bench::run()
}

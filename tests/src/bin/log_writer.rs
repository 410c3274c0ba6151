//! Writes an audit log until it is killed.

use std::process::ExitCode;

fn main() -> ExitCode {
    agent_loop_tests::logging::run()
}

//! What `cargo xtask model` prints: the signal protocol explored, and the ways on which others go wrong.

use std::process::ExitCode;

fn main() -> ExitCode {
    if agent_loop_model::print() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

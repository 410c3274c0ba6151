//! What `cargo xtask demo issue` runs: one issue from its label to its verified merge, told to a person.

use std::process::ExitCode;

fn main() -> ExitCode {
    agent_loop_tests::issue_demo::main()
}

//! The fake forge by itself, for the life of the service in a machine with systemd: `cargo xtask service`.

use std::process::ExitCode;

fn main() -> ExitCode {
    agent_loop_tests::issue_demo::alone::main()
}

//! The command `agent-loop`.

use std::process::ExitCode;

fn main() -> ExitCode {
    agent_loop::cli::main()
}

//! Writes the manual pages and completions of `agent-loop` into a directory: `pages DIR`.

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use clap_complete::Shell;

fn main() -> anyhow::Result<()> {
    let dir = PathBuf::from(std::env::args_os().nth(1).context("name a directory")?);
    let man = dir.join("man");
    fs::create_dir_all(&man).with_context(|| format!("making {}", man.display()))?;
    let mut command = agent_loop::cli::command();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command, "agent-loop", &dir).context("writing a completion")?;
    }
    // A page for each command, and none for `help`.
    let command = command.disable_help_subcommand(true);
    clap_mangen::generate_to(command, &man).context("writing the manual pages")?;
    Ok(())
}

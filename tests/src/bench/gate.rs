//! A command inside a supervised tree whose beginning and end somebody outside chooses.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;

const PATIENCE: Duration = Duration::from_secs(120);

/// Marks `here`, waits for `go`, runs the command, marks `done`, waits for `leave`.
pub(super) fn pass(marks: &Path, command: &[String]) -> anyhow::Result<()> {
    fs::write(marks.join("here"), "")?;
    await_file(&marks.join("go"))?;
    let (program, args) = command.split_first().context("no command")?;
    let status = Command::new(program).args(args).stdin(Stdio::null()).status().context("starting the command")?;
    fs::write(marks.join("done"), status.to_string())?;
    await_file(&marks.join("leave"))?;
    anyhow::ensure!(status.success(), "the command ended with {status}");
    Ok(())
}

/// Waits for a file to exist, without making a process.
pub(super) fn await_file(path: &Path) -> anyhow::Result<()> {
    let end = Instant::now() + PATIENCE;
    while !path.exists() {
        anyhow::ensure!(Instant::now() < end, "waited {PATIENCE:?} for {}", path.display());
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

//! `cargo xtask leaks`: what stays of many runs and many lives under one daemon.

use anyhow::{Result, bail};

use crate::{place, progress};

/// Runs `cargo xtask leaks`: with programs built for release.
pub(crate) fn command(runs: u64, lives: u64) -> Result<()> {
    let forms = [
        (runs, "runs", "AGENT_LOOP_LEAK_RUNS", "two_hundred_runs"),
        (lives, "lives", "AGENT_LOOP_LEAK_LIVES", "short_lives"),
    ];
    for (count, what, variable, test) in forms.into_iter().filter(|(count, ..)| *count > 0) {
        progress::say(&format!("leaks: {count} {what}"));
        let mut run = place::host_cargo();
        run.args(["test", "--release", "--package", "agent-loop-tests", "--test", "serve", test, "--", "--nocapture"]);
        // Its own table is the progress and the result.
        if !run.env(variable, count.to_string()).status()?.success() {
            bail!("something stays of the {what}: the table above shows what");
        }
    }
    Ok(())
}

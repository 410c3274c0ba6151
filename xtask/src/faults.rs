//! `cargo xtask faults`: the long form of the fault injection, daemons and keepers that end at every step.

use anyhow::{Result, bail};

use crate::{place, progress};

/// Runs `cargo xtask faults`: this many seeds, from this one on.
pub(crate) fn command(seeds: u64, first: u64) -> Result<()> {
    progress::say(&format!("faults: {seeds} seeds from {first} on, a crash of daemon, keeper or both in each"));
    let mut test = place::host_cargo();
    test.args(["test", "--package", "agent-loop-tests", "--test", "faults", "--", "--nocapture"]);
    test.env("AGENT_LOOP_FAULT_SEEDS", seeds.to_string()).env("AGENT_LOOP_FAULT_FIRST", first.to_string());
    // Its own lines are the progress and the figures.
    if !test.status()?.success() {
        bail!("a seed failed; its plan stands above, and `--first SEED --seeds 1` plays it again");
    }
    Ok(())
}

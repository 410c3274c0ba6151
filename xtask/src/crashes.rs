//! `cargo xtask crashes`: the daemon killed at every boundary of the life of an issue, a life for each; then the whole host.

use anyhow::{Result, bail};

use crate::{place, progress};

/// Runs `cargo xtask crashes`: this many boundaries at most; a life has fewer than two hundred.
pub(crate) fn command(most: u64) -> Result<()> {
    progress::say(
        "crashes: a life of an issue for each boundary, in which its daemon, or its whole host, goes down there",
    );
    let mut test = place::host_cargo();
    test.args(["test", "--package", "agent-loop-tests", "--test", "issues", "--", "--nocapture", "a_crash_"]);
    test.env("AGENT_LOOP_CRASHES", most.to_string());
    // Its own line has the figures.
    if !test.status()?.success() {
        bail!("a life came to another end; its boundary is told above, and `--boundaries N` plays them up to it");
    }
    Ok(())
}

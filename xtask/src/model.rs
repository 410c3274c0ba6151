//! `cargo xtask model`: the signal protocol, every state of it.

use anyhow::{Result, bail};

use crate::{place, progress};

/// Runs `cargo xtask model`.
pub(crate) fn command() -> Result<()> {
    progress::say("model: every state of the signal protocol, then ours without each of its guards");
    let mut run = place::host_cargo();
    run.args(["run", "--quiet", "--package", "agent-loop-model"]);
    if !run.status()?.success() {
        bail!("the protocol has a bad state, or a guard is for nothing: the way to it stands above");
    }
    Ok(())
}

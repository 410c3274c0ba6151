//! `cargo xtask kills`: the long form of the killed writer of the audit log.

use anyhow::{Result, bail};

use crate::{place, progress};

/// Runs `cargo xtask kills`: a writer that is killed this often, over one log.
pub(crate) fn command(count: u64) -> Result<()> {
    progress::say(&format!("kills: a writer of the audit log is killed {count} times"));
    let mut test = place::host_cargo();
    test.args(["test", "--package", "agent-loop-tests", "--test", "audit", "--", "--nocapture", "killed"]);
    test.env("AGENT_LOOP_KILLS", count.to_string());
    // Its own line has the figures.
    if !test.status()?.success() {
        bail!("a log did not verify, or lacked what was durable: it is told above");
    }
    Ok(())
}

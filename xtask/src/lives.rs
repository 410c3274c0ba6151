//! `cargo xtask lives`: the long form of what people do, and what a forge does wrong, in the life of an issue.

use anyhow::{Result, bail};

use crate::{place, progress};

/// Runs `cargo xtask lives`.
pub(crate) fn command() -> Result<()> {
    progress::say("lives: every act of a person at every moment of a life, and every way to go wrong at every write");
    for name in ["what_a_person_does_at_any_moment", "a_life_in_which_any_write_goes_wrong"] {
        let mut test = place::host_cargo();
        test.args(["test", "--package", "agent-loop-tests", "--test", "issues", "--", "--nocapture", name]);
        test.env("AGENT_LOOP_LIVES", "all");
        // Its own lines have the figures.
        if !test.status()?.success() {
            bail!("a life came to another end, which is told above");
        }
    }
    Ok(())
}

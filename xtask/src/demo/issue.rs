//! `cargo xtask demo issue`: one issue from its label to its verified merge, against a forge on this machine.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{claude, ebpf, place, progress, setup};

/// Runs `cargo xtask demo issue`: the programs are those of the tests.
pub(crate) fn command(real_agent: bool) -> Result<()> {
    let toolchain = setup::ensure()?;
    ebpf::build(&toolchain)?;
    if real_agent {
        claude::ensure()?;
    }
    progress::say("building agent-loop and the forge that it is shown at");
    let mut build = place::host_cargo();
    build.args(["build", "--package", "agent-loop", "--package", "agent-loop-tests"]);
    build.args(["--bin", "agent-loop", "--bin", "issue_demo"]);
    if !progress::show("build", &mut build, |_| {})?.success() {
        bail!("the build failed");
    }
    let programs = place::target_dir().join("debug");
    let report = place::scratch().join("demo-issue.html");
    std::fs::create_dir_all(place::scratch()).context("creating target/xtask")?;
    let mut demo = Command::new(programs.join("issue_demo"));
    demo.env("AGENT_LOOP_BIN", programs.join("agent-loop")).arg("--report").arg(&report);
    if real_agent {
        demo.arg("--real-agent");
    }
    if !demo.status().context("starting the demo")?.success() {
        bail!("what was shown did not hold; it is told above");
    }
    Ok(())
}

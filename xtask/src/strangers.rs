//! `cargo xtask strangers`: the long form of the test of strangers signalled, as a table.

use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{place, progress};

/// The points at which a number changes hands.
const POINTS: u64 = 4;
/// Enough against a method by number, which hits every stranger.
const BY_NUMBER: u64 = 20_000;

/// A child that the keeper launches takes milliseconds: a tenth of the count.
const LAUNCHED: u64 = 10;

/// Our own methods, then those that must hit strangers.
const METHODS: [(&str, bool); 6] = [
    ("inode", true),
    ("live-set", true),
    ("member", true),
    ("own-child", true),
    ("agent-loop-py", false),
    ("stopgap", false),
];

/// Runs `cargo xtask strangers`.
pub(crate) fn command(count: u64) -> Result<()> {
    progress::say("cargo build");
    let mut build = place::host_cargo();
    build.args(["build", "--package", "agent-loop-tests", "--bin", "recycler"]);
    progress::run("build", &mut build)?;
    let mut hit_by_ours = 0;
    println!("| method | recycled | strangers hit | point | what decided |");
    println!("|---|---:|---:|---|---|");
    for (method, ours) in METHODS {
        let rounds = match method {
            "own-child" => count / LAUNCHED,
            _ if ours => count,
            _ => count.min(BY_NUMBER),
        } / POINTS;
        let mut recycler = Command::new(place::target_dir().join("debug/recycler"));
        recycler.args([method, "--rounds", &rounds.to_string(), "--seconds", "900"]);
        let output = recycler.output().context("starting the recycler")?;
        if !output.status.success() {
            bail!("recycler {method}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let (mut recycled, mut hit) = (0, 0);
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let line: Value = serde_json::from_str(line).context("reading a tally")?;
            let number = |name: &str| line["tally"][name].as_u64().unwrap_or(0);
            let decided = line["tally"]["decided"].as_object().into_iter().flatten();
            let decided: Vec<_> = decided.map(|(what, count)| format!("{what}: {count}")).collect();
            let point = line["point"].as_str().unwrap_or("?").replace('_', " ");
            recycled += number("recycled");
            hit += number("strangers_hit");
            println!(
                "| {method} | {} | {} | {point} | {} |",
                number("recycled"),
                number("strangers_hit"),
                decided.join(", ")
            );
        }
        println!("| **{method}** | **{recycled}** | **{hit}** | all | |");
        if ours {
            hit_by_ours += hit;
        }
    }
    if hit_by_ours > 0 {
        bail!("{hit_by_ours} strangers were signalled");
    }
    progress::note("no stranger was signalled by agent-loop");
    Ok(())
}

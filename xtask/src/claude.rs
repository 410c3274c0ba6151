//! `cargo xtask claude`: the real `claude` command, which the tests run under `agent-loop exec`.
//!
//! One pinned version, checked by its hash, fetched by npm once. It is one file and needs no node to run.

use std::env::consts::ARCH;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::{place, progress};

/// The version that the tests are written against: the newest is twice as large, and clean-up differs between them.
const VERSION: &str = "2.1.197";

/// The package of this machine, and its hash as npm's registry publishes it.
fn package() -> Result<(&'static str, &'static str)> {
    match ARCH {
        "x86_64" => Ok((
            "@anthropic-ai/claude-code-linux-x64",
            "sha512-rIlKmrY0QMyHgPRX/MYWNj039vbypICvI9jVe3rs9Xy2RnNklySjyPxqh62QadznzoftEO23uYQ1tFePcQ//bg==",
        )),
        "aarch64" => Ok((
            "@anthropic-ai/claude-code-linux-arm64",
            "sha512-sx6SoGj3MNR5CV+YDkNtbLHXa1tn3G8qcYFgm1gnvOi9ODQUKbhiPfankJfkTMDVekOvnKJhm6i9hGFIPzp7cQ==",
        )),
        other => bail!("there is no claude for {other}"),
    }
}

/// Runs `cargo xtask claude`.
pub(crate) fn command() -> Result<()> {
    println!("{}", ensure()?.display());
    Ok(())
}

/// Fetches claude unless it is there, and returns its path.
pub(crate) fn ensure() -> Result<PathBuf> {
    let home = place::root().join("target/claude");
    let (file, version) = (home.join("claude"), home.join("version"));
    if file.is_file() && fs::read_to_string(&version).is_ok_and(|it| it == VERSION) {
        return Ok(file);
    }
    let (package, integrity) = package()?;
    let npm = place::which("npm").context("fetching claude needs npm, which is not here")?;
    progress::say(&format!("fetching claude {VERSION} for the tests that run it (77 MB, once)"));

    // npm compares what it fetched with the hash in the lock file.
    let fetching = home.join("fetching");
    let _ = fs::remove_dir_all(&fetching);
    fs::create_dir_all(&fetching).with_context(|| format!("creating {}", fetching.display()))?;
    let name = "agent-loop-tests-claude";
    let dependencies = json!({ package: VERSION });
    let at = format!("node_modules/{package}");
    let manifest = json!({ "name": name, "private": true, "dependencies": dependencies });
    let lock = json!({ "name": name, "lockfileVersion": 3, "packages": {
        "": { "name": name, "dependencies": dependencies },
        at.clone(): { "version": VERSION, "integrity": integrity },
    }});
    for (file, text) in [("package.json", manifest), ("package-lock.json", lock)] {
        fs::write(fetching.join(file), text.to_string()).with_context(|| format!("writing {file}"))?;
    }
    let mut fetch = Command::new(npm);
    fetch
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1", "--prefix"])
        .arg(&fetching)
        .current_dir(&fetching);
    progress::run(&format!("npm ci {package} {VERSION}"), &mut fetch)?;

    let fetched = fetching.join(at).join("claude");
    let said = Command::new(&fetched).arg("--version").env("HOME", &fetching).output().context("running claude")?;
    let said = String::from_utf8_lossy(&said.stdout);
    if said.split_whitespace().next() != Some(VERSION) {
        bail!("the claude that was fetched says it is {said:?}, not {VERSION}");
    }
    let _ = fs::remove_file(&version);
    fs::rename(&fetched, &file).with_context(|| format!("moving claude to {}", file.display()))?;
    fs::write(&version, VERSION).with_context(|| format!("writing {}", version.display()))?;
    let _ = fs::remove_dir_all(&fetching);
    Ok(file)
}

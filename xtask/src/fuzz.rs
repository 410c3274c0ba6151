//! `cargo xtask fuzz`: everything that reads bytes of others, under libFuzzer with AddressSanitizer.
//!
//! What is found new is kept in `target/fuzz/corpus/`; the committed inputs are in `fuzz/corpus/`.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{place, progress};

/// The version of cargo-fuzz that this was written with.
const VERSION: &str = "0.13.2";

/// The longest input, in bytes: beyond the longest datagram of the keeper.
const LONGEST: u32 = 70_000;

/// Runs `cargo xtask fuzz`: this target, or each, for so many seconds.
pub(crate) fn command(target: Option<&str>, seconds: u64) -> Result<()> {
    let all = targets()?;
    let chosen = match target {
        Some(name) if all.iter().any(|it| it == name) => vec![name.to_owned()],
        Some(name) => bail!("there is no target {name:?}: name one of {}", all.join(", ")),
        None => all,
    };
    let cargo_fuzz = ensure()?;
    for name in chosen {
        progress::say(&format!("fuzz: {name}, {seconds} s"));
        let found = place::root().join("target/fuzz/corpus").join(&name);
        fs::create_dir_all(&found).with_context(|| format!("creating {}", found.display()))?;
        let mut fuzz = Command::new(&cargo_fuzz);
        fuzz.current_dir(place::root());
        fuzz.args(["run", "--target-dir"]).arg(place::root().join("target/fuzz/build")).arg(&name);
        fuzz.arg(&found).arg(place::root().join("fuzz/corpus").join(&name));
        fuzz.args([
            "--",
            &format!("-max_total_time={seconds}"),
            &format!("-max_len={LONGEST}"),
            "-print_final_stats=1",
        ]);
        // The sanitizer is an unstable option of every compiler.
        fuzz.env("RUSTC_BOOTSTRAP", "1");
        if !fuzz.status().context("running cargo-fuzz")?.success() {
            bail!(
                "{name} failed; the input is in fuzz/artifacts/{name}/: mend it, and keep the input in fuzz/corpus/{name}/"
            );
        }
    }
    Ok(())
}

/// The targets, by their files.
fn targets() -> Result<Vec<String>> {
    let dir = place::root().join("fuzz/fuzz_targets");
    let entries = fs::read_dir(&dir).with_context(|| format!("reading {}", dir.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("reading {}", dir.display()))?.path();
        names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

/// Installs cargo-fuzz unless it is there.
fn ensure() -> Result<PathBuf> {
    let home = place::root().join("target/tools");
    let program = home.join("bin/cargo-fuzz");
    if !program.is_file() {
        progress::say("installing cargo-fuzz (once)");
        let mut install = place::clean_cargo();
        install.args(["install", "--locked", "cargo-fuzz", "--version", VERSION, "--root"]).arg(&home);
        progress::run(&format!("cargo install cargo-fuzz {VERSION}"), &mut install)?;
    }
    Ok(program)
}

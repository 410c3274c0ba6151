//! `cargo xtask lint`: format, clippy, and the rules that only this project has.

mod rules;
mod source;

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{place, progress};
use source::Source;

/// One place that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    file: String,
    line: usize,
    text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.text)
    }
}

/// Runs `cargo xtask lint`.
pub(crate) fn command() -> Result<()> {
    let mut failed = Vec::new();
    progress::say("lint: the project's own rules");
    if own_rules()? > 0 {
        failed.push("own rules");
    }
    progress::say("lint: cargo fmt --all --check");
    if !place::host_cargo().args(["fmt", "--all", "--check"]).status().context("starting cargo fmt")?.success() {
        failed.push("format (mended by `cargo fmt --all`)");
    }
    progress::say("lint: cargo clippy, warnings are errors");
    let mut clippy = place::host_cargo();
    // The eBPF crate has no `main` for this host; `build-ebpf` compiles it.
    clippy.args(["clippy", "--workspace", "--exclude", "agent-loop-ebpf", "--all-targets", "--", "--deny", "warnings"]);
    if !progress::show("clippy", &mut clippy, |_| {})?.success() {
        failed.push("clippy");
    }
    if !failed.is_empty() {
        bail!("lint failed: {}", failed.join(", "));
    }
    progress::say("lint: clean");
    Ok(())
}

/// Applies every rule to every file; returns how many findings there are.
fn own_rules() -> Result<usize> {
    let (mut findings, mut warnings, mut sources) = (Vec::new(), Vec::new(), Vec::new());
    for file in files()? {
        // A file that git knows and that is deleted in the working tree is nobody's concern.
        let Ok(bytes) = fs::read(place::root().join(&file)) else { continue };
        let Ok(text) = String::from_utf8(bytes) else { continue };
        findings.extend(rules::home_paths(&file, &text));
        if Path::new(&file).extension().is_some_and(|it| it == "rs") {
            let source = Source::parse(&text).with_context(|| format!("reading the tokens of {file}"))?;
            sources.push((file, text, source));
        }
    }
    let test_files: BTreeSet<String> =
        sources.iter().flat_map(|(file, _, source)| rules::test_files(file, source)).collect();
    for (file, text, source) in &mut sources {
        if test_files.contains(file) {
            source.mark_as_test();
        }
        findings.extend(rules::findings(file, source));
        warnings.extend(rules::long_file(file, text, source));
    }
    findings.extend(rules::keeper_size(sources.iter().map(|(file, _, source)| (&**file, source))));
    for warning in &warnings {
        println!("warning: {warning}");
    }
    for finding in &findings {
        println!("error: {finding}");
    }
    progress::note(&format!("{} findings, {} warnings", findings.len(), warnings.len()));
    Ok(findings.len())
}

/// The files of the project: those that git knows, and those that it would take.
fn files() -> Result<Vec<String>> {
    let mut git = Command::new("git");
    git.current_dir(place::root()).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let output = git.output().context("starting git to list the files")?;
    if !output.status.success() {
        bail!("listing the files with git: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let mut files: Vec<String> =
        String::from_utf8_lossy(&output.stdout).split_terminator('\0').map(str::to_owned).collect();
    files.sort();
    files.dedup();
    Ok(files)
}

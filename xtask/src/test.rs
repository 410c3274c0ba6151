//! `cargo xtask test`: everything that can be tested on this machine, and what could not be.

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::{claude, ebpf, lint, place, progress, setup};

/// Tests append a line `SKIPPED <name>: <reason>` to the file that this variable names.
const SKIPS: &str = "AGENT_LOOP_SKIPS";
/// Tests run the program that this variable names.
const BINARY: &str = "AGENT_LOOP_BIN";
/// Tests of the real claude run the program that this variable names.
const CLAUDE: &str = "AGENT_LOOP_CLAUDE";

/// Runs `cargo xtask test`.
pub(crate) fn command(quick: bool) -> Result<()> {
    let began = Instant::now();
    let mut parts = Parts::default();
    let mut not_done = Vec::new();
    if let Err(error) = setup::ensure().and_then(|toolchain| ebpf::build(&toolchain)) {
        eprintln!("warning: {error:#}");
        not_done.push("the eBPF program was not built: what needs it is skipped".to_owned());
    }
    let claude = if quick {
        not_done
            .push("--quick: the tests of the real kernel and of real process trees (tests/) were not run".to_owned());
        None
    } else {
        claude::ensure()
            .map_err(|error| not_done.push(format!("claude was not fetched, its tests are skipped: {error:#}")))
            .ok()
    };

    if !quick && let Err(error) = browser() {
        not_done.push(format!("no browser was installed, the tests of the report in one are skipped: {error:#}"));
    }

    parts.done("tools, eBPF program");

    let skips = place::scratch().join("skips.txt");
    fs::create_dir_all(place::scratch()).context("creating target/xtask")?;
    fs::write(&skips, "").with_context(|| format!("emptying {}", skips.display()))?;

    progress::say("cargo build");
    let mut build = place::host_cargo();
    if !progress::show("build", build.args(["build", "--all-targets"]), |_| {})?.success() {
        bail!("the build failed");
    }
    parts.done("build");

    progress::say("cargo test");
    let mut test = place::host_cargo();
    test.args(["test", "--no-fail-fast"]).env(SKIPS, &skips);
    // Built just now: the tests need not ask cargo for it again.
    let binary = place::target_dir().join("debug/agent-loop");
    if binary.is_file() {
        test.env(BINARY, binary);
    }
    if let Some(claude) = claude {
        test.env(CLAUDE, claude);
    }
    if quick {
        test.args(["--workspace", "--exclude", "agent-loop-ebpf", "--exclude", "agent-loop-tests"]);
    }
    let mut count = Count::default();
    let passed = progress::show("test", &mut test, |line| count.see(line))?.success();
    parts.done("tests");

    let linted = lint::command();
    parts.done("lint");

    progress::say("summary");
    let skipped = fs::read_to_string(&skips).with_context(|| format!("reading {}", skips.display()))?;
    let mut skipped: Vec<&str> = skipped.lines().filter(|line| !line.trim().is_empty()).collect();
    skipped.sort_unstable();
    skipped.dedup();
    for line in skipped.iter().copied().chain(count.ignored.iter().chain(&count.programs).map(String::as_str)) {
        println!("    {line}");
    }
    for line in &not_done {
        println!("    NOT DONE {line}");
    }
    progress::note(&format!("time by part: {}", parts.text()));
    progress::note(&format!("the longest tests: {}", text(count.longest().into_iter().take(LONGEST))));
    progress::note(&format!(
        "{} passed, {} failed, {} ignored, {} test programs failed; {} skipped themselves; lint {}; {:.0} s",
        count.passed,
        count.failed,
        count.ignored.len(),
        count.programs.len(),
        skipped.len(),
        if linted.is_ok() { "clean" } else { "failed" },
        began.elapsed().as_secs_f64()
    ));
    if !passed {
        bail!("tests failed");
    }
    linted
}

/// Installs the browser that the tests of the report look through, unless it is there or this machine cannot.
fn browser() -> Result<()> {
    if place::which("chromium").is_some() && place::which("chromedriver").is_some() {
        return Ok(());
    }
    setup::install(&["chromium", "chromium-driver"])
}

/// How many test programs are named with the time that they took.
const LONGEST: usize = 6;

/// What each part of the whole took.
struct Parts {
    since: Instant,
    parts: Vec<(&'static str, f64)>,
}

impl Default for Parts {
    fn default() -> Self {
        Self { since: Instant::now(), parts: Vec::new() }
    }
}

impl Parts {
    /// What was done since the last part was this one.
    fn done(&mut self, part: &'static str) {
        self.parts.push((part, self.since.elapsed().as_secs_f64()));
        self.since = Instant::now();
    }

    fn text(&self) -> String {
        text(self.parts.iter().copied())
    }
}

fn text<'a>(parts: impl Iterator<Item = (&'a str, f64)>) -> String {
    parts.map(|(part, seconds)| format!("{part} {seconds:.0} s")).collect::<Vec<_>>().join(", ")
}

/// What the lines of `cargo test` say.
#[derive(Debug, Default, PartialEq)]
struct Count {
    /// The test program that runs, and the seconds of those that ran.
    running: String,
    took: Vec<(String, f64)>,
    passed: u64,
    failed: u64,
    ignored: Vec<String>,
    /// Test programs that failed: they may end without a result line.
    programs: Vec<String>,
}

impl Count {
    fn see(&mut self, line: &str) {
        let line = plain(line);
        if let Some(target) = line.strip_prefix("error: test failed, to rerun pass ") {
            self.programs.push(format!("FAILED {}", target.trim_matches('`')));
        }
        if let Some(name) =
            line.strip_prefix("test ").and_then(|it| it.split(" ... ignored").next().filter(|n| *n != it))
        {
            self.ignored.push(format!("IGNORED {name}"));
        }
        if let Some(program) = line.trim_start().strip_prefix("Running ") {
            program.split(" (").next().unwrap_or_default().clone_into(&mut self.running);
        }
        if let Some(result) = line.strip_prefix("test result: ") {
            let seconds =
                result.rsplit_once("finished in ").and_then(|(_, rest)| rest.trim_end_matches('s').parse().ok());
            self.took.extend(seconds.map(|seconds| (self.running.clone(), seconds)));
            let number = |word: &str| -> u64 {
                let before = result.split(word).next().filter(|it| *it != result).unwrap_or_default();
                before.split_whitespace().next_back().and_then(|it| it.parse().ok()).unwrap_or_default()
            };
            self.passed += number(" passed");
            self.failed += number(" failed");
        }
    }

    /// The test programs with their seconds, the longest first.
    fn longest(&self) -> Vec<(&str, f64)> {
        let mut all: Vec<(&str, f64)> = self.took.iter().map(|(program, took)| (program.as_str(), *took)).collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1));
        all
    }
}

/// The line without colours.
fn plain(line: &str) -> String {
    let mut parts = line.trim_end().split('\u{1b}');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |line, part| line + part.split_once('m').map_or("", |(_, rest)| rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_cargo_test_are_counted() {
        let mut count = Count::default();
        for line in [
            "     Running tests/serve/main.rs (target/debug/deps/serve-1)",
            "running 3 tests",
            "test a::b ... ok",
            "test a::slow ... ignored, needs a week",
            "test result: \u{1b}[32mok\u{1b}[0m. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 2.50s",
            "\u{1b}[1m\u{1b}[92m     Running\u{1b}[0m unittests src/lib.rs (target/debug/deps/x-2)",
            "test result: FAILED. 10 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 10.1s",
            "\u{1b}[1m\u{1b}[91merror\u{1b}[0m: test failed, to rerun pass `-p x --lib`",
        ] {
            count.see(line);
        }
        let ignored = vec!["IGNORED a::slow".to_owned()];
        let programs = vec!["FAILED -p x --lib".to_owned()];
        assert_eq!(count.longest(), [("unittests src/lib.rs", 10.1), ("tests/serve/main.rs", 2.5)]);
        assert_eq!((count.passed, count.failed, count.ignored, count.programs), (12, 1, ignored, programs));
    }
}

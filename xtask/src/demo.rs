//! `cargo xtask demo`: the main job on a real process tree, with commentary and an independent check.
//!
//! `demo issue` shows the other one: an issue on its way to a verified merge.

mod evidence;
mod issue;
mod narrate;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{self, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Subcommand;

use crate::{ebpf, place, progress, setup};
use evidence::Evidence;
use narrate::Narrator;

/// The tree: each line is one way in which processes get lost.
const TREE: &str = r#"
sh -c 'exit 7'
(setsid sh -c 'trap "" INT TERM HUP; while :; do sleep 60; done' &)
sh -c 'sleep 600 & exit 0'
sleep 600
"#;
const LIMIT: &str = "3s";
const GRACE: &str = "1s";
/// What `exec` returns when its limit was reached.
const LIMIT_REACHED: i32 = 124;
/// In the environment of everything that the demo starts: a witness that does not come from agent-loop.
const MARK: &str = "AGENT_LOOP_DEMO";
const POLL: Duration = Duration::from_millis(20);

/// What is shown instead of a process tree.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum What {
    /// One issue from its label to its verified merge, at a forge on this machine; needs root.
    Issue {
        /// Have the real `claude` do the work, with a stand-in for the model alone; fetched by npm once.
        #[arg(long)]
        real_agent: bool,
    },
}

/// Runs `cargo xtask demo`.
pub(crate) fn command(what: Option<What>) -> Result<()> {
    match what {
        None => tree(),
        Some(What::Issue { real_agent }) => issue::command(real_agent),
    }
}

fn tree() -> Result<()> {
    let mut not_done = Vec::new();
    if let Err(error) = setup::ensure().and_then(|toolchain| ebpf::build(&toolchain)) {
        eprintln!("warning: {error:#}");
        not_done.push("the eBPF program was not built, so births and deaths do not come from the kernel's hooks");
    }
    if !setup::is_root() {
        not_done.push("this is not root, so eBPF cannot be loaded: exec runs in its degraded mode");
    }
    progress::say("building agent-loop");
    let target = place::root().join("target");
    let mut build = place::host_cargo();
    build.args(["build", "--release", "--package", "agent-loop", "--target-dir"]).arg(&target);
    if !progress::show("build", &mut build, |_| {})?.success() {
        bail!("the build failed");
    }
    show(&target.join("release/agent-loop"), &not_done)
}

fn show(binary: &Path, not_done: &[&str]) -> Result<()> {
    let scratch = Scratch::new()?;
    let events = scratch.0.join("events.jsonl");
    let mark = format!("{}-{}", process::id(), evidence::boot_id());

    progress::say("one command, and a tree of processes that does not want to end");
    for line in [
        "the command is a shell that starts",
        "  - a child that ends by itself with code 7",
        "  - a daemon in a session of its own, forked twice, that ignores INT, TERM and HUP",
        "  - a parent that ends at once and leaves its child behind",
        "and then sleeps for ten minutes. Its limit is 3 seconds, its grace 1 second.",
    ] {
        progress::note(line);
    }
    println!("\n$ agent-loop exec --limit {LIMIT} --grace {GRACE} --events events.jsonl -- sh -c '…'\n");

    let mut exec = Command::new(binary);
    exec.args(["exec", "--limit", LIMIT, "--grace", GRACE, "--events"]).arg(&events);
    exec.args(["--", "sh", "-c", TREE]).env(MARK, &mark);
    let began = Instant::now();
    let status = follow(&mut exec, &events)?;
    println!();
    progress::say("what this showed, read again from events.jsonl and /proc, not taken from exec's word");
    let evidence = Evidence::read(&fs::read_to_string(&events).context("reading the events that exec wrote")?)?;
    let failed = judge(&evidence, status, &mark, began.elapsed(), not_done.is_empty());
    for line in not_done {
        progress::note(&format!("not shown: {line}"));
    }
    if failed > 0 {
        bail!("{failed} of the checks failed");
    }
    println!();
    progress::note("the binary is target/release/agent-loop; try: target/release/agent-loop exec --help");
    Ok(())
}

/// Runs `exec`, shows its lines, and comments on its events as they appear.
fn follow(exec: &mut Command, events: &Path) -> Result<ExitStatus> {
    let mut child = exec
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {}", exec.get_program().display()))?;
    let lines = child.stderr.take();
    thread::scope(|scope| {
        if let Some(lines) = lines {
            scope.spawn(|| {
                for line in BufReader::new(lines).lines().map_while(Result::ok) {
                    println!("  exec │ {line}");
                }
            });
        }
        let mut narrator = Narrator::default();
        loop {
            let ended = child.try_wait().context("waiting for exec")?;
            let text = fs::read_to_string(events).unwrap_or_default();
            for comment in narrator.comments(&text) {
                println!("  demo │     {comment}");
            }
            if let Some(status) = ended {
                return Ok(status);
            }
            thread::sleep(POLL);
        }
    })
}

/// Prints each check with its outcome; returns how many failed.
fn judge(evidence: &Evidence, status: ExitStatus, mark: &str, took: Duration, full: bool) -> usize {
    let alive = evidence.still_alive();
    let marked = evidence::processes_with(&format!("{MARK}={mark}"));
    let (births, deaths) = (evidence.births.len(), evidence.deaths.len());
    let unmatched = evidence.unmatched();
    let checks = [
        (
            status.code() == Some(LIMIT_REACHED),
            format!("exit code {LIMIT_REACHED}, the limit was reached: {status} after {:.1} s", took.as_secs_f64()),
        ),
        (births > 0, format!("{births} births and {deaths} deaths are recorded")),
        (
            unmatched.is_empty(),
            format!("births without exactly one death, by pid and start time: {}", list(&unmatched)),
        ),
        (alive.is_empty(), format!("of those processes still alive: {}", list(&alive))),
        (
            marked.is_empty(),
            format!("processes of this host with the demo's mark in their environment: {}", list(&marked)),
        ),
        (
            evidence.cgroup_is_gone() != Some(false),
            format!("the run's cgroup is gone: {}", evidence.cgroup.as_deref().unwrap_or("none was recorded")),
        ),
    ];
    // Without the kernel's hooks a process can come and go unseen: pairs are shown then, and not judged.
    const PAIRS: usize = 2;
    let mut failed = 0;
    for (number, (holds, text)) in checks.iter().enumerate() {
        let judged = full || number != PAIRS;
        let word = match (holds, judged) {
            (true, _) => "ok",
            (false, true) => "FAIL",
            (false, false) => "????",
        };
        println!("    {word:<4} {text}");
        failed += usize::from(!holds && judged);
    }
    failed
}

fn list(items: &[String]) -> String {
    if items.is_empty() { "none".to_owned() } else { items.join(", ") }
}

/// A directory that is removed in the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        let dir = place::scratch().join(format!("demo-{}", process::id()));
        fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        Ok(Self(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// Stands in for the binary: writes the events of one process, ends as told, and may leave one behind.
    fn stand_in(dir: &Path, leave_behind: &str, code: i32) -> PathBuf {
        let script = format!(
            r#"#!/bin/sh
while [ "$1" != --events ]; do shift; done
events=$2
sh -c 'read -r line < /proc/self/stat; echo "$line"' > "$events.stat"
read -r pid comm rest < "$events.stat"
set -- $rest
shift 19
record() {{ echo "{{\"kind\":\"$1\",\"proc\":{{\"pid\":$pid,\"start_ns\":${{2}}0000000}}}}" >> "$events"; }}
record run.born "$1"
record proc.exit "$1"
{leave_behind}
exit {code}
"#
        );
        let file = dir.join("agent-loop");
        fs::write(&file, script).expect("writes");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("may execute");
        file
    }

    #[test]
    fn the_checks_pass_for_an_empty_tree_and_fail_otherwise() {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let verdict = |leave_behind: &str, code| show(&stand_in(dir.path(), leave_behind, code), &[]);
        verdict("", LIMIT_REACHED).expect("nothing is left");
        assert!(verdict("", 0).is_err(), "the limit was not reached");
        assert!(verdict("record proc.fork 1", LIMIT_REACHED).is_err(), "a birth without a death");
        assert!(verdict("sleep 3 > /dev/null 2>&1 &", LIMIT_REACHED).is_err(), "a process is left");
    }
}

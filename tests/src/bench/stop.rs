//! The time to stop a tree that ignores TERM, from the kill to the proof that it is empty.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::ValueEnum;
use serde_json::{Value, json};

use super::gate::await_file;
use crate::harness::cgroup;
use crate::sys;

/// Who stops it.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Side {
    /// `agent-loop exec`, asked by SIGTERM.
    Ours,
    /// One write to `cgroup.kill`.
    Bare,
}

const PATIENCE: Duration = Duration::from_secs(60);
/// How often the bare side looks whether the cgroup is empty: its notifications come at most every 10 ms.
const LOOK: Duration = Duration::from_micros(200);

/// Stops a tree of `count` children and their parent.
pub(super) fn measure(side: Side, count: u16, bin: &Path) -> anyhow::Result<Value> {
    let scratch = tempfile::Builder::new().prefix("agent-loop-bench-").tempdir()?;
    match side {
        Side::Ours => ours(scratch.path(), &bin.join("agent-loop"), &tree(scratch.path(), bin, count)),
        Side::Bare => bare(scratch.path(), &tree(scratch.path(), bin, count)),
    }
}

/// The tree: each process ends by itself after a minute, whatever happens here.
fn tree(scratch: &Path, bin: &Path, count: u16) -> Vec<String> {
    let ready = scratch.join("ready").display().to_string();
    let words = ["term-ignorer", &count.to_string(), "--ready", &ready, "--hold-ms", "60000", "--limit-ms", "60000"];
    std::iter::once(bin.join("adversary").display().to_string()).chain(words.map(str::to_owned)).collect()
}

/// Kills the child if it is not awaited.
struct Bound(Child);

impl Drop for Bound {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ours(scratch: &Path, agent_loop: &Path, tree: &[String]) -> anyhow::Result<Value> {
    let events = scratch.join("events.jsonl");
    let mut command = Command::new(agent_loop);
    command.args(["exec", "--quiet", "--grace", "1ms", "--events"]).arg(&events).arg("--").args(tree);
    let mut exec = Bound(command.stdin(Stdio::null()).spawn().context("starting agent-loop")?);
    await_file(&scratch.join("ready"))?;
    let asked = sys::boot_ns();
    sys::pidfd_signal(sys::pidfd_open(exec.0.id().cast_signed())?, libc::SIGTERM)?;
    let status = await_end(&mut exec.0)?;
    let text = fs::read_to_string(&events)?;
    let records: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let at = |record: &Value| record["boot_ns"].as_u64();
    let of_kind = |kind: &str| records.iter().filter(move |record| record["kind"] == kind).collect::<Vec<_>>();
    let kill = of_kind("signal.intent").into_iter().find(|intent| !intent["to"]["cgroup"].is_null()).and_then(at);
    let killed = of_kind("run.killed").pop().context("no run.killed")?;
    let (kill, empty) = (kill.context("no kill of the cgroup")?, at(killed).context("no time")?);
    anyhow::ensure!(killed["tree"] == "empty" && killed["survivors"] == 0, "not proven empty: {killed}");
    Ok(json!({
        "ms": (empty - kill) as f64 / 1e6,
        "asked_to_empty_ms": (empty - asked) as f64 / 1e6,
        "births": of_kind("proc.fork").len() + 1,
        "deaths": of_kind("proc.exit").len(),
        "survivors": killed["survivors"],
        "exit": status,
    }))
}

fn await_end(child: &mut Child) -> anyhow::Result<String> {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.to_string());
        }
        anyhow::ensure!(Instant::now() < end, "not stopped within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(2));
    }
}

fn bare(scratch: &Path, tree: &[String]) -> anyhow::Result<Value> {
    let dir = cgroup::own().context("no cgroup v2")?.join(format!("agent-loop-bench-{}", std::process::id()));
    fs::create_dir(&dir).context("making a cgroup")?;
    let result = bare_in(&dir, scratch, tree);
    // Whatever happened: nothing stays in it, and it goes.
    let _ = fs::write(dir.join("cgroup.kill"), "1");
    let end = Instant::now() + PATIENCE;
    while fs::remove_dir(&dir).is_err() && Instant::now() < end {
        thread::sleep(Duration::from_millis(5));
    }
    result
}

fn bare_in(dir: &Path, scratch: &Path, tree: &[String]) -> anyhow::Result<Value> {
    let mut procs = File::options().write(true).open(dir.join("cgroup.procs"))?;
    let (program, args) = tree.split_first().context("no tree")?;
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null());
    let mut child = Bound(
        sys::before_exec(&mut command, move || std::io::Write::write_all(&mut procs, b"0"))
            .spawn()
            .context("starting the tree")?,
    );
    await_file(&scratch.join("ready"))?;
    let pids = fs::read_to_string(dir.join("cgroup.procs"))?.lines().count();
    let events = dir.join("cgroup.events");
    let began = Instant::now();
    fs::write(dir.join("cgroup.kill"), "1")?;
    while fs::read_to_string(&events)?.contains("populated 1") {
        anyhow::ensure!(began.elapsed() < PATIENCE, "not empty within {PATIENCE:?}");
        thread::sleep(LOOK);
    }
    let elapsed = began.elapsed();
    let status = await_end(&mut child.0)?;
    Ok(json!({ "ms": elapsed.as_secs_f64() * 1e3, "births": pids, "exit": status }))
}

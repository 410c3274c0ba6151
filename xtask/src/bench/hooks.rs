//! What each hook costs.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::Bench;
use super::peers::Peer;
use super::spread::Spread;
use super::table::Table;
use super::tool::{self, Running};
use crate::progress;

/// Measures our programs with tracked and untracked processes, and those of the peers.
pub(super) fn measure(bench: &Bench) -> Result<(Table, Value)> {
    let mut found: BTreeMap<(&str, String), Spread> = BTreeMap::new();
    for round in 0..bench.rounds {
        progress::note(&format!("round {} of {}", round + 1, bench.rounds));
        let mut take = |whose: &'static str, value: &Value| -> Result<()> {
            for (name, hook) in value["hooks"].as_object().context("no hooks")? {
                found.entry((whose, name.clone())).or_default().push(tool::number(hook, "/ns_each")?);
            }
            Ok(())
        };
        take("1 ours, untracked", &untracked(bench)?)?;
        take("2 ours, tracked, the reader stopped", &tracked(bench, Reader::Stopped)?)?;
        take("3 ours, tracked", &tracked(bench, Reader::Awake)?)?;
        for (peer, whose) in [(Peer::Exitsnoop, "4 exitsnoop"), (Peer::Execsnoop, "5 execsnoop")] {
            if bench.peers.has(peer) {
                let running = peer.start(&bench.fresh("hooks")?.join("peer"))?;
                take(whose, &storm(bench, running.pid())?)?;
            }
        }
    }
    let mut table = Table::new("cost of a hook", &["whose", "program", "ns each (target 1,000)"]);
    let mut figures = json!({});
    for ((whose, name), spread) in &found {
        let whose = whose.split_once(' ').map_or(*whose, |(_, it)| it);
        table.row([whose.to_owned(), name.clone(), spread.show(0)]);
        figures[whose][name] = spread.json();
    }
    table
        .note("run_time_ns / run_cnt while the kernel takes times (BPF_ENABLE_STATS), of a fork loop and an exec loop");
    table.note(
        "a record wakes the reader by an interrupt to the own processor, which is taken inside the program's time;",
    );
    table.note("with the reader stopped (SIGSTOP) none is sent, and the program's own cost is left");
    Ok((table, figures))
}

fn milliseconds(bench: &Bench) -> String {
    (bench.seconds * 1_000).to_string()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reader {
    Awake,
    Stopped,
}

/// The longest storm whose records the rings hold while nobody reads them.
const UNREAD_MS: u32 = 1_500;

/// The storm in the tree of an `exec`, whose programs are timed.
fn tracked(bench: &Bench, reader: Reader) -> Result<Value> {
    let dir = bench.fresh("hooks")?;
    let (out, gate) = (dir.join("hooks.json"), dir.join("gate"));
    fs::create_dir(&gate).context("creating a scratch directory")?;
    let mut command = Command::new(bench.program("agent-loop"));
    command.args(["exec", "--quiet", "--events"]).arg(dir.join("events.jsonl")).arg("--").arg(bench.program("bench"));
    let span = match reader {
        Reader::Awake => bench.seconds * 1_000,
        Reader::Stopped => UNREAD_MS.min(bench.seconds * 1_000),
    };
    command.arg("gate").arg(&gate).arg(bench.program("bench"));
    command.args(["hooks", "--ms", &span.to_string(), "--out"]).arg(&out);
    let exec = Running::start(&mut command)?;
    tool::await_file(&gate.join("here"))?;
    if reader == Reader::Stopped {
        exec.signal(&bench.program("bench"), "stop")?;
    }
    fs::write(gate.join("go"), "")?;
    let done = tool::await_file(&gate.join("done"));
    if reader == Reader::Stopped {
        exec.signal(&bench.program("bench"), "continue")?;
    }
    done?;
    fs::write(gate.join("leave"), "")?;
    let status = exec.finish()?;
    if !status.success() {
        bail!("the storm under exec ended with {status}");
    }
    tool::read_json(&out)
}

/// The storm outside of an `exec` that runs elsewhere.
fn untracked(bench: &Bench) -> Result<Value> {
    let idle = super::slowdown::idle_exec(bench, &bench.fresh("hooks")?)?;
    storm(bench, idle.pid())
}

/// A storm of nobody's, while the programs of `pid` are timed.
fn storm(bench: &Bench, pid: u32) -> Result<Value> {
    let mut command = Command::new(bench.program("bench"));
    command.args(["hooks", "--ms", &milliseconds(bench), "--of", &pid.to_string()]);
    tool::json(&mut command, &bench.fresh("storm")?)
}

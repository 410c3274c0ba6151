//! The time to start, and the memory.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::spread::Spread;
use super::table::Table;
use super::{Bench, slowdown, tool};
use crate::progress;

/// Starts in one round: one is over in milliseconds.
const STARTS: u32 = 4;
const FIELDS: [&str; 4] = ["VmRSS", "RssAnon", "RssFile", "RssShmem"];

/// Measures each in turn.
pub(super) fn measure(bench: &Bench) -> Result<(Table, Value)> {
    let exec = bench.program("agent-loop").display().to_string();
    let sides: [(&str, Vec<&str>); 4] = [
        ("true", vec!["true"]),
        ("timeout 10 true", vec!["timeout", "10", "true"]),
        ("agent-loop exec -- true", vec![&exec, "exec", "--quiet", "--", "true"]),
        ("agent-loop exec --backend pidfd -- true", vec![&exec, "exec", "--quiet", "--backend", "pidfd", "--", "true"]),
    ];
    let mut spreads = [const { Spread::empty() }; 4];
    for round in 0..bench.rounds {
        progress::note(&format!("round {} of {}", round + 1, bench.rounds));
        for _ in 0..STARTS {
            for ((_, words), spread) in sides.iter().zip(&mut spreads) {
                spread.push(start(words)?);
            }
        }
    }
    let mut table = Table::new("start to end of a command that does nothing", &["what", "ms"]);
    let mut figures = json!({});
    for ((name, _), spread) in sides.iter().zip(&spreads) {
        table.row([(*name).to_owned(), spread.show(1)]);
        figures["ms"][*name] = spread.json();
    }
    let idle = slowdown::idle_exec(bench, &bench.fresh("startup")?)?;
    let running = idle.exec().context("exec is gone")?;
    let memory = |pid: u32| FIELDS.map(|field| (field, tool::memory(pid, field))).into_iter().collect();
    let told = |sizes: &std::collections::BTreeMap<&str, Option<u64>>| {
        let each = sizes.iter().map(|(name, size)| format!("{name} {}", size.unwrap_or(0)));
        each.collect::<Vec<_>>().join(", ")
    };
    let exec = memory(running.pid());
    table.note(format!("memory of an idle exec in KiB: {}", told(&exec)));
    table.note(format!("  of it {} KiB are ring buffers, whose data is mapped twice", ring_mappings(running.pid())?));
    figures["exec_kib"] = json!(exec);
    figures["ring_mappings_kib"] = json!(ring_mappings(running.pid())?);
    for pid in children(running.pid())? {
        let name = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if name.split(|byte| *byte == 0).nth(1) == Some(b"guard") {
            let guard = memory(pid);
            table.note(format!("memory of its guard in KiB: {}", told(&guard)));
            figures["guard_kib"] = json!(guard);
        }
    }
    Ok((table, figures))
}

fn start(words: &[&str]) -> Result<f64> {
    let (program, args) = words.split_first().context("no command")?;
    let began = Instant::now();
    let status = Command::new(program).args(args).stdin(Stdio::null()).status();
    let elapsed = began.elapsed();
    if !status.with_context(|| format!("starting {program}"))?.success() {
        bail!("{program} failed");
    }
    Ok(elapsed.as_secs_f64() * 1e3)
}

/// What of a process's resident memory are mappings of eBPF maps, in KiB.
fn ring_mappings(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps")).context("reading the mappings of exec")?;
    let (mut of_map, mut sum) = (false, 0);
    for line in text.lines() {
        if line.split_whitespace().next().is_some_and(|first| first.contains('-')) {
            of_map = line.contains("bpf-map");
        } else if let Some(size) = line.strip_prefix("Rss:").filter(|_| of_map) {
            sum += size.split_whitespace().next().and_then(|it| it.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    Ok(sum)
}

fn children(pid: u32) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).context("looking at exec's threads")? {
        let list = fs::read_to_string(task?.path().join("children")).unwrap_or_default();
        found.extend(list.split_whitespace().filter_map(|it| it.parse::<u32>().ok()));
    }
    Ok(found)
}

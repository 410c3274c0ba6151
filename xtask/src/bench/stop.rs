//! The time to stop a large tree that ignores TERM.

use std::process::Command;

use anyhow::Result;
use serde_json::{Value, json};

use super::spread::Spread;
use super::table::Table;
use super::{Bench, tool};
use crate::progress;

const COUNTS: [u32; 2] = [1_000, 5_000];

/// Measures both sides in turn.
pub(super) fn measure(bench: &Bench) -> Result<(Table, Value)> {
    let columns = ["processes", "how", "ms from kill to empty", "/ bare (target 1.3)", "survivors", "deaths told"];
    let mut table = Table::new("stop of a tree that ignores TERM", &columns);
    let mut figures = json!({});
    for count in COUNTS {
        let (mut ours, mut whole, mut bare) = (Spread::default(), Spread::default(), Spread::default());
        let (mut survivors, mut told, mut born) = (0.0, 0.0, 0.0);
        for round in 0..bench.rounds {
            progress::note(&format!("{count} processes, round {} of {}", round + 1, bench.rounds));
            let value = side(bench, "ours", count)?;
            ours.push(tool::number(&value, "/ms")?);
            whole.push(tool::number(&value, "/asked_to_empty_ms")?);
            survivors += tool::number(&value, "/survivors")?;
            told += tool::number(&value, "/deaths")?;
            born += tool::number(&value, "/births")?;
            bare.push(tool::number(&side(bench, "bare", count)?, "/ms")?);
        }
        let ratio = ours.over(&bare);
        let (number, told) = (count.to_string(), format!("{told} of {born}"));
        table.row([number.clone(), "agent-loop".into(), ours.show(1), ratio.show(2), survivors.to_string(), told]);
        table.row([number.clone(), "bare cgroup.kill".into(), bare.show(1), String::new(), "0".into(), "none".into()]);
        table.row([number.clone(), "agent-loop, from SIGTERM to exec on".into(), whole.show(1)]);
        figures[number] = json!({
            "ours_ms": ours.json(), "bare_ms": bare.json(), "ratio": ratio.json(), "survivors": survivors,
            "asked_to_empty_ms": whole.json(),
        });
    }
    table.note(
        "ours: from the intent to kill the cgroup to run.killed with survivors 0, every death read from the rings",
    );
    table.note("bare: from the write to the first look (every 0.2 ms) that finds it not populated");
    table.note("from SIGTERM on: two graces of 1 ms, a SIGTERM to each process by its own proof, and the kill");
    Ok((table, figures))
}

fn side(bench: &Bench, side: &str, count: u32) -> Result<Value> {
    let mut command = Command::new(bench.program("bench"));
    command.args(["stop", side, "--count", &count.to_string(), "--bin"]).arg(&bench.bin);
    tool::json(&mut command, &bench.fresh("stop")?)
}

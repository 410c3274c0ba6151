//! How much slower births and deaths become while somebody watches.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::Bench;
use super::peers::Peer;
use super::spread::Spread;
use super::table::Table;
use super::tool::{self, Running};
use crate::progress;

const COLUMNS: [&str; 6] =
    ["storm", "watched by", "us each", "% slower (target 3)", "CPU us each", "% more CPU of the storm itself"];

#[derive(Clone, Copy)]
enum Watch {
    Nobody,
    Ours,
    OursElsewhere,
    Snoops,
}

impl Watch {
    const ALL: [Self; 4] = [Self::Nobody, Self::Ours, Self::OursElsewhere, Self::Snoops];

    const fn name(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Ours => "agent-loop exec --events, the storm in its tree",
            Self::OursElsewhere => "agent-loop exec, the storm outside of its tree",
            Self::Snoops => "exitsnoop and execsnoop",
        }
    }
}

/// Measures each in turn.
pub(super) fn measure(bench: &Bench) -> Result<(Table, Value)> {
    let mut table = Table::new("slowdown", &COLUMNS);
    let mut figures = json!({});
    for how in ["exec", "fork"] {
        let mut each = [const { (Spread::empty(), Spread::empty()) }; 4];
        for round in 0..bench.rounds {
            progress::note(&format!("{how}, round {} of {}", round + 1, bench.rounds));
            for (watch, spread) in Watch::ALL.into_iter().zip(&mut each) {
                if let Some((us, cpu)) = storm(bench, watch, how)? {
                    spread.0.push(us);
                    spread.1.push(cpu);
                }
            }
        }
        let nobody = each[0].clone();
        for (watch, (wall, cpu)) in Watch::ALL.into_iter().zip(&each) {
            let percent = |spread: &Spread, of: &Spread| spread.over(of).map(|ratio| (ratio - 1.0) * 100.0);
            let (slower, more) = (percent(wall, &nobody.0), percent(cpu, &nobody.1));
            let name = watch.name();
            table.row([how.into(), name.into(), wall.show(1), slower.show(1), cpu.show(1), more.show(1)]);
            figures[how][name] = json!({
                "us_each": wall.json(), "percent_slower": slower.json(),
                "cpu_us_each": cpu.json(), "percent_more_cpu": more.json(),
            });
        }
    }
    table.note("one birth after the other, each awaited: exec is posix_spawn of true, fork is fork and _exit");
    table.note("slower: each round against the same round's nobody; other work on the machine is in it");
    table.note("CPU: of the storm's own processes, in which the hooks run; the watcher's own is not in it");
    Ok((table, figures))
}

fn storm(bench: &Bench, watch: Watch, how: &str) -> Result<Option<(f64, f64)>> {
    let dir = bench.fresh("slowdown")?;
    let value = match watch {
        Watch::Nobody => spawn(bench, how, &dir)?,
        Watch::Ours => inside(bench, how, &dir)?,
        Watch::OursElsewhere => {
            let _idle = idle_exec(bench, &dir)?;
            spawn(bench, how, &dir)?
        }
        Watch::Snoops => {
            if !bench.peers.has(Peer::Exitsnoop) || !bench.peers.has(Peer::Execsnoop) {
                return Ok(None);
            }
            let _exits = Peer::Exitsnoop.start(&dir.join("exits"))?;
            let _execs = Peer::Execsnoop.start(&dir.join("execs"))?;
            spawn(bench, how, &dir)?
        }
    };
    Ok(Some((tool::number(&value, "/us_each")?, tool::number(&value, "/cpu_us_each")?)))
}

fn spawn(bench: &Bench, how: &str, dir: &Path) -> Result<Value> {
    let mut command = Command::new(bench.program("bench"));
    tool::json(command.args(["spawn", how, "--ms", &(bench.seconds * 1_000).to_string()]), dir)
}

fn inside(bench: &Bench, how: &str, dir: &Path) -> Result<Value> {
    let out = dir.join("inside.json");
    let mut command = Command::new(bench.program("agent-loop"));
    command.args(["exec", "--quiet", "--events"]).arg(dir.join("events.jsonl")).arg("--").arg(bench.program("bench"));
    command.args(["spawn", how, "--ms", &(bench.seconds * 1_000).to_string(), "--out"]).arg(&out);
    let status = Running::start(&mut command)?.finish()?;
    if !status.success() {
        bail!("the storm under exec ended with {status}");
    }
    tool::read_json(&out)
}

/// An `exec` that supervises something idle, attached.
pub(super) fn idle_exec(bench: &Bench, dir: &Path) -> Result<Idle> {
    let gate = dir.join("idle");
    std::fs::create_dir_all(&gate)?;
    let mut command = Command::new(bench.program("agent-loop"));
    command.args(["exec", "--quiet", "--grace", "100ms", "--"]).arg(bench.program("bench")).arg("gate").arg(&gate);
    let exec = Running::start(command.arg("true"))?;
    tool::await_file(&gate.join("here"))?;
    Ok(Idle { exec: Some(exec), gate })
}

/// An idle `exec`; dropped, its command is let go and it ends.
pub(super) struct Idle {
    exec: Option<Running>,
    gate: std::path::PathBuf,
}

impl Idle {
    /// Its number.
    pub(super) fn pid(&self) -> u32 {
        self.exec.as_ref().map_or(0, Running::pid)
    }

    /// It.
    pub(super) fn exec(&self) -> Option<&Running> {
        self.exec.as_ref()
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        for mark in ["go", "leave"] {
            let _ = std::fs::write(self.gate.join(mark), "");
        }
        if let Some(exec) = self.exec.take() {
            let _ = exec.finish();
        }
    }
}

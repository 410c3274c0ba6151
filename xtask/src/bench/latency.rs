//! From a process's exit to the decision.

use std::process::Command;

use anyhow::Result;
use serde_json::{Value, json};

use super::spread::Spread;
use super::table::Table;
use super::{Bench, tool};
use crate::progress;

/// Exits in a second: hardly anything, and some 5,000 births and deaths.
const RATES: [u32; 2] = [50, 2_500];

#[derive(Default)]
struct Side {
    p50: Spread,
    p99: Spread,
    max: Spread,
}

impl Side {
    fn push(&mut self, value: &Value, clock: &str) -> Result<()> {
        self.p50.push(tool::number(value, &format!("/{clock}/p50_us"))?);
        self.p99.push(tool::number(value, &format!("/{clock}/p99_us"))?);
        self.max.push(tool::number(value, &format!("/{clock}/max_us"))?);
        Ok(())
    }

    fn json(&self) -> Value {
        json!({ "p50_us": self.p50.json(), "p99_us": self.p99.json(), "max_us": self.max.json() })
    }

    fn row(&self, table: &mut Table, rate: u32, what: &str, bare: Option<&Self>) {
        let ratio = bare.map_or_else(String::new, |bare| self.p50.over(&bare.p50).show(2));
        table.row([
            format!("{} events/s", rate * 2),
            what.to_owned(),
            self.p50.show(0),
            self.p99.show(0),
            self.max.show(0),
            ratio,
        ]);
    }
}

/// Measures both sides in turn, at each rate.
pub(super) fn measure(bench: &Bench) -> Result<(Table, Value)> {
    let columns = ["load", "what", "p50 us", "p99 us", "max us", "p50 / bare (target 1.5)"];
    let mut table = Table::new("exit to decision", &columns);
    let mut figures = json!({});
    for rate in RATES {
        let (mut stamp, mut hook, mut bare) = (Side::default(), Side::default(), Side::default());
        let mut lost = 0.0;
        for round in 0..bench.rounds {
            progress::note(&format!("{rate} exits/s, round {} of {}", round + 1, bench.rounds));
            let ours = side(bench, "ours", rate)?;
            stamp.push(&ours, "from_stamp")?;
            hook.push(&ours, "from_hook")?;
            lost += tool::number(&ours, "/lost")?;
            bare.push(&side(bench, "pidfd", rate)?, "from_stamp")?;
        }
        hook.row(&mut table, rate, "exit hook to core", Some(&bare));
        stamp.row(&mut table, rate, "own stamp to core", Some(&bare));
        bare.row(&mut table, rate, "own stamp to bare epoll on pidfds", None);
        figures[rate.to_string()] = json!({
            "hook_to_core": hook.json(), "stamp_to_core": stamp.json(), "stamp_to_pidfd": bare.json(), "lost": lost,
        });
    }
    table.note("own stamp: CLOCK_BOOTTIME, taken by the exiting process just before its _exit; the same on both sides");
    table.note("target: p50 at most 1.5 times the bare one, p99 under 5,000 us");
    Ok((table, figures))
}

fn side(bench: &Bench, side: &str, rate: u32) -> Result<Value> {
    let mut command = Command::new(bench.program("bench"));
    command.args(["latency", side, "--rate", &rate.to_string(), "--seconds", &bench.seconds.to_string()]);
    tool::json(&mut command, &bench.fresh("latency")?)
}

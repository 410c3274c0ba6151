//! What reading an audit log takes: one run out of many, and all of it in each format, beside `jq` where it is installed.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::Bench;
use super::audit::said;
use super::spread::Spread;
use super::table::Table;
use crate::progress;

const FORMATS: [&str; 4] = ["jsonl", "csv", "chrome", "ocsf"];

/// One command that is measured.
struct Side {
    name: String,
    command: Vec<String>,
    /// Whether its rate is told: all records are read and written.
    is_rate: bool,
    seconds: Spread,
    peak_mib: Spread,
}

/// Measures each in turn.
pub(super) fn measure(bench: &Bench) -> Result<(Table, Value)> {
    let dir = bench.fresh("read")?;
    fs::set_permissions(&dir, Permissions::from_mode(0o700)).context("closing the directory of the log")?;
    progress::note(&format!("writing a log of {} records", bench.records));
    let mut write = Command::new(bench.program("bench"));
    write.arg("records").arg(&dir).args(["--records", &bench.records.to_string()]);
    let made = said(&mut write)?;
    let run = made["run"].as_str().context("no run")?.to_owned();
    let log = dir.display().to_string();
    let flat = dir.join("flat.jsonl").display().to_string();
    let agent_loop = bench.program("agent-loop").display().to_string();
    let status = Command::new(&agent_loop).args(["audit", "export", "-o", &flat, &log]).status();
    if !status.context("starting agent-loop")?.success() {
        bail!("the log cannot be exported");
    }
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let side = |name: String, command, is_rate| Side {
        name,
        command,
        is_rate,
        seconds: Spread::empty(),
        peak_mib: Spread::empty(),
    };
    let query = words(&[&agent_loop, "audit", "query", "--json", "--run", &run, &log]);
    let mut sides = vec![side("audit query --run R".to_owned(), query, false)];
    for format in FORMATS {
        let export = words(&[&agent_loop, "audit", "export", "--format", format, &log]);
        sides.push(side(format!("audit export --format {format}"), export, true));
    }
    let has_jq = Command::new("jq").arg("--version").output().is_ok();
    if has_jq {
        let select = format!("select(.run == \"{run}\")");
        sides.push(side("jq 'select(.run == R)'".to_owned(), words(&["jq", "-c", &select, &flat]), false));
        sides.push(side("jq .".to_owned(), words(&["jq", "-c", ".", &flat]), true));
    }
    for round in 0..bench.rounds {
        progress::note(&format!("round {} of {}", round + 1, bench.rounds));
        for side in &mut sides {
            let used = said(Command::new(bench.program("bench")).arg("usage").arg("--").args(&side.command))?;
            if used["code"] != 0 {
                bail!("{:?} ended with {}", side.command, used["code"]);
            }
            side.seconds.push(used["seconds"].as_f64().context("no time")?);
            side.peak_mib.push(used["peak_kib"].as_f64().context("no memory")? / 1024.0);
        }
    }
    let records = bench.records as f64;
    let mut table = Table::new(
        &format!("reading a log of {} records", bench.records),
        &["what", "seconds", "thousand records/s", "peak MiB"],
    );
    let mut figures = json!({ "log": made });
    for side in &sides {
        let rate = side.seconds.map(|seconds| records / seconds / 1e3);
        let rate_text = if side.is_rate { rate.show(0) } else { "-".to_owned() };
        table.row([side.name.clone(), side.seconds.show(2), rate_text, side.peak_mib.show(1)]);
        figures["read"][&side.name] = json!({ "seconds": side.seconds.json(), "peak_mib": side.peak_mib.json() });
    }
    table.note("the log lies in segments of 64 MiB, the closed ones compressed; jq reads one plain file");
    if !has_jq {
        table.note("jq is not compared: it is not installed");
    }
    Ok((table, figures))
}

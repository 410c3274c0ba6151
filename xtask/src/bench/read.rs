//! What reading an audit log takes: one run out of many, and all of it in each format, beside `jq` where it is installed.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::audit::said;
use super::logs::{self, EVENTS_PER_MS};
use super::spread::Spread;
use super::table::Table;
use super::{Bench, tool, words};
use crate::progress;

const FORMATS: [&str; 4] = ["jsonl", "csv", "chrome", "ocsf"];

/// Records of the logs of others: `ausearch` takes the longer for each, the more there are.
const OF_OTHERS: u64 = 50_000;

/// One command that is measured.
struct Side {
    name: String,
    command: Vec<String>,
    records: u64,
    /// Whether its rate is told: all records are read and written.
    is_rate: bool,
    seconds: Spread,
    cpu: Spread,
    peak_mib: Spread,
}

impl Side {
    fn new(name: String, command: Vec<String>, records: u64, is_rate: bool) -> Self {
        let (seconds, cpu, peak_mib) = (Spread::empty(), Spread::empty(), Spread::empty());
        Self { name, command, records, is_rate, seconds, cpu, peak_mib }
    }
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
    let side = |name: String, command, is_rate| Side::new(name, command, bench.records, is_rate);
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
    let mut notes = Vec::new();
    let count = OF_OTHERS.min(bench.records);
    match logs::journal(Path::new(&flat), usize::try_from(count)?, &dir) {
        Ok((journal, run)) => {
            let journal = journal.display().to_string();
            let all = words(&["journalctl", "--quiet", "--file", &journal, "-o", "json"]);
            let field = format!("AGENT_LOOP_RUN={run}");
            let one = words(&["journalctl", "--quiet", "--file", &journal, "-o", "cat", &field]);
            sides.push(Side::new("journalctl AGENT_LOOP_RUN=R (indexed)".to_owned(), one, count, false));
            sides.push(Side::new("journalctl -o json".to_owned(), all, count, true));
            notes.push(format!("{}: a journal of {count} of the records", tool::said("journalctl", &["--version"])));
        }
        Err(error) => notes.push(format!("journalctl is not compared: {error:#}")),
    }
    match auditd(&dir, count) {
        Ok((theirs, note)) => {
            sides.extend(theirs);
            notes.push(note);
        }
        Err(error) => notes.push(format!("auditd's tools are not compared: {error:#}")),
    }
    for round in 0..bench.rounds {
        progress::note(&format!("round {} of {}", round + 1, bench.rounds));
        for side in &mut sides {
            let used = bench.used(&side.command, 0)?;
            side.seconds.push(used["seconds"].as_f64().context("no time")?);
            side.cpu.push(used["cpu_seconds"].as_f64().context("no time of the processor")?);
            side.peak_mib.push(used["peak_kib"].as_f64().context("no memory")? / 1024.0);
        }
    }
    let mut table = Table::new(
        &format!("reading a log of {} records", bench.records),
        &["what", "records", "seconds", "thousand records/s", "the same by processor time", "peak MiB"],
    );
    let mut figures = json!({ "log": made });
    for side in &sides {
        let rate = |time: &Spread| {
            let rate = time.map(|seconds| side.records as f64 / seconds / 1e3);
            if side.is_rate { rate.show(0) } else { "-".to_owned() }
        };
        let (wall, cpu) = (rate(&side.seconds), rate(&side.cpu));
        let records = side.records.to_string();
        table.row([side.name.clone(), records, side.seconds.show(2), wall, cpu, side.peak_mib.show(1)]);
        figures["read"][&side.name] = json!({ "records": side.records, "seconds": side.seconds.json(),
            "cpu_seconds": side.cpu.json(), "peak_mib": side.peak_mib.json() });
    }
    table.note("the log lies in segments of 64 MiB, the closed ones compressed; jq reads one plain file");
    if !has_jq {
        table.note("jq is not compared: it is not installed");
    }
    notes.into_iter().for_each(|note| table.note(note));
    Ok((table, figures))
}

/// auditd's own readers on a log of execs: one process out of all, all as a table, a summary; and what they read.
fn auditd(dir: &Path, count: u64) -> Result<(Vec<Side>, String)> {
    let (search, report) = (logs::auditd_tool("ausearch")?, logs::auditd_tool("aureport")?);
    let (log, pid) = logs::auditd(count, dir)?;
    let (log, pid) = (log.display().to_string(), pid.to_string());
    let with = |tool: &[String], more: &[&str]| [tool, &words(&["-if", &log]), &words(more)].concat();
    let sides = vec![
        Side::new("ausearch -p PID".to_owned(), with(&search, &["-p", &pid]), count, false),
        Side::new("ausearch --format csv".to_owned(), with(&search, &["--format", "csv"]), count, true),
        Side::new("aureport --summary".to_owned(), with(&report, &["--summary"]), count, false),
    ];
    let mut version = search;
    version.push("--version".to_owned());
    let (program, args) = version.split_first().context("no program")?;
    let version = tool::said(program, &args.iter().map(String::as_str).collect::<Vec<_>>());
    Ok((sides, format!("{version}: a log of {count} execs, four lines each, {EVENTS_PER_MS} in a millisecond")))
}

//! What the audit log takes, beside a bare `fdatasync` of the same run and the journal of this host, where one runs.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::Bench;
use super::spread::Spread;
use super::table::Table;
use crate::progress;

/// Where the journal takes entries, if one runs.
const JOURNAL: &str = "/run/systemd/journal/socket";
/// Where auditd says that it runs.
const AUDITD: &str = "/run/auditd.pid";
/// The journal takes some ten times fewer, and keeps them.
const JOURNAL_RECORDS: u64 = 50_000;

/// Measures each in turn.
pub(super) fn measure(bench: &Bench) -> Result<(Table, Value)> {
    let has_journal = Path::new(JOURNAL).exists();
    let names = ["ours", "first_p50", "first_p99", "bare_p50", "bare_p99", "plain", "packed", "journal"];
    let mut spreads = [const { Spread::empty() }; 8];
    for round in 0..bench.rounds {
        progress::note(&format!("round {} of {}", round + 1, bench.rounds));
        let dir = bench.fresh("audit")?;
        fs::set_permissions(&dir, Permissions::from_mode(0o700)).context("closing the directory of the log")?;
        let mut append = Command::new(bench.program("bench"));
        append.arg("append").arg(&dir).args(["--records", &bench.records.to_string()]);
        let said = said(&mut append)?;
        let journal = if has_journal {
            let count = bench.records.min(JOURNAL_RECORDS).to_string();
            let said = self::said(Command::new(bench.program("bench")).args(["journal", "--records", &count]))?;
            said["records_per_s"].clone()
        } else {
            Value::Null
        };
        let values = [
            &said["records_per_s"],
            &said["durable_first_us"]["p50"],
            &said["durable_first_us"]["p99"],
            &said["bare_fdatasync_us"]["p50"],
            &said["bare_fdatasync_us"]["p99"],
            &said["bytes_per_record"],
            &said["zstd_bytes_per_record"],
            &journal,
        ];
        for (spread, value) in spreads.iter_mut().zip(values) {
            value.as_f64().into_iter().for_each(|value| spread.push(value));
        }
    }
    let figures: serde_json::Map<String, Value> =
        names.iter().zip(&spreads).map(|(name, spread)| ((*name).to_owned(), spread.json())).collect();
    let [ours, first_p50, first_p99, bare_p50, bare_p99, plain, packed, journal] = spreads;
    let mut table = Table::new("the audit log at its default durability", &["what", "agent-loop", "beside it"]);
    let beside = if has_journal { format!("journald {}", journal.show(0)) } else { "-".to_owned() };
    table.row(["records/s, all of them durable at the end".to_owned(), ours.show(0), beside]);
    let bare = |spread: &Spread| format!("bare fdatasync {}", spread.show(0));
    table.row(["a record that is durable first, p50 us".to_owned(), first_p50.show(0), bare(&bare_p50)]);
    table.row(["the same, p99 us".to_owned(), first_p99.show(0), bare(&bare_p99)]);
    table.row(["bytes per record".to_owned(), plain.show(0), "-".to_owned()]);
    table.row(["bytes per record, compressed".to_owned(), packed.show(1), "-".to_owned()]);
    table.note(format!(
        "{} records of births, execs and deaths; the bare sync is of a line as long, in the same directory",
        bench.records
    ));
    if !has_journal {
        table.note(format!("journald is not compared: {JOURNAL} is not there"));
    }
    let auditd =
        if Path::new(AUDITD).exists() { "it takes records from the kernel alone" } else { "it does not run here" };
    table.note(format!("auditd is not compared: {auditd}"));
    Ok((table, json!({ "records": bench.records, "figures": figures })))
}

/// What a side of the measurement says.
pub(super) fn said(command: &mut Command) -> Result<Value> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("starting {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    serde_json::from_slice(&output.stdout).context("reading what was measured")
}

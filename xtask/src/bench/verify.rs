//! The verification of an audit log, against `journalctl --verify` on a journal of the same lines.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::audit::said;
use super::spread::Spread;
use super::table::Table;
use super::{Bench, logs, tool, words};
use crate::progress;

/// The size of the log.
const MIB: u64 = 512;
/// Lines of the journal: it is verified some thirty times slower.
const JOURNAL_LINES: usize = 200_000;
/// Lines as births are, as the records of `bench audit` are on the average, and as execs with a command line: a shorter one
/// takes more hashing for each byte.
const LINES: [u64; 3] = [330, 413, 640];

/// Measures each in turn.
pub(super) fn measure(bench: &Bench) -> Result<(Table, Value)> {
    let mut logs = Vec::new();
    for line in LINES {
        let dir = bench.fresh(&format!("verify-{line}"))?;
        fs::set_permissions(&dir, Permissions::from_mode(0o700)).context("closing the directory of the log")?;
        progress::note(&format!("writing a log of {MIB} MiB in lines of {line} bytes"));
        let mut write = Command::new(bench.program("bench"));
        write.arg("log").arg(&dir).args(["--mib", &MIB.to_string(), "--line", &line.to_string()]);
        let made = write.output()?;
        if !made.status.success() {
            bail!("writing the log: {}", String::from_utf8_lossy(&made.stderr));
        }
        let made: Value = serde_json::from_slice(&made.stdout).context("reading what was written")?;
        logs.push((line, dir, made, Rates::default(), Rates::default()));
    }
    let journal = match logs.first() {
        Some((_, dir, ..)) => logs::journal(&dir.join("audit/seg/000000000000.jsonl"), JOURNAL_LINES, dir),
        None => bail!("no log was written"),
    };
    let mut theirs = Rates::default();
    for round in 0..bench.rounds {
        progress::note(&format!("round {} of {}", round + 1, bench.rounds));
        for (_, dir, made, ours, bound) in &mut logs {
            let bytes = made["bytes"].as_f64().context("no size")?;
            let mut verify = words(&[&bench.program("agent-loop").to_string_lossy(), "audit", "verify", "--quiet"]);
            verify.push(dir.display().to_string());
            // 1: intact, not anchored.
            ours.push(bytes, &bench.used(&verify, 1)?)?;
            let segment = dir.join("audit/seg/000000000000.jsonl");
            let bare = said(Command::new(bench.program("bench")).arg("blocks").arg(segment))?;
            bound.push(bytes, &bare)?;
        }
        if let Ok((journal, _)) = &journal {
            let size = fs::metadata(journal).context("looking at the journal")?.len();
            let verify = words(&["journalctl", "--verify", "--quiet", "--file", &journal.to_string_lossy()]);
            theirs.push(size as f64, &bench.used(&verify, 0)?)?;
        }
    }
    let mut table =
        Table::new("verification of what is in the page cache", &["what", "GB/s", "GB/s of processor time"]);
    let mut figures = json!({});
    for (line, _, made, ours, bound) in &logs {
        let what = format!("agent-loop audit verify, lines of {line} bytes");
        table.row([what, ours.wall.show(2), ours.cpu.show(2)]);
        table.row([format!("SHA-256 of as many blocks, lines of {line} bytes"), bound.wall.show(2), bound.cpu.show(2)]);
        figures[line.to_string()] = json!({
            "log": made,
            "gb_per_s": ours.wall.json(),
            "gb_per_cpu_s": ours.cpu.json(),
            "gb_per_cpu_s_of_bare_sha256": bound.cpu.json(),
        });
    }
    match &journal {
        Ok((journal, _)) => {
            let what = "journalctl --verify (unsealed: it checks the structure alone)".to_owned();
            table.row([what, theirs.wall.show(3), theirs.cpu.show(3)]);
            figures["journalctl"] = json!({ "gb_per_s": theirs.wall.json(), "gb_per_cpu_s": theirs.cpu.json() });
            let size = fs::metadata(journal).context("looking at the journal")?.len();
            let version = tool::said("journalctl", &["--version"]);
            table.note(format!("{version}: {JOURNAL_LINES} lines of 330 bytes, a file of {:.0} MB", size as f64 / 1e6));
        }
        Err(error) => table.note(format!("journalctl is not compared: {error:#}")),
    }
    table.note("auditd is not compared: its log holds nothing to verify it by");
    for (line, _, made, ..) in &logs {
        let bytes = made["bytes"].as_f64().context("no size")?;
        table.note(format!("{} lines of {line} bytes, {:.0} MB, one segment, all tiles", made["lines"], bytes / 1e6));
    }
    Ok((table, figures))
}

/// What was verified in a second, by the clock and by the time that a processor was at it.
#[derive(Default)]
struct Rates {
    wall: Spread,
    cpu: Spread,
}

impl Rates {
    fn push(&mut self, bytes: f64, used: &Value) -> Result<()> {
        self.wall.push(bytes / 1e9 / used["seconds"].as_f64().context("no time")?);
        self.cpu.push(bytes / 1e9 / used["cpu_seconds"].as_f64().context("no time of the processor")?);
        Ok(())
    }
}

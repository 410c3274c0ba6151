//! The verification of an audit log, against `journalctl --verify` on a journal of the same lines.

use std::fs::{self, File, Permissions};
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::Bench;
use super::spread::Spread;
use super::table::Table;
use crate::progress;

/// The size of the log.
const MIB: u64 = 512;
/// Lines of the journal: it is verified some thirty times slower.
const JOURNAL_LINES: usize = 200_000;
/// What makes a journal of lines (package `systemd-journal-remote`).
const JOURNAL_REMOTE: &str = "/lib/systemd/systemd-journal-remote";

/// Lines as births are, and as execs with a command line: a shorter one takes more hashing for each byte.
const LINES: [u64; 2] = [330, 640];

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
        logs.push((line, dir, made, Spread::empty()));
    }
    let journal = match logs.first() {
        Some((_, dir, ..)) => journal(dir)?,
        None => None,
    };
    let mut theirs = Spread::empty();
    for round in 0..bench.rounds {
        progress::note(&format!("round {} of {}", round + 1, bench.rounds));
        for (_, dir, made, ours) in &mut logs {
            let bytes = made["bytes"].as_f64().context("no size")?;
            let mut verify = Command::new(bench.program("agent-loop"));
            verify.args(["audit", "verify", "--quiet"]).arg(dir);
            // 1: intact, not anchored.
            ours.push(bytes / 1e9 / timed(&mut verify, 1)?);
        }
        if let Some(journal) = &journal {
            let size = fs::metadata(journal).context("looking at the journal")?.len();
            let mut verify = Command::new("journalctl");
            verify.args(["--verify", "--quiet", "--file"]).arg(journal);
            theirs.push(size as f64 / 1e9 / timed(&mut verify, 0)?);
        }
    }
    let mut table = Table::new("verification of what is in the page cache", &["what", "GB/s"]);
    let mut figures = json!({});
    for (line, _, made, ours) in &logs {
        table.row([format!("agent-loop audit verify, lines of {line} bytes"), ours.show(2)]);
        figures[line.to_string()] = json!({ "log": made, "gb_per_s": ours.json() });
    }
    if journal.is_some() {
        table.row(["journalctl --verify (unsealed: it checks the structure alone)".to_owned(), theirs.show(3)]);
        figures["journalctl"] = json!({ "gb_per_s": theirs.json() });
    } else {
        table.note(format!(
            "journalctl is not compared: {JOURNAL_REMOTE} is not there (Debian: systemd-journal-remote)"
        ));
    }
    for (line, _, made, _) in &logs {
        let bytes = made["bytes"].as_f64().context("no size")?;
        table.note(format!("{} lines of {line} bytes, {:.0} MB, one segment, all tiles", made["lines"], bytes / 1e6));
    }
    Ok((table, figures))
}

/// The seconds that it takes.
fn timed(command: &mut Command, code: i32) -> Result<f64> {
    let began = Instant::now();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("starting {command:?}"))?;
    let elapsed = began.elapsed().as_secs_f64();
    if output.status.code() != Some(code) {
        bail!("{command:?} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(elapsed)
}

/// A journal of the first lines of the log; `None` where nothing makes one.
fn journal(dir: &Path) -> Result<Option<PathBuf>> {
    if !Path::new(JOURNAL_REMOTE).exists() {
        return Ok(None);
    }
    let (export, journal) = (dir.join("export"), dir.join("bench.journal"));
    let log = File::open(dir.join("audit/seg/000000000000.jsonl")).context("opening the log")?;
    let mut to = BufWriter::new(File::create(&export).context("writing the journal's entries")?);
    for (number, line) in BufReader::new(log).lines().take(JOURNAL_LINES).enumerate() {
        let line = line.context("reading the log")?;
        writeln!(to, "__REALTIME_TIMESTAMP={}", 1_700_000_000_000_000 + number)?;
        writeln!(to, "__MONOTONIC_TIMESTAMP={number}\n_BOOT_ID=7c1e0a52000040008000000000000001\nMESSAGE={line}\n")?;
    }
    drop(to);
    let mut remote = Command::new(JOURNAL_REMOTE);
    remote.arg("-o").arg(&journal).arg("--split-mode=none").arg(&export);
    timed(&mut remote, 0)?;
    Ok(Some(journal))
}

//! Logs of others with as many records as ours: a journal of systemd, and one of auditd.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::unpacked::Unpacked;
use crate::place;

/// What makes a journal of a file of entries.
const JOURNAL_REMOTE: &str = "lib/systemd/systemd-journal-remote";
/// When the first event of auditd's log was, seconds since 1970.
const BEGAN: u64 = 1_700_000_000;
/// Events of auditd in a millisecond: `ausearch` takes longer the closer they are.
pub(super) const EVENTS_PER_MS: u64 = 1;

/// A journal of the first lines of our log, the run in a field of its own, so that it is indexed; and the run in its middle.
pub(super) fn journal(lines: &Path, count: usize, dir: &Path) -> Result<(PathBuf, String)> {
    place::which("journalctl").context("journalctl is not there")?;
    let installed = Path::new("/").join(JOURNAL_REMOTE);
    let remote = if installed.exists() {
        vec![installed.display().to_string()]
    } else {
        Unpacked::of(&["systemd-journal-remote", "libmicrohttpd12"])?.words(JOURNAL_REMOTE)
    };
    let (export, journal) = (dir.join("export"), dir.join("bench.journal"));
    let mut to = BufWriter::new(File::create(&export).context("writing the journal's entries")?);
    let mut middle = String::new();
    for (number, line) in first(lines, count)?.enumerate() {
        let line = line.context("reading the log")?;
        let record: Value = serde_json::from_str(&line).context("reading a line of the log")?;
        writeln!(to, "__REALTIME_TIMESTAMP={}", 1_700_000_000_000_000 + number)?;
        writeln!(to, "__MONOTONIC_TIMESTAMP={number}\n_BOOT_ID=7c1e0a52000040008000000000000001")?;
        if let Some(run) = record["run"].as_str() {
            writeln!(to, "AGENT_LOOP_RUN={run}")?;
            if number <= count / 2 {
                run.clone_into(&mut middle);
            }
        }
        writeln!(to, "MESSAGE={line}\n")?;
    }
    to.flush().context("writing the journal's entries")?;
    let (program, words) = remote.split_first().context("no program")?;
    let mut make = Command::new(program);
    make.args(words).arg("-o").arg(&journal).arg("--split-mode=none").arg(&export);
    let output = make.stdin(Stdio::null()).output().with_context(|| format!("starting {program}"))?;
    if !output.status.success() {
        bail!("systemd-journal-remote ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    fs::remove_file(&export).context("removing the journal's entries")?;
    Ok((journal, middle))
}

/// A log of auditd with this many execs, four records each as a rule on `execve` makes them; and the number of one process.
pub(super) fn auditd(count: u64, dir: &Path) -> Result<(PathBuf, u64)> {
    let file = dir.join("audit.log");
    let mut to = BufWriter::new(File::create(&file).context("writing a log of auditd")?);
    for number in 0..count {
        let (ms, pid) = (number / EVENTS_PER_MS, 1_000 + number);
        let at = format!("audit({}.{:03}:{})", BEGAN + ms / 1_000, ms % 1_000, number + 1);
        writeln!(
            to,
            "type=SYSCALL msg={at}: arch=c000003e syscall=59 success=yes exit=0 a0=55d0c8 a1=55d0d0 a2=55d0e0 a3=8 items=2 \
             ppid=999 pid={pid} auid=1000 uid=1000 gid=1000 euid=1000 suid=1000 fsuid=1000 egid=1000 sgid=1000 fsgid=1000 \
             tty=(none) ses=3 comm=\"git\" exe=\"/usr/bin/git\" subj=unconfined key=\"exec\""
        )?;
        writeln!(to, "type=EXECVE msg={at}: argc=3 a0=\"git\" a1=\"status\" a2=\"--porcelain\"")?;
        writeln!(to, "type=CWD msg={at}: cwd=\"/srv/agents/42\"")?;
        writeln!(to, "type=PROCTITLE msg={at}: proctitle=67697400737461747573002D2D706F7263656C61696E")?;
    }
    to.flush().context("writing a log of auditd")?;
    Ok((file, 1_000 + count / 2))
}

/// auditd's own reader of this name.
pub(super) fn auditd_tool(name: &str) -> Result<Vec<String>> {
    match place::which(name) {
        Some(path) => Ok(vec![path.display().to_string()]),
        None => Ok(Unpacked::of(&["auditd", "libauparse0"])?.words(&format!("sbin/{name}"))),
    }
}

fn first(file: &Path, count: usize) -> Result<impl Iterator<Item = std::io::Result<String>>> {
    let from = File::open(file).with_context(|| format!("opening {}", file.display()))?;
    Ok(BufReader::new(from).lines().take(count))
}

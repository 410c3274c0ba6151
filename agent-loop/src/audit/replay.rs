//! Reads the log of a run back: what a new daemon has to know of what an earlier one wrote.
//!
//! Tolerant of fields it does not know. A line that is not JSON is skipped only where a `log.torn` follows it, which
//! the next writer puts there; any other makes the log unusable, and the kernel's count then declares what it said.

use std::collections::BTreeMap;
use std::io::{self, BufRead};

use serde::Deserialize;

use crate::event::Launched;
use crate::model::{PidfsIno, ProcessKey, Totals, WaitStatus};
use crate::track::{Accounts, Restored, Survivor};

/// What a log says of its run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// The number of the next line.
    pub next_seq: u64,
    /// Whether the last line has no end: a writer died in the middle of it.
    pub torn: bool,
    /// Whether the run's end stands in it.
    pub ended: bool,
    living: BTreeMap<ProcessKey, Survivor>,
    main: Option<ProcessKey>,
    main_died: Option<Option<WaitStatus>>,
    main_execed: bool,
    births: u64,
    deaths: u64,
    accounts: Accounts,
    next_gap: u64,
}

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// Reading failed.
    #[error("reading the log: {0}")]
    Io(#[from] io::Error),
    /// A line is not what a log holds.
    #[error("line {line} of the log is not a record: {why}")]
    NotARecord {
        /// Which, from 1.
        line: u64,
        /// What is wrong with it.
        why: String,
    },
}

/// A line, as far as it matters here.
#[derive(Deserialize)]
struct Line {
    seq: u64,
    kind: String,
    proc: Option<Process>,
    parent: Option<Process>,
    inferred: Option<u64>,
    exec: Option<ExecPart>,
    exit: Option<ExitPart>,
    gap: Option<GapPart>,
    stats: Option<StatsPart>,
}

#[derive(Deserialize)]
struct Process {
    pid: u32,
    start_ns: Option<u64>,
    pidfs_ino: Option<u64>,
}

#[derive(Deserialize)]
struct ExecPart {
    argv: Vec<String>,
}

#[derive(Deserialize)]
struct ExitPart {
    code: Option<u8>,
    signal: Option<u8>,
    core: Option<bool>,
}

#[derive(Deserialize)]
struct GapPart {
    id: u64,
    cause: String,
    lost: Three,
}

#[derive(Deserialize)]
struct StatsPart {
    filtered: Three,
    late: Three,
}

#[derive(Clone, Copy, Deserialize)]
struct Three {
    fork: u64,
    exec: u64,
    exit: u64,
}

impl Replayed {
    /// Reads a log from its beginning.
    ///
    /// # Errors
    /// [`ReplayError`]; a log that is empty is none.
    pub fn read(mut from: impl BufRead) -> Result<Self, ReplayError> {
        let mut replayed = Self { next_gap: 1, ..Self::default() };
        let mut bad: Option<(u64, String)> = None;
        let mut text = Vec::new();
        for number in 1.. {
            text.clear();
            if from.read_until(b'\n', &mut text)? == 0 {
                break;
            }
            if !text.ends_with(b"\n") {
                replayed.torn = true;
                break;
            }
            match serde_json::from_slice::<Line>(&text) {
                Ok(line) => {
                    let torn = line.kind == "log.torn";
                    if let Some((line, why)) = bad.take_if(|_| !torn) {
                        return Err(ReplayError::NotARecord { line, why });
                    }
                    bad = None;
                    replayed.take(line);
                }
                Err(error) => {
                    if let Some((line, why)) = bad.replace((number, error.to_string())) {
                        return Err(ReplayError::NotARecord { line, why });
                    }
                }
            }
        }
        match bad {
            // Its writer died before it could say so.
            Some((line, why)) if !replayed.torn => Err(ReplayError::NotARecord { line, why }),
            Some(_) | None => Ok(replayed),
        }
    }

    fn take(&mut self, line: Line) {
        self.next_seq = line.seq + 1;
        match line.kind.as_str() {
            "run.born" => {
                if let Some(key) = line.proc.as_ref().and_then(Process::key) {
                    self.main = Some(key);
                    self.births += 1;
                    self.accounts.births.emitted += 1;
                }
            }
            "proc.fork" => self.fork(&line),
            "proc.exec" => self.exec(line),
            "proc.exit" => self.exit(&line),
            "gap" => self.gap(line.gap),
            "stats" => {
                if let Some(stats) = line.stats {
                    self.accounts.execs.filtered = stats.filtered.exec;
                    self.accounts.births.late = stats.late.fork;
                    self.accounts.execs.late = stats.late.exec;
                    self.accounts.deaths.late = stats.late.exit;
                }
            }
            "run.exit" => self.ended = true,
            // The rest says nothing about who lives and what was counted.
            _ => {}
        }
    }

    fn fork(&mut self, line: &Line) {
        let Some(proc) = &line.proc else { return };
        let Some(key) = proc.key() else { return };
        self.births += 1;
        match line.inferred {
            None => self.accounts.births.emitted += 1,
            Some(_) => self.accounts.births.inferred += 1,
        }
        let survivor = Survivor {
            key,
            ino: proc.pidfs_ino.map(PidfsIno),
            forker: line.parent.as_ref().and_then(Process::key),
            argv: Vec::new(),
        };
        self.living.insert(key, survivor);
    }

    fn exec(&mut self, line: Line) {
        let (Some(key), Some(exec)) = (line.proc.as_ref().and_then(Process::key), line.exec) else { return };
        self.accounts.execs.emitted += 1;
        if self.main == Some(key) {
            // The launcher's own exec came before it and was left out.
            self.main_execed = true;
            self.accounts.execs.filtered = self.accounts.execs.filtered.max(1);
        } else if let Some(survivor) = self.living.get_mut(&key) {
            survivor.argv = exec.argv;
        }
    }

    fn exit(&mut self, line: &Line) {
        let Some(key) = line.proc.as_ref().and_then(Process::key) else { return };
        self.deaths += 1;
        match line.inferred {
            None => self.accounts.deaths.emitted += 1,
            Some(_) => self.accounts.deaths.inferred += 1,
        }
        self.living.remove(&key);
        if self.main == Some(key) {
            self.main_died = Some(line.exit.as_ref().and_then(ExitPart::status));
        }
    }

    fn gap(&mut self, gap: Option<GapPart>) {
        let Some(gap) = gap else { return };
        self.next_gap = self.next_gap.max(gap.id + 1);
        // What a ring lost the kernel counts itself; what these declare, nobody else does.
        if gap.cause == "no_death" || gap.cause == "restart" {
            self.accounts.births.declared += gap.lost.fork;
            self.accounts.execs.declared += gap.lost.exec;
            self.accounts.deaths.declared += gap.lost.exit;
        }
    }

    /// What a tracker needs to go on with the run that was born like this.
    #[must_use]
    pub fn restored(self, launched: Launched, baseline: Totals) -> Restored {
        let mut restored = Restored {
            baseline,
            living: self.living.into_values().filter(|survivor| survivor.key != launched.key).collect(),
            births: self.births,
            deaths: self.deaths,
            accounts: self.accounts,
            main_died: self.main_died,
            main_execed: self.main_execed,
            next_gap: self.next_gap.max(1),
            launched,
        };
        if self.main.is_none() {
            // The birth was made durable elsewhere, and its line never written: its record was read.
            restored.births += 1;
            restored.accounts.births.emitted += 1;
        }
        restored
    }

    /// Whether the birth of the main process stands in it.
    #[must_use]
    pub fn is_born(&self) -> bool {
        self.main.is_some()
    }
}

impl Process {
    fn key(&self) -> Option<ProcessKey> {
        self.start_ns.map(|start| ProcessKey::new(self.pid, start))
    }
}

impl ExitPart {
    fn status(&self) -> Option<WaitStatus> {
        match (self.code, self.signal) {
            (Some(code), _) => Some(WaitStatus::Exited(code)),
            (None, Some(signal)) => Some(WaitStatus::Signaled { signal, core: self.core.unwrap_or(false) }),
            (None, None) => None,
        }
    }
}

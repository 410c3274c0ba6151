//! Reads the log of a run back: what a new daemon has to know of what an earlier one wrote.
//!
//! Tolerant of fields it does not know. A line that is not JSON is skipped only where a `log.torn` follows it, which
//! the next writer puts there; any other makes the log unusable, and the kernel's count then declares what it said.

use std::io::{self, BufRead};

use serde::Deserialize;

use crate::event::{Cause, Fact, Gap, GapCause, GapId};
use crate::model::{Birth, BootNs, Death, Discovery, Exec, PidfsIno, ProcessKey, RunTag, Source, WaitStatus};
use crate::track::Restored;

/// What a log says of its run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// The number of the next line.
    pub next_seq: u64,
    /// Whether the last line has no end: a writer died in the middle of it.
    pub torn: bool,
    /// Whether the birth of the main process stands in it.
    pub born: bool,
    /// Whether the run's end stands in it.
    pub ended: bool,
    /// Who asked for its end, and what of its output is missing, one sentence each.
    pub told: Vec<String>,
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

/// A count of a log. A larger one was not written by us; their sums fit their type whatever a damaged line says.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "u64")]
struct Count(u64);

impl TryFrom<u64> for Count {
    type Error = String;

    fn try_from(count: u64) -> Result<Self, String> {
        if count < 1 << 40 { Ok(Self(count)) } else { Err(format!("no log counts to {count}")) }
    }
}

/// A line, as far as it matters here.
#[derive(Deserialize)]
struct Line {
    seq: Count,
    kind: String,
    boot_ns: u64,
    proc: Option<Process>,
    inferred: Option<Count>,
    exec: Option<ExecPart>,
    exit: Option<ExitPart>,
    gap: Option<GapPart>,
    why: Option<String>,
}

#[derive(Deserialize)]
struct Process {
    pid: u32,
    start_ns: u64,
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
    id: Count,
    cause: String,
    lost: Three,
    untracked: Count,
    missed: Count,
    from_ns: u64,
    to_ns: u64,
    inferred: Three,
    repaired: bool,
}

#[derive(Clone, Copy, Deserialize)]
struct Three {
    fork: Count,
    exec: Count,
    exit: Count,
}

impl Replayed {
    /// Reads a log from its beginning; what it says of processes is taken into `restored`.
    ///
    /// # Errors
    /// [`ReplayError`]; a log that is empty is none.
    pub fn read(mut from: impl BufRead, mut restored: Option<&mut Restored>) -> Result<Self, ReplayError> {
        let mut replayed = Self::default();
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
                    replayed.take(&line);
                    if let (Some(restored), Some(fact)) = (restored.as_deref_mut(), line.fact()) {
                        restored.take(&fact);
                    }
                }
                Err(error) => {
                    if let Some((line, why)) = bad.replace((number, error.to_string())) {
                        return Err(ReplayError::NotARecord { line, why });
                    }
                }
            }
        }
        match bad {
            // Its writer died before it could say so: the torn end of another one follows.
            Some((line, why)) if !replayed.torn => Err(ReplayError::NotARecord { line, why }),
            Some(_) | None => Ok(replayed),
        }
    }

    fn take(&mut self, line: &Line) {
        self.next_seq = line.seq.0 + 1;
        self.born |= line.kind == "run.born";
        self.ended |= line.kind == "run.exit";
        let why = line.why.as_deref().unwrap_or("unknown");
        match line.kind.as_str() {
            "run.stop_asked" => self.told.push(end_asked(why)),
            "run.output_unheard" => self.told.push(output_unheard(why)),
            _ => {}
        }
    }
}

/// What people are told of a `run.stop_asked`.
#[must_use]
pub fn end_asked(why: &str) -> String {
    format!("Its end was {why}.")
}

/// What people are told of a `run.output_unheard`.
#[must_use]
pub fn output_unheard(why: &str) -> String {
    format!("The end of its output may be missing: {why}.")
}

impl Line {
    /// The fact it was written from, as far as a tracker goes on with it; the birth of the main process is not one.
    fn fact(&self) -> Option<Fact> {
        let at = BootNs(self.boot_ns);
        let inferred = self.inferred.map(|Count(id)| GapId(id));
        // What a line does not have in a form that could be read back says nothing about who lives.
        let run = RunTag(0);
        match self.kind.as_str() {
            "proc.fork" => {
                let (key, ino) = self.proc.as_ref()?.who();
                let birth =
                    Birth { key, ino, run, forker: None, parent_tgid: None, uid: None, at, discovery: Discovery::Fork };
                Some(Fact::Fork { birth, inferred })
            }
            "proc.exec" => {
                let (key, _) = self.proc.as_ref()?.who();
                let argv = self.exec.as_ref()?.argv.clone();
                Some(Fact::Exec(Exec { argv, ..Exec::empty(key, run, at) }))
            }
            "proc.exit" => {
                let (key, ino) = self.proc.as_ref()?.who();
                let status = self.exit.as_ref()?.status();
                let death = Death { key, ino, run, forker: None, status, at, source: Source::Kernel };
                Some(Fact::Exit { death, cause: Cause::Unknown, inferred })
            }
            "gap" => self.gap.as_ref()?.read().map(Fact::Gap),
            _ => None,
        }
    }
}

impl Process {
    fn who(&self) -> (ProcessKey, Option<PidfsIno>) {
        (ProcessKey::new(self.pid, self.start_ns), self.pidfs_ino.map(PidfsIno))
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

impl GapPart {
    fn read(&self) -> Option<Gap> {
        Some(Gap {
            id: GapId(self.id.0),
            cause: GapCause::of_word(&self.cause)?,
            lost_fork: self.lost.fork.0,
            lost_exec: self.lost.exec.0,
            lost_exit: self.lost.exit.0,
            untracked: self.untracked.0,
            missed: self.missed.0,
            from: BootNs(self.from_ns),
            to: BootNs(self.to_ns),
            inferred_births: self.inferred.fork.0,
            inferred_deaths: self.inferred.exit.0,
            repaired: self.repaired,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{Clock, Recorder};
    use crate::event::Launched;
    use crate::model::Totals;

    const MAIN: ProcessKey = ProcessKey { tgid: 70, start_boottime_ns: 7_000 };
    const CHILD: ProcessKey = ProcessKey { tgid: 71, start_boottime_ns: 7_100 };

    #[test]
    fn a_number_that_nobody_counts_to_is_no_record() {
        let line = |seq: u64, id: u64| {
            format!(
                r#"{{"seq":{seq},"kind":"gap","boot_ns":1,"gap":{{"id":{id},"cause":"restart","lost":{{"fork":1,"exec":1,"exit":1}},"untracked":0,"missed":0,"from_ns":0,"to_ns":1,"inferred":{{"fork":0,"exec":0,"exit":0}},"repaired":true}}}}
"#
            )
        };
        let read = |text: String| {
            let mut restored = Restored::new(launched(), Totals::default());
            Replayed::read(text.as_bytes(), Some(&mut restored)).map(|replayed| (replayed.next_seq, restored.next_gap))
        };
        assert_eq!(read(line(7, 3)).expect("a record"), (8, 4));
        for text in [line(u64::MAX, 3), line(7, u64::MAX)] {
            assert!(matches!(read(text), Err(ReplayError::NotARecord { line: 1, .. })));
        }
    }

    fn launched() -> Launched {
        Launched { key: MAIN, ino: None, run: RunTag(9), at: BootNs(7_000), traced: true }
    }

    fn birth(key: ProcessKey) -> Birth {
        Birth {
            key,
            ino: Some(PidfsIno(5)),
            run: RunTag(9),
            forker: Some(MAIN),
            parent_tgid: None,
            uid: None,
            at: BootNs(7_100),
            discovery: Discovery::Fork,
        }
    }

    fn log(facts: &[Fact]) -> String {
        let mut recorder =
            Recorder::new("boot".to_owned(), "run".to_owned(), vec!["sh".to_owned()], "nobody".to_owned());
        let clock = Clock { boot: BootNs(8_000), real_ns: 9_000 };
        let lines = facts.iter().filter_map(|fact| recorder.fact(fact, clock));
        let text =
            |(seq, line): (u64, crate::audit::Line)| serde_json::to_string(&line.numbered(seq)).expect("JSON") + "\n";
        (0..).zip(lines).map(text).collect()
    }

    fn facts() -> Vec<Fact> {
        let exec =
            Exec { argv: vec!["make".to_owned(), "all".to_owned()], ..Exec::empty(CHILD, RunTag(9), BootNs(7_200)) };
        let status = Some(WaitStatus::Signaled { signal: 9, core: true });
        let death = Death {
            key: CHILD,
            ino: None,
            run: RunTag(9),
            forker: None,
            status,
            at: BootNs(7_300),
            source: Source::Kernel,
        };
        vec![
            Fact::RunBorn(launched()),
            Fact::Fork { birth: birth(CHILD), inferred: None },
            Fact::Exec(exec),
            Fact::Exit { death, cause: Cause::Signal, inferred: None },
        ]
    }

    fn read(text: &str) -> (Result<Replayed, ReplayError>, Restored) {
        let mut restored = Restored::new(launched(), Totals::default());
        (Replayed::read(text.as_bytes(), Some(&mut restored)), restored)
    }

    #[test]
    fn a_log_reads_back_as_the_facts_it_was_written_from() {
        let facts = facts();
        for cut in 1..=facts.len() {
            let so_far: Vec<Fact> = facts.iter().take(cut).cloned().collect();
            let (replayed, restored) = read(&log(&so_far));
            let replayed = replayed.expect("a log");
            assert_eq!(replayed.next_seq, u64::try_from(cut).expect("few"));
            assert!(replayed.born && !replayed.torn && !replayed.ended);
            let mut direct = Restored::new(launched(), Totals::default());
            so_far.iter().for_each(|fact| direct.take(fact));
            for survivor in &mut direct.living {
                // Its line names the forker by its id alone.
                survivor.forker = None;
            }
            assert_eq!(restored, direct, "after {cut} facts");
        }
    }

    #[test]
    fn a_torn_end_is_told_and_what_stands_before_it_counts() {
        let whole = log(&facts());
        for cut in 1..whole.len() {
            let (replayed, _) = read(whole.get(..cut).expect("ASCII"));
            let replayed = replayed.expect("a torn log is read");
            assert_eq!(replayed.torn, !whole.as_bytes()[..cut].ends_with(b"\n"), "cut at {cut}");
        }
    }

    #[test]
    fn a_line_that_is_none_is_skipped_only_before_the_word_that_declares_it() {
        let facts = log(&facts());
        let (first, rest) = facts.split_once('\n').expect("lines");
        let torn = r#"{"seq":1,"kind":"log.torn","boot_ns":1}"#;
        assert!(read(&format!("{first}\n{{\"seq\":1,\"ki\n{torn}\n")).0.is_ok());
        let (read_back, _) = read(&format!("{first}\n{{\"seq\":1,\"ki\n{rest}"));
        assert!(matches!(read_back, Err(ReplayError::NotARecord { line: 2, .. })), "{read_back:?}");
    }

    #[test]
    fn every_cause_of_a_gap_has_a_word_that_reads_back() {
        for cause in GapCause::ALL {
            assert_eq!(GapCause::of_word(cause.word()), Some(cause));
        }
    }
}

//! Records as a host that is busy writes them: runs, and in each births, execs and deaths.

use std::path::Path;
use std::time::{Duration, Instant};

use agent_loop::audit::log::{AuditLog, Place, Settings};
use agent_loop::audit::{Clock, Line, Recorder};
use agent_loop::event::{Cause, Fact, Launched};
use agent_loop::model::{Birth, BootNs, Death, Discovery, Exec, ProcessKey, RunTag, Source, WaitStatus};
use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

pub(super) const BOOT: &str = "7c1e0a52-0000-4000-8000-000000000001";
/// How many records a run has.
const OF_A_RUN: u64 = 1_000;
const PATIENCE: Duration = Duration::from_secs(120);

/// Record after record, without end.
#[derive(Default)]
pub(super) struct Story {
    number: u64,
    recorder: Option<Recorder>,
}

/// The id of a run.
fn run(number: u64) -> String {
    format!("01KAWXJ7{number:018}")
}

fn recorder(number: u64) -> Recorder {
    let words = ["claude", "-p", "mend the build"].map(str::to_owned).to_vec();
    Recorder::new(BOOT.to_owned(), run(number), words, "agent".to_owned())
}

impl Story {
    /// A record that is durable before what it announces.
    pub(super) fn intent() -> Line {
        recorder(0).intent(clock(0))
    }
}

fn clock(number: u64) -> Clock {
    Clock { boot: BootNs(number * 1_000), real_ns: 1_795_356_000_000_000_000 + i128::from(number) * 1_000 }
}

impl Iterator for Story {
    type Item = Line;

    fn next(&mut self) -> Option<Line> {
        let number = self.number;
        self.number += 1;
        let (at, now) = (BootNs(number * 1_000), clock(number));
        let main = ProcessKey::new(70, number / OF_A_RUN + 1);
        let tag = RunTag(number / OF_A_RUN);
        if number.is_multiple_of(OF_A_RUN) {
            let born = Launched { key: main, ino: None, run: tag, at, traced: true };
            let mut recorder = recorder(number / OF_A_RUN);
            let line = recorder.fact(&Fact::RunBorn(born), now);
            self.recorder = Some(recorder);
            return line;
        }
        // A birth, an exec and a death of each process.
        let life = number / 3;
        let key = ProcessKey::new(100 + u32::try_from(life % 30_000).unwrap_or(0), life * 3_000);
        let fact = match number % 3 {
            0 => Fact::Fork {
                birth: Birth {
                    key,
                    ino: None,
                    run: tag,
                    forker: Some(main),
                    parent_tgid: Some(70),
                    uid: Some(1_000),
                    at,
                    discovery: Discovery::Fork,
                },
                inferred: None,
            },
            1 => {
                let argv = vec!["git".to_owned(), "status".to_owned(), format!("--porcelain=v{}", life % 97)];
                let exec = Exec {
                    filename: "/usr/bin/git".to_owned(),
                    argc: 3,
                    argv_total: 30,
                    argv,
                    cwd: Some("/srv/w/42".to_owned()),
                    file: Some((64_769, 4_711)),
                    uid: Some(1_000),
                    ..Exec::empty(key, tag, at)
                };
                Fact::Exec(exec)
            }
            _ => Fact::Exit {
                death: Death {
                    key,
                    ino: None,
                    run: tag,
                    forker: Some(main),
                    status: Some(WaitStatus::Exited(0)),
                    at,
                    source: Source::Kernel,
                },
                cause: Cause::Exited,
                inferred: None,
            },
        };
        self.recorder.as_mut()?.fact(&fact, now)
    }
}

/// Writes a log of this many records, in segments as a daemon has them; the id of a run in the middle beside.
pub(super) fn write(dir: &Path, records: u64) -> anyhow::Result<Value> {
    let settings = Settings { reserve: 0, low_water: 0, ..Settings::default() };
    let (mut log, _) = AuditLog::open(&Place::below(dir), settings, BOOT)?;
    let began = Instant::now();
    let mut story = Story::default();
    for number in 0..records {
        let line = story.next().context("it has no end")?;
        ensure!(log.append(line).is_some(), "the log takes no more lines");
        if number.is_multiple_of(5_000) {
            ensure!(log.durable(PATIENCE), "the log does not become durable");
        }
    }
    let progress = log.close();
    ensure!(progress.signed == progress.durable, "the log is not signed to its end");
    let middle = records / 2 / OF_A_RUN;
    Ok(json!({ "lines": progress.durable, "run": run(middle), "seconds": began.elapsed().as_secs_f64() }))
}

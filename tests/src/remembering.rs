//! A process that takes the lock of a state directory and saves runs until it is killed: what the tests of the store
//! hit. It says on standard output what it has done.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use agent_loop::run::{Limits, RunId, RunRecord, Stage, Submission};
use agent_loop::store::{SqliteStore, StateDir, Store, StoreError};
use agent_loop::supervise::Leftovers;

/// What it says once it has the lock.
pub const LOCKED: &str = "locked";
/// The most saves of one life.
const MOST: u64 = 5_000;

/// The record of one save: each run is saved twice, as queued and then as intended.
#[must_use]
pub fn record(save: u64) -> RunRecord {
    RunRecord {
        told: Vec::new(),
        id: id(save / 2),
        attempt: 1,
        submission: Submission {
            argv: vec!["agent".to_owned(), format!("{save:0>2000}")],
            env: Vec::new(),
            cwd: "/".into(),
            user: "nobody".to_owned(),
            stdin: None,
            limits: Limits::default(),
            grace: Duration::from_secs(10),
            leftovers: Leftovers::Kill,
            asked_by: 0,
            withheld: false,
            part: None,
        },
        submitted_unix_ns: i64::try_from(save).unwrap_or_default(),
        boot_id: String::new(),
        stage: if save.is_multiple_of(2) { Stage::Queued } else { Stage::Intended(None) },
    }
}

fn id(number: u64) -> RunId {
    // Digits alone are a ULID.
    format!("{number:026}").parse().expect("26 digits")
}

/// What stands after this many saves, by age.
#[must_use]
pub fn after(saves: u64) -> Vec<RunRecord> {
    let last: BTreeMap<RunId, RunRecord> = (0..saves).map(|save| (record(save).id, record(save))).collect();
    last.into_values().collect()
}

/// How many saves these are the result of.
#[must_use]
pub fn saves(runs: &[RunRecord]) -> u64 {
    let newest = runs.last().map_or(0, |run| 1 + u64::from(run.stage == Stage::Intended(None)));
    (runs.len() as u64).saturating_sub(1) * 2 + newest
}

/// Everything that a store remembers, by age.
///
/// # Errors
/// As the store's.
pub fn remembered(store: &SqliteStore) -> Result<Vec<RunRecord>, StoreError> {
    let mut runs = store.latest(u32::MAX)?;
    runs.reverse();
    Ok(runs)
}

/// The program: `store_writer hold DIR` keeps the lock until its standard input ends, `store_writer save DIR` goes on
/// saving after what is there, and says the number of each save once it is done.
#[must_use]
pub fn run() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [verb, dir] = &args[..] else { return ExitCode::from(2) };
    let done = match verb.as_str() {
        "hold" => hold(Path::new(dir)),
        "save" => save(Path::new(dir)),
        _ => return ExitCode::from(2),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn hold(dir: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let _lock = StateDir::open(dir)?.lock()?;
    say(LOCKED)?;
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn save(dir: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let state = StateDir::open(dir)?;
    let _lock = state.lock()?;
    let mut store = SqliteStore::open(&state)?;
    let done = saves(&remembered(&store)?);
    say(LOCKED)?;
    for number in done..done + MOST {
        store.save(&record(number))?;
        say(&number.to_string())?;
    }
    Ok(())
}

fn say(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

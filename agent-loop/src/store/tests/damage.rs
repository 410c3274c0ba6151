//! A damaged database is refused, or reads exactly as it was written. It is never read as less.

use std::fs;

use rusqlite::types::Value;

use super::samples::samples;
use super::{Scratch, all};
use crate::run::{RunRecord, Stage};
use crate::store::{SqliteStore, Store as _, StoreError, row};

/// What a small database holds: one run of each stage.
fn few() -> Vec<RunRecord> {
    let samples = samples();
    let ended = samples.iter().find(|run| matches!(run.stage, Stage::Ended(_))).expect("there is one");
    let mut few = [&samples[0], &samples[1], &samples[3], ended].map(Clone::clone);
    for (number, run) in few.iter_mut().enumerate() {
        // No two submissions are the same, so that each is found in the file.
        run.submission.user = format!("agent-{number}");
    }
    few[3].tell("Its end was asked for.".to_owned());
    few.to_vec()
}

/// Opens what is there. It must be refused and left as it is, or hold exactly `wanted`.
fn refused_or_exactly(scratch: &Scratch, bytes: &[u8], wanted: &[RunRecord], what: &str) -> bool {
    match scratch.open() {
        Ok(store) => {
            assert_eq!(all(&store), wanted, "{what}");
            false
        }
        Err(error) => {
            assert!(matches!(error, StoreError::Corrupt(_) | StoreError::Newer(_)), "{what}: {error:?}");
            assert!(fs::read(scratch.file("")).expect("it is there") == bytes, "{what}: it was changed");
            true
        }
    }
}

#[test]
fn a_database_cut_at_any_byte_is_refused() {
    let scratch = Scratch::new();
    let runs = few();
    let whole = scratch.holding(&runs);
    assert!(whole.len() <= 16 * 4096, "cut at every byte of {}", whole.len());
    for length in 0..whole.len() {
        let part = &whole[..length];
        scratch.put(part);
        assert!(refused_or_exactly(&scratch, part, &runs, &format!("cut at {length}")), "cut at {length}");
    }
    scratch.put(&whole);
    assert!(!refused_or_exactly(&scratch, &whole, &runs, "whole"));
}

/// Flips these bits one by one; returns how many were refused.
fn flip(scratch: &Scratch, whole: &[u8], runs: &[RunRecord], bits: impl IntoIterator<Item = usize>) -> usize {
    let mut refused = 0;
    let mut bytes = whole.to_vec();
    for bit in bits {
        bytes[bit / 8] ^= 1 << (bit % 8);
        scratch.put(&bytes);
        refused += usize::from(refused_or_exactly(scratch, &bytes, runs, &format!("bit {bit}")));
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
    refused
}

/// The bits of a page that mean something: those of its bytes that are not part of a run of 64 zeros.
fn meant(whole: &[u8], page: std::ops::Range<usize>) -> Vec<usize> {
    let zeros =
        |at: usize| whole[at.saturating_sub(32).max(page.start)..(at + 32).min(page.end)].iter().all(|it| *it == 0);
    page.clone().filter(|at| !zeros(*at)).flat_map(|at| at * 8..at * 8 + 8).collect()
}

#[test]
fn any_bit_flipped_in_the_header_is_found_or_without_meaning() {
    let scratch = Scratch::new();
    let runs = few();
    let whole = scratch.holding(&runs);
    // The header of the file, of its first tree, and the whole schema; the zeros between them are sampled below.
    let bits = meant(&whole, 0..4096);
    let refused = flip(&scratch, &whole, &runs, bits.iter().copied());
    assert!(refused > bits.len() / 2, "{refused} of {}", bits.len());
}

#[test]
fn a_sample_of_bits_flipped_in_the_rows_is_found() {
    let scratch = Scratch::new();
    let runs = few();
    let whole = scratch.holding(&runs);
    let mut bits = Vec::new();
    for run in &runs {
        let values = row::write(run).expect("it has a form");
        let texts = values.iter().filter_map(|value| match value {
            Value::Text(text) => Some(text.as_bytes()),
            Value::Null | Value::Integer(_) | Value::Real(_) | Value::Blob(_) => None,
        });
        let sum = row::sum(&values);
        for needle in texts.chain([&sum[..]]) {
            let found = whole.windows(needle.len()).enumerate().filter(|(_, part)| *part == needle);
            let found: Vec<usize> = found.map(|(at, _)| at).collect();
            // What several rows share, or a page keeps a stale copy of, is left to the sample below.
            if let [at] = found[..] {
                bits.extend(at * 8..(at + needle.len()) * 8);
            }
        }
    }
    assert!(bits.len() > 8 * 1000, "only {} bits of rows were found in the file", bits.len());
    // A step that shares no factor with 8 meets every bit of a byte in turn.
    let sample: Vec<usize> = bits.into_iter().step_by(13).collect();
    assert_eq!(flip(&scratch, &whole, &runs, sample.iter().copied()), sample.len());
}

#[test]
fn a_sample_of_bits_flipped_anywhere_is_found_or_without_meaning() {
    let scratch = Scratch::new();
    let runs = few();
    let whole = scratch.holding(&runs);
    let bits = whole.len() * 8;
    assert!(flip(&scratch, &whole, &runs, (0..bits).step_by(61)) > 100);
}

#[test]
fn a_log_that_was_not_folded_is_read_and_a_torn_one_gives_the_state_before() {
    let scratch = Scratch::new();
    let runs = few();
    let (last, before) = runs.split_last().expect("some");
    let mut store = scratch.store();
    for run in before {
        store.save(run).expect("there is room");
    }
    store.write(last).expect("there is room");
    // As a SIGKILL between the two leaves it. Taken from a copy: SQLite has its locks in this process.
    let (db, log) = (fs::read(scratch.file("")).expect("ours"), fs::read(scratch.file("-wal")).expect("ours"));
    drop(store);
    assert!(!log.is_empty());

    let other = Scratch::new();
    let mut torn = 0;
    for length in (0..=log.len()).rev().step_by(7).chain([0]) {
        other.put(&db);
        other.put_as("-wal", &log[..length]);
        let found = all(&other.store());
        assert!(found == runs || found == before, "cut at {length}");
        assert_eq!(found == runs, length == log.len(), "cut at {length}");
        torn += usize::from(found == before);
    }
    assert!(torn > 10);
}

#[test]
fn a_refused_database_and_its_log_stay_as_they_are() {
    let scratch = Scratch::new();
    let mut store = scratch.store();
    let runs = few();
    store.save(&runs[0]).expect("there is room");
    store.write(&runs[1]).expect("there is room");
    store.db.execute("UPDATE runs SET boot_id = 'x'", []).expect("ours");
    let (db, log) = (fs::read(scratch.file("")).expect("ours"), fs::read(scratch.file("-wal")).expect("ours"));
    drop(store);

    let other = Scratch::new();
    other.put(&db);
    other.put_as("-wal", &log);
    for _ in 0..2 {
        let error = other.open().expect_err("a row was changed");
        assert!(error.to_string().contains("was changed"), "{error}");
        assert!(fs::read(other.file("")).expect("ours") == db && fs::read(other.file("-wal")).expect("ours") == log);
    }
}

#[test]
fn a_database_without_its_file_beside_its_log_is_refused() {
    let scratch = Scratch::new();
    let whole = scratch.holding(&few());
    for (ending, said) in [("-wal", "it is missing"), ("-shm", "it is missing"), ("-journal", "-journal")] {
        scratch.put(&whole);
        fs::remove_file(scratch.file("")).expect("ours");
        scratch.put_as(ending, b"");
        let error = scratch.open().expect_err("refused");
        assert!(matches!(&error, StoreError::Corrupt(why) if why.contains(said)), "{error}");
        assert!(!scratch.file("").exists());
        fs::remove_file(scratch.file(ending)).expect("ours");
    }
    assert_eq!(all(&scratch.store()), [], "no trace of another: a new one");
}

#[test]
fn a_crash_while_the_first_one_is_made_is_made_good() {
    let scratch = Scratch::new();
    drop(scratch.state());
    scratch.put_as(".new", b"half");
    scratch.put_as(".new-wal", b"half");
    assert_eq!(all(&scratch.store()), []);
    assert!(!scratch.file(".new").exists());
}

/// Changes the database as somebody with the `sqlite3` program would.
pub(super) fn edit(scratch: &Scratch, statement: &str) {
    let db = rusqlite::Connection::open(scratch.file("")).expect("ours");
    let _: String = db.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0)).expect("ours");
    db.execute_batch(statement).unwrap_or_else(|error| panic!("{statement}: {error}"));
}

#[test]
fn every_edit_by_hand_is_found() {
    let scratch = Scratch::new();
    let runs = few();
    let whole = scratch.holding(&runs);
    let (queued, born) = (runs[0].id, runs[2].id);
    for (statement, said) in [
        ("DELETE FROM runs WHERE stage = 'ended'", "its rows are not those"),
        (&*format!("DELETE FROM runs WHERE id = '{queued}'"), "its rows are not those"),
        ("DELETE FROM runs", "its rows are not those"),
        ("DELETE FROM census", "count of its rows"),
        ("UPDATE census SET runs = runs - 1", "its rows are not those"),
        ("UPDATE census SET digests = zeroblob(32)", "its rows are not those"),
        (&*format!("UPDATE runs SET id = '{}' WHERE id = '{queued}'", samples()[9].id), "was changed"),
        ("UPDATE runs SET attempt = attempt + 1", "was changed"),
        ("UPDATE runs SET submitted_unix_ns = 0", "was changed"),
        ("UPDATE runs SET boot_id = 'x'", "was changed"),
        ("UPDATE runs SET stage = 'ended'", "was changed"),
        ("UPDATE runs SET submission = replace(submission, 'agent', 'root')", "was changed"),
        (&*format!("UPDATE runs SET cgroup = 1 WHERE id = '{born}'"), "was changed"),
        (&*format!("UPDATE runs SET main_tgid = 1 WHERE id = '{born}'"), "was changed"),
        (&*format!("UPDATE runs SET main_start_ns = 1 WHERE id = '{born}'"), "was changed"),
        (&*format!("UPDATE runs SET main_ino = 1 WHERE id = '{born}'"), "was changed"),
        (&*format!("UPDATE runs SET born_ns = 1 WHERE id = '{born}'"), "was changed"),
        (&*format!("UPDATE runs SET deadline_ns = 1 WHERE id = '{born}'"), "was changed"),
        (&*format!("UPDATE runs SET traced = 1 WHERE id = '{born}'"), "was changed"),
        (&*format!("UPDATE runs SET stopping = NULL WHERE id = '{born}'"), "was changed"),
        ("UPDATE runs SET ended = NULL", "was changed"),
        (&*format!("UPDATE runs SET told = '{{\"v\":1,\"sentences\":[\"x\"]}}' WHERE id = '{born}'"), "was changed"),
        ("UPDATE runs SET told = NULL WHERE told IS NOT NULL", "was changed"),
        ("UPDATE runs SET digest = zeroblob(32)", "was changed"),
        ("CREATE VIEW v AS SELECT * FROM runs", "its tables are not those of version 3"),
        ("CREATE TRIGGER t AFTER UPDATE ON runs BEGIN DELETE FROM runs; END", "its tables are not those of version 3"),
        ("CREATE INDEX i ON runs (stage)", "its tables are not those of version 3"),
        ("DROP TABLE census", "its tables are not those of version 3"),
        ("PRAGMA application_id = 1", "it is not a database of agent-loop"),
        ("PRAGMA user_version = 0", "its version is 0"),
        ("PRAGMA user_version = -1", "its version is -1"),
        ("PRAGMA journal_mode = DELETE", "its journal mode is delete"),
        ("PRAGMA user_version = 1", "its tables are not those of version 1"),
        ("PRAGMA user_version = 4", "written by a newer agent-loop (its version is 4, this one knows 3)"),
        ("UPDATE task_census SET tasks = 1", "its tasks are not those"),
        ("UPDATE task_census SET digests = randomblob(32)", "its tasks are not those"),
        ("DROP TABLE task_census", "its tables are not those of version 3"),
        ("INSERT INTO tasks VALUES ('o/r#1', '{}', zeroblob(32))", "its row was changed"),
    ] {
        scratch.put(&whole);
        edit(&scratch, statement);
        let bytes = fs::read(scratch.file("")).expect("ours");
        let error = scratch.open().expect_err(statement);
        assert!(error.to_string().contains(said), "{statement}: {error}");
        assert!(refused_or_exactly(&scratch, &bytes, &runs, statement));
    }
}

/// Writes rows whose digest and census are right, as only somebody who knows them would.
fn forge(scratch: &Scratch, change: impl Fn(&mut Vec<Value>)) -> Result<SqliteStore, StoreError> {
    let run = samples()[3].clone();
    let mut values = row::write(&run).expect("it has a form");
    change(&mut values);
    let sum = row::sum(&values);
    values.push(Value::Blob(sum.to_vec()));
    scratch.put(&scratch.holding(&[]));
    let db = rusqlite::Connection::open(scratch.file("")).expect("ours");
    let marks = vec!["?"; values.len()].join(", ");
    db.execute(
        &format!("INSERT INTO runs ({}, digest) VALUES ({marks})", row::COLUMNS),
        rusqlite::params_from_iter(values),
    )
    .expect("ours");
    db.execute("UPDATE census SET runs = 1, digests = ?1", [sum]).expect("ours");
    drop(db);
    let opened = scratch.open();
    fs::remove_file(scratch.file("")).expect("ours");
    let _ = fs::remove_file(scratch.file("-wal"));
    opened
}

#[test]
fn a_row_with_a_right_digest_is_still_read_strictly() {
    use Value::{Integer, Null, Text};

    let scratch = Scratch::new();
    assert_eq!(all(&forge(&scratch, |_| {}).expect("nothing was changed")), [samples()[3].clone()]);
    let text = |from: &str, to: &str| {
        let run = samples()[3].clone();
        let Some(Text(text)) = row::write(&run).expect("it has a form").into_iter().nth(5) else { panic!("a text") };
        let changed = text.replacen(from, to, 1);
        assert_ne!(text, changed, "{from} is in {text}");
        Text(changed)
    };
    for (column, value, said) in [
        (0, Text("01hf7yat000000000000000019".to_owned()), "would have written otherwise"),
        (0, Text("pid 1".to_owned()), "id: "),
        (1, Integer(-1), "attempt is out of range"),
        (5, Text("{\"pid\": 1}".to_owned()), "unknown field `pid`"),
        (5, Text(String::new()), "EOF"),
        (5, text("{\"v\":1", "{\"v\":2"), "form 2 is not form 1"),
        (5, text("\"v\":1,", "\"v\":1,\"more\":1,"), "unknown field `more`"),
        (5, text("\"wait\"", "\"stay\""), "unknown variant `stay`"),
        (5, text("\"stdin\":\"/srv/prompt\",", ""), "would have written otherwise"),
        (5, text("\"ns\":1}", "\"ns\":1000000000}"), "1000000000 ns"),
        (6, Null, "cgroup is missing"),
        (7, Integer(1 << 32), "main_tgid is out of range"),
        (7, Null, "main_tgid is missing"),
        (8, Null, "main_start_ns is missing"),
        (10, Null, "born_ns is missing"),
        (12, Integer(2), "traced is 2"),
        (12, Null, "traced is missing"),
        (13, Text("\"boredom\"".to_owned()), "unknown variant `boredom`"),
        (14, Null, "suspended_ns is missing"),
        (15, Text("{}".to_owned()), "missing field `v`"),
        (15, Null, "baseline is"),
        (16, Text("{}".to_owned()), "would have written otherwise"),
        (17, Text("{}".to_owned()), "missing field `v`"),
        (17, Text("{\"v\":1,\"sentences\":[]}".to_owned()), "would have written otherwise"),
    ] {
        let error = forge(&scratch, |values| values[column] = value.clone()).expect_err(said);
        assert!(matches!(&error, StoreError::Corrupt(why) if why.contains(said)), "{said}: {error}");
    }
}

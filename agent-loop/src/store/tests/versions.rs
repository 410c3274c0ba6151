//! Old databases are read, newer ones refused, and a migration keeps what was there before.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::samples::{samples, version_1, version_2};
use super::{Scratch, all};
use crate::store::schema::STEPS;
use crate::store::{SqliteStore, Store as _, StoreError};

const VERSION_1: &[u8] = include_bytes!("../../../tests/data/state-v1.db");
const VERSION_2: &[u8] = include_bytes!("../../../tests/data/state-v2.db");

#[test]
fn the_committed_databases_of_older_versions_read_as_what_was_written() {
    for (committed, written) in [(VERSION_1, version_1()), (VERSION_2, version_2())] {
        let scratch = Scratch::new();
        scratch.put(committed);
        let mut store = scratch.store();
        assert_eq!(all(&store), written);
        let mut run = written[0].clone();
        run.attempt += 1;
        assert!(run.tell("Its end was asked for.".to_owned()));
        store.save(&run).expect("there is room");
        drop(store);
        assert_eq!(scratch.store().run(run.id).expect("good"), Some(run));
    }
}

/// Writes `tests/data/state-v3.db` anew, which is done once for each version, before its release:
/// `cargo test -p agent-loop --lib -- --ignored --exact store::tests::versions::write_the_committed_database`
#[test]
#[ignore = "writes a committed file"]
fn write_the_committed_database() {
    let scratch = Scratch::new();
    let bytes = scratch.holding(&samples());
    fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/state-v3.db"), bytes).expect("our tree");
}

/// The ending of the copy that is kept before the next migration.
fn before(more: &str) -> String {
    format!(".v{}{more}", STEPS.len())
}

/// The steps of today and this one.
fn with(step: &'static str) -> Vec<&'static str> {
    STEPS.iter().copied().chain([step]).collect()
}

#[test]
fn a_migration_keeps_a_copy_and_its_database_is_refused_by_the_version_before() {
    let scratch = Scratch::new();
    scratch.put(&scratch.holding(&samples()));
    // Of an attempt before this one; the state has changed since.
    scratch.put_as(&before(""), b"stale");
    scratch.put_as(&before(".new"), b"half");
    let steps = with("CREATE TABLE more (x INTEGER) STRICT");
    for _ in 0..2 {
        let store = SqliteStore::open_with(&scratch.state().0, &steps).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(all(&store), samples());
    }
    let error = scratch.open().expect_err("it is newer");
    assert!(matches!(&error, StoreError::Newer(why) if why.contains("agent-loop.db.v")), "{error}");

    let mode = fs::metadata(scratch.file(&before(""))).expect("it was kept").permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    assert!(!scratch.file(&before(".new")).exists());
    let copy = fs::read(scratch.file(&before(""))).expect("it was kept");
    scratch.put(&copy);
    assert_eq!(all(&scratch.store()), samples());
}

#[test]
fn a_migration_that_fails_changes_nothing() {
    let scratch = Scratch::new();
    scratch.put(&scratch.holding(&samples()));
    for step in ["CREATE TABLE more (x INTEGER) STRICT; DROP TABLE absent", "DELETE FROM runs; SELECT * FROM absent"] {
        let error = SqliteStore::open_with(&scratch.state().0, &with(step)).map(drop).expect_err("no such table");
        assert!(error.to_string().contains("no such table"), "{error}");
        assert_eq!(all(&scratch.store()), samples());
    }
}

#[test]
fn a_migration_that_loses_rows_is_refused() {
    let scratch = Scratch::new();
    scratch.put(&scratch.holding(&samples()));
    let steps = with("DELETE FROM runs WHERE stage = 'queued'");
    let error = SqliteStore::open_with(&scratch.state().0, &steps).map(drop).expect_err("a row is gone");
    assert!(matches!(&error, StoreError::Corrupt(why) if why.contains("its rows are not those")), "{error}");
    assert!(scratch.file(&before("")).exists());
}

//! The store against damage, edits by hand, old versions, and random use. What needs a second process, other
//! owners or a full disk is in `tests/tests/store.rs`.

mod damage;
mod files;
mod property;
mod samples;
mod tasks;
mod versions;

use std::fs;
use std::path::PathBuf;

use super::sqlite::NAME;
use super::{LogDir, SqliteStore, StateDir, Store, StoreError};
use crate::run::{RunRecord, Stage};
use samples::samples;

/// A directory for state that is gone afterwards; in memory where that can be, since nothing here loses power.
struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new() -> Self {
        let mut builder = tempfile::Builder::new();
        builder.prefix("agent-loop-store-");
        Self(builder.tempdir_in("/dev/shm").or_else(|_| builder.tempdir()).expect("a directory"))
    }

    fn state(&self) -> StateDir {
        StateDir::open(&self.0.path().join("state")).expect("it is ours")
    }

    fn log(&self) -> LogDir {
        LogDir::open(&self.0.path().join("log")).expect("it is ours")
    }

    fn store(&self) -> SqliteStore {
        self.open().unwrap_or_else(|error| panic!("{error}"))
    }

    fn open(&self) -> Result<SqliteStore, StoreError> {
        SqliteStore::open(&self.state())
    }

    /// A file of the state, by the ending of the database's name.
    fn file(&self, ending: &str) -> PathBuf {
        self.0.path().join("state").join(format!("{NAME}{ending}"))
    }

    /// Puts a database there, without a log.
    fn put(&self, bytes: &[u8]) {
        drop(self.state());
        self.put_as("", bytes);
        let _ = fs::remove_file(self.file("-wal"));
    }

    fn put_as(&self, ending: &str, bytes: &[u8]) {
        use std::io::Write as _;
        use std::os::unix::fs::OpenOptionsExt as _;

        let mut how = fs::OpenOptions::new();
        let file = how.create(true).write(true).truncate(true).mode(0o600).open(self.file(ending));
        file.and_then(|mut file| file.write_all(bytes)).expect("ours");
    }

    /// The bytes of a database that holds these.
    fn holding(&self, runs: &[RunRecord]) -> Vec<u8> {
        let mut store = self.store();
        for run in runs {
            store.save(run).unwrap_or_else(|error| panic!("{error}"));
        }
        drop(store);
        fs::read(self.file("")).expect("it was made")
    }
}

fn all(store: &SqliteStore) -> Vec<RunRecord> {
    let mut all = store.latest(u32::MAX).unwrap_or_else(|error| panic!("{error}"));
    all.reverse();
    all
}

#[test]
fn what_is_saved_is_read_by_id_by_age_and_by_openness() {
    let scratch = Scratch::new();
    let samples = samples();
    let mut store = scratch.store();
    // Not in the order of their ids, which is what answers come in.
    for run in samples.iter().rev() {
        store.save(run).expect("there is room");
    }
    for _ in 0..2 {
        assert_eq!(all(&store), samples);
        let open: Vec<_> = samples.iter().filter(|run| !matches!(run.stage, Stage::Ended(_))).collect();
        assert_eq!(store.open_runs().expect("good").iter().collect::<Vec<_>>(), open);
        assert_eq!(store.latest(2).expect("good"), samples.iter().rev().take(2).cloned().collect::<Vec<_>>());
        for run in &samples {
            assert_eq!(store.run(run.id).expect("good").as_ref(), Some(run));
        }
        assert_eq!(store.run(crate::run::RunId(ulid::Ulid::nil())).expect("good"), None);
        drop(store);
        store = scratch.store();
    }
}

#[test]
fn the_database_is_opened_as_durable_and_as_closed_as_it_can_be() {
    let scratch = Scratch::new();
    for _ in 0..2 {
        let store = scratch.store();
        let number = |name| store.db.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).expect("it has one");
        let word = |name| store.db.pragma_query_value(None, name, |row| row.get::<_, String>(0)).expect("it has one");
        assert_eq!((word("journal_mode").as_str(), word("locking_mode").as_str()), ("wal", "exclusive"));
        // 2 is FULL: the log is synced at each commit.
        let on = ["synchronous", "foreign_keys", "trusted_schema", "cell_size_check", "mmap_size"].map(number);
        assert_eq!(on, [2, 1, 0, 1, 0]);
        assert_eq!(number("max_page_count") * number("page_size"), 1 << 30);
        assert_eq!((number("application_id"), number("user_version")), (0x6167_6c70, 3));
    }
}

#[test]
fn a_later_stage_replaces_the_earlier_and_an_end_stands() {
    let scratch = Scratch::new();
    let mut store = scratch.store();
    let samples = samples();
    let id = samples[0].id;
    for stage in samples.iter().map(|run| run.stage.clone()).take(4) {
        let run = RunRecord { stage, ..samples[0].clone() };
        store.save(&run).expect("there is room");
        assert_eq!(all(&store), [run]);
    }
    let last = samples.iter().rfind(|run| matches!(run.stage, Stage::Ended(_)));
    let ended = RunRecord { id, ..last.expect("some").clone() };
    store.save(&ended).expect("there is room");
    store.save(&ended).expect("it says the same");
    for run in [&samples[0], &RunRecord { attempt: 99, ..ended.clone() }] {
        let error = store.save(run).expect_err("it has ended");
        assert!(matches!(&error, StoreError::Failed { why, .. } if why.contains("has ended")), "{error}");
    }
    drop(store);
    assert_eq!(all(&scratch.store()), [ended]);
}

#[test]
fn pruning_removes_the_oldest_ended_and_no_open_run() {
    let scratch = Scratch::new();
    let mut store = scratch.store();
    let samples = samples();
    for run in &samples {
        store.save(run).expect("there is room");
    }
    let is_open = |run: &&RunRecord| !matches!(run.stage, Stage::Ended(_));
    let ended = samples.iter().filter(|run| !is_open(run)).count();
    assert!(ended > 3);
    assert_eq!(store.prune(u32::MAX).expect("good"), 0);
    assert_eq!(store.prune(2).expect("good"), ended as u64 - 2);
    let mut left: Vec<_> = samples.iter().filter(is_open).collect();
    left.extend(samples.iter().filter(|run| !is_open(run)).skip(ended - 2));
    left.sort_by_key(|run| run.id);
    drop(store);
    let mut store = scratch.store();
    assert_eq!(all(&store).iter().collect::<Vec<_>>(), left);
    assert_eq!(store.prune(0).expect("good"), 2);
    assert_eq!(all(&store).iter().collect::<Vec<_>>(), samples.iter().filter(is_open).collect::<Vec<_>>());
}

#[test]
fn a_path_without_a_form_on_disk_is_said_and_nothing_is_saved() {
    use std::os::unix::ffi::OsStringExt as _;

    let scratch = Scratch::new();
    let mut store = scratch.store();
    let mut run = samples()[0].clone();
    run.submission.cwd = std::ffi::OsString::from_vec(b"/a\xff".to_vec()).into();
    let error = store.save(&run).expect_err("it cannot be written");
    assert!(matches!(&error, StoreError::Failed { why, .. } if why.contains("is not UTF-8")), "{error}");
    assert_eq!(all(&store), []);
}

//! The schema of the database and how one version of it becomes the next.

use rusqlite::Connection;

/// What a database of ours has as `application_id`: `aglp`.
pub(super) const APPLICATION: i32 = 0x6167_6c70;

/// One step: it makes version N+1 of version N, in a transaction of its own.
///
/// A step that touches rows of `runs` writes their digests and the census anew, after it checked the old ones.
pub(super) type Step = &'static str;

/// All steps; version N is what the first N make of nothing. A step that was released is never changed.
pub(super) const STEPS: &[Step] = &[
    // 1: the table is its only index, so that no second tree can disagree with it. The census tells how many rows
    // there are and the exclusive or of their digests: a row that vanished is missed.
    "CREATE TABLE runs (
        id TEXT PRIMARY KEY NOT NULL,
        attempt INTEGER NOT NULL,
        submitted_unix_ns INTEGER NOT NULL,
        boot_id TEXT NOT NULL,
        stage TEXT NOT NULL CHECK (stage IN ('queued', 'intended', 'born', 'ended')),
        submission TEXT NOT NULL,
        cgroup INTEGER,
        main_tgid INTEGER,
        main_start_ns INTEGER,
        main_ino INTEGER,
        born_ns INTEGER,
        deadline_ns INTEGER,
        traced INTEGER,
        stopping TEXT,
        suspended_ns INTEGER,
        baseline TEXT,
        ended TEXT,
        digest BLOB NOT NULL CHECK (length(digest) = 32)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE census (
        one INTEGER PRIMARY KEY NOT NULL CHECK (one = 1),
        runs INTEGER NOT NULL,
        digests BLOB NOT NULL CHECK (length(digests) = 32)
    ) STRICT;
    INSERT INTO census VALUES (1, 0, zeroblob(32));",
    // 2: tasks of the issue loop, with a census of their own. A run may say from now on which task it is a part of.
    "CREATE TABLE tasks (
        issue TEXT PRIMARY KEY NOT NULL,
        task TEXT NOT NULL,
        digest BLOB NOT NULL CHECK (length(digest) = 32)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE task_census (
        one INTEGER PRIMARY KEY NOT NULL CHECK (one = 1),
        tasks INTEGER NOT NULL,
        digests BLOB NOT NULL CHECK (length(digests) = 32)
    ) STRICT;
    INSERT INTO task_census VALUES (1, 0, zeroblob(32));",
    // 3: what people are told of a run beyond its stage. It counts in a row's digest only where it is not null, so that
    // the digests of older rows stay as they are.
    "ALTER TABLE runs ADD COLUMN told TEXT;",
];

/// One thing of a schema: its type, its name, its table, and the statement that makes it.
pub(super) type Thing = (String, String, String, Option<String>);

/// Everything that a schema consists of, in a fixed order.
pub(super) fn shape(db: &Connection) -> rusqlite::Result<Vec<Thing>> {
    let mut all = db.prepare("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name")?;
    let rows = all.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
    rows.collect()
}

/// The shape that these steps make.
pub(super) fn shape_of(steps: &[Step]) -> rusqlite::Result<Vec<Thing>> {
    let db = Connection::open_in_memory()?;
    for step in steps {
        db.execute_batch(step)?;
    }
    shape(&db)
}

//! Runs in an embedded database, which is refused rather than guessed at where it is not as it was written.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::unistd::{UnlinkatFlags, unlinkat};
use rusqlite::config::DbConfig;
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, TransactionBehavior, params};

use super::census::{Census, RUNS};
use super::entry::Access;
use super::fault::{corrupt, from_sql, newer};
use super::place::{Place, failed, failed_at};
use super::row::{self, Sum};
use super::schema::{APPLICATION, STEPS, Step, shape, shape_of};
use super::{StateDir, Store, StoreError};
use crate::run::{Part, RunId, RunRecord};
use crate::work::Task;

/// The database in the state directory.
pub(super) const NAME: &str = "agent-loop.db";
/// A database that is being made, before it has its name.
const NEW: &str = "agent-loop.db.new";
/// The most bytes it may have; writing stops there too, so that we never write what we would refuse.
const CAP: u64 = 1 << 30;
const PAGE: u64 = 4096;

/// How many ended runs are worth keeping: what [`SqliteStore::prune`] is meant to be called with.
pub const KEEP_ENDED: u32 = 10_000;

/// Runs remembered in `agent-loop.db` of the state directory.
///
/// Only one process has it open (SQLite's exclusive locking, which also needs no shared memory file). Each change is
/// written to the log of the database, synced, and then moved into the database itself at once: what stands in the
/// log alone is never older than one change. A log damaged in that moment is told from one that a crash tore by
/// nothing, so the change in it would be lost; what is in the database itself cannot get lost unseen.
#[derive(Debug)]
pub struct SqliteStore {
    pub(super) db: Connection,
    pub(super) path: PathBuf,
}

impl SqliteStore {
    /// Opens the database, or makes one where there is none, and reads all of it once.
    ///
    /// An older version is migrated, after a copy was kept as `agent-loop.db.v<N>`.
    ///
    /// # Errors
    /// [`StoreError::Unsafe`] where a file is not ours alone; [`StoreError::Newer`]; [`StoreError::Corrupt`] where
    /// anything in it is not as it was written, and it is then left untouched; [`StoreError::Failed`].
    pub fn open(state: &StateDir) -> Result<Self, StoreError> {
        Self::open_with(&state.0, STEPS)
    }

    pub(super) fn open_with(place: &Place, steps: &[Step]) -> Result<Self, StoreError> {
        let path = place.path.join(NAME);
        let beside = |ending: &str| place.look(&format!("{NAME}{ending}"), CAP);
        let log = beside("-wal")?.is_some() | beside("-shm")?.is_some();
        if beside("-journal")?.is_some() {
            return Err(corrupt(&path, "there is a -journal file beside it, which agent-loop never writes"));
        }
        match place.look(NAME, CAP)? {
            None if log => return Err(corrupt(&path, "it is missing, and the log beside it is there")),
            None => create(place, steps)?,
            Some(known) if known.bytes == 0 => {
                return Err(corrupt(&path, "it is empty, which agent-loop never leaves"));
            }
            Some(known) if !known.bytes.is_multiple_of(PAGE) => {
                return Err(corrupt(&path, "its last page is not whole"));
            }
            Some(_) => {}
        }
        let mut store = Self { db: connect(&path)?, path };
        let version = store.check_file(steps)?;
        for (number, step) in (1..).zip(steps).skip(version) {
            if number == version + 1 {
                store.keep_copy(place, version)?;
            }
            store.migrate(number, step)?;
        }
        store.check_rows()?;
        store.check_tasks()?;
        store.fold_log();
        store
            .db
            .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)
            .map_err(store.sql("opening the state"))?;
        Ok(store)
    }

    /// Removes the oldest ended runs but `keep`; returns how many it removed.
    ///
    /// # Errors
    /// As [`Store::save`].
    pub fn prune(&mut self, keep: u32) -> Result<u64, StoreError> {
        let path = self.path.clone();
        let sql = |error| from_sql(&path, "removing old runs", error);
        let change = self.db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sql)?;
        let mut sums: Vec<(String, Sum)> = Vec::new();
        {
            let mut old = change
                .prepare("SELECT id, digest FROM runs WHERE stage = 'ended' ORDER BY id DESC LIMIT -1 OFFSET ?1")
                .map_err(sql)?;
            for row in old.query_map([keep], |row| Ok((row.get(0)?, row.get(1)?))).map_err(sql)? {
                sums.push(row.map_err(sql)?);
            }
        }
        let mut census = Census::read(&RUNS, &change, &path)?;
        for (id, sum) in &sums {
            change.execute("DELETE FROM runs WHERE id = ?1", [id]).map_err(sql)?;
            census.remove(sum);
        }
        census.write(&RUNS, &change).map_err(sql)?;
        change.commit().map_err(sql)?;
        self.fold_log();
        Ok(sums.len() as u64)
    }

    /// Checks the file as such; returns its version.
    fn check_file(&self, steps: &[Step]) -> Result<usize, StoreError> {
        let sql = || self.sql("opening the state");
        let pragma = |name: &str| self.db.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(sql());
        if pragma("application_id")? != i64::from(APPLICATION) {
            return Err(corrupt(&self.path, "it is not a database of agent-loop"));
        }
        let version = pragma("user_version")?;
        let version = match usize::try_from(version) {
            Ok(version @ 1..) if version <= steps.len() => version,
            Ok(version @ 1..) => return Err(newer(&self.path, version, steps.len())),
            Ok(_) | Err(_) => return Err(corrupt(&self.path, &format!("its version is {version}"))),
        };
        let mode: String = self.db.pragma_query_value(None, "journal_mode", |row| row.get(0)).map_err(sql())?;
        if mode != "wal" {
            return Err(corrupt(&self.path, &format!("its journal mode is {mode}, not wal")));
        }
        if self.db.is_readonly("main").map_err(sql())? {
            // By the file system or an attribute of the file, or by what stands in it.
            nix::unistd::access(&self.path, nix::unistd::AccessFlags::W_OK)
                .map_err(failed_at("writing", &self.path))?;
            return Err(corrupt(&self.path, "it says of itself that it cannot be written"));
        }
        let said: String = self.db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(sql())?;
        if said != "ok" {
            return Err(corrupt(&self.path, &said));
        }
        let wanted = shape_of(steps.get(..version).unwrap_or_default()).map_err(sql())?;
        if shape(&self.db).map_err(sql())? != wanted {
            return Err(corrupt(&self.path, &format!("its tables are not those of version {version}")));
        }
        Ok(version)
    }

    /// Reads every row and compares their sum with the census.
    fn check_rows(&self) -> Result<(), StoreError> {
        let mut found = Census::default();
        self.each("", &[], |_, sum| found.add(&sum))?;
        if found != Census::read(&RUNS, &self.db, &self.path)? {
            return Err(corrupt(&self.path, "its rows are not those that were written"));
        }
        Ok(())
    }

    /// Reads the rows that `rest` of the statement picks.
    fn each(
        &self,
        rest: &str,
        params: &[&dyn rusqlite::ToSql],
        mut with: impl FnMut(RunRecord, Sum),
    ) -> Result<(), StoreError> {
        let sql = || self.sql("reading the runs");
        let text = format!("SELECT {}, digest FROM runs {rest}", row::COLUMNS);
        let mut statement = self.db.prepare(&text).map_err(sql())?;
        let mut rows = statement.query(params).map_err(sql())?;
        while let Some(found) = rows.next().map_err(sql())? {
            let (values, sum) = values(found).map_err(sql())?;
            if row::sum(&values) != sum {
                return Err(corrupt(&self.path, &format!("the row of run {} was changed", name(&values))));
            }
            let run = row::read(&values)
                .map_err(|why| corrupt(&self.path, &format!("the row of run {}: {why}", name(&values))))?;
            with(run, sum);
        }
        Ok(())
    }

    fn all(&self, rest: &str, params: &[&dyn rusqlite::ToSql]) -> Result<Vec<RunRecord>, StoreError> {
        let mut runs = Vec::new();
        self.each(rest, params, |run, _| runs.push(run))?;
        Ok(runs)
    }

    /// Keeps the database as it is before its first migration.
    fn keep_copy(&self, place: &Place, version: usize) -> Result<(), StoreError> {
        const DOING: &str = "keeping a copy of the state before its migration";
        let (name, new) = (format!("{NAME}.v{version}"), format!("{NAME}.v{version}.new"));
        // One of an earlier attempt at this migration: the database may have changed since.
        place.look(&name, CAP)?;
        remove(place, &new)?;
        let file = place.file(&new, Access::New, 0)?;
        let target = place.path.join(&new);
        self.db.execute("VACUUM INTO ?1", params![target.to_string_lossy()]).map_err(self.sql(DOING))?;
        // The copy is made without a log; it must open as the state did.
        let copy = connect(&target)?;
        copy.pragma_update(None, "journal_mode", "WAL").map_err(self.sql(DOING))?;
        copy.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).map_err(self.sql(DOING))?;
        copy.close().map_err(|(_, error)| self.sql(DOING)(error))?;
        nix::unistd::fsync(&file).map_err(failed("making the copy of the state durable"))?;
        rename(place, &new, &name)
    }

    fn migrate(&mut self, to: usize, step: Step) -> Result<(), StoreError> {
        let path = self.path.clone();
        let sql = |error| from_sql(&path, "migrating the state", error);
        let change = self.db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sql)?;
        change.execute_batch(step).map_err(sql)?;
        change.pragma_update(None, "user_version", to as i64).map_err(sql)?;
        change.commit().map_err(sql)
    }

    /// Writes a run into the log of the database.
    pub(super) fn write(&mut self, run: &RunRecord) -> Result<(), StoreError> {
        const DOING: &str = "saving a run";
        let path = self.path.clone();
        let sql = |error| from_sql(&path, DOING, error);
        let new = row::write(run).map_err(|why| StoreError::Failed { doing: DOING, why })?;
        let sum = row::sum(&new);
        let change = self.db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sql)?;
        let mut census = Census::read(&RUNS, &change, &path)?;
        let old: Option<(String, Sum)> = change
            .prepare_cached("SELECT stage, digest FROM runs WHERE id = ?1")
            .and_then(|mut it| it.query_row([run.id.to_string()], |row| Ok((row.get(0)?, row.get(1)?))).optional())
            .map_err(sql)?;
        if let Some((stage, old)) = old {
            if stage == "ended" && old != sum {
                let why = format!("run {} has ended, and is remembered as it ended", run.id);
                return Err(StoreError::Failed { doing: DOING, why });
            }
            census.remove(&old);
        }
        census.add(&sum);
        let marks = vec!["?"; row::WIDTH + 1].join(", ");
        let text = format!("INSERT OR REPLACE INTO runs ({}, digest) VALUES ({marks})", row::COLUMNS);
        let row = new.into_iter().chain([Value::Blob(sum.to_vec())]);
        change.prepare_cached(&text).and_then(|mut it| it.execute(rusqlite::params_from_iter(row))).map_err(sql)?;
        census.write(&RUNS, &change).map_err(sql)?;
        change.commit().map_err(sql)
    }

    /// Moves what is in the log into the database. Where that fails, the log stays and is as durable.
    pub(super) fn fold_log(&self) {
        let folded = self.db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
        // The next change tries it again; a disk that fails fails that one too, and is reported by it.
        drop(folded);
    }

    pub(super) fn sql(&self, doing: &'static str) -> impl Fn(rusqlite::Error) -> StoreError {
        let path = self.path.clone();
        move |error| from_sql(&path, doing, error)
    }
}

impl Store for SqliteStore {
    fn save(&mut self, run: &RunRecord) -> Result<(), StoreError> {
        self.write(run)?;
        self.fold_log();
        Ok(())
    }

    fn open_runs(&self) -> Result<Vec<RunRecord>, StoreError> {
        self.all("WHERE stage <> 'ended' ORDER BY id", &[])
    }

    fn latest(&self, limit: u32) -> Result<Vec<RunRecord>, StoreError> {
        self.all("ORDER BY id DESC LIMIT ?1", &[&limit])
    }

    fn run(&self, id: RunId) -> Result<Option<RunRecord>, StoreError> {
        Ok(self.all("WHERE id = ?1", &[&id.to_string()])?.pop())
    }

    fn run_of(&self, part: &Part) -> Result<Option<RunRecord>, StoreError> {
        let rest = "WHERE json_extract(submission, '$.part.issue') = ?1
            AND json_extract(submission, '$.part.attempt') = ?2
            AND json_extract(submission, '$.part.what') = ?3
            ORDER BY id DESC LIMIT 1";
        Ok(self.all(rest, &[&part.issue, &part.attempt, &part.what])?.pop())
    }

    fn save_task(&mut self, task: &Task) -> Result<(), StoreError> {
        self.write_task(task)?;
        self.fold_log();
        Ok(())
    }

    fn tasks(&self) -> Result<Vec<Task>, StoreError> {
        self.all_tasks()
    }
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    let sql = |error| from_sql(path, "opening the state", error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let db = Connection::open_with_flags(path, flags).map_err(sql)?;
    // Until it is found good, closing it must not change it.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(sql)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true).map_err(sql)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false).map_err(sql)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, true).map_err(sql)?;
    db.busy_timeout(Duration::from_secs(1)).map_err(sql)?;
    for (name, value) in [
        ("cell_size_check", "ON"),
        ("locking_mode", "EXCLUSIVE"),
        ("synchronous", "FULL"),
        ("mmap_size", "0"),
        ("temp_store", "MEMORY"),
    ] {
        db.pragma_update(None, name, value).map_err(sql)?;
    }
    db.pragma_update(None, "max_page_count", (CAP / PAGE) as i64).map_err(sql)?;
    Ok(db)
}

/// Makes an empty database under another name and gives it its own once it is whole and durable.
fn create(place: &Place, steps: &[Step]) -> Result<(), StoreError> {
    for ending in ["", "-wal", "-shm", "-journal"] {
        remove(place, &format!("{NEW}{ending}"))?;
    }
    let file = place.file(NEW, Access::New, 0)?;
    let path = place.path.join(NEW);
    let sql = |error| from_sql(&path, "making the state", error);
    // SQLite takes its locks by this process: a second descriptor of the file must not be closed meanwhile.
    let mut db = connect(&path)?;
    db.pragma_update(None, "page_size", PAGE as i64).map_err(sql)?;
    db.pragma_update(None, "journal_mode", "WAL").map_err(sql)?;
    db.pragma_update(None, "application_id", APPLICATION).map_err(sql)?;
    let change = db.transaction().map_err(sql)?;
    for step in steps {
        change.execute_batch(step).map_err(sql)?;
    }
    change.pragma_update(None, "user_version", steps.len() as i64).map_err(sql)?;
    change.commit().map_err(sql)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).map_err(sql)?;
    db.close().map_err(|(_, error)| sql(error))?;
    nix::unistd::fsync(&file).map_err(failed("making the new state durable"))?;
    rename(place, NEW, NAME)
}

fn rename(place: &Place, from: &str, to: &str) -> Result<(), StoreError> {
    nix::fcntl::renameat(&place.dir, from, &place.dir, to).map_err(failed("naming a file of the state"))?;
    place.sync()
}

fn remove(place: &Place, name: &str) -> Result<(), StoreError> {
    match unlinkat(&place.dir, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(failed("removing what an attempt before left")(errno)),
    }
}

fn values(row: &rusqlite::Row<'_>) -> rusqlite::Result<(Vec<Value>, Sum)> {
    let value = |at: usize| match row.get_ref(at)? {
        ValueRef::Null => Ok(Value::Null),
        ValueRef::Integer(number) => Ok(Value::Integer(number)),
        ValueRef::Real(number) => Ok(Value::Real(number)),
        // The library's own conversion panics where it is not UTF-8.
        ValueRef::Text(text) => match std::str::from_utf8(text) {
            Ok(text) => Ok(Value::Text(text.to_owned())),
            Err(error) => Err(rusqlite::Error::Utf8Error(error)),
        },
        ValueRef::Blob(bytes) => Ok(Value::Blob(bytes.to_vec())),
    };
    let values = (0..row::WIDTH).map(value).collect::<rusqlite::Result<_>>()?;
    Ok((values, row.get(row::WIDTH)?))
}

/// The id of a row that cannot be trusted, as far as it can be shown.
fn name(values: &[Value]) -> String {
    if let Some(Value::Text(id)) = values.first() {
        format!("{:?}", id.chars().take(26).collect::<String>())
    } else {
        "?".to_owned()
    }
}

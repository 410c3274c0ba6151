//! The store where it takes a second process, another owner, a full disk or a SIGKILL to see what it does.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, chown, lchown};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use agent_loop::store::{LogDir, RunFiles, SqliteStore, StateDir, Store, StoreError};
use agent_loop_tests::harness::eventually;
use agent_loop_tests::needs;
use agent_loop_tests::remembering::{LOCKED, after, record, remembered, saves};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

fn scratch() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("agent-loop-tests-").tempdir().expect("a directory")
}

/// The program that remembers, killed and reaped at the end whatever happens.
struct Writer {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Writer {
    fn start(verb: &str, state: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_store_writer"));
        command.arg(verb).arg(state).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it can be started");
        let said = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut writer = Self { child, said };
        assert_eq!(writer.line().as_deref(), Some(LOCKED));
        writer
    }

    /// What it says next; `None` at its end. A line that its death cut off was never said.
    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        self.said.read_line(&mut line).expect("text");
        line.strip_suffix('\n').map(str::to_owned)
    }

    fn kill(&mut self) {
        self.child.kill().expect("our child");
        self.child.wait().expect("our child");
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_second_daemon_is_refused_by_the_number_of_the_first_until_that_is_gone() {
    let dir = scratch();
    let path = dir.path().join("state");
    let mut first = Writer::start("hold", &path);
    let state = StateDir::open(&path).expect("ours");
    for _ in 0..2 {
        let error = state.lock().expect_err("another has it");
        assert!(matches!(&error, StoreError::Busy { pid: Some(pid), .. } if *pid == first.child.id()), "{error}");
        assert!(error.to_string().contains(&format!("in use by process {}", first.child.id())), "{error}");
    }
    first.kill();
    let lock = state.lock().expect("SIGKILL frees it");

    // And the other way round: the second is told, and ends.
    let mut second = Command::new(env!("CARGO_BIN_EXE_store_writer"));
    let refused = second.arg("hold").arg(&path).stdin(Stdio::null()).output().expect("it can be started");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("in use by process {}", std::process::id())), "{said}");
    drop(lock);
    Writer::start("hold", &path);
}

#[test]
fn what_a_save_returned_for_is_there_after_a_sigkill_at_any_moment() {
    let dir = scratch();
    let path = dir.path().join("state");
    let (mut known, mut unheard) = (0_u64, 0_u64);
    for round in 0..60_u64 {
        let mut writer = Writer::start("save", &path);
        let lives = 1 + round * 7919 % 11;
        for _ in 0..lives {
            known = 1 + writer.line().expect("it saves").parse::<u64>().expect("a number");
        }
        // Somewhere in a save: this varies the moment, no outcome depends on how long it takes.
        for _ in 0..round * 104_729 % 400_000 {
            std::hint::spin_loop();
        }
        writer.kill();
        while let Some(line) = writer.line() {
            known = 1 + line.parse::<u64>().expect("a number");
        }
        let state = StateDir::open(&path).expect("ours");
        let _lock = state.lock().expect("it is free");
        let store = SqliteStore::open(&state).unwrap_or_else(|error| panic!("round {round}: {error}"));
        let found = remembered(&store).unwrap_or_else(|error| panic!("round {round}: {error}"));
        let done = saves(&found);
        assert!(done == known || done == known + 1, "round {round}: {done} saves, {known} of them were said");
        assert!(found == after(done), "round {round}");
        unheard += done - known;
        known = done;
    }
    assert!(known > 60, "{known}");
    // Not asserted: a machine may be slow enough never to show one.
    println!("{known} saves, {unheard} of them done but not said before the SIGKILL");
}

/// A small file system in memory, taken away at the end.
struct Small {
    _dir: tempfile::TempDir,
    point: PathBuf,
}

impl Small {
    fn mount(options: &str) -> Self {
        let dir = scratch();
        let point = dir.path().join("small");
        fs::create_dir(&point).expect("ours");
        mount(Some("tmpfs"), &point, Some("tmpfs"), MsFlags::MS_NOSUID, Some(options)).expect("we are root");
        Self { _dir: dir, point }
    }

    fn state(&self) -> StateDir {
        StateDir::open(&self.point.join("state")).expect("ours")
    }

    /// Takes all the room there is; returns how many bytes that were.
    fn fill(&self) -> u64 {
        let mut file = fs::File::create(self.point.join("filler")).expect("ours");
        while file.write_all(&[1; 4096]).is_ok() {}
        file.metadata().expect("ours").len()
    }

    fn shrink(&self, length: u64) {
        let file = fs::File::options().write(true).open(self.point.join("filler"));
        file.and_then(|file| file.set_len(length)).expect("ours");
    }

    fn remount(&self, flags: MsFlags) {
        let how = MsFlags::MS_REMOUNT | MsFlags::MS_NOSUID | flags;
        // A child that another test has just forked has our files open until it executes.
        eventually("nobody to write there", || {
            let done = mount(None::<&str>, &self.point, None::<&str>, how, None::<&str>);
            if done == Err(Errno::EBUSY) {
                return None;
            }
            done.expect("we are root");
            Some(())
        });
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = umount2(&self.point, MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_full_disk_fails_a_save_and_loses_nothing_and_the_next_works_once_there_is_room() {
    needs!(root);
    let small = Small::mount("size=1m,mode=0700");
    let state = small.state();
    let mut store = SqliteStore::open(&state).expect("there is room");
    for save in 0..9 {
        store.save(&record(save)).expect("there is room");
    }
    let before = after(9);
    // From no room at all, page by page, to enough: in the log, in the database, in both.
    let mut room = small.fill();
    let mut failed = 0;
    for _ in 0..64 {
        match store.save(&record(9)).and_then(|()| store.save(&record(10))) {
            Ok(()) => break,
            Err(StoreError::Failed { why, .. }) => {
                assert!(why.contains("make room") || why.contains("look at the disk"), "{why}");
                failed += 1;
            }
            Err(error) => panic!("{error:?}"),
        }
        let found = remembered(&store).expect("reading needs no room");
        assert!(found == before || found == after(10), "{} saves", saves(&found));
        room -= 4096;
        small.shrink(room);
    }
    assert!((1..64).contains(&failed), "{failed}");
    assert!(remembered(&store).expect("good") == after(11));
    drop(store);
    assert!(remembered(&SqliteStore::open(&state).expect("good")).expect("good") == after(11));

    // The first database finds no room either, and then some.
    small.fill();
    let other = StateDir::open(&small.point.join("other")).expect("a directory takes no page");
    let error = SqliteStore::open(&other).expect_err("no room");
    assert!(matches!(error, StoreError::Failed { .. }), "{error:?}");
    assert!(!other.path().join("agent-loop.db").exists(), "nothing half made has its name");
    small.shrink(0);
    assert!(remembered(&SqliteStore::open(&other).expect("there is room")).expect("good").is_empty());
}

#[test]
fn a_state_that_cannot_be_written_is_a_failure_and_not_damage() {
    needs!(root);
    let small = Small::mount("size=1m,mode=0700");
    let state = small.state();
    let mut store = SqliteStore::open(&state).expect("there is room");
    store.save(&record(0)).expect("there is room");
    drop(store);
    small.remount(MsFlags::MS_RDONLY);
    let error = SqliteStore::open(&state).expect_err("read-only");
    assert!(matches!(error, StoreError::Failed { .. }), "{error:?}");
    let error = StateDir::open(&small.point.join("new")).expect_err("read-only");
    assert!(matches!(error, StoreError::Failed { .. }), "{error:?}");
    small.remount(MsFlags::empty());
    assert!(remembered(&SqliteStore::open(&state).expect("as before")).expect("good") == after(1));
}

#[test]
fn a_file_system_without_room_for_another_file_is_a_failure_and_not_damage() {
    needs!(root);
    let small = Small::mount("size=1m,nr_inodes=32,mode=0700");
    let state = small.state();
    SqliteStore::open(&state).and_then(|mut store| store.save(&record(0))).expect("there is room");
    let more: Vec<PathBuf> = (0..64).map(|number| small.point.join(number.to_string())).collect();
    let made = more.iter().take_while(|path| fs::File::create(path).is_ok()).count();
    assert!((1..64).contains(&made), "{made}");
    let error = SqliteStore::open(&state).expect_err("its log finds no room");
    assert!(matches!(error, StoreError::Failed { .. }), "{error:?}");
    fs::remove_file(&more[0]).expect("ours");
    assert!(remembered(&SqliteStore::open(&state).expect("as before")).expect("good") == after(1));
}

#[test]
fn what_belongs_to_another_is_refused_by_name() {
    needs!(root);
    let dir = scratch();
    let path = dir.path().join("state");
    let state = StateDir::open(&path).expect("ours");
    let log = LogDir::open(&dir.path().join("log")).expect("ours");
    let run = record(0).id;
    drop(RunFiles::create(&state, &log, run).expect("new"));
    SqliteStore::open(&state).and_then(|mut store| store.save(&record(0))).expect("there is room");
    drop(state.lock().expect("it is free"));
    fs::write(path.join("agent-loop.db-wal"), b"").expect("ours");
    fs::set_permissions(path.join("agent-loop.db-wal"), fs::Permissions::from_mode(0o600)).expect("ours");

    let refused = |what: Result<(), StoreError>, file: &Path| {
        let error = what.expect_err("it is another's");
        assert!(matches!(error, StoreError::Unsafe(_)), "{error:?}");
        let said = error.to_string();
        assert!(said.starts_with(&format!("{} belongs to user 65534", file.display())), "{said}");
        assert!(said.contains('`'), "it says what to do: {said}");
    };
    let opened = || SqliteStore::open(&state).map(drop);
    let reopened = || RunFiles::reopen(&state, &log, run).map(drop);
    let given = |file: PathBuf, attempt: &dyn Fn() -> Result<(), StoreError>| {
        lchown(&file, Some(65534), None).expect("we are root");
        refused(attempt(), &file);
        lchown(&file, Some(0), None).expect("we are root");
        attempt().unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    };
    given(path.join("agent-loop.db-wal"), &opened);
    given(path.join("agent-loop.db"), &opened);
    given(path.join("lock"), &|| state.lock().map(drop));
    given(path.clone(), &|| StateDir::open(&path).map(drop));
    given(dir.path().to_owned(), &|| StateDir::open(&path).map(drop));
    given(path.join("pipes"), &reopened);
    given(path.join(format!("pipes/{run}.err")), &reopened);
    let [out, _] = RunFiles::paths(log.path(), run);
    given(out.clone(), &reopened);
    given(out.parent().expect("it has one").to_owned(), &reopened);
    chown(log.path(), Some(65534), None).expect("we are root");
    refused(LogDir::open(log.path()).map(drop), log.path());
}

//! Directories and files: what is not a plain one of ours is refused with its name, its fault and what mends it.

use std::fs::{self, File, Permissions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::Mode;
use ulid::Ulid;

use super::Scratch;
use crate::run::RunId;
use crate::store::{LogDir, RunFiles, StateDir, StoreError};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o7777
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("ours");
}

/// The text of a refusal for safety.
fn refusal<T: std::fmt::Debug>(refused: Result<T, StoreError>) -> String {
    let error = refused.expect_err("refused");
    assert!(matches!(error, StoreError::Unsafe(_)), "{error:?}");
    error.to_string()
}

fn contains(said: &str, parts: &[&str]) {
    for part in parts {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn a_state_directory_is_made_closed_to_others() {
    let scratch = Scratch::new();
    let path = scratch.0.path().join("state");
    let state = StateDir::open(&path).expect("its parent is ours");
    assert_eq!((state.path(), mode(&path)), (&*path, 0o700));
    StateDir::open(&path).expect("it is there now");
    let error = StateDir::open(&path.join("a/b")).expect_err("only the last one is made");
    contains(&error.to_string(), &["/state/a does not exist", "mkdir -m 755 "]);
}

#[test]
fn a_state_directory_that_others_reach_is_refused() {
    let scratch = Scratch::new();
    let path = scratch.0.path().join("state");
    fs::create_dir(&path).expect("ours");
    for open in [0o755, 0o750, 0o770, 0o701, 0o720] {
        chmod(&path, open);
        let said = refusal(StateDir::open(&path));
        contains(&said, &[&format!("/state has mode {open:04o}"), "chmod go-rwx "]);
        assert_eq!(mode(&path), open, "it is not mended behind the operator's back");
    }
    chmod(&path, 0o755);
    LogDir::open(&path).expect("others may read a log");
    for open in [0o775, 0o757] {
        chmod(&path, open);
        contains(&refusal(LogDir::open(&path)), &["chmod go-w "]);
    }
}

#[test]
fn a_parent_in_which_others_could_replace_ours_is_refused() {
    let scratch = Scratch::new();
    let above = scratch.0.path().join("above");
    let path = above.join("state");
    fs::create_dir(&above).expect("ours");
    for (open, state, log) in [(0o755, true, true), (0o775, false, true), (0o757, false, false), (0o1777, true, true)] {
        chmod(&above, open);
        assert_eq!(StateDir::open(&path).is_ok(), state, "{open:o}");
        assert_eq!(LogDir::open(&path).is_ok(), log, "{open:o}");
    }
    chmod(&above, 0o777);
    contains(&refusal(StateDir::open(&path)), &["/above has mode 0777", "chmod go-w "]);
}

#[test]
fn a_link_a_file_or_a_way_up_on_the_path_is_refused() {
    let scratch = Scratch::new();
    let base = scratch.0.path();
    fs::create_dir(base.join("real")).expect("ours");
    chmod(&base.join("real"), 0o700);
    symlink("real", base.join("link")).expect("ours");
    symlink("nowhere", base.join("dangling")).expect("ours");
    File::create(base.join("file")).expect("ours");
    for name in ["link", "link/below", "dangling"] {
        contains(&refusal(StateDir::open(&base.join(name))), &["is a symbolic link", "readlink -f "]);
    }
    assert!(!base.join("nowhere").exists() && !base.join("real/below").exists());
    for name in ["file", "file/below"] {
        contains(&refusal(StateDir::open(&base.join(name))), &["/file is not a directory"]);
    }
    contains(&refusal(StateDir::open(&base.join("real/../real"))), &["contains `..`"]);
    for name in ["state", "", "/"] {
        contains(&refusal(StateDir::open(Path::new(name))), &["is not an absolute path"]);
    }
}

#[test]
fn a_file_of_the_state_that_is_not_a_plain_one_is_refused() {
    let scratch = Scratch::new();
    let state = scratch.state();
    let path = state.path().join("f");
    let open = || state.file("f", 10);
    drop(open().expect("it is made"));
    assert_eq!(mode(&path), 0o600);
    drop(open().expect("it is there"));
    let there = |said: String, parts: &[&str]| {
        contains(&said, &[&format!("{} ", path.display())]);
        contains(&said, parts);
    };

    fs::write(&path, [0; 11]).expect("ours");
    there(refusal(open()), &["has 11 bytes, more than the 10", "mv "]);
    fs::write(&path, [0; 10]).expect("ours");
    open().expect("it fits");
    for open_mode in [0o640, 0o604, 0o660, 0o700, 0o4600] {
        chmod(&path, open_mode);
        there(refusal(open()), &[&format!("has mode {open_mode:04o} instead of 0600"), "chmod 600 "]);
    }
    chmod(&path, 0o600);
    fs::hard_link(&path, state.path().join("g")).expect("ours");
    there(refusal(open()), &["has 2 names", "find / -xdev -inum "]);
    fs::remove_file(state.path().join("g")).expect("ours");
    open().expect("one name again");
    fs::rename(&path, state.path().join("g")).expect("ours");
    symlink("g", &path).expect("ours");
    there(refusal(open()), &["is a symbolic link, where a regular file belongs", "mv "]);
    fs::remove_file(&path).expect("ours");
    symlink("nowhere", &path).expect("ours");
    there(refusal(open()), &["is a symbolic link"]);
    assert!(!state.path().join("nowhere").exists());
    fs::remove_file(&path).expect("ours");
    fs::create_dir(&path).expect("ours");
    there(refusal(open()), &["is a directory, where a regular file belongs"]);
    fs::remove_dir(&path).expect("ours");
    nix::unistd::mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).expect("ours");
    there(refusal(open()), &["is a FIFO, where a regular file belongs"]);
    fs::remove_file(&path).expect("ours");
    let socket = std::os::unix::net::UnixListener::bind(&path).expect("ours");
    there(refusal(open()), &["is a socket, where a regular file belongs"]);
    drop(socket);
}

#[test]
fn a_database_that_is_not_a_plain_file_of_ours_is_refused() {
    let scratch = Scratch::new();
    let whole = scratch.holding(&super::samples());
    for ending in ["", "-wal", "-shm"] {
        let path = scratch.file(ending);
        let fresh = || {
            // Before anything is written: a FIFO would hold us up.
            let _ = fs::remove_file(&path);
            scratch.put(&whole);
            let _ = fs::remove_file(scratch.file("-shm"));
            let _ = fs::remove_file(&path);
        };
        let refuse = |parts: &[&str]| {
            let said = refusal(scratch.open());
            contains(&said, &[&path.display().to_string()]);
            contains(&said, parts);
        };
        fresh();
        symlink("elsewhere", &path).expect("ours");
        refuse(&["is a symbolic link"]);
        fresh();
        nix::unistd::mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).expect("ours");
        refuse(&["is a FIFO"]);
        fresh();
        fs::create_dir(&path).expect("ours");
        refuse(&["is a directory"]);
        fs::remove_dir(&path).expect("ours");
        fresh();
        scratch.put_as(ending, &whole);
        chmod(&path, 0o644);
        refuse(&["has mode 0644"]);
        fresh();
        scratch.put_as(ending, &whole);
        fs::hard_link(&path, scratch.0.path().join("second")).expect("ours");
        refuse(&["has 2 names"]);
        fs::remove_file(scratch.0.path().join("second")).expect("ours");
        fresh();
        scratch.put_as(ending, b"");
        // Sparse: it takes no room.
        File::options().write(true).open(&path).and_then(|file| file.set_len(1 << 40)).expect("ours");
        refuse(&["has 1099511627776 bytes"]);
        fresh();
    }
    let _ = fs::remove_file(scratch.file(""));
    scratch.put(&whole);
    assert_eq!(super::all(&scratch.store()), super::samples());
}

#[test]
fn an_empty_database_is_not_a_new_one() {
    let scratch = Scratch::new();
    scratch.put(b"");
    let error = scratch.open().expect_err("refused");
    assert!(matches!(&error, StoreError::Corrupt(why) if why.contains("it is empty")), "{error}");
    contains(&error.to_string(), &["mkdir -m 700 ", "agent-loop.db* "]);
    assert_eq!(fs::metadata(scratch.file("")).expect("it is left").len(), 0);
}

#[test]
fn a_second_lock_in_one_process_is_refused_and_its_end_frees_the_state() {
    let scratch = Scratch::new();
    let (one, two) = (scratch.state(), scratch.state());
    for _ in 0..2 {
        let lock = one.lock().expect("nobody has it");
        let error = two.lock().expect_err("we have it");
        assert!(matches!(error, StoreError::Busy { pid: Some(pid), .. } if pid == std::process::id()), "{error}");
        drop(lock);
    }
    fs::write(one.path().join("lock"), b"x").expect("ours");
    contains(&refusal(one.lock()), &["/lock has 1 bytes"]);
    fs::write(one.path().join("lock"), b"").expect("ours");
    drop(one.lock().expect("a lock that could not be taken is not held"));
}

fn id(number: u128) -> RunId {
    RunId(Ulid(number))
}

/// What the pipe holds now; `None` once nobody can write into it.
fn drained(pipe: &std::os::fd::OwnedFd) -> Option<Vec<u8>> {
    let mut pipe = File::from(pipe.try_clone().expect("descriptors are left"));
    let mut bytes = [0; 4096];
    match pipe.read(&mut bytes) {
        Ok(0) => None,
        Ok(length) => Some(bytes[..length].to_vec()),
        Err(error) => {
            assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "{error}");
            Some(Vec::new())
        }
    }
}

fn write(to: &std::os::fd::OwnedFd, bytes: &[u8]) {
    File::from(to.try_clone().expect("descriptors are left")).write_all(bytes).expect("there is room");
}

#[test]
fn what_the_agent_writes_comes_out_of_its_own_pipe() {
    let scratch = Scratch::new();
    let (state, log) = (scratch.state(), scratch.log());
    let RunFiles { writers, drains } = RunFiles::create(&state, &log, id(1)).expect("new");
    for (number, (writer, (pipe, file))) in writers.iter().zip(&drains).enumerate() {
        assert_eq!(drained(pipe), Some(Vec::new()));
        write(writer, &[b'a' + number as u8; 3]);
        let bytes = drained(pipe).expect("a writer is there");
        assert_eq!(bytes, [b'a' + number as u8; 3]);
        write(file, &bytes);
        // The agent's end blocks as a pipe does, the keeper's does not.
        assert!(!OFlag::from_bits_retain(fcntl(writer, FcntlArg::F_GETFL).expect("open")).contains(OFlag::O_NONBLOCK));
    }
    let [out, err] = RunFiles::paths(log.path(), id(1));
    assert_eq!((fs::read(&out).expect("out"), fs::read(&err).expect("err")), (b"aaa".to_vec(), b"bbb".to_vec()));
    assert_eq!((mode(&out), mode(&err)), (0o600, 0o600));
    assert_eq!(mode(&state.path().join(format!("pipes/{}.out", id(1)))), 0o600);
    assert_eq!(mode(&state.path().join("pipes")), 0o700);
    drop(writers);
    assert!(drains.iter().all(|(pipe, _)| drained(pipe).is_none()), "with the last writer the pipe ends");
}

#[test]
fn an_agent_whose_keeper_is_gone_gets_no_sigpipe_and_its_output_is_taken_up() {
    let scratch = Scratch::new();
    let (state, log) = (scratch.state(), scratch.log());
    let RunFiles { writers, drains } = RunFiles::create(&state, &log, id(1)).expect("new");
    write(&drains[0].1, b"before ");
    drop(drains);
    // Nobody reads: a pipe opened for writing alone would give EPIPE here.
    write(&writers[0], b"meanwhile ");
    let again = RunFiles::reopen(&state, &log, id(1)).expect("it lives");
    assert_eq!(again.held, [7, 0]);
    let (pipe, file) = &again.drains[0];
    write(file, &drained(pipe).expect("a writer is there"));
    write(&writers[0], b"after");
    write(file, &drained(pipe).expect("a writer is there"));
    let [out, _] = RunFiles::read(&log, id(1)).expect("it is there");
    let mut text = String::new();
    (&out).read_to_string(&mut text).expect("text");
    assert_eq!(text, "before meanwhile after");
}

#[test]
fn a_second_attempt_takes_empty_files_and_no_others() {
    let scratch = Scratch::new();
    let (state, log) = (scratch.state(), scratch.log());
    drop(RunFiles::create(&state, &log, id(1)).expect("new"));
    let RunFiles { drains, .. } = RunFiles::create(&state, &log, id(1)).expect("the first wrote nothing");
    write(&drains[1].1, b"x");
    contains(&refusal(RunFiles::create(&state, &log, id(1))), &["/stderr holds output already"]);
    let error = RunFiles::reopen(&state, &log, id(2)).expect_err("it never was");
    assert!(matches!(error, StoreError::Failed { .. }), "{error}");
}

#[test]
fn the_pipes_of_a_run_go_and_its_output_stays() {
    let scratch = Scratch::new();
    let (state, log) = (scratch.state(), scratch.log());
    assert_eq!(RunFiles::with_pipes(&state).expect("none"), []);
    drop(RunFiles::create(&state, &log, id(2)).expect("new"));
    drop(RunFiles::create(&state, &log, id(1)).expect("new"));
    assert_eq!(RunFiles::with_pipes(&state).expect("two"), [id(1), id(2)]);
    for _ in 0..2 {
        RunFiles::remove_pipes(&state, id(2)).expect("ours");
    }
    assert_eq!(RunFiles::with_pipes(&state).expect("one"), [id(1)]);
    assert!(RunFiles::paths(log.path(), id(2)).iter().all(|path| path.exists()));
    let error = RunFiles::reopen(&state, &log, id(2)).expect_err("its pipes are gone");
    contains(&error.to_string(), &["opening the pipe"]);
    File::create(state.path().join("pipes/01hf.out")).expect("ours");
    contains(&refusal(RunFiles::with_pipes(&state)), &["is not a pipe of a run"]);
}

#[test]
fn what_stands_in_the_place_of_a_pipe_or_an_output_is_refused() {
    let scratch = Scratch::new();
    let (state, log) = (scratch.state(), scratch.log());
    drop(RunFiles::create(&state, &log, id(1)).expect("new"));
    let pipe = state.path().join(format!("pipes/{}.out", id(1)));
    let [out, _] = RunFiles::paths(log.path(), id(1));

    fs::remove_file(&pipe).expect("ours");
    fs::write(&pipe, b"").expect("ours");
    chmod(&pipe, 0o600);
    contains(&refusal(RunFiles::reopen(&state, &log, id(1))), &["is a regular file, where a FIFO belongs"]);
    fs::remove_file(&pipe).expect("ours");
    symlink(&out, &pipe).expect("ours");
    let error = RunFiles::reopen(&state, &log, id(1)).expect_err("a link is not followed");
    contains(&error.to_string(), &["opening the pipe"]);
    fs::remove_file(&pipe).expect("ours");
    nix::unistd::mkfifo(&pipe, Mode::S_IRUSR | Mode::S_IWUSR).expect("ours");
    chmod(&pipe, 0o622);
    contains(&refusal(RunFiles::reopen(&state, &log, id(1))), &["has mode 0622"]);
    chmod(&pipe, 0o600);
    RunFiles::reopen(&state, &log, id(1)).expect("as it was");

    fs::remove_file(&out).expect("ours");
    symlink("/dev/null", &out).expect("ours");
    for refused in [RunFiles::reopen(&state, &log, id(1)).map(drop), RunFiles::create(&state, &log, id(1)).map(drop)] {
        contains(&refusal(refused), &["/stdout is a symbolic link"]);
    }
}

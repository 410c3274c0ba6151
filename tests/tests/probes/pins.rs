//! A pinned set outlives its loader: adopted whole, replaced when it is not what was pinned, never used otherwise.

use std::fs::{self, Permissions};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use agent_loop::keeper::signal::LiveSet as _;
use agent_loop::kernel::pins::{self, Found, PinnedLiveSet, Why};
use agent_loop::kernel::{ExitHook, Layout, LoadError, Options, RunsBy, Tracepoints};
use agent_loop_common::ABI_VERSION;
use agent_loop_tests::bpf::{self, BpfFs};
use agent_loop_tests::harness::{eventually, pinner};
use agent_loop_tests::needs;
use agent_loop_tests::oracle::Status;
use agent_loop_tests::sys::{self, Cloned, Stub};
use agent_loop_tests::traced::{Run, Traced, status};

/// The size of the value that the pinned map `ABI` has.
const ABI_BYTES: usize = 176;

/// A bpffs of the test's own, and in it the directory of the pins.
fn place() -> (BpfFs, PathBuf) {
    let fs = BpfFs::mount();
    let dir = fs.path().join("agent-loop");
    (fs, dir)
}

fn options(run: &Run) -> Options {
    Options { runs: run.by(), ..Options::default() }
}

fn open(dir: &Path, options: &Options) -> (Traced, Found) {
    Traced::pinned(dir, options).expect("a pinned set")
}

fn own_tracepoints() -> Tracepoints {
    Layout::of_running_kernel().expect("a known layout").tracepoints()
}

/// The number of pins of a whole set: seven maps, the snapshot program, the ABI, and two for each hook.
fn whole() -> usize {
    9 + 2 * match own_tracepoints() {
        Tracepoints::Whole => 3,
        Tracepoints::Preemptible => 9,
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("the directory").map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<_> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The pinner, with these options; it ends when what it reads from ends.
fn loader(dir: &Path, options: &Options, run: Option<&Run>) -> Command {
    let mut command = Command::new(pinner());
    command.arg(dir).args(["--events", &options.events_bytes.to_string()]);
    command.args(["--live", &options.live_entries.to_string()]);
    if let RunsBy::Level(level) = options.runs {
        command.args(["--level", &level.to_string()]);
    }
    if let Some(run) = run {
        command.args(["--run", &run.tag().0.to_string()]);
    }
    command
}

/// Starts it and waits for what it found.
fn start(command: &mut Command) -> (Child, String) {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the pinner starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("what it found");
    (child, line.trim().to_owned())
}

fn kill(child: Child) {
    let pidfd = sys::pidfd_open(child.id().cast_signed()).expect("our child");
    sys::pidfd_signal(&pidfd, libc::SIGKILL).expect("our child");
    assert_eq!(sys::wait(child.id().cast_signed()).expect("our child"), Status::signaled(libc::SIGKILL, false));
}

fn reap(child: &Cloned, signal: i32) -> Status {
    sys::pidfd_signal(&child.pidfd, signal).expect("our child");
    sys::wait(child.pid).expect("our child")
}

/// A process that is born in the run and exits.
fn one(run: &Run) {
    let child = run.clone(Stub::Exit(3), None).expect("clone3");
    sys::wait(child.pid).expect("our child");
}

/// Asserts that the set tells what happens, exactly.
fn assert_works(traced: &mut Traced, run: &Run) {
    traced.drain();
    traced.events.clear();
    traced.tracing.runs.insert(run.tag()).expect("a run");
    one(run);
    traced.drain().assert_all_ended();
    assert_eq!(traced.births().count(), 1);
    let totals = traced.tracing.runs.totals(run.tag(), &traced.tracing.counters).expect("the table").expect("a run");
    assert_eq!((totals.seen_fork, totals.seen_exit, totals.missed), (1, 1, 0));
    traced.tracing.runs.remove(run.tag()).expect("the table");
}

#[test]
fn what_happens_while_nobody_reads_is_told_to_the_next_reader() {
    needs!(cgroup, bpf, bpffs);
    let ((_fs, dir), run) = (place(), Run::new());
    let (first, said) = start(&mut loader(&dir, &options(&run), Some(&run)));
    assert_eq!(said, "fresh: nothing was pinned");
    let main = run.clone(Stub::Pause, None).expect("clone3");
    let second = run.clone(Stub::Pause, None).expect("clone3");
    kill(first);

    let third = run.clone(Stub::Pause, None).expect("clone3");
    reap(&second, libc::SIGKILL);
    let ended = reap(&main, libc::SIGTERM);

    let (mut traced, found) = open(&dir, &options(&run));
    assert_eq!(found, Found::Adopted);
    let told = traced.tracing.runs.get(run.tag()).expect("the table").expect("the run");
    assert_eq!(told.main.map(|key| key.tgid), Some(main.pid.cast_unsigned()));
    assert_eq!(told.exit.expect("its end").0.map(status), Some(ended));
    let live = traced.tracing.live.all().expect("the live set");
    assert_eq!(live.iter().map(|live| live.key.tgid).collect::<Vec<_>>(), [third.pid.cast_unsigned()]);
    traced.drain();
    let born: Vec<_> = traced.births().map(|birth| birth.key.tgid.cast_signed()).collect();
    assert_eq!(born, [main.pid, second.pid, third.pid]);
    let died: Vec<_> = traced.deaths().map(|death| death.key.tgid.cast_signed()).collect();
    assert_eq!(died, [second.pid, main.pid]);
    assert_eq!(traced.death_of(told.main.expect("it was born")).status.map(status), Some(ended));

    assert_eq!(traced.tracing.runs.all().expect("the table"), [(run.tag(), told)]);
    // The hooks and counters go on.
    reap(&third, libc::SIGKILL);
    traced.drain().assert_all_ended();
    let totals = traced.tracing.runs.totals(run.tag(), &traced.tracing.counters).expect("the table").expect("the run");
    assert_eq!((totals.seen_fork, totals.seen_exit, totals.lost_fork, totals.missed), (3, 3, 0, 0));
    assert_eq!(traced.tracing.counters.read().expect("the counters").seen_exit, 3);
    assert_eq!(Some(traced.tracing.probes.exit_hook()), own_exit_hook());
}

fn own_exit_hook() -> Option<ExitHook> {
    Layout::of_running_kernel().ok().map(|layout| layout.exit_hook())
}

#[test]
fn what_one_reader_has_read_the_next_does_not_read_again() {
    needs!(cgroup, bpf, bpffs);
    let ((_fs, dir), run) = (place(), Run::new());
    let (mut traced, _) = open(&dir, &options(&run));
    traced.tracing.runs.insert(run.tag()).expect("a run");
    for turn in 0..5 {
        one(&run);
        assert_eq!(traced.drain().births().count(), 1, "{turn}");
        traced.assert_all_ended();
        drop(traced);
        one(&run);
        let (next, found) = open(&dir, &options(&run));
        assert_eq!(found, Found::Adopted);
        traced = next;
        assert_eq!(traced.drain().births().count(), 1, "{turn}");
        traced.assert_all_ended();
        traced.events.clear();
    }
    let totals = traced.tracing.runs.totals(run.tag(), &traced.tracing.counters).expect("the table").expect("the run");
    assert_eq!((totals.seen_fork, totals.seen_exit), (10, 10));
}

#[test]
fn an_adopted_set_finds_by_its_snapshot_who_was_moved_in() {
    needs!(cgroup, bpf, bpffs);
    let ((_fs, dir), run) = (place(), Run::new());
    drop(open(&dir, &options(&run)));
    // Born in the cgroup before it is a run.
    let child = run.clone(Stub::Pause, None).expect("clone3");
    let (mut traced, found) = open(&dir, &options(&run));
    assert_eq!(found, Found::Adopted);
    traced.tracing.runs.insert(run.tag()).expect("a run");
    let there = traced.tracing.probes.snapshot().expect("a snapshot");
    assert_eq!(there.iter().map(|live| live.key.tgid).collect::<Vec<_>>(), [child.pid.cast_unsigned()]);
    reap(&child, libc::SIGKILL);
    traced.drain().assert_all_ended();
}

#[test]
fn watch_rules_are_rewritten_in_place() {
    needs!(root, bpf, bpffs);
    let (_fs, dir) = place();
    let watching = |names: &[&str]| Options {
        watch: names.iter().map(|name| ((*name).to_owned(), 1)).collect(),
        ..Options::default()
    };
    let rules = |dir: &Path| bpf::keys(&dir.join("WATCH"), 16).expect("the rules").len();
    drop(open(&dir, &watching(&["al-one", "al-two"])));
    assert_eq!(rules(&dir), 2);
    assert_eq!(open(&dir, &watching(&["al-two"])).1, Found::Adopted);
    let left = bpf::keys(&dir.join("WATCH"), 16).expect("the rules");
    assert_eq!(left, [b"al-two\0\0\0\0\0\0\0\0\0\0".to_vec()]);
    assert_eq!(open(&dir, &watching(&[])).1, Found::Adopted);
    assert_eq!(rules(&dir), 0);
}

#[test]
fn a_set_of_other_settings_is_replaced() {
    needs!(cgroup, bpf, bpffs);
    let ((_fs, dir), run) = (place(), Run::new());
    let base = options(&run);
    for other in [
        Options { events_bytes: 1 << 20, ..base.clone() },
        Options { execs_bytes: 1 << 20, ..base.clone() },
        Options { live_entries: 1_000, ..base.clone() },
        Options { runs: RunsBy::Level(77), ..base.clone() },
        Options { exit_hook: Some(ExitHook::Latch), ..base.clone() },
        Options { group_exit: false, ..base.clone() },
        Options { tracepoints: Some(Tracepoints::Whole), ..base.clone() },
        Options { tracepoints: Some(Tracepoints::Preemptible), ..base.clone() },
    ] {
        drop(open(&dir, &other));
        let (mut traced, found) = open(&dir, &base);
        let Found::Fresh { why: why @ Why::Settings(_) } = found else { panic!("{other:?}: {found:?}") };
        assert!(why.to_string().contains("another") || why.to_string().contains("another depth"), "{why}");
        assert_works(&mut traced, &run);
        assert_eq!(open(&dir, &base).1, Found::Adopted);
    }
}

/// What is done to a set, and what is then said of it.
type Forgery<'a> = (&'a str, &'a dyn Fn(&Path), fn(&Why) -> bool);

#[test]
fn a_set_that_is_not_what_was_pinned_is_replaced_and_never_used() {
    needs!(cgroup, bpf, bpffs);
    let ((fs, dir), run) = (place(), Run::new());
    let other = fs.path().join("other");
    drop(open(&other, &options(&run)));
    let unpin = |path: &Path| fs::remove_file(path).expect("a pin");
    let abi = |change: fn(&mut [u8])| {
        move |dir: &Path| bpf::change(&dir.join("ABI"), &mut [0; ABI_BYTES], change).expect("the map")
    };
    let swap = |name: &'static str, with: PathBuf| {
        move |dir: &Path| {
            fs::remove_file(dir.join(name)).expect("a pin");
            bpf::pin_again(&with, &dir.join(name)).expect("it can be pinned");
        }
    };
    let incomplete: fn(&Why) -> bool = |why| matches!(why, Why::Incomplete(_));
    let forged: fn(&Why) -> bool = |why| matches!(why, Why::Forged(_));
    let version: fn(&Why) -> bool = |why| matches!(why, Why::Version(_));
    let (other_version, other_magic) = (abi(|abi| abi[8] ^= 0xff), abi(|abi| abi[0] ^= 1));
    let other_map = abi(|abi| abi[64] ^= 1);
    let (live, exit, snapshot) =
        (swap("LIVE", other.join("LIVE")), swap("exit", other.join("exit")), swap("snapshot", other.join("snapshot")));
    let (map_for_link, link_for_map) = (swap("fork", other.join("EVENTS")), swap("EVENTS", dir.join("fork")));
    let exit_program = swap("exit_program", other.join("exit_program"));
    let (link_for_abi, program_for_abi) = (swap("ABI", other.join("fork")), swap("ABI", other.join("snapshot")));
    let hash_for_abi = swap("ABI", other.join("RUNS"));
    let forgeries: [Forgery<'_>; 23] = [
        ("no ABI", &|dir| unpin(&dir.join("ABI")), incomplete),
        ("no exit link", &|dir| unpin(&dir.join("exit")), incomplete),
        ("no fork link", &|dir| unpin(&dir.join("fork")), incomplete),
        ("no run table", &|dir| unpin(&dir.join("RUNS")), incomplete),
        ("no snapshot program", &|dir| unpin(&dir.join("snapshot")), incomplete),
        ("no exit program", &|dir| unpin(&dir.join("exit_program")), incomplete),
        ("another version", &other_version, version),
        ("another magic", &other_magic, forged),
        ("another map recorded", &other_map, forged),
        ("another set's live set", &live, forged),
        ("another set's exit link", &exit, forged),
        ("another set's snapshot program", &snapshot, forged),
        ("another set's exit program", &exit_program, forged),
        ("a map for a link", &map_for_link, forged),
        ("a link for a map", &link_for_map, forged),
        (
            "a link for a map, recorded as that",
            &|dir| {
                link_for_map(dir);
                // The third link's id for the fifth map's.
                bpf::change(&dir.join("ABI"), &mut [0; ABI_BYTES], |abi| abi.copy_within(100..104, 80))
                    .expect("the map");
            },
            forged,
        ),
        ("a link for the ABI", &link_for_abi, forged),
        ("a program for the ABI", &program_for_abi, forged),
        ("a hash map for the ABI", &hash_for_abi, forged),
        (
            "an array of another size for the ABI",
            &|dir| {
                unpin(&dir.join("ABI"));
                bpf::pin_map(&dir.join("ABI"), 2, 4, 64, 1).expect("a map");
            },
            version,
        ),
        (
            "a map of another type",
            &|dir| {
                unpin(&dir.join("LIVE"));
                bpf::pin_map(&dir.join("LIVE"), 2, 4, 48, 65_536).expect("a map");
            },
            forged,
        ),
        (
            "one more pin",
            &|dir| bpf::pin_map(&dir.join("MORE"), 2, 4, 4, 1).expect("a map"),
            |why| matches!(why, Why::Extra(name) if name == "MORE"),
        ),
        (
            "a pin that others can open",
            &|dir| fs::set_permissions(dir.join("LIVE"), Permissions::from_mode(0o644)).expect("ours"),
            |why| matches!(why, Why::Exposed(name) if name == "LIVE"),
        ),
    ];
    for (what, forge, expected) in forgeries {
        pins::remove(&dir).expect("it can be removed");
        let (mut first, found) = open(&dir, &options(&run));
        assert_eq!(found, Found::Fresh { why: Why::Nothing }, "{what}");
        // What only the replaced set holds.
        first.tracing.runs.insert(run.tag()).expect("a run");
        one(&run);
        drop(first);
        forge(&dir);
        let (mut traced, found) = open(&dir, &options(&run));
        let Found::Fresh { why } = found else { panic!("{what}: {found:?}") };
        assert!(expected(&why), "{what}: {why:?}");
        assert!(!why.to_string().is_empty());
        assert_eq!(traced.tracing.runs.get(run.tag()).expect("the table"), None, "{what}: nothing of it is used");
        assert!(traced.drain().events.is_empty(), "{what}: nothing of it is read");
        assert_works(&mut traced, &run);
        drop(traced);
        assert_eq!(open(&dir, &options(&run)).1, Found::Adopted, "{what}");
        assert_eq!(names(&dir).len(), whole(), "{what}");
    }
}

#[test]
fn a_link_to_another_tracepoint_is_not_taken_for_ours() {
    needs!(cgroup, bpf, bpffs);
    let ((_fs, dir), run) = (place(), Run::new());
    drop(open(&dir, &options(&run)));
    // The links change places, and what the set says of itself with them: each is one of ours and attached.
    fs::rename(dir.join("exec"), dir.join("x")).expect("ours");
    fs::rename(dir.join("fork"), dir.join("exec")).expect("ours");
    fs::rename(dir.join("x"), dir.join("fork")).expect("ours");
    bpf::change(&dir.join("ABI"), &mut [0; ABI_BYTES], |abi| {
        // After the head, the digest and seven maps: the links, then the programs, with room for nine each.
        let (exec, fork) = match own_tracepoints() {
            Tracepoints::Whole => (1, 2),
            Tracepoints::Preemptible => (4, 8),
        };
        for first in [92, 92 + 9 * 4] {
            for byte in first..first + 4 {
                abi.swap(byte + exec * 4, byte + fork * 4);
            }
        }
    })
    .expect("the map");
    let (mut traced, found) = open(&dir, &options(&run));
    assert_eq!(found, Found::Fresh { why: Why::Forged("exec".to_owned()) });
    assert_works(&mut traced, &run);
}

#[test]
fn a_directory_that_is_not_roots_alone_is_refused_untouched() {
    needs!(cgroup, bpf, bpffs);
    let ((fs, dir), run) = (place(), Run::new());
    let refused = |path: &Path, word: &str| match Traced::pinned(path, &options(&run)) {
        Err(LoadError::Pins(why)) => assert!(why.contains(word), "{why}"),
        Err(other) => panic!("{other}"),
        Ok((_, found)) => panic!("{found:?}"),
    };
    drop(open(&dir, &options(&run)));
    let before = names(&dir);
    assert_eq!(before.len(), whole());
    assert_eq!(fs::metadata(&dir).expect("it is there").permissions().mode() & 0o7777, 0o700);

    fs::set_permissions(&dir, Permissions::from_mode(0o755)).expect("ours");
    refused(&dir, "chmod 0700");
    assert_eq!(pins::live_set(&dir).err().expect("it is refused").kind(), io::ErrorKind::PermissionDenied);
    assert!(pins::remove(&dir).is_err());
    fs::set_permissions(&dir, Permissions::from_mode(0o700)).expect("ours");

    chown(&dir, Some(65_534), None).expect("root may");
    refused(&dir, "belongs to user 65534");
    assert_eq!(pins::live_set(&dir).err().expect("it is refused").kind(), io::ErrorKind::PermissionDenied);
    assert!(pins::remove(&dir).is_err());
    chown(&dir, Some(0), None).expect("root may");

    let link = fs.path().join("link");
    symlink(&dir, &link).expect("a symbolic link");
    refused(&link, "symbolic link");
    assert_eq!(pins::live_set(&link).err().expect("it is refused").kind(), io::ErrorKind::PermissionDenied);
    assert!(pins::remove(&link).is_err());
    let above = fs.path().join("above");
    symlink(fs.path(), &above).expect("a symbolic link");
    refused(&above.join("agent-loop"), "symbolic link");

    fs::create_dir(dir.join("sub")).expect("a directory");
    refused(&dir, "sub");
    assert!(pins::remove(&dir).is_err());
    fs::remove_dir(dir.join("sub")).expect("ours");
    symlink("/", dir.join("away")).expect("a symbolic link");
    refused(&dir, "away");
    assert!(pins::remove(&dir).is_err());
    fs::remove_file(dir.join("away")).expect("ours");

    let elsewhere = tempfile::TempDir::new().expect("a scratch directory");
    let path = elsewhere.path().canonicalize().expect("it is there").join("pins");
    refused(&path, "mount -t bpf");
    assert!(!path.exists(), "nothing is made where no pin can be");
    refused(Path::new("relative"), "absolute");

    // After all that the set is what it was.
    assert_eq!(names(&dir), before);
    let (mut traced, found) = open(&dir, &options(&run));
    assert_eq!(found, Found::Adopted);
    assert_works(&mut traced, &run);
}

#[test]
fn a_removed_set_records_no_more() {
    needs!(cgroup, bpf, bpffs);
    const ENTRIES: u32 = 1_237;
    let ((_fs, dir), run) = (place(), Run::new());
    let options = Options { live_entries: ENTRIES, ..options(&run) };
    let (mut traced, _) = open(&dir, &options);
    assert_eq!(bpf::live_sets_of_size(ENTRIES).expect("the kernel's maps"), 1);
    traced.tracing.runs.insert(run.tag()).expect("a run");
    one(&run);
    pins::remove(&dir).expect("it can be removed");
    assert!(!dir.exists());
    pins::remove(&dir).expect("what is not there is removed");
    // Whoever holds it open is not left with maps that nobody maintains.
    one(&run);
    traced.drain().assert_all_ended();
    assert_eq!(traced.births().count(), 2);
    assert_eq!(pins::live_set(&dir).err().expect("it is gone").kind(), io::ErrorKind::NotFound);
    drop(traced);
    eventually("the end of the maps", || (bpf::live_sets_of_size(ENTRIES).ok()? == 0).then_some(()));
}

#[test]
fn the_live_set_alone_is_opened_to_read() {
    needs!(cgroup, bpf, bpffs);
    let ((_fs, dir), run) = (place(), Run::new());
    assert_eq!(pins::live_set(&dir).err().expect("no directory").kind(), io::ErrorKind::NotFound);
    let (mut traced, _) = open(&dir, &options(&run));
    traced.tracing.runs.insert(run.tag()).expect("a run");
    let live = pins::live_set(&dir).expect("it is pinned");
    let child = run.clone(Stub::Pause, None).expect("clone3");
    let found = live.lookup(child.pid.cast_unsigned()).expect("the live set").expect("it lives");
    assert_eq!(found.run, run.tag());
    assert_eq!(live.all().expect("the live set"), [found]);
    // Neither the daemon nor its probes are needed.
    drop(traced);
    reap(&child, libc::SIGKILL);
    assert_eq!(live.lookup(child.pid.cast_unsigned()).expect("the live set"), None);

    let abi = dir.join("ABI");
    bpf::change(&abi, &mut [0; ABI_BYTES], |abi| abi[8..12].copy_from_slice(&(ABI_VERSION + 1).to_ne_bytes()))
        .expect("the map");
    let error = pins::live_set(&dir).err().expect("another version is not read");
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(error.to_string().contains(&(ABI_VERSION + 1).to_string()), "{error}");
    bpf::change(&abi, &mut [0; ABI_BYTES], |abi| abi[8..12].copy_from_slice(&ABI_VERSION.to_ne_bytes()))
        .expect("the map");
    pins::live_set(&dir).expect("it is ours again");
    fs::remove_file(dir.join("LIVE")).expect("ours");
    bpf::pin_again(&dir.join("fork"), &dir.join("LIVE")).expect("a link");
    assert_eq!(pins::live_set(&dir).err().expect("a link").kind(), io::ErrorKind::InvalidData);
    fs::remove_file(dir.join("LIVE")).expect("ours");
    assert_eq!(pins::live_set(&dir).err().expect("it is gone").kind(), io::ErrorKind::NotFound);
    bpf::pin_map(&dir.join("LIVE"), 1, 4, 40, 100).expect("a map");
    assert_eq!(pins::live_set(&dir).err().expect("a forged one").kind(), io::ErrorKind::InvalidData);
}

#[test]
fn a_live_set_that_no_hook_maintains_proves_nothing() {
    needs!(cgroup, bpf, bpffs);
    let ((_fs, dir), run) = (place(), Run::new());
    let live = PinnedLiveSet::new(&dir);
    let kind = |live: &PinnedLiveSet, pid: i32| live.lookup(pid.cast_unsigned()).expect_err("no proof").kind();
    assert_eq!(kind(&live, 1), io::ErrorKind::NotFound, "nothing is pinned");
    let (mut traced, _) = open(&dir, &options(&run));
    traced.tracing.runs.insert(run.tag()).expect("a run");
    drop(traced);
    let child = run.clone(Stub::Pause, None).expect("clone3");
    let pid = child.pid;
    let lookup = || live.lookup(pid.cast_unsigned()).expect("a set is pinned").map(|it| it.key.tgid.cast_signed());
    assert_eq!(lookup(), Some(pid));

    // A hook is gone, or another's in its place: what the map holds may be dead.
    fs::rename(dir.join("exit"), dir.join("away")).expect("ours");
    assert_eq!(kind(&live, pid), io::ErrorKind::NotFound);
    bpf::pin_again(&dir.join("fork"), &dir.join("exit")).expect("it can be pinned");
    assert_eq!(kind(&live, pid), io::ErrorKind::InvalidData);
    fs::rename(dir.join("away"), dir.join("exit")).expect("ours");
    assert_eq!(lookup(), Some(pid));

    // The set is replaced, and the process dies: who had opened the old one would believe that it lives.
    let old = pins::live_set(&dir).expect("it is pinned");
    let (replaced, found) = open(&dir, &Options { events_bytes: 1 << 20, ..options(&run) });
    assert!(matches!(found, Found::Fresh { .. }), "{found:?}");
    assert_eq!(lookup(), None, "the new set has not found it yet");
    // The kernel detaches after a moment.
    eventually("a death that the old set does not see", || {
        let child = run.clone(Stub::Pause, None).ok()?;
        let seen = old.lookup(child.pid.cast_unsigned()).expect("the old live set").is_some();
        reap(&child, libc::SIGKILL);
        (!seen).then_some(())
    });
    reap(&child, libc::SIGKILL);
    assert!(old.lookup(pid.cast_unsigned()).expect("the old live set").is_some());
    assert_eq!(lookup(), None);
    drop(replaced);
    pins::remove(&dir).expect("it can be removed");
    assert_eq!(kind(&live, pid), io::ErrorKind::NotFound);
}

#[test]
fn a_loader_killed_at_any_step_leaves_what_the_next_start_makes_whole() {
    needs!(cgroup, bpf, bpffs);
    const ENTRIES: u32 = 1_291;
    const KILLS: usize = 30;
    let ((_fs, dir), run) = (place(), Run::new());
    let calls = [libc::SYS_bpf, libc::SYS_unlinkat, libc::SYS_mkdirat];
    let by = |turn: usize| Options {
        live_entries: ENTRIES,
        // Each start finds a set of other settings, and so replaces it.
        events_bytes: if turn.is_multiple_of(2) { 1 << 20 } else { 2 << 20 },
        ..options(&run)
    };
    let quiet = |turn: usize| {
        let mut command = loader(&dir, &by(turn), None);
        command.arg("--once").stdout(Stdio::null()).stdin(Stdio::null());
        command
    };
    // A replacement from its first step to its last.
    drop(open(&dir, &by(1)));
    let (killed, steps) = sys::kill_at_call(&mut quiet(0), &calls, usize::MAX).expect("it can be traced");
    assert!(!killed && steps > 50, "{steps}");
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let (mut adopted, mut cut, mut untouched) = (0, 0, 0);
    for turn in 1..=KILLS {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        // Anywhere, but spread over the whole.
        let at = ((turn - 1) * steps + seed as usize % steps) / KILLS;
        sys::kill_at_call(&mut quiet(turn), &calls, at).expect("it can be traced");
        let (mut traced, found) = open(&dir, &by(turn));
        match found {
            Found::Adopted => adopted += 1,
            Found::Fresh { why: Why::Settings(_) } => untouched += 1,
            Found::Fresh { why: Why::Incomplete(_) | Why::Nothing } => cut += 1,
            Found::Fresh { why } => panic!("killed at {at} of {steps}: {why}"),
        }
        assert_works(&mut traced, &run);
        assert_eq!(names(&dir).len(), whole());
        eventually("one set alone", || (bpf::live_sets_of_size(ENTRIES).ok()? == 1).then_some(()));
    }
    println!("{KILLS} kills at {steps} steps: {untouched} before the swap, {cut} in it, {adopted} after it");
    assert!(cut > KILLS / 4 && adopted > 0);
}

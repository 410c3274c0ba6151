//! State that is damaged or forged: refused and kept as it is, and nobody is signalled for what it says.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use agent_loop::model::{BootNs, PidfsIno, ProcessKey, RunTag, StopReason, Totals};
use agent_loop::run::{Born, Limits, RunId, RunRecord, Stage, Submission};
use agent_loop::store::{SqliteStore, StateDir, Store as _};
use agent_loop::supervise::Leftovers;
use agent_loop_tests::harness::cgroup::Cell;
use agent_loop_tests::harness::{Host, eventually, host};
use agent_loop_tests::{needs, sys};
use nix::sys::stat::Mode;
use serde_json::Value;

use crate::{Stranger, count, said, shell};

const DB: &str = "state/agent-loop.db";

/// Every entry of a directory with its kind, mode, owner, number of links, and bytes.
fn picture(dir: &Path) -> BTreeMap<PathBuf, (u32, u32, u64, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let look = |path: PathBuf, found: &mut BTreeMap<_, _>| {
        let stat = fs::symlink_metadata(&path).expect("it is there");
        let bytes = if stat.is_file() { fs::read(&path).expect("our file") } else { Vec::new() };
        found.insert(path, (stat.mode(), stat.uid(), stat.nlink(), bytes));
    };
    for entry in fs::read_dir(dir).expect("our directory") {
        let path = entry.expect("our directory").path();
        // The lock's text is whose it is.
        if path.is_dir() || path.file_name().is_some_and(|name| name == "lock") {
            continue;
        }
        look(path, &mut found);
    }
    look(dir.to_owned(), &mut found);
    found
}

/// A host with a run that goes on, under its keeper alone.
struct Left {
    host: Host,
    id: String,
    go: PathBuf,
    stranger: Stranger,
}

impl Left {
    fn new() -> Self {
        let host = Host::new();
        let mut daemon = host.serving();
        let go = host.path("agents/go");
        let script = format!("until [ -e {} ]; do sleep 0.05; done; exit 29", go.display());
        let id = host.start(&[], shell(&script));
        host.in_state(&id, "running");
        assert!(daemon.terminate().success());
        Self { host, id, go, stranger: Stranger::new() }
    }

    /// A daemon on this state refuses, says why, changes nothing and signals nobody.
    fn assert_refused(&mut self, case: &str) {
        let before = picture(&self.host.path("state"));
        let mut daemon = self.host.serve();
        assert!(!daemon.ready_or_ended(), "{case}: it was taken for good: {}", daemon.log());
        let code = daemon.wait().code();
        let log = daemon.log();
        assert_eq!(code, Some(5), "{case}: {log}");
        assert!(log.contains("state"), "{case}: it names the place: {log}");
        let mut after = picture(&self.host.path("state"));
        // SQLite leaves a log without a byte beside what it looked into.
        let log = self.host.path("state/agent-loop.db-wal");
        if !before.contains_key(&log) && after.get(&log).is_some_and(|(.., bytes)| bytes.is_empty()) {
            after.remove(&log);
            fs::remove_file(&log).expect("our file");
        }
        let changed: Vec<_> = after
            .iter()
            .filter(|(path, it)| before.get(*path) != Some(*it))
            .map(|(path, it)| (path, it.0, it.3.len()))
            .collect();
        assert!(after == before, "{case}: it changed {changed:?}");
        self.assert_untouched(case);
    }

    fn assert_untouched(&mut self, case: &str) {
        self.stranger.assert_alive();
        let procs = self.host.runs().join(format!("run-{}/cgroup.events", self.id));
        assert!(
            fs::read_to_string(procs).is_ok_and(|text| text.contains("populated 1")),
            "{case}: its agent was ended"
        );
    }

    /// With its state back a daemon goes on as if nothing had been.
    fn assert_goes_on(&mut self) {
        let _daemon = self.host.serving();
        fs::write(&self.go, "").expect("a scratch file");
        let run = self.host.ended(&self.id);
        assert_eq!((&run["outcome"], &run["code"]), (&"ended".into(), &29.into()), "{run}");
        let events = self.host.events(&self.id);
        assert_eq!(count(&events, "signal.intent"), 0, "{events:?}");
        self.stranger.assert_alive();
    }
}

#[test]
fn a_database_that_was_cut_is_refused_and_kept() {
    needs!(root, bpf, cgroup);
    let mut left = Left::new();
    let db = left.host.path(DB);
    let good = fs::read(&db).expect("the state");
    for length in [0, 1, 15, 16, 99, 100, 512, 4095, 4096, good.len() / 2, good.len() - 4096, good.len() - 1] {
        fs::write(&db, &good[..length]).expect("our file");
        left.assert_refused(&format!("cut at {length} of {}", good.len()));
    }
    fs::write(&db, &good).expect("our file");
    left.assert_goes_on();
}

#[test]
fn a_database_with_a_flipped_bit_is_refused_or_says_the_same() {
    needs!(root, bpf, cgroup);
    let mut left = Left::new();
    let db = left.host.path(DB);
    let good = fs::read(&db).expect("the state");
    // In the header, and all over the row of the run that goes on.
    let row = good.windows(26).position(|part| part == left.id.as_bytes()).expect("the row");
    let places = [0, 5, 16, 18, 24, 28, 60, 68, 100, 103].into_iter().chain((row..row + 800).step_by(37));
    let mut refused = 0;
    for (number, place) in places.enumerate() {
        let Some(byte) = good.get(place) else { continue };
        let mut bad = good.clone();
        bad[place] = byte ^ (1 << (number % 8));
        fs::write(&db, &bad).expect("our file");
        let mut daemon = left.host.serve();
        if daemon.ready_or_ended() {
            // A byte that says nothing: its run goes on.
            assert_eq!(left.host.run(&left.id)["state"], "running", "at {place}: {}", daemon.log());
            assert!(daemon.terminate().success());
        } else {
            assert_eq!(daemon.wait().code(), Some(5), "at {place}: {}", daemon.log());
            assert!(fs::read(&db).expect("our file") == bad, "at {place}: it changed it");
            refused += 1;
        }
        left.assert_untouched(&format!("a bit at {place}"));
        let _ = fs::remove_file(left.host.path("state/agent-loop.db-wal"));
    }
    assert!(refused > 15, "{refused}");
    fs::write(&db, &good).expect("our file");
    left.assert_goes_on();
}

#[test]
fn state_that_others_could_have_put_there_is_refused_and_kept() {
    needs!(root, bpf, cgroup);
    let mut left = Left::new();
    let (dir, db, aside) = (left.host.path("state"), left.host.path(DB), left.host.path("aside"));
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("our file");

    for bits in [0o644, 0o660, 0o602] {
        mode(&db, bits);
        left.assert_refused(&format!("mode {bits:o}"));
    }
    mode(&db, 0o600);
    chown(&db, Some(65_534), None).expect("root");
    left.assert_refused("another owner");
    chown(&db, Some(0), None).expect("root");
    for bits in [0o755, 0o770, 0o702] {
        mode(&dir, bits);
        left.assert_refused(&format!("a directory of mode {bits:o}"));
    }
    mode(&dir, 0o700);
    chown(&dir, Some(65_534), None).expect("root");
    left.assert_refused("a directory of another owner");
    chown(&dir, Some(0), None).expect("root");

    fs::hard_link(&db, &aside).expect("a link");
    left.assert_refused("a second link");
    fs::remove_file(&aside).expect("our file");

    fs::rename(&db, &aside).expect("our file");
    symlink(&aside, &db).expect("a link");
    left.assert_refused("a symbolic link");
    fs::remove_file(&db).expect("our link");
    nix::unistd::mkfifo(&db, Mode::S_IRUSR | Mode::S_IWUSR).expect("a pipe");
    left.assert_refused("a pipe");
    fs::remove_file(&db).expect("our pipe");
    fs::create_dir(&db).expect("a directory");
    left.assert_refused("a directory in its place");
    fs::remove_dir(&db).expect("our directory");
    fs::write(&db, "").expect("our file");
    mode(&db, 0o600);
    left.assert_refused("empty");
    fs::write(&db, "{\"pid\": 1}\n").expect("our file");
    left.assert_refused("a text of another kind");
    fs::rename(&aside, &db).expect("our file");

    fs::rename(&dir, left.host.path("elsewhere")).expect("our directory");
    symlink(left.host.path("elsewhere"), &dir).expect("a link");
    let mut daemon = left.host.serve();
    assert!(!daemon.ready_or_ended(), "a directory by a link was taken for good: {}", daemon.log());
    assert_eq!(daemon.wait().code(), Some(5), "{}", daemon.log());
    left.assert_untouched("a directory by a link");
    fs::remove_file(&dir).expect("our link");
    fs::rename(left.host.path("elsewhere"), &dir).expect("our directory");
    left.assert_goes_on();
}

const FORGED: &str = "01KAP0V4G05E8Q3C9W7D8QK3MP";

/// A well-formed record of a run that was born and is to be stopped: nobody wrote it but the test.
fn forged(boot_id: &str, main: ProcessKey, ino: Option<PidfsIno>, cgroup: RunTag) -> RunRecord {
    let submission = Submission {
        argv: vec!["forged".to_owned()],
        env: Vec::new(),
        cwd: "/".into(),
        user: "nobody".to_owned(),
        stdin: None,
        limits: Limits { wall: Some(Duration::from_millis(1)), ..Limits::default() },
        grace: Duration::from_millis(50),
        leftovers: Leftovers::Kill,
        asked_by: 0,
        withheld: false,
        part: None,
    };
    let born = Born {
        cgroup,
        main,
        ino,
        at: BootNs(main.start_boottime_ns),
        deadline: Some(BootNs(main.start_boottime_ns + 1)),
        traced: true,
        stopping: Some(StopReason::Deadline),
        suspended_ns: 0,
        baseline: Totals::default(),
    };
    RunRecord {
        told: Vec::new(),
        id: FORGED.parse::<RunId>().expect("an id"),
        attempt: 1,
        submission,
        submitted_unix_ns: 1,
        boot_id: boot_id.to_owned(),
        stage: Stage::Born(born),
    }
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("a boot").trim().to_owned()
}

/// A cgroup as deep as those of runs, elsewhere.
struct Elsewhere {
    dir: PathBuf,
    _cell: Cell,
}

impl Elsewhere {
    fn new() -> Self {
        let cell = Cell::new();
        let dir = cell.path().join("runs").join(format!("run-{FORGED}"));
        fs::create_dir_all(&dir).expect("a cgroup");
        Self { dir, _cell: cell }
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        eventually("the test's cgroup to be empty", || fs::remove_dir(&self.dir).is_ok().then_some(()));
    }
}

fn id_of(cgroup: &Path) -> RunTag {
    RunTag(fs::metadata(cgroup).expect("a cgroup").ino())
}

#[test]
fn i04_a_forged_record_signals_neither_pid_1_nor_a_stranger_whose_start_it_knows() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    host.configure("", "user = \"nobody\"\n", "[kernel]\nwatch = [\"al-stranger\"]\n");
    let mut daemon = host.serving();
    let program = host.path("al-stranger");
    host::copy_program(Path::new("/bin/sh"), &program);
    // In a cgroup of a run's name and depth, beside the daemon's root.
    let elsewhere = Elsewhere::new();
    let mut stranger = Stranger::of(std::process::Command::new(&program).args(["-c", "read word; exit 0"]));
    fs::write(elsewhere.dir.join("cgroup.procs"), stranger.pid().to_string()).expect("our cgroup");
    let seen = eventually("the stranger to be seen", || {
        let status = host.asked(["status"]);
        status["observed"].as_array()?.iter().find(|it| it["pid"] == stranger.pid()).cloned()
    });
    let key = ProcessKey { tgid: stranger.pid(), start_boottime_ns: seen["start_ns"].as_u64().expect("a number") };
    let pidfd = sys::pidfd_open(stranger.pid().cast_signed()).expect("our child");
    let ino = fs::metadata(format!("/proc/self/fd/{}", pidfd.as_raw_fd())).expect("a pidfd").ino();
    let ino = Some(PidfsIno(ino));
    assert!(daemon.terminate().success());

    let first = ProcessKey { tgid: 1, start_boottime_ns: 0 };
    let own = ProcessKey { tgid: std::process::id(), start_boottime_ns: key.start_boottime_ns };
    let keeper = ProcessKey { tgid: 2, start_boottime_ns: 0 };
    let named = host.runs().join(format!("run-{FORGED}"));
    let mut cases = Vec::new();
    for (who, key, ino) in
        [("pid 1", first, None), ("the test", own, None), ("pid 2", keeper, None), ("the stranger", key, ino)]
    {
        cases.push((who, boot_id(), key, ino, Some(RunTag(1))));
        cases.push((who, boot_id(), key, ino, Some(id_of(&elsewhere.dir))));
        cases.push((who, boot_id(), key, ino, Some(id_of(&host.runs()))));
        // Of the cgroup that is made for it below.
        cases.push((who, boot_id(), key, ino, None));
        cases.push((who, "11111111-2222-3333-4444-555555555555".to_owned(), key, ino, None));
    }
    for (number, (who, boot, key, ino, cgroup)) in cases.into_iter().enumerate() {
        let case = format!("{number}: {who}, cgroup {cgroup:?}, boot {boot}");
        for name in ["agent-loop.db", "agent-loop.db-wal"] {
            let _ = fs::remove_file(host.path("state").join(name));
        }
        let _ = fs::remove_dir_all(host.path("log/runs").join(FORGED));
        // Each has a log of its own: what another says of the same run is no part of the case.
        let _ = fs::remove_dir_all(host.path("log/audit"));
        let _ = fs::remove_dir_all(host.path("state/audit-key"));
        let of_its_own = cgroup.is_none();
        let cgroup = cgroup.unwrap_or_else(|| {
            fs::create_dir(&named).expect("a cgroup");
            id_of(&named)
        });
        {
            let state = StateDir::open(&host.path("state")).expect("our directory");
            let mut store = SqliteStore::open(&state).expect("a new state");
            store.save(&forged(&boot, key, ino, cgroup)).expect("our state");
        }
        let mut daemon = host.serving();
        let lives = who == "the stranger" && of_its_own && boot == boot_id();
        if lives {
            // Alive as recorded, and not to be proven the run's: the run is not over, and nobody is signalled.
            eventually(&format!("a word on {case}"), || {
                stranger.assert_alive();
                daemon.log().contains("cannot prove").then_some(())
            });
            assert_ne!(host.run(FORGED)["state"], "ended", "{case}");
            let _ = host.ask(["kill", FORGED, "--reason", "to see what it signals"]);
            host.in_state(FORGED, "stopping");
        } else {
            let run = eventually(&format!("the end of {case}\n{}", daemon.log()), || {
                stranger.assert_alive();
                Some(host.run(FORGED)).filter(|run| run["state"] == "ended")
            });
            assert_eq!((&run["status"], &run["code"]), (&"unknown".into(), &Value::Null), "{case}: {run}");
        }
        stranger.assert_alive();
        let sent = host
            .events(FORGED)
            .into_iter()
            .filter(|it| it["kind"] == "signal.result" && !it["signal"]["proof"].is_null());
        assert_eq!(sent.collect::<Vec<_>>(), [] as [Value; 0], "{case}");
        assert_eq!(host.ask(["ps"]).status.code(), Some(0), "{case}: {}", said(&host.ask(["ps"])));
        if lives {
            host.kill_keeper();
            assert!(daemon.terminate().success(), "{case}");
            fs::remove_dir(&named).expect("an empty cgroup");
            stranger.assert_alive();
            continue;
        }
        eventually(&format!("the forged cgroup to go, {case}"), || (!named.exists()).then_some(()));
        assert!(daemon.terminate().success(), "{case}");
        stranger.assert_alive();
    }
}

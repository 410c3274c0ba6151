//! The adversaries do what they claim: without this the tests of `agent-loop` would prove nothing.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use agent_loop_tests::harness::{PATIENCE, adversary, cgroup, eventually, host};
use agent_loop_tests::oracle::{self, Life, Status};
use agent_loop_tests::{needs, sys};
use tempfile::TempDir;

/// An adversary without a supervisor; what it leaves behind ends by its own limit, or here.
struct Loose {
    scratch: TempDir,
    command: Command,
}

impl Loose {
    fn new(args: &[&str]) -> Self {
        let scratch = TempDir::new().expect("a scratch directory");
        let mut command = Command::new(adversary());
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).current_dir(scratch.path());
        command.arg("--oracle").arg(scratch.path().join("oracle"));
        command.arg("--ready").arg(scratch.path().join("ready"));
        Self { scratch, command }
    }

    fn hold(mut self, hold_ms: u32) -> Self {
        self.command.arg("--hold-ms").arg(hold_ms.to_string());
        self
    }

    fn start(&mut self) -> Child {
        self.command.spawn().expect("the adversary can be started")
    }

    fn run(&mut self) -> ExitStatus {
        self.start().wait().expect("our child")
    }

    fn wait_ready(&self) {
        eventually("ready", || self.scratch.path().join("ready").exists().then_some(()));
    }

    fn oracle(&self) -> Vec<Life> {
        oracle::read(&self.scratch.path().join("oracle")).expect("an oracle")
    }

    /// Live processes of it, by the scratch directory in their argv.
    fn alive(&self) -> Vec<i32> {
        host::naming(self.scratch.path())
    }
}

impl Drop for Loose {
    fn drop(&mut self) {
        for pid in self.alive() {
            let pidfd = sys::pidfd_open(pid).ok().filter(|_| self.alive().contains(&pid));
            pidfd.map(|pidfd| sys::pidfd_signal(pidfd, libc::SIGKILL));
        }
    }
}

fn stat_state(pid: u32) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").map(|(_, rest)| rest[..1].to_owned()).unwrap_or_default()
}

#[test]
fn a_process_whose_leader_exited_first_looks_dead_and_is_not() {
    let mut loose = Loose::new(&["leader-exits-first", "--code", "7"]);
    let mut child = loose.start();
    loose.wait_ready();
    assert_eq!(stat_state(child.id()), "Z");
    let pidfd = sys::pidfd_open(child.id().cast_signed()).expect("our child");
    assert!(!sys::pidfd_ended(pidfd.as_fd(), Duration::from_millis(20)));
    sys::pidfd_signal(&pidfd, libc::SIGKILL).expect("it lives");
    assert_eq!(child.wait().expect("our child").signal(), Some(libc::SIGKILL));
}

#[test]
fn a_process_whose_leader_exited_first_ends_with_the_code_of_its_end() {
    for how in
        [&["--as-child", "leader-exits-first", "--code", "7"][..], &["--as-child", "exec-by-thread", "--code", "7"]]
    {
        let mut loose = Loose::new(how).hold(10);
        assert!(loose.run().success());
        assert_eq!(loose.oracle()[0].status, Some(Status::exited(7)), "{how:?}");
    }
}

#[test]
fn a_daemon_outlives_its_starter_in_a_session_of_its_own() {
    for how in ["double-fork-daemon", "setsid-chain", "subreaper-daemon", "stopper", "term-ignorer", "fork-bomb"] {
        let mut loose = Loose::new(&["--as-child", "--leave", how]);
        assert!(loose.run().success(), "{how}");
        assert!(!loose.alive().is_empty(), "{how}");
    }
}

#[test]
fn a_stopped_process_and_one_that_ignores_signals_end_at_their_limit() {
    for how in ["stopper", "term-ignorer"] {
        let mut loose = Loose::new(&[how, "--limit-ms", "100"]);
        assert_eq!(loose.run().signal(), Some(libc::SIGKILL), "{how}");
    }
}

#[test]
fn a_fork_bomb_keeps_to_its_bounds() {
    let mut loose = Loose::new(&["fork-bomb", "40", "2000"]).hold(1_000);
    let mut child = loose.start();
    loose.wait_ready();
    let mut most = 0;
    for _ in 0..2_000 {
        most = loose.alive().len().max(most);
        // On a busy machine it grows slowly; beyond its bound it never does.
        if most >= 10 {
            break;
        }
    }
    most = (0..20).map(|_| loose.alive().len()).max().unwrap_or(0).max(most);
    assert!((10..=41).contains(&most), "{most} alive");
    assert!(child.wait().expect("our child").success());
}

#[test]
fn every_code_and_every_signal_is_in_the_oracle() {
    let mut loose = Loose::new(&["fork-no-exec", "256"]);
    assert!(loose.run().success());
    let codes: Vec<_> = loose.oracle().into_iter().map(|life| life.status).collect();
    assert_eq!(codes, (0..256).map(|code| Some(Status::exited(code))).collect::<Vec<_>>());

    let mut loose = Loose::new(&["every-signal"]);
    assert!(loose.run().success());
    let signals: Vec<_> = loose.oracle().into_iter().map(|life| life.status).collect();
    assert_eq!(signals, sys::fatal_signals().map(|signal| Some(Status::signaled(signal, false))).collect::<Vec<_>>());
    assert_eq!(signals.len(), 56);
}

#[test]
fn a_core_dump_is_flagged() {
    if !fs::read_to_string("/proc/sys/kernel/core_pattern").is_ok_and(|pattern| !pattern.starts_with('|')) {
        return agent_loop_tests::harness::skip("a_core_dump_is_flagged", "core dumps go to a program here");
    }
    let mut loose = Loose::new(&["--as-child", "die-by-signal", "6", "--core"]);
    assert!(loose.run().success());
    assert_eq!(loose.oracle()[0].status, Some(Status::signaled(libc::SIGABRT, true)));
}

#[test]
fn a_storm_knows_every_life_it_made() {
    let mut loose = Loose::new(&["storm", "--for-ms", "1000"]);
    assert!(loose.run().success());
    let lives = loose.oracle();
    println!("{} lives in 1 s", lives.len());
    assert!(lives.len() > 500);
    assert!(lives.iter().all(|life| life.status.is_some() && life.after_ns <= life.before_ns));
    let roles: BTreeSet<_> = lives.iter().map(|life| life.role.as_str()).collect();
    assert_eq!(roles, BTreeSet::from(["exec", "fork", "generator", "signal", "vfork"]));
}

#[test]
fn a_report_sees_what_the_process_was_given() {
    let mut command = Command::new(adversary());
    command.env_clear().env("A", "b").arg("report").current_dir("/");
    sys::before_exec(&mut command, || {
        sys::default_signals();
        sys::ignore(libc::SIGHUP)?;
        sys::close_from(3)?;
        sys::leak_stdin_as(9)
    });
    // The pidfd or pipe by which the error of an exec comes back is closed above: an exec that fails is seen below.
    let out = command.stdin(Stdio::null()).output().expect("the adversary can be started").stdout;
    let report: serde_json::Value = serde_json::from_slice(&out).expect("a report");
    assert_eq!(report["env"], serde_json::json!({"A": "b"}));
    assert_eq!(report["cwd"], "/");
    let fds: Vec<_> = report["fds"].as_object().expect("descriptors").keys().map(String::as_str).collect();
    assert_eq!(fds, ["0", "1", "2", "9"]);
    assert_eq!(report["signals"]["SigIgn"], "0000000000000001", "Rust's own SIGPIPE is not in the way");
    assert_eq!(report["signals"]["SigCgt"], "0000000000000000");
}

#[test]
fn a_long_argv_arrives() {
    let mut loose = Loose::new(&["many-args", "300000"]);
    assert!(loose.run().success());
}

/// A cgroup of this test's own.
struct Own(std::path::PathBuf);

impl Own {
    fn new(name: &str) -> Self {
        let path = cgroup::own().expect("cgroup v2").join(format!("agent-loop-tests-{}-{name}", std::process::id()));
        fs::create_dir(&path).expect("a cgroup of our own");
        Self(path)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        fn remove(dir: &Path) -> bool {
            let below = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
            let below = below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            below.for_each(|entry| {
                remove(&entry.path());
            });
            fs::remove_dir(dir).is_ok()
        }
        cgroup::kill(&self.0);
        let end = std::time::Instant::now() + PATIENCE;
        while !remove(&self.0) && std::time::Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Runs `how` in a cgroup of its own until it is ready, looks, and ends it.
fn nested(name: &str, how: &[&str], look: impl FnOnce(&Path)) {
    let own = Own::new(name);
    let procs = own.0.join("cgroup.procs");
    let mut loose = Loose::new(how);
    sys::before_exec(&mut loose.command, move || fs::write(&procs, "0"));
    let mut child = loose.start();
    loose.wait_ready();
    look(&own.0);
    drop(own);
    child.wait().expect("our child");
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|err| panic!("{}: {err}", path.display()))
}

#[test]
fn nested_cgroups_hold_processes() {
    needs!(cgroup);
    nested("domain", &["nested-cgroup", "--freeze"], |own| {
        for name in ["nest-a", "nest-a/nest-b", "nest-c"] {
            assert!(!text(&own.join(name).join("cgroup.procs")).is_empty(), "{name}");
        }
        assert_eq!(text(&own.join("nest-a/cgroup.freeze")).trim(), "1");
    });
}

#[test]
fn a_threaded_cgroup_refuses_to_be_killed() {
    needs!(cgroup);
    nested("threaded", &["nested-cgroup", "--threaded"], |own| {
        assert!(!text(&own.join("nest-t/cgroup.threads")).is_empty());
        assert!(fs::write(own.join("nest-t/cgroup.kill"), "1").is_err());
    });
}

//! PID namespaces: numbers are the loader's own, whoever is in a namespace below; who is outside is nobody's.

use std::fs;
use std::process::{Command, Stdio};

use agent_loop::keeper::probe::pid_level;
use agent_loop::kernel::Options;
use agent_loop_common::counter::Counter;
use agent_loop_tests::harness::{adversary, eventually};
use agent_loop_tests::oracle::Status;
use agent_loop_tests::sys::{self, Stub};
use agent_loop_tests::traced::{Run, Traced, end, enter};
use agent_loop_tests::{needs, test_name};

use super::to_the_end;

/// Set for the process that runs the inner half of a test in a namespace of its own: the level of that.
const INSIDE: &str = "AGENT_LOOP_TEST_INSIDE";

#[test]
fn a_process_in_a_namespace_below_has_the_loaders_number() {
    needs!(cgroup, bpf);
    let run = Run::new();
    let mut traced = Traced::of_run(&run, Options::default());
    let mut unshare = Command::new("unshare");
    unshare.args(["--pid", "--fork"]).arg(adversary()).args(["term-ignorer", "2", "--ready"]).arg(run.scratch("ready"));
    enter(&mut unshare, run.path());
    let unshare = unshare.stdin(Stdio::null()).spawn().expect("unshare starts");
    run.wait_ready();
    traced.drain();
    let mut inner = Vec::new();
    for birth in traced.births().filter(|birth| birth.key.tgid != unshare.id()) {
        let pid = birth.key.tgid;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("alive under this number");
        let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).expect("its numbers");
        let numbers: Vec<u32> = numbers.split_whitespace().filter_map(|it| it.parse().ok()).collect();
        assert_eq!((numbers.len(), numbers[0]), (2, pid));
        inner.push(numbers[1]);
        assert!(traced.births().any(|parent| Some(parent.key) == birth.forker), "{birth:?}");
        assert_eq!(birth.forker.map(|forker| forker.tgid), birth.parent_tgid);
    }
    assert_eq!(inner, [1, 2, 3]);
    assert_eq!(traced.tracing.counters.sum(Counter::Outside).expect("the counters"), 0);
    run.kill();
    end(unshare);
    traced.drain().assert_all_ended();
}

/// Runs this test again inside a PID namespace `deep` levels below.
fn inside(test: &str, deep: usize) {
    let mut command = Command::new("timeout");
    // So that what is said inside is told where it does not end.
    command.args(["--signal=KILL", "120"]);
    for _ in 0..deep {
        command.args(["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    }
    let level = pid_level().expect("clone3 with numbers") as usize + deep;
    let (_, name) = test.split_once("::").expect("the name without the crate");
    command
        .arg(std::env::current_exe().expect("its path"))
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, level.to_string());
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("unshare");
    // Births and deaths outside, for as long as it runs.
    let status = eventually("the test inside", || {
        for _ in 0..20 {
            let outside = sys::clone(Stub::Exit(0), None).expect("clone3");
            sys::wait(outside.pid).expect("our child");
        }
        child.try_wait().expect("our child")
    });
    let output = child.wait_with_output().expect("its output");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(status.success() && text.contains("1 passed"), "{text}");
}

/// Everything told has the numbers of this namespace, as the oracle in it has them.
fn numbers_are_our_own() {
    let run = Run::new();
    let mut traced = Traced::of_run(&run, Options::default());
    assert!(std::process::id() < 100, "not in a namespace of its own");
    let level: u32 = std::env::var(INSIDE).expect("our own").parse().expect("a level");
    assert_eq!(pid_level(), Some(level));
    let lives = to_the_end(&mut traced, &run, &["fork-no-exec", "20"]);
    traced.assert_lives(&lives);
    for life in &lives {
        let birth = traced.birth_of(life);
        assert_eq!(birth.forker.map(|it| it.tgid), Some(life.parent.cast_unsigned()));
        assert_eq!(birth.parent_tgid, Some(life.parent.cast_unsigned()));
    }
    // And of one that has a namespace of its own below this one.
    let mut unshare = Command::new("unshare");
    unshare.args(["--pid", "--fork", "/bin/true"]);
    enter(&mut unshare, run.path());
    assert_eq!(end(unshare.spawn().expect("unshare starts")).1, Status::exited(0));
    let main = run.clone(Stub::Exit(9), None).expect("clone3");
    sys::wait(main.pid).expect("our child");
    eventually("somebody outside", || (traced.tracing.counters.sum(Counter::Outside).ok()? > 0).then_some(()));
    traced.tracing.probes.snapshot().expect("a snapshot");
    traced.drain().assert_all_ended();
    assert_eq!(traced.births().count(), 20 + 1 + 2 + 1, "and nobody from outside");
    let known = traced.tracing.runs.get(run.tag()).expect("a run").expect("it");
    assert_eq!(known.main.map(|main| main.tgid), Some(main.pid.cast_unsigned()));
    assert_eq!(known.exit.map(|exit| exit.0.map(agent_loop_tests::traced::status)), Some(Some(Status::exited(9))));
    let totals = traced.tracing.counters.read().expect("the counters");
    assert_eq!((totals.missed, totals.stale), (0, 0));
}

#[test]
fn in_a_namespace_of_its_own_the_loader_sees_its_own_numbers() {
    needs!(cgroup, bpf);
    if std::env::var_os(INSIDE).is_some() { numbers_are_our_own() } else { inside(test_name!(), 1) }
}

#[test]
fn in_a_namespace_twelve_levels_deep_the_loader_sees_its_own_numbers() {
    needs!(cgroup, bpf);
    if std::env::var_os(INSIDE).is_some() { numbers_are_our_own() } else { inside(test_name!(), 12) }
}

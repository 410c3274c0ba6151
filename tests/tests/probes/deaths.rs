//! One death per process with the status of `waitid`, by both exit rules.

use std::ffi::CString;
use std::path::Path;

use agent_loop::kernel::{ExitHook, Options};
use agent_loop_tests::harness::{adversary, host, skip};
use agent_loop_tests::oracle::{Life, Status};
use agent_loop_tests::sys;
use agent_loop_tests::traced::{Run, Traced, end, status};
use agent_loop_tests::{needs, test_name};

use super::{exit_rules, to_the_end};

/// Runs the adversary under each rule; every life has to have one birth and one death as waitid told it.
fn by_both_rules(test: &str, args: &[&str], check: impl Fn(&[Life])) {
    for rule in exit_rules(test) {
        let run = Run::new();
        let mut traced = Traced::of_run(&run, Options { exit_hook: Some(rule), ..Options::default() });
        assert_eq!(traced.tracing.probes.exit_hook(), rule);
        let lives = to_the_end(&mut traced, &run, args);
        check(&lives);
        traced.assert_lives(&lives);
        traced.assert_all_ended();
        assert_eq!(traced.births().count(), lives.len() + 1, "the children and the main process");
    }
}

#[test]
fn a_process_whose_threads_all_leave_dies_once() {
    needs!(cgroup, bpf);
    by_both_rules(test_name!(), &["thread-ends", "200"], |lives| assert_eq!(lives.len(), 200));
}

#[test]
fn the_leaders_exit_is_not_the_process_death() {
    needs!(cgroup, bpf);
    for end in [&["leader-exits-first", "--code", "7"][..], &["leader-exits-first", "--code", "7", "--by-thread"]] {
        let args = [&["--hold-ms", "30", "--as-child"], end].concat();
        by_both_rules(test_name!(), &args, |lives| {
            // Before Linux 6.0 the status is the leader's own.
            assert!(lives[0].status == Some(Status::exited(7)) || host::before(6, 0), "{lives:?}");
        });
    }
}

#[test]
fn an_exec_by_a_thread_is_not_its_death() {
    needs!(cgroup, bpf);
    let args = ["--hold-ms", "30", "--as-child", "exec-by-thread", "--code", "9"];
    by_both_rules(test_name!(), &args, |lives| assert_eq!(lives[0].status, Some(Status::exited(9))));
}

#[test]
fn every_exit_code_and_every_signal_is_told() {
    needs!(cgroup, bpf);
    by_both_rules(test_name!(), &["fork-no-exec", "256"], |lives| assert_eq!(lives.len(), 256));
    by_both_rules(test_name!(), &["every-signal"], |lives| assert!(lives.len() > 50));
}

fn c_string(bytes: &[u8]) -> CString {
    CString::new(bytes).expect("no NUL")
}

#[test]
fn where_a_siblings_hook_cannot_know_the_leaders_status_it_is_unknown() {
    needs!(cgroup, bpf);
    // As before Linux 6.0, where no thread marks the group as exiting unless it was told to exit.
    for (way, known) in [
        (&["leader-exits-first", "--code", "7", "--by-thread"][..], None),
        (&["fork-no-exec", "1"], Some(Status::exited(0))),
    ] {
        let run = Run::new();
        let options = Options { exit_hook: Some(ExitHook::Latch), group_exit: false, ..Options::default() };
        let mut traced = Traced::of_run(&run, options);
        let main = run.adversary(&[&["--hold-ms", "10"], way].concat()).spawn().expect("the adversary starts");
        let (pid, _) = end(main);
        traced.drain().assert_all_ended();
        let key = traced.births().find(|birth| birth.key.tgid == pid).expect("its birth").key;
        assert_eq!(traced.death_of(key).status.map(status), known, "{way:?}");
    }
}

#[test]
fn a_main_process_with_an_unknown_status_is_known_to_have_ended() {
    needs!(cgroup, bpf);
    // Before Linux 6.0 nothing marks the group, and the status is the leader's own.
    let waited = Status::exited(if host::before(6, 0) { 0 } else { 7 });
    for (group_exit, known) in [(false, None), (true, (!host::before(6, 0)).then_some(waited))] {
        let run = Run::new();
        let options = Options { exit_hook: Some(ExitHook::Latch), group_exit, ..Options::default() };
        let mut traced = Traced::of_run(&run, options);
        let args = ["--hold-ms", "10", "leader-exits-first", "--code", "7", "--by-thread"];
        let program = c_string(adversary().as_os_str().as_encoded_bytes());
        let argv = [&["adversary"], &args[..]].concat().iter().map(|arg| c_string(arg.as_bytes())).collect();
        let pid = sys::born_in(run.dir(), &sys::Image::path(program, argv)).expect("it is born in the run");
        assert_eq!(sys::wait(pid).expect("our child"), waited);
        traced.drain().assert_all_ended();
        let told = traced.tracing.runs.get(run.tag()).expect("the table").expect("a run");
        assert_eq!(told.main.map(|main| main.tgid), Some(pid.cast_unsigned()));
        let (told_status, at) = told.exit.expect("its end is known");
        assert_eq!(told_status.map(status), known);
        assert_eq!(traced.death_of(told.main.expect("it was born")).at, at);
    }
}

#[test]
fn a_core_dump_is_told() {
    needs!(cgroup, bpf);
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    if pattern.starts_with('|') || Path::new(pattern.trim()).is_absolute() {
        return skip(test_name!(), "core dumps leave the test's directory here");
    }
    by_both_rules(test_name!(), &["--as-child", "die-by-signal", "6", "--core"], |lives| {
        assert_eq!(lives[0].status, Some(Status::signaled(libc::SIGABRT, true)));
    });
}

#[test]
fn by_default_the_rule_is_the_kernels_own() {
    needs!(bpf);
    let own = agent_loop::kernel::Layout::of_running_kernel().expect("a known layout").exit_hook();
    let traced = Traced::load(&Options::default());
    assert_eq!(traced.tracing.probes.exit_hook(), own);
    assert!(matches!(own, ExitHook::GroupDead | ExitHook::Latch));
}

#[test]
fn with_its_log_switched_on_it_loads_and_tells_the_same() {
    needs!(cgroup, bpf);
    let run = Run::new();
    let mut traced = Traced::of_run(&run, Options { log: true, ..Options::default() });
    let lives = to_the_end(&mut traced, &run, &["fork-no-exec", "5"]);
    traced.assert_lives(&lives);
    traced.assert_all_ended();
    traced.tracing.probes.print_log();
}

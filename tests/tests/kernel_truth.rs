//! Births, deaths and statuses as the kernel has them, compared with what `waitid` told the adversaries.

use agent_loop_tests::harness::{Event, Exec, Outcome, host};
use agent_loop_tests::needs;
use agent_loop_tests::oracle::{Life, Status};

/// Runs an adversary that ends by itself and leaves nothing; everything about it must be exact.
fn exact<const N: usize>(args: [&str; N]) -> Outcome {
    let outcome = Exec::new().adversary(args).run();
    outcome.assert_no_gap();
    outcome.assert_tree_accounted();
    outcome.assert_nothing_left();
    outcome
}

/// The same for one whose oracle knows every child: the sum of lives agrees too.
fn exact_to_the_life<const N: usize>(args: [&str; N]) -> (Outcome, Vec<Life>) {
    let outcome = exact(args);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let lives = outcome.oracle();
    outcome.assert_agrees_with(&lives);
    assert_eq!(outcome.births().count(), lives.len() + 1, "the children and the main process");
    (outcome, lives)
}

fn main_status(outcome: &Outcome) -> Option<Status> {
    outcome.death_of(outcome.main()).status
}

#[test]
fn thread_exit_is_not_death() {
    needs!(bpf);
    let outcome = exact(["threads", "50"]);
    assert_eq!((outcome.births().count(), outcome.deaths().count()), (1, 1));
    assert_eq!(main_status(&outcome), Some(Status::exited(0)));
}

#[test]
fn leader_first_exit_gives_one_death_with_the_right_status() {
    needs!(bpf);
    for end in [&["--code", "7"][..], &["--code", "7", "--by-thread"]] {
        let args = [&["--hold-ms", "50", "leader-exits-first"], end].concat();
        // Before Linux 6.0 nothing marks the group where the last thread leaves by itself: the status is the leader's.
        let code = if end.contains(&"--by-thread") && host::before(6, 0) { 0 } else { 7 };
        let outcome = Exec::new().adversary(&args).run();
        outcome.assert_tree_accounted();
        assert_eq!((outcome.births().count(), outcome.code), (1, code), "as main, {end:?}");
        let known = main_status(&outcome);
        assert!(host::agrees(known.as_ref(), Some(&Status::exited(code))), "as main, {end:?}: {known:?}");

        let outcome = Exec::new().adversary(["--as-child"].iter().chain(&args)).run();
        outcome.assert_tree_accounted();
        outcome.assert_agrees_with(&outcome.oracle());
        assert_eq!((outcome.births().count(), outcome.code), (2, 0), "as child, {end:?}");
    }
}

#[test]
fn exec_by_a_thread_is_no_death() {
    needs!(bpf);
    let outcome = exact(["exec-by-thread", "--code", "9", "--hold-ms", "50"]);
    assert_eq!((outcome.births().count(), outcome.code), (1, 9));
    let execs: Vec<_> = outcome.of_kind("proc.exec").collect();
    let last = execs.last().expect("the thread's exec");
    assert_eq!(last.who(), outcome.main());
    assert!(last.argv().contains(&"hold"), "{}", last.value);
    exact_to_the_life(["--as-child", "exec-by-thread", "--code", "9", "--hold-ms", "50"]);
}

#[test]
fn every_exit_code_is_reported_as_waitid_gives_it() {
    needs!(bpf);
    let (_, lives) = exact_to_the_life(["fork-no-exec", "256"]);
    let codes: Vec<_> = lives.iter().filter_map(|life| life.status?.code).collect();
    assert_eq!(codes, (0..256).collect::<Vec<_>>());
}

#[test]
fn every_signal_is_reported_as_waitid_gives_it() {
    needs!(bpf);
    let (_, lives) = exact_to_the_life(["every-signal"]);
    assert_eq!(lives.iter().filter(|life| life.status.is_some_and(|status| status.signal.is_some())).count(), 56);
}

#[test]
fn a_core_dump_is_reported() {
    needs!(bpf);
    let piped = std::fs::read_to_string("/proc/sys/kernel/core_pattern").is_ok_and(|pattern| pattern.starts_with('|'));
    if piped {
        return agent_loop_tests::harness::skip("a_core_dump_is_reported", "core dumps go to a program here");
    }
    let exec = Exec::new();
    let scratch = exec.path("");
    let exec = exec.with(|command| command.current_dir(scratch));
    let outcome = exec.adversary(["--as-child", "die-by-signal", "6", "--core"]).run();
    let lives = outcome.oracle();
    assert_eq!(lives[0].status, Some(Status::signaled(libc::SIGABRT, true)));
    outcome.assert_agrees_with(&lives);
}

#[test]
fn a_main_that_dumps_core_or_is_killed_is_reported_so() {
    needs!(bpf);
    for signal in [libc::SIGKILL, libc::SIGTERM, libc::SIGSEGV, 34, 64] {
        let outcome = exact(["die-by-signal", &signal.to_string()]);
        assert_eq!(main_status(&outcome), Some(Status::signaled(signal, false)));
        assert_eq!(outcome.code, 128 + signal);
    }
}

#[test]
fn forks_that_never_exec_are_in_the_tree_with_their_true_forker() {
    needs!(bpf);
    let (outcome, lives) = exact_to_the_life(["fork-no-exec", "20"]);
    let main = outcome.main();
    assert!(lives.iter().all(|life| outcome.birth_of(life).parent.as_ref().is_some_and(|parent| parent.id == main.id)));
}

#[test]
fn vforks_are_births_and_their_execs_are_seen() {
    needs!(bpf);
    let (outcome, lives) = exact_to_the_life(["vfork-spawner", "10"]);
    for life in lives.iter().filter(|life| life.role == "exec") {
        let birth = outcome.birth_of(life);
        let execs = outcome.of_kind("proc.exec").filter(|exec| exec.who().id == birth.who().id).count();
        assert_eq!(execs, 1, "{life:?}");
    }
}

#[test]
fn daemons_reparented_elsewhere_are_in_the_tree_with_their_true_forker() {
    needs!(bpf);
    for how in [&["double-fork-daemon"][..], &["setsid-chain", "40"], &["subreaper-daemon"]] {
        let outcome = Exec::new().adversary([&["--hold-ms", "200"], how].concat()).run();
        outcome.assert_no_gap();
        outcome.assert_tree_accounted();
        // Who was reaped by a subreaper in the tree is told twice: as a birth by its forker, as an orphan's end.
        let (orphans, lives): (Vec<_>, Vec<_>) = outcome.oracle().into_iter().partition(|life| life.role == "orphan");
        outcome.assert_agrees_with(&lives);
        for orphan in orphans {
            let death = outcome.deaths().find(|death| death.who().pid == orphan.pid).and_then(|death| death.status);
            assert_eq!(death, orphan.status, "{orphan:?}");
        }
    }
}

#[test]
fn a_long_argv_is_declared_truncated_with_its_true_count() {
    needs!(bpf);
    let outcome = exact(["many-args", "700000"]);
    let exec = outcome.of_kind("proc.exec").last().expect("the exec of itself");
    assert_eq!(exec.value["exec"]["truncated"], true, "{}", exec.value["exec"]["argc"]);
    let bytes = agent_loop_tests::harness::adversary().as_os_str().len() + 1 + "exit-code".len() + 1 + 2;
    let argc = 3 + (700_000 - bytes).div_ceil(100_001);
    assert_eq!(exec.value["exec"]["argc"], argc);
    assert!(exec.value.to_string().len() < 60 * 1024, "a line has a bound");
    assert_eq!(exec.argv()[1], "exit-code");
}

/// How long a storm lasts; `AGENT_LOOP_STORM_MS` makes it longer.
fn storm_ms() -> String {
    std::env::var("AGENT_LOOP_STORM_MS").unwrap_or_else(|_| "5000".to_owned())
}

#[test]
fn in_a_storm_every_birth_and_death_is_reported_with_the_oracles_status() {
    needs!(bpf);
    let outcome = Exec::new().alone().arg("--quiet").adversary(["storm", "--for-ms", &storm_ms()]).run();
    let lives = outcome.oracle();
    println!("{} lives in {} ms", lives.len(), storm_ms());
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    outcome.assert_no_gap();
    outcome.assert_tree_accounted();
    outcome.assert_agrees_with(&lives);
    assert_eq!(outcome.births().count(), lives.len() + 1);
    let execs = lives.iter().filter(|life| life.role == "exec").count();
    let main = outcome.main();
    let seen = outcome.of_kind("proc.exec").filter(|exec| exec.who().id != main.id).count();
    assert_eq!(seen, execs, "execs");
    outcome.assert_nothing_left();
}

#[test]
fn forced_loss_is_repaired_and_its_gap_is_exact() {
    needs!(bpf);
    let exec = Exec::new().alone().arg("--ring-bytes").arg("4096").arg("--quiet");
    let outcome = exec.adversary(["storm", "--for-ms", "3000"]).run();
    let lives = outcome.oracle();
    let lost = |what: &str| -> u64 { outcome.gaps().filter_map(|gap| gap.value["gap"]["lost"][what].as_u64()).sum() };
    assert!(outcome.gaps().next().is_some(), "nothing was lost: is AGENT_LOOP_RING_BYTES obeyed?");
    assert!(outcome.gaps().all(|gap| gap.value["gap"]["repaired"] == true), "{:?}", outcome.gaps().last());
    let witnessed = |events: &[&Event]| events.iter().filter(|event| !event.inferred).count() as u64;
    let all = lives.len() as u64 + 1;
    assert_eq!(witnessed(&outcome.births().collect::<Vec<_>>()) + lost("fork"), all, "births");
    assert_eq!(witnessed(&outcome.deaths().collect::<Vec<_>>()) + lost("exit"), all, "deaths");
    let ended: std::collections::HashSet<_> = outcome.deaths().map(|death| death.who()).collect();
    assert!(outcome.births().all(|birth| ended.contains(birth.who())), "a birth without a death");
    outcome.assert_nothing_left();
}

//! The whole tree is empty afterwards, whatever was in it and however `exec` ended.

use agent_loop_tests::harness::cgroup::{self, Cell};
use agent_loop_tests::harness::{Event, Exec, Outcome, agent_loop, eventually, host};
use agent_loop_tests::{needs, sys, test_name};

/// The limit comes while the adversary, fully built, lives on.
fn after_the_limit(args: &[&str]) -> Outcome {
    let run = |limit| Exec::new().limit(limit).grace("300ms").adversary(args).run();
    let mut outcome = run("2s");
    if !outcome.was_ready() {
        // A slow machine builds the tree more slowly.
        outcome = run("20s");
    }
    assert!(outcome.was_ready(), "the limit came too early to prove anything\n{}", outcome.stderr);
    assert_eq!(outcome.code, 124, "{}", outcome.stderr);
    stopped(&outcome, "deadline");
    assert_eq!(outcome.run_exit().value["outcome"], "deadline");
    outcome
}

/// The main process ends by itself and leaves the adversary behind.
fn after_a_normal_end(args: &[&str]) -> Outcome {
    let outcome = Exec::new().grace("300ms").adversary([&["--as-child", "--leave"], args].concat()).run();
    assert!(outcome.was_ready(), "{}", outcome.stderr);
    assert_eq!(outcome.code, 0, "the command's own code\n{}", outcome.stderr);
    assert!(outcome.run_exit().value["leftovers"].as_u64() > Some(0), "{}", outcome.run_exit().value);
    outcome.assert_tree_accounted();
    outcome.assert_nothing_left();
    outcome
}

fn stopped(outcome: &Outcome, reason: &str) {
    outcome.assert_tree_accounted();
    outcome.assert_nothing_left();
    let killed: Vec<_> = outcome.of_kind("run.killed").collect();
    let [killed] = killed[..] else { panic!("{} run.killed\n{}", killed.len(), outcome.stderr) };
    assert_eq!((&killed.value["survivors"], &killed.value["reason"]), (&0.into(), &reason.into()));
    // Whoever was signalled was in the tree, and the evidence is named.
    let born: Vec<_> = outcome.births().map(|birth| birth.who().pid).collect();
    for intent in outcome.of_kind("signal.intent") {
        let pid = intent.value["to"]["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
        assert!(pid.is_none_or(|pid| born.contains(&pid)), "{}", intent.value);
    }
}

macro_rules! adversaries {
    ($($name:ident: $($arg:expr),+;)*) => {
        /// Main processes and children that outstay their limit.
        mod the_limit_empties_the_tree_of {
            $(#[test] fn $name() { super::needs!(bpf, cgroup); super::after_the_limit(&[$($arg),+]); })*
        }
        /// The same, left behind by a main process that ended.
        mod a_normal_end_empties_the_tree_of {
            $(#[test] fn $name() { super::needs!(bpf, cgroup); super::after_a_normal_end(&[$($arg),+]); })*
        }
    };
}

adversaries! {
    a_plain_process: "hold";
    a_term_ignorer: "term-ignorer", "5";
    a_setsid_daemon: "double-fork-daemon";
    a_leader_that_exits_first: "leader-exits-first";
    an_exec_by_a_thread: "exec-by-thread";
    a_fork_bomb: "fork-bomb", "200";
    a_stopped_process: "stopper";
    nested_cgroups: "nested-cgroup";
    a_frozen_nested_cgroup: "nested-cgroup", "--freeze";
    a_threaded_nested_cgroup: "nested-cgroup", "--threaded";
    deeply_nested_cgroups: "many-cgroups", "1", "300";
    many_cgroups_side_by_side: "many-cgroups", "500", "0";
    hoppers_between_cgroups: "hopper", "5";
    a_long_chain_of_setsid: "setsid-chain", "100";
    a_subreaper: "subreaper-daemon";
}

#[test]
fn the_limit_empties_the_tree_of_a_child_whose_leader_exits_first() {
    needs!(bpf, cgroup);
    after_the_limit(&["--as-child", "leader-exits-first"]);
}

#[test]
fn a_tree_that_ends_on_term_is_not_killed() {
    needs!(bpf, cgroup);
    let outcome = Exec::new().limit("1s").grace("20s").adversary(["hold"]).run();
    stopped(&outcome, "deadline");
    let kills = outcome.of_kind("signal.intent").filter(|intent| intent.value["signal"] == libc::SIGKILL).count();
    assert_eq!(kills, 0, "{}", outcome.stderr);
}

#[test]
fn leftovers_are_named_in_the_summary() {
    needs!(bpf, cgroup);
    let outcome = after_a_normal_end(&["double-fork-daemon"]);
    assert!(outcome.stderr.contains("adversary"), "{}", outcome.stderr);
}

#[test]
fn leftovers_that_are_waited_for_are_not_stopped() {
    needs!(bpf, cgroup);
    let exec = Exec::new().arg("--leftovers").arg("wait");
    let outcome = exec.adversary(["--as-child", "--leave", "--hold-ms", "500", "hold", "--code", "5"]).run();
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    outcome.assert_tree_accounted();
    outcome.assert_nothing_left();
    assert_eq!(outcome.of_kind("signal.intent").count(), 0);
    assert!(outcome.deaths().any(|death| death.status.and_then(|status| status.code) == Some(5)));
}

#[test]
fn the_subreaper_leaves_no_zombies() {
    needs!(bpf, cgroup);
    let outcome = after_a_normal_end(&["setsid-chain", "20"]);
    let left: Vec<_> = outcome.births().filter_map(|birth| Some((host::state(birth.who())?, birth.who()))).collect();
    assert!(left.is_empty(), "not reaped: {left:?}");
}

#[test]
fn a_deep_nest_of_cgroups_takes_no_descriptor_for_each_level() {
    needs!(root, bpf, cgroup);
    let few = || Ok(nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, 80, 80)?);
    let exec = Exec::new().limit("4s").grace("300ms").with(|command| sys::before_exec(command, few));
    let outcome = exec.adversary(["many-cgroups", "3", "300"]).run();
    assert_eq!(outcome.code, 124, "{}", outcome.stderr);
    assert!(outcome.was_ready(), "{}", outcome.stderr);
    stopped(&outcome, "deadline");
}

/// SIGKILLs `exec` once `now` says so; the guard must empty the tree.
fn killed_when(name: &str, args: &[&str], now: impl Fn(&agent_loop_tests::harness::Running)) {
    let running = Exec::new().adversary(args).start();
    now(&running);
    running.signal(libc::SIGKILL);
    let outcome = running.finish();
    assert_eq!(outcome.code, -libc::SIGKILL);
    let procs: Vec<_> = outcome.births().map(Event::who).collect();
    eventually(name, || procs.iter().all(|proc| host::alive(proc).is_none()).then_some(()));
    eventually(name, || host::naming(&outcome.path("")).is_empty().then_some(()));
    eventually(name, || std::panic::catch_unwind(|| outcome.assert_no_cgroup()).ok());
}

#[test]
fn exec_sigkilled_leaves_nothing_running() {
    needs!(bpf, cgroup);
    let ready = agent_loop_tests::harness::Running::wait_ready;
    for args in [
        &["term-ignorer", "5"][..],
        &["double-fork-daemon"],
        &["leader-exits-first"],
        &["fork-bomb", "100"],
        &["stopper"],
        &["nested-cgroup"],
        &["setsid-chain", "30"],
    ] {
        killed_when(&format!("{}: {args:?}", test_name!()), args, ready);
    }
}

#[test]
fn exec_sigkilled_as_soon_as_the_birth_is_written_leaves_nothing_running() {
    needs!(bpf, cgroup);
    for _ in 0..5 {
        killed_when(test_name!(), &["term-ignorer"], |running| {
            running.wait_event("run.born", |event| event.kind == "run.born");
        });
    }
}

#[test]
fn exec_sigkilled_when_it_has_just_made_its_cgroup_leaves_none() {
    needs!(root, bpf, cgroup);
    let cell = Cell::new();
    let running = Exec::without_events()
        .with(|command| cell.hold(command))
        .with(|command| sys::before_exec(command, sys::be_traced))
        .cmd(["true"])
        .start();
    sys::run_past_call(running.pid(), libc::SYS_mkdirat, 100_000).expect("it makes a cgroup");
    let made = cell.below();
    assert!(made.len() == 1 && made[0].starts_with("agent-loop-exec-"), "{made:?}");
    running.signal(libc::SIGKILL);
    let outcome = running.finish();
    assert_eq!(outcome.code, -libc::SIGKILL);
    eventually("the end of the empty cgroup", || cell.below().is_empty().then_some(()));
    cell.assert_empty();
}

/// The cgroup that `exec` was started in: an agent of root's can move there, out of the run's own.
fn outside() -> String {
    cgroup::own().expect("a cgroup").join("cgroup.procs").display().to_string()
}

#[test]
fn one_that_left_the_cgroup_and_is_deaf_is_killed_too() {
    needs!(root, bpf, cgroup);
    let script = format!("trap '' INT TERM; (trap '' INT TERM; exec sleep 50) & echo $! > {}; sleep 50", outside());
    let outcome =
        Exec::new().limit("600ms").grace("100ms").arg("--give-up").arg("20s").cmd(["sh", "-c", &script]).run();
    assert_eq!(outcome.code, 124, "{}", outcome.stderr);
    outcome.assert_tree_accounted();
    outcome.assert_nothing_left();
}

#[test]
fn without_ebpf_one_that_left_the_cgroup_is_stopped_and_nothing_else_is_claimed() {
    needs!(root, cgroup);
    let script = format!("sleep 50 & echo $! > {}; sleep 0.3", outside());
    let exec = Exec::new().grace("300ms").arg("--backend").arg("pidfd").arg("--give-up").arg("20s");
    let outcome = exec.cmd(["sh", "-c", &script]).run();
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    outcome.assert_nothing_left();
}

#[test]
fn a_command_that_removes_its_own_cgroup_keeps_nobody_waiting() {
    needs!(root, bpf, cgroup);
    let own = cgroup::own().expect("a cgroup");
    let script = format!(
        "echo $$ > {}; c=$(ls -d {}/agent-loop-exec-*); for one in $c; do rmdir $one 2>/dev/null; done; exit 3",
        outside(),
        own.display()
    );
    let outcome = Exec::new().alone().limit("10s").arg("--give-up").arg("10s").cmd(["sh", "-c", &script]).run();
    assert_eq!(outcome.code, 3, "{}", outcome.stderr);
}

#[test]
fn what_the_caller_had_started_before_it_became_exec_is_not_the_tree() {
    needs!(root);
    let scratch = tempfile::tempdir().expect("a directory");
    let marker = scratch.path().join("bystander");
    let script = format!(
        "mount -t tmpfs none /sys/fs/cgroup; sh -c 'sleep 2; echo lived > {}' & exec {} exec --grace 300ms -- sleep 0.3",
        marker.display(),
        agent_loop().display()
    );
    let output = std::process::Command::new("unshare").args(["-m", "sh", "-c", &script]).output().expect("unshare");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(!told.contains("left behind"), "{told}");
    eventually("the bystander's end", || marker.exists().then_some(()));
}

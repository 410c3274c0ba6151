//! Agents that nobody launched through us: seen at their exec with all that descends from them, and only observed.

use std::fs;
use std::path::PathBuf;

use agent_loop::kernel::Options;
use agent_loop::model::{Discovery, Live, RunTag};
use agent_loop_common::map::OBSERVED;
use agent_loop_tests::harness::{adversary, eventually};
use agent_loop_tests::needs;
use agent_loop_tests::oracle::Status;
use agent_loop_tests::traced::{Run, Traced, copy, end, loose};

const RULE: u32 = 5;

fn watching(name: &str) -> Options {
    Options { watch: vec![(name.to_owned(), RULE)], ..Options::default() }
}

/// A copy of the adversary under this name.
fn named(run: &Run, name: &str) -> PathBuf {
    let program = run.scratch(name);
    copy(&adversary(), &program);
    program
}

#[test]
fn a_named_program_is_seen_at_its_exec_with_its_descendants() {
    needs!(cgroup, bpf);
    let run = Run::new();
    let mut traced = Traced::load(&watching("al-watched"));
    let program = named(&run, "al-watched");
    let (pid, status) = end(run.program(&program, &["fork-no-exec", "10"]).spawn().expect("the copy starts"));
    assert_eq!(status, Status::exited(0));
    traced.drain().assert_all_ended();
    let tag = RunTag(OBSERVED | u64::from(RULE));
    assert!(traced.births().all(|birth| birth.run == tag));
    assert!(traced.deaths().all(|death| death.run == tag));
    let main = traced.births().find(|birth| birth.key.tgid == pid).expect("its birth").clone();
    assert_eq!((main.discovery, main.parent_tgid), (Discovery::Exec, Some(std::process::id())));
    let exec = traced.execs().next().expect("its exec");
    assert_eq!((exec.key, exec.run, exec.filename.as_str()), (main.key, tag, program.to_str().expect("a path")));
    traced.assert_lives(&run.lives());
    assert_eq!(traced.births().count(), 11);
}

#[test]
fn in_the_live_set_the_observed_are_told_from_those_of_a_run() {
    needs!(cgroup, bpf);
    let (run, outside) = (Run::new(), Run::new());
    let mut traced = Traced::of_run(&run, watching("al-living"));
    let program = named(&outside, "al-living");
    // It holds, and two children of its hold, outside of any run; one more process is in a run.
    let parent = outside.program(&program, &["rename", "harmless", "2"]).spawn().expect("the copy starts");
    outside.wait_ready();
    let child = run.clone(agent_loop_tests::sys::Stub::Pause, None).expect("clone3");
    let live = traced.tracing.live.all().expect("the live set");
    let (observed, ours): (Vec<_>, Vec<_>) = live.into_iter().partition(|live| live.run.observed().is_some());
    assert!(observed.iter().all(|live| live.run.observed() == Some(RULE)));
    assert_eq!(observed.len(), 3);
    let descends = |it: &Live| it.key.tgid == parent.id() || it.forker.map(|it| it.tgid) == Some(parent.id());
    assert!(observed.iter().all(descends));
    assert_eq!(ours.iter().map(|live| live.key.tgid).collect::<Vec<_>>(), [child.pid.cast_unsigned()]);
    assert_eq!(ours[0].run, run.tag());
    run.kill();
    outside.kill();
    agent_loop_tests::sys::wait(child.pid).expect("our child");
    end(parent);
    eventually("the end of the children", || {
        traced.drain();
        traced.tracing.live.all().expect("the live set").is_empty().then_some(())
    });
    traced.drain().assert_all_ended();
}

#[test]
fn a_name_that_no_rule_has_is_not_seen() {
    needs!(cgroup, bpf);
    let run = Run::new();
    let mut traced = Traced::load(&watching("al-wanted"));
    let program = named(&run, "al-wanted2");
    end(run.program(&program, &["fork-no-exec", "3"]).spawn().expect("the copy starts"));
    assert!(traced.drain().events.is_empty(), "{:?}", traced.events);
}

#[test]
fn a_later_change_of_name_changes_nothing() {
    needs!(cgroup, bpf);
    let run = Run::new();
    let mut traced = Traced::load(&watching("al-renamed"));
    let program = named(&run, "al-renamed");
    // It leaves the name that the rule has; another takes that name without an exec.
    let left = run.program(&program, &["rename", "harmless", "3"]).spawn().expect("the copy starts");
    run.wait_ready();
    let other = Run::new();
    let took = other.adversary(&["rename", "al-renamed", "3"]).spawn().expect("the adversary starts");
    other.wait_ready();
    let comm = fs::read_to_string(format!("/proc/{}/comm", took.id())).expect("it lives");
    assert_eq!(comm.trim(), "al-renamed");
    traced.drain();
    assert_eq!(traced.births().count(), 4);
    assert!(traced.births().all(|it| it.key.tgid == left.id() || it.forker.map(|it| it.tgid) == Some(left.id())));
    run.kill();
    other.kill();
    end(left);
    end(took);
    traced.drain().assert_all_ended();
}

#[test]
fn a_runs_cgroup_outranks_an_inherited_watch_tag() {
    needs!(cgroup, bpf);
    let (run, outside) = (Run::new(), Run::new());
    let mut traced = Traced::of_run(&run, watching("al-outranked"));
    let program = named(&outside, "al-outranked");
    let dir = run.path().to_str().expect("a path").to_owned();
    let (pid, status) = end(loose_in(&outside, &program, &["born-in", &dir]));
    assert_eq!(status, Status::exited(0));
    traced.drain().assert_all_ended();
    let lives = outside.lives();
    let born = traced.birth_of(&lives[0]).clone();
    assert_eq!((born.run, born.discovery), (run.tag(), Discovery::Fork));
    assert_eq!(born.forker.map(|forker| forker.tgid), Some(pid), "its forker was observed");
    let known = traced.tracing.runs.get(run.tag()).expect("a run").expect("it");
    assert_eq!(known.main, Some(born.key));
    let observed = traced.births().find(|birth| birth.key.tgid == pid).expect("its birth");
    assert_eq!(observed.run.0, OBSERVED | u64::from(RULE));
}

fn loose_in(run: &Run, program: &std::path::Path, args: &[&str]) -> std::process::Child {
    run.program(program, args).spawn().expect("the copy starts")
}

#[test]
fn a_process_observed_is_never_in_a_run() {
    needs!(cgroup, bpf);
    let (run, outside) = (Run::new(), Run::new());
    let mut traced = Traced::of_run(&run, watching("al-observed"));
    let program = named(&outside, "al-observed");
    let child = loose(&program, &outside.scratch(""), &["hold"]).spawn().expect("the copy starts");
    outside.wait_ready();
    let live = traced.tracing.live.lookup(child.id()).expect("the live set").expect("it is live");
    assert_ne!(live.run, run.tag());
    assert_eq!((live.run.observed(), run.tag().observed()), (Some(RULE), None));
    // It is no child of the run: end it by its own descriptor.
    let pidfd = agent_loop_tests::sys::pidfd_open(child.id().cast_signed()).expect("our child");
    agent_loop_tests::sys::pidfd_signal(&pidfd, libc::SIGKILL).expect("our child");
    end(child);
    eventually("its death", || {
        traced.drain();
        traced.deaths().next().map(drop)
    });
    traced.assert_all_ended();
    assert_eq!(traced.tracing.runs.get(run.tag()).expect("a run").expect("it").main, None);
}

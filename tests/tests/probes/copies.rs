//! Where a program at a tracepoint can be preempted, hooks have copies: each life is told once, and what all copies were
//! skipped for is counted.

use std::io::Read as _;
use std::process::{Command, Stdio};

use agent_loop::kernel::{Layout, Options, Tracepoints};
use agent_loop_common::counter::Counter;
use agent_loop_common::map::LiveEntry;
use agent_loop_tests::bpf::LiveMap;
use agent_loop_tests::harness::{host, skip};
use agent_loop_tests::needs;
use agent_loop_tests::oracle::Status;
use agent_loop_tests::sys::{self, Stub};
use agent_loop_tests::traced::{Run, Traced, end, enter};

use super::to_the_end;

const BOTH: [Tracepoints; 2] = [Tracepoints::Whole, Tracepoints::Preemptible];

fn options(tracepoints: Tracepoints) -> Options {
    Options { tracepoints: Some(tracepoints), events_bytes: 64 << 20, execs_bytes: 64 << 20, ..Options::default() }
}

fn skipped(traced: &Traced) -> Vec<(&'static str, u64)> {
    traced.tracing.counters.skipped().expect("the programs")
}

fn sum(traced: &Traced, counter: Counter) -> u64 {
    traced.tracing.counters.sum(counter).expect("the counters")
}

/// What all that the adversary did came to, and what was seen of it: births, execs, deaths.
fn storm(traced: &mut Traced, run: &Run) -> ([u64; 3], [u64; 3]) {
    let lives = to_the_end(traced, run, &["storm", "--for-ms", "2000", "--exec-every", "3"]);
    let (all, execs) = (lives.len() as u64 + 1, lives.iter().filter(|life| life.role == "exec").count() as u64 + 1);
    let totals = traced.tracing.counters.read().expect("the counters");
    assert_eq!((totals.lost_fork, totals.lost_exec, totals.lost_exit), (0, 0, 0), "{totals:?}");
    ([all, execs, all], [totals.seen_fork, totals.seen_exec, totals.seen_exit])
}

#[test]
fn in_a_storm_each_life_is_told_once_whichever_copy_tells() {
    needs!(cgroup, bpf);
    let run = Run::new();
    let mut traced = Traced::of_run(&run, options(Tracepoints::Preemptible));
    assert_eq!(traced.tracing.probes.tracepoints(), Tracepoints::Preemptible);
    let (expected, seen) = storm(&mut traced, &run);
    println!("{expected:?}, skipped: {:?}", skipped(&traced));
    assert_eq!(seen, expected);
    let told = [traced.births().count(), traced.execs().count(), traced.deaths().count()];
    assert_eq!(told.map(|count| count as u64), expected);
    traced.assert_lives(&run.lives());
    traced.assert_all_ended();
    assert_eq!(traced.tracing.counters.read().expect("the counters").missed, 0);
    assert_eq!(skipped(&traced).into_iter().find(|(hook, _)| *hook == "fork"), Some(("fork", 0)));
}

#[test]
fn without_copies_what_is_not_told_was_skipped_by_the_kernel_and_not_unreadable() {
    needs!(cgroup, bpf);
    let run = Run::new();
    let mut traced = Traced::of_run(&run, options(Tracepoints::Whole));
    let (expected, seen) = storm(&mut traced, &run);
    println!("{expected:?}, seen {seen:?}, skipped: {:?}", skipped(&traced));
    assert_eq!(sum(&traced, Counter::Unreadable), 0);
    // A birth that was skipped takes the exec and the death of that process with it.
    let skips = skipped(&traced).into_iter().map(|(_, runs)| runs).sum::<u64>();
    assert!(expected.into_iter().zip(seen).all(|(all, seen)| all - seen <= skips), "{expected:?} {seen:?}");
    if Layout::of_running_kernel().expect("a known layout").tracepoints() == Tracepoints::Whole {
        assert_eq!((seen, skips), (expected, 0), "this kernel preempts no program at a tracepoint");
    }
}

#[test]
fn an_exec_that_no_copy_told_is_counted_by_the_next_one_or_by_the_death() {
    needs!(cgroup, bpf);
    const ENTRIES: u32 = 1_037;
    for tracepoints in BOTH {
        let run = Run::new();
        let mut traced = Traced::of_run(&run, Options { live_entries: ENTRIES, ..options(tracepoints) });
        let map = LiveMap::of_size(ENTRIES).expect("our live set");
        // As if what was told last had been the exec of a forebear long ago.
        let set_back = |traced: &Traced, pid: u32| {
            let live = traced.tracing.live.lookup(pid).expect("the live set").expect("it is live");
            let (start_boottime_ns, run) = (live.key.start_boottime_ns, live.run.0);
            let pidfs_ino = live.ino.map_or(0, |ino| ino.0);
            let entry = LiveEntry { start_boottime_ns, run, pidfs_ino, exec_id: 0, ..LiveEntry::default() };
            map.put(pid, &entry).expect("the map can be written");
        };
        let is_counted = tracepoints == Tracepoints::Preemptible;

        let mut shell = Command::new("sh");
        shell.args(["-c", "echo; read line; exec true"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        enter(&mut shell, run.path());
        let mut shell = shell.spawn().expect("sh starts");
        // It has said something, so all copies of the hook of its exec are over.
        shell.stdout.as_mut().expect("piped").read_exact(&mut [0]).expect("a line");
        set_back(&traced, shell.id());
        drop(shell.stdin.take());
        assert_eq!(end(shell).1, Status::exited(0));
        let by_exec = sum(&traced, Counter::SkippedExec);
        assert_eq!(by_exec > 0, is_counted, "{by_exec}");
        traced.drain().assert_all_ended();
        assert_eq!((traced.execs().count(), traced.deaths().count()), (2, 1));

        let child = run.clone(Stub::Pause, None).expect("clone3");
        set_back(&traced, child.pid.cast_unsigned());
        sys::pidfd_signal(&child.pidfd, libc::SIGKILL).expect("our child");
        sys::wait(child.pid).expect("our child");
        let by_death = sum(&traced, Counter::SkippedExec) - by_exec;
        assert_eq!(by_death > 0, is_counted, "{by_death}");
        assert_eq!(traced.tracing.counters.read().expect("the counters").missed, by_exec + by_death);
        traced.drain().assert_all_ended();
    }
}

#[test]
fn a_process_that_dies_in_its_exec_is_no_skipped_exec() {
    needs!(cgroup, bpf);
    if host::before(6, 18) {
        return skip(
            "a_process_that_dies_in_its_exec_is_no_skipped_exec",
            "such a death is counted on 6.12, why is not known, and 6.13 to 6.17 were not tried; hooks have copies from 7.0 on",
        );
    }
    let run = Run::new();
    let mut traced = Traced::of_run(&run, options(Tracepoints::Preemptible));
    // There is no room for what it executes, and no way back to what it was.
    let mut command = Command::new("prlimit");
    command.args(["--as=65536", "true"]).stdin(Stdio::null());
    enter(&mut command, run.path());
    let Ok(child) = command.spawn() else {
        return skip("a_process_that_dies_in_its_exec_is_no_skipped_exec", "prlimit does not start");
    };
    let (_, status) = end(child);
    assert!(status.signal.is_some(), "{status:?}");
    traced.drain().assert_all_ended();
    assert_eq!((traced.births().count(), traced.execs().count(), traced.deaths().count()), (1, 1, 1));
    assert_eq!(traced.tracing.counters.read().expect("the counters").missed, 0);
}

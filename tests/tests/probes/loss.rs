//! Loss is counted exactly; the live set and the run table stay true without the rings.

use agent_loop::kernel::{Options, Tracepoints};
use agent_loop::model::Discovery;
use agent_loop_common::map::LiveEntry;
use agent_loop_tests::bpf::LiveMap;
use agent_loop_tests::needs;
use agent_loop_tests::oracle::Status;
use agent_loop_tests::sys::{self, Cloned, Stub};
use agent_loop_tests::traced::{self, Run, Traced, end};

/// A page: room for some fifty births and deaths, and a handful of execs.
fn tiny() -> Options {
    Options { events_bytes: 4096, execs_bytes: 4096, ..Options::default() }
}

fn reap(child: &Cloned, signal: i32) -> Status {
    sys::pidfd_signal(&child.pidfd, signal).expect("our child");
    sys::wait(child.pid).expect("our child")
}

#[test]
fn what_a_full_ring_lost_is_counted_exactly() {
    needs!(cgroup, bpf);
    let run = Run::new();
    let mut traced = Traced::of_run(&run, tiny());
    // Each child is born and dies: 300 by fork, then 100 by vfork and exec and 100 by vfork alone.
    let forks = {
        let (_, status) = end(run.adversary(&["fork-no-exec", "300"]).spawn().expect("the adversary starts"));
        assert_eq!(status, Status::exited(0));
        let (_, status) = end(run.adversary(&["vfork-spawner", "100"]).spawn().expect("the adversary starts"));
        assert_eq!(status, Status::exited(0));
        run.lives()
    };
    let all = forks.len() as u64 + 2;
    let execs = forks.iter().filter(|life| life.role == "exec").count() as u64 + 2;
    traced.drain();
    let totals = traced.tracing.counters.read().expect("the counters");
    assert_eq!((totals.seen_fork, totals.seen_exec, totals.seen_exit), (all, execs, all), "{totals:?}");
    assert_eq!(totals.lost_fork, all - traced.births().count() as u64);
    assert_eq!(totals.lost_exec, execs - traced.execs().count() as u64);
    assert_eq!(totals.lost_exit, all - traced.deaths().count() as u64);
    assert!(totals.lost_fork > 100 && totals.lost_exec > 50 && totals.lost_exit > 100, "{totals:?}");
    assert_eq!((totals.live_full, totals.stale, totals.missed), (0, 0, 0));
    assert_eq!(traced.tracing.live.all().expect("the live set"), []);
}

#[test]
fn the_main_process_status_needs_no_ring() {
    needs!(cgroup, bpf);
    for signal in [libc::SIGTERM, libc::SIGKILL] {
        let run = Run::new();
        let mut traced = Traced::of_run(&run, tiny());
        let main = run.clone(Stub::Pause, None).expect("clone3");
        end(run.adversary(&["fork-no-exec", "200"]).spawn().expect("the adversary starts"));
        let lost = traced.tracing.counters.read().expect("the counters").lost_exit;
        let status = reap(&main, signal);
        assert_eq!(traced.tracing.counters.read().expect("the counters").lost_exit, lost + 1, "its record was lost");
        let (told, at) = traced.tracing.runs.get(run.tag()).expect("a run").expect("it").exit.expect("its end");
        assert_eq!(told.map(traced::status), Some(status));
        assert!((1..=sys::boot_ns()).contains(&at.0));
        traced.drain();
    }
}

#[test]
fn a_full_live_set_is_counted_and_who_was_left_out_is_found_again() {
    needs!(cgroup, bpf);
    let run = Run::new();
    let mut traced = Traced::of_run(&run, Options { live_entries: 4, ..Options::default() });
    let mut children: Vec<_> = (0..6).map(|_| run.clone(Stub::Pause, None).expect("clone3")).collect();
    traced.drain();
    let totals = traced.tracing.counters.read().expect("the counters");
    assert_eq!((totals.live_full, totals.seen_fork), (2, 4), "{totals:?}");
    assert_eq!(traced.births().count(), 4, "nothing is told of a process whose death could not be");
    assert_eq!(traced.tracing.live.all().expect("the live set").len(), 4);

    // Room again: a snapshot finds the others, by their cgroup.
    let outsiders = children.split_off(4);
    for child in children.drain(..3) {
        reap(&child, libc::SIGKILL);
    }
    traced.tracing.probes.snapshot().expect("a snapshot");
    traced.drain();
    let found: Vec<_> =
        traced.births().filter(|it| it.discovery == Discovery::Snapshot).map(|it| it.key.tgid).collect();
    assert_eq!(found.len(), 2);
    assert!(outsiders.iter().all(|child| found.contains(&child.pid.cast_unsigned())));
    for child in children.iter().chain(&outsiders) {
        reap(child, libc::SIGKILL);
    }
    traced.drain().assert_all_ended();
}

#[test]
fn an_exec_finds_who_was_left_out_and_names_it_once() {
    needs!(cgroup, bpf);
    let run = Run::new();
    let mut traced = Traced::of_run(&run, Options { live_entries: 2, ..Options::default() });
    let children: Vec<_> = (0..2).map(|_| run.clone(Stub::Pause, None).expect("clone3")).collect();
    // Moved in, so that only its exec can be seen; there is no room for it.
    end(run.adversary(&["exit-code", "3"]).spawn().expect("the adversary starts"));
    let totals = traced.tracing.counters.read().expect("the counters");
    // Each copy of the hook counts it.
    let most = match traced.tracing.probes.tracepoints() {
        Tracepoints::Whole => 1,
        Tracepoints::Preemptible => 4,
    };
    assert!((1..=most).contains(&totals.live_full), "{totals:?}");
    assert_eq!((totals.seen_exec, totals.seen_exit), (0, 0), "{totals:?}");
    reap(&children[0], libc::SIGKILL);
    let (pid, status) = end(run.adversary(&["exit-code", "3"]).spawn().expect("the adversary starts"));
    traced.drain();
    let birth = traced.births().find(|birth| birth.key.tgid == pid).expect("its birth");
    assert_eq!(birth.discovery, Discovery::Exec);
    assert_eq!(traced.death_of(birth.key).status.map(traced::status), Some(status));
    assert_eq!(traced.execs().count(), 1);
    reap(&children[1], libc::SIGKILL);
    traced.drain().assert_all_ended();
}

#[test]
fn a_stale_entry_is_replaced_and_counted() {
    needs!(cgroup, bpf);
    const ENTRIES: u32 = 1_033;
    let run = Run::new();
    let mut traced = Traced::of_run(&run, Options { live_entries: ENTRIES, ..Options::default() });
    let map = LiveMap::of_size(ENTRIES).expect("our live set");
    let free = sys::clone(Stub::Exit(0), None).expect("clone3");
    sys::wait(free.pid).expect("our child");
    let pid = free.pid.cast_unsigned();
    // As if the exit of the number's last owner had been missed: in this run, then in another.
    for (turn, tag) in [run.tag().0, 1].into_iter().enumerate() {
        let stale = LiveEntry { start_boottime_ns: 1, run: tag, ..LiveEntry::default() };
        map.put(pid, &stale).expect("the map can be written");
        let child = run.clone(Stub::Pause, Some(free.pid)).expect("the number is still free");
        let live = traced.tracing.live.lookup(pid).expect("the live set").expect("it is live");
        assert!(live.key.start_boottime_ns > 1);
        assert_eq!(live.run, run.tag());
        assert_eq!(traced.tracing.counters.read().expect("the counters").stale, turn as u64 + 1);
        reap(&child, libc::SIGKILL);
        traced.drain().assert_all_ended();
    }
    // One whose number is never used again is never taken for somebody: its exit is not told twice.
    assert_eq!(traced.births().count(), 2);
}

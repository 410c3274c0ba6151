//! Attach, then snapshot: nobody is missed, doubled, overwritten, or left behind.

use std::fs;
use std::process::Child;
use std::thread;
use std::time::Duration;

use agent_loop::event::Event;
use agent_loop::kernel::Options;
use agent_loop::model::Discovery;
use agent_loop_common::map::LiveEntry;
use agent_loop_tests::bpf::LiveMap;
use agent_loop_tests::harness::{adversary, eventually, skip};
use agent_loop_tests::sys::{self, Stub};
use agent_loop_tests::traced::{self, Run, Traced, copy, end};
use agent_loop_tests::{needs, test_name};

fn start(run: &Run, args: &[&str]) -> Child {
    let child = run.adversary(args).spawn().expect("the adversary starts");
    run.wait_ready();
    child
}

#[test]
fn it_finds_who_lived_in_a_runs_cgroup_before() {
    needs!(cgroup, bpf);
    let run = Run::new();
    let main = start(&run, &["term-ignorer", "5"]);
    let mut traced = Traced::of_run(&run, Options::default());
    let found = traced.tracing.probes.snapshot().expect("a snapshot");
    traced.drain();
    assert_eq!(found.len(), 6);
    assert_eq!(traced.discovered(Discovery::Snapshot), 6);
    assert_eq!(traced.births().count(), 6);
    assert!(traced.births().all(|birth| birth.run == run.tag() && birth.uid.is_none()));
    let pidfd = sys::pidfd_open(main.id().cast_signed()).expect("it lives");
    assert!(traced.births().all(|birth| birth.ino.is_some() == sys::pidfd_ino(&pidfd).is_some()));
    let children = traced.births().filter(|birth| birth.parent_tgid == Some(main.id())).count();
    assert_eq!(children, 5);
    assert_eq!(traced.tracing.live.all().expect("the live set").len(), 6);
    // Whoever is known is not told again.
    assert_eq!(traced.tracing.probes.snapshot().expect("a snapshot").len(), 6);
    assert_eq!(traced.drain().births().count(), 6);
    run.kill();
    end(main);
    traced.drain().assert_all_ended();
}

#[test]
fn it_finds_who_was_moved_in_and_who_is_in_a_cgroup_below() {
    needs!(cgroup, bpf);
    let (run, outside) = (Run::new(), Run::new());
    let moved = start(&outside, &["hold"]);
    fs::write(run.path().join("cgroup.procs"), moved.id().to_string()).expect("it can be moved");
    let below = run.path().join("a/b");
    fs::create_dir_all(&below).expect("a cgroup below");
    let mut nested = traced::loose(&adversary(), &run.scratch(""), &["hold"]);
    traced::enter(&mut nested, &below);
    let nested = nested.spawn().expect("the adversary starts");
    run.wait_ready();

    let mut traced = Traced::of_run(&run, Options::default());
    traced.tracing.probes.snapshot().expect("a snapshot");
    traced.drain();
    let mut found: Vec<_> = traced.births().map(|birth| (birth.key.tgid, birth.run)).collect();
    found.sort_unstable_by_key(|it| it.0);
    let mut expected = [(moved.id(), run.tag()), (nested.id(), run.tag())];
    expected.sort_unstable_by_key(|it| it.0);
    assert_eq!(found, expected);
    // A fork below is seen as well, and so is a birth straight into the cgroup below.
    let dir = fs::File::open(&below).expect("its directory");
    let place = sys::Place { cgroup: Some(std::os::fd::AsFd::as_fd(&dir)), ..sys::Place::default() };
    let child = sys::clone_at(Stub::Exit(0), place).expect("clone3");
    sys::wait(child.pid).expect("our child");
    traced.drain();
    assert!(traced.births().any(|it| it.key.tgid == child.pid.cast_unsigned() && it.discovery == Discovery::Fork));
    run.kill();
    end(moved);
    end(nested);
    traced.drain().assert_all_ended();
}

#[test]
fn it_finds_the_descendants_of_a_watched_process() {
    needs!(cgroup, bpf);
    let run = Run::new();
    let program = run.scratch("al-snapshot");
    copy(&adversary(), &program);
    let main = run.program(&program, &["term-ignorer", "3"]).spawn().expect("the copy starts");
    run.wait_ready();
    let mut traced = Traced::load(&Options { watch: vec![("al-snapshot".to_owned(), 9)], ..Options::default() });
    traced.tracing.probes.snapshot().expect("a snapshot");
    traced.drain();
    assert_eq!(traced.births().count(), 4);
    let tag = agent_loop_common::map::OBSERVED | 9;
    assert!(traced.births().all(|birth| birth.run.0 == tag && birth.discovery == Discovery::Snapshot));
    run.kill();
    end(main);
    traced.drain().assert_all_ended();
}

#[test]
fn a_process_that_is_known_keeps_what_is_known_of_it() {
    needs!(cgroup, bpf);
    let run = Run::new();
    let mut traced = Traced::of_run(&run, Options::default());
    let child = run.clone(Stub::Pause, None).expect("clone3");
    let before = traced.tracing.live.lookup(child.pid.cast_unsigned()).expect("the live set").expect("it is live");
    assert_eq!(before.forker.map(|forker| forker.tgid), Some(std::process::id()));
    traced.tracing.probes.snapshot().expect("a snapshot");
    let after = traced.tracing.live.lookup(child.pid.cast_unsigned()).expect("the live set");
    assert_eq!(after, Some(before));
    assert_eq!(traced.drain().births().count(), 1);
    sys::pidfd_signal(&child.pidfd, libc::SIGKILL).expect("our child");
    sys::wait(child.pid).expect("our child");
    traced.drain().assert_all_ended();
}

#[test]
fn a_younger_entry_is_not_overwritten_and_an_older_one_is_replaced() {
    needs!(cgroup, bpf);
    const ENTRIES: u32 = 1_031;
    let run = Run::new();
    let child = run.clone(Stub::Pause, None).expect("clone3");
    let pid = child.pid.cast_unsigned();
    let mut traced = Traced::of_run(&run, Options { live_entries: ENTRIES, ..Options::default() });
    let map = LiveMap::of_size(ENTRIES).expect("our live set");
    let lookup = |traced: &Traced| traced.tracing.live.lookup(pid).expect("the live set").expect("an entry").key;

    // As if the number had passed to a younger process between the walk's look at the task and its insert.
    let younger = LiveEntry { start_boottime_ns: u64::MAX / 2, run: run.tag().0, ..LiveEntry::default() };
    map.put(pid, &younger).expect("the map can be written");
    traced.tracing.probes.snapshot().expect("a snapshot");
    assert_eq!(lookup(&traced).start_boottime_ns, younger.start_boottime_ns);
    assert_eq!(traced.drain().births().count(), 0);

    // As if the exit of the number's last owner had been missed.
    let older = LiveEntry { start_boottime_ns: 1, run: run.tag().0, ..LiveEntry::default() };
    map.put(pid, &older).expect("the map can be written");
    traced.tracing.probes.snapshot().expect("a snapshot");
    traced.drain();
    assert_eq!(traced.births().map(|birth| birth.key).collect::<Vec<_>>(), [lookup(&traced)]);
    assert!(lookup(&traced).start_boottime_ns > 1);
    assert_eq!(traced.tracing.counters.read().expect("the counters").stale, 1);

    sys::pidfd_signal(&child.pidfd, libc::SIGKILL).expect("our child");
    sys::wait(child.pid).expect("our child");
    traced.drain().assert_all_ended();
}

#[test]
fn who_has_ended_and_is_not_reaped_is_not_found() {
    needs!(cgroup, bpf);
    let run = Run::new();
    let zombie = run.clone(Stub::Exit(0), None).expect("clone3");
    let mut traced = Traced::of_run(&run, Options::default());
    assert!(traced.tracing.probes.snapshot().expect("a snapshot").is_empty());
    assert_eq!(traced.drain().births().count(), 0);
    sys::wait(zombie.pid).expect("our child");
    traced.drain().assert_all_ended();
}

#[test]
fn in_a_fork_storm_nobody_is_missed_doubled_or_left_behind() {
    needs!(cgroup, bpf);
    let (mut by_snapshot, mut by_fork, mut overtaken, mut walks) = (0, 0, 0, 0);
    for round in 0..4u64 {
        let run = Run::new();
        let storm = run.adversary(&["storm", "--for-ms", "3000", "--exec-every", "40"]).spawn();
        let mut storm = storm.expect("the adversary starts");
        eventually("the storm", || {
            let procs = fs::read_to_string(run.path().join("cgroup.procs")).ok()?;
            (procs.lines().count() > 2).then_some(())
        });
        thread::sleep(Duration::from_millis(7 * round));
        let mut traced = Traced::of_run(&run, Options::default());
        if storm.try_wait().expect("our child").is_some() {
            return skip(test_name!(), "here loading takes longer than a storm of three seconds");
        }
        traced.tracing.probes.snapshot().expect("a snapshot");
        let complete_from = sys::boot_ns();
        // Whoever a later walk finds first was met between its appearance on the kernel's lists and its fork hook.
        while storm.try_wait().expect("our child").is_none() {
            traced.tracing.probes.snapshot().expect("a snapshot");
            traced.drain();
            walks += 1;
        }
        // However slow this host: some are born when all is in place.
        end(run.adversary(&["storm", "--for-ms", "300"]).spawn().expect("the adversary starts"));
        traced.drain();
        traced.assert_all_ended();
        let lives: Vec<_> = run.lives().into_iter().filter(|life| life.after_ns > complete_from).collect();
        traced.assert_lives(&lives);
        let totals = traced.tracing.counters.read().expect("the counters");
        assert_eq!((totals.stale, totals.missed, totals.live_full), (0, 0, 0), "{totals:?}");
        assert_eq!(totals.seen_fork, traced.births().count() as u64);
        assert_eq!(totals.seen_exit, traced.deaths().count() as u64);
        by_snapshot += traced.discovered(Discovery::Snapshot);
        by_fork += traced.discovered(Discovery::Fork);
        let later = |it: &&agent_loop::model::Birth| {
            it.discovery == Discovery::Snapshot && it.key.start_boottime_ns > complete_from
        };
        overtaken += traced.births().filter(later).count();
        // What was found by both is told by a birth once; a death never comes before it in the ring.
        let mut born = std::collections::HashSet::new();
        for event in &traced.events {
            if let Event::Born(birth) = event {
                assert!(born.insert(birth.key));
            } else if let Event::Died(death) = event {
                assert!(born.contains(&death.key), "{death:?} before its birth");
            }
        }
    }
    assert!(by_snapshot > 0 && by_fork > 0);
    println!(
        "{by_snapshot} found by the snapshot, {by_fork} by the fork hook; {walks} walks overtook it {overtaken} times"
    );
}

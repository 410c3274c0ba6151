//! Many runs, one after the other: nothing of them stays.

use std::fs;
use std::path::Path;

use agent_loop_tests::harness::{Host, eventually};
use agent_loop_tests::{bpf, needs};

/// How many runs are looked at.
const RUNS: usize = 200;
/// What a process may have more of memory afterwards, in KiB: caches that have their full size only after a while.
const SLACK: u64 = 8 << 10;

/// What can leak.
#[derive(Debug, PartialEq, Eq)]
struct Counts {
    daemon: usize,
    keeper: usize,
    children: usize,
    cgroups: Vec<String>,
    pipes: usize,
    runs: usize,
    mains: usize,
}

fn entries(dir: &Path) -> usize {
    fs::read_dir(dir).map_or(0, Iterator::count)
}

fn counts(host: &Host, daemon: u32, keeper: u32) -> Counts {
    let fds = |pid: u32| entries(Path::new(&format!("/proc/{pid}/fd")));
    let dirs = fs::read_dir(host.runs()).expect("the root").filter_map(Result::ok);
    let dirs = dirs.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut cgroups: Vec<String> = dirs.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    cgroups.sort();
    let children = [daemon, keeper].map(children_of);
    let keys = |name: &str, size| bpf::keys(&host.pins().join(name), size).expect("the map").len();
    Counts {
        daemon: fds(daemon),
        keeper: fds(keeper),
        children: children.iter().sum(),
        cgroups,
        pipes: entries(&host.path("state/pipes")),
        runs: keys("RUNS", 8),
        mains: keys("MAINS", 4),
    }
}

/// Children of a process, the unreaped too.
fn children_of(pid: u32) -> usize {
    let pids = fs::read_dir("/proc").expect("proc").filter_map(Result::ok);
    let stats = pids.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    stats
        .filter(|stat| stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok()) == Some(pid))
        .count()
}

fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its size");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

fn play(host: &Host, runs: usize) {
    let ids: Vec<String> = (0..runs)
        .map(|number| host.start(&["--limit", "1h"], ["sh", "-c", "echo $0; (exit 1); exit 2", &number.to_string()]))
        .collect();
    for id in ids {
        assert_eq!(host.ended(&id)["code"], 2);
    }
}

#[test]
fn two_hundred_runs_leave_no_descriptor_cgroup_pipe_entry_child_or_memory() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    let mut daemon = host.serving();
    let keeper = host.keeper();
    play(&host, 20);
    let (before, memory) = (counts(&host, daemon.pid(), keeper), [daemon.pid(), keeper].map(resident));
    assert_eq!((before.pipes, before.runs, before.mains), (0, 0, 0), "{before:?}");
    play(&host, RUNS);
    eventually("everything of the runs to be gone", || {
        let after = counts(&host, daemon.pid(), keeper);
        // The connection of who asked last may still be open.
        if after == before {
            Some(())
        } else {
            eprintln!("{after:?}, before {before:?}");
            None
        }
    });
    for (pid, before) in [daemon.pid(), keeper].into_iter().zip(memory) {
        let after = resident(pid);
        assert!(after <= before + SLACK, "process {pid}: {before} KiB before, {after} after");
        eprintln!("process {pid}: {before} KiB before, {after} after");
    }
    assert_eq!(host.keeper(), keeper);
    assert!(daemon.terminate().success());
}

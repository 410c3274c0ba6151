//! At rest nobody polls: what wakes up a daemon and a keeper with nothing to do is counted by the kernel.

use std::fs;
use std::time::Duration;

use agent_loop_tests::harness::Host;
use agent_loop_tests::needs;

use crate::{shell, stop};

/// How long both are left alone.
const REST: Duration = Duration::from_secs(6);
/// What a daemon may wake up for in that time: its heartbeat and a look at its pins, each of a few steps. A poll of ten
/// times a second would be sixty.
const WAKES: u64 = 20;

/// How often the threads of a process were put to sleep so far.
fn sleeps(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process").filter_map(Result::ok);
    let of = |status: String| -> Option<u64> {
        status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?.trim().parse().ok()
    };
    tasks.filter_map(|task| of(fs::read_to_string(task.path().join("status")).ok()?)).sum()
}

#[test]
fn at_rest_the_daemon_wakes_for_its_heartbeat_and_the_keeper_for_nothing() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    let daemon = host.serving();
    let id = host.start(&["--limit", "1h", "--grace", "100ms"], shell("sleep 600"));
    host.in_state(&id, "running");
    let keeper = host.has_keeper().expect("a keeper");
    // What follows a launch is over.
    std::thread::sleep(Duration::from_secs(1));
    let before = [daemon.pid(), keeper].map(sleeps);
    std::thread::sleep(REST);
    let after = [daemon.pid(), keeper].map(sleeps);
    let (of_daemon, of_keeper) = (after[0] - before[0], after[1] - before[1]);
    assert!(of_daemon <= WAKES && of_keeper == 0, "in {REST:?}: daemon {of_daemon}, keeper {of_keeper}");
    stop(&host, &id);
}

//! Processes of agents that nobody launched through agent-loop: seen, never touched.

use std::path::Path;
use std::process::Command;

use agent_loop_tests::harness::{Host, eventually, host};
use agent_loop_tests::needs;
use serde_json::Value;

use crate::{Stranger, shell, stop};

fn observed(host: &Host) -> Vec<Value> {
    host.asked(["status"])["observed"].as_array().cloned().unwrap_or_default()
}

/// The observed process of this number, and its observed child.
fn family(host: &Host, pid: u32) -> (Value, Value) {
    eventually(&format!("{pid} and its child to be observed"), || {
        let all = observed(host);
        let own = all.iter().find(|it| it["pid"] == pid)?.clone();
        let child = all.iter().find(|it| it["parent"] == pid)?.clone();
        Some((own, child))
    })
}

#[test]
fn a_watched_program_of_somebody_else_is_seen_with_its_children_and_never_touched() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    host.configure("", "user = \"nobody\"\n", "[kernel]\nwatch = [\"al-watched\"]\n");
    let mut daemon = host.serving();
    let program = host.path("al-watched");
    host::copy_program(Path::new("/bin/sh"), &program);
    let mut watched =
        Stranger::of(Command::new(&program).args(["-c", "exec 3<&0; sh -c 'read word <&3; exit 0' & wait"]));
    let (own, child) = family(&host, watched.pid());
    assert_eq!(own["command"], "al-watched", "{own}");
    assert_eq!(child["command"], "sh", "{child}");
    assert_eq!(host.asked(["ps", "--all"])["runs"], serde_json::json!([]), "it is nobody's run");

    // Runs come and are stopped beside it.
    let id = host.start(&["--grace", "100ms"], shell("sleep 600 & sleep 600"));
    host.in_state(&id, "running");
    stop(&host, &id);
    watched.assert_alive();

    // It is known over restarts, and outlives daemon and keeper.
    daemon.kill();
    let mut daemon = host.serving();
    assert_eq!(family(&host, watched.pid()), (own, child.clone()));
    host.kill_keeper();
    eventually("another keeper", || host.has_keeper());
    watched.assert_alive();
    assert!(daemon.terminate().success());
    drop(host);
    watched.assert_alive();
    let left = child["pid"].as_u64().expect("a number");
    assert!(Path::new(&format!("/proc/{left}")).exists(), "its child lives too");
}

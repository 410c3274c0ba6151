//! Runs through crashes and restarts of the daemon and of its keeper.

use agent_loop_tests::harness::{Host, eventually};
use agent_loop_tests::needs;
use serde_json::Value;

use crate::{count, kinds, shell};

#[test]
fn a_submitted_run_is_launched_and_its_end_is_told() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    let _daemon = host.serving();
    let id = host.start(&[], shell("echo out; echo err >&2; exit 7"));
    let run = host.ended(&id);
    assert_eq!((&run["outcome"], &run["code"], &run["proven"]), (&"ended".into(), &7.into(), &true.into()), "{run}");
    assert_eq!(host.output(&id), "out\n");
    let events = host.events(&id);
    assert_eq!(kinds(&events).first(), Some(&"run.intent"), "the intent stands first");
    assert_eq!(count(&events, "run.born"), 1);
    assert_eq!(count(&events, "gap"), 0, "{events:?}");
}

#[test]
fn a_run_outlives_its_daemon_and_the_next_one_tells_its_true_status() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    let mut daemon = host.serving();
    let go = host.path("agents/go");
    let script = format!("echo before; until [ -e {0} ]; do sleep 0.02; done; echo after; exit 23", go.display());
    let id = host.start(&["--limit", "1h"], shell(&script));
    host.in_state(&id, "running");
    let before = host.run(&id);
    daemon.kill();

    std::fs::write(&go, "").expect("a scratch file");
    let mut daemon = host.serving();
    let run = host.ended(&id);
    assert_eq!((&run["outcome"], &run["code"]), (&"ended".into(), &23.into()), "{run}\n{}", daemon.log());
    assert_eq!(host.output(&id), "before\nafter\n", "its output was drained meanwhile");
    assert_eq!(count(&host.events(&id), "run.born"), 1, "it is born once");
    assert_eq!(count(&host.events(&id), "run.adopted"), 1);
    assert!(before["main_pid"].is_u64(), "{before}");
    assert!(daemon.terminate().success());
}

#[test]
fn a_run_that_ends_while_no_daemon_runs_has_its_true_status() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    let mut daemon = host.serving();
    let id = host.start(&[], shell("echo one; sleep 0.3; exit 41"));
    host.in_state(&id, "running");
    daemon.kill();
    eventually("the agent's end", || {
        let procs = host.runs().join(format!("run-{id}/cgroup.events"));
        std::fs::read_to_string(procs).is_ok_and(|text| text.contains("populated 0")).then_some(())
    });
    let _daemon = host.serving();
    let run = host.ended(&id);
    assert_eq!((&run["outcome"], &run["code"]), (&"ended".into(), &41.into()), "{run}");
}

#[test]
fn i11_a_deadline_is_kept_over_a_restart() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    let mut daemon = host.serving();
    let id = host.start(&["--limit", "2s", "--grace", "100ms"], shell("while :; do sleep 0.1; done"));
    let before = host.in_state(&id, "running");
    daemon.kill();
    let _daemon = host.serving();
    let run = host.ended(&id);
    assert_eq!((&run["outcome"], &run["proven"]), (&"deadline".into(), &true.into()), "{run}");
    let born = |run: &Value| run["born"].as_str().unwrap_or_default().to_owned();
    assert!(!born(&before).is_empty(), "{before}");
}

#[test]
fn a_second_daemon_is_refused_and_the_first_goes_on() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    let _first = host.serving();
    let id = host.start(&[], shell("sleep 60"));
    host.in_state(&id, "running");
    let mut second = host.serve();
    assert_eq!(second.wait().code(), Some(8), "{}", second.log());
    assert_eq!(host.run(&id)["state"], "running");
    let killed = host.ask(["kill", &id, "--reason", "the test is over"]);
    assert!(killed.status.success(), "{}", String::from_utf8_lossy(&killed.stderr));
    assert_eq!(host.ended(&id)["outcome"], "operator");
}

#[test]
fn a_keeper_that_was_killed_is_replaced_and_its_runs_are_adopted() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    let _daemon = host.serving();
    let go = host.path("agents/go");
    let script = format!("echo before; until [ -e {0} ]; do sleep 0.02; done; echo after; exit 5", go.display());
    let id = host.start(&[], shell(&script));
    host.in_state(&id, "running");
    let first = host.keeper();
    host.kill_keeper();
    let second = eventually("another keeper", || host.has_keeper().filter(|pid| *pid != first));
    assert_ne!(first, second);
    std::fs::write(&go, "").expect("a scratch file");
    let run = host.ended(&id);
    assert_eq!((&run["outcome"], &run["code"]), (&"ended".into(), &5.into()), "{run}");
    assert_eq!(host.output(&id), "before\nafter\n");
}

//! Ready is said only once the kernel side has told the life of a process: a daemon that is blind does not start.

use std::fs;

use agent_loop_tests::harness::{Host, eventually};
use agent_loop_tests::{bpf, needs};

use crate::{Stranger, count, shell};

/// The version that this build knows, and where it stands in what the pins say of themselves.
const ABI: u32 = agent_loop_common::ABI_VERSION;
const ABI_BYTES: usize = 120;

#[test]
fn a_daemon_to_which_the_kernel_side_does_not_tell_a_life_is_not_ready_and_leaves_agents_alone() {
    needs!(root, bpf, cgroup);
    let mut host = Host::new();
    let mut daemon = host.serving();
    let go = host.path("agents/go");
    let script = format!("until [ -e {} ]; do sleep 0.05; done; exit 29", go.display());
    let id = host.start(&[], shell(&script));
    host.in_state(&id, "running");
    let mut stranger = Stranger::new();
    assert!(daemon.terminate().success());

    host.set_env("AGENT_LOOP_FAULT", "blind");
    let mut blind = host.serve();
    assert_eq!(blind.wait().code(), Some(1), "{}", blind.log());
    let log = blind.log();
    assert!(log.contains("the exec hook did not tell of process ") && log.contains("agent-loop doctor"), "{log}");
    assert!(!log.contains("agent-loop: ready"), "{log}");
    stranger.assert_alive();

    host.unset_env("AGENT_LOOP_FAULT");
    let _daemon = host.serving();
    fs::write(&go, "").expect("a scratch file");
    let run = host.ended(&id);
    assert_eq!((&run["outcome"], &run["code"]), (&"ended".into(), &29.into()), "{run}");
    assert_eq!(count(&host.events(&id), "signal.intent"), 0);
    stranger.assert_alive();
}

#[test]
fn a_daemon_that_was_told_of_no_life_yet_stops_agents_in_time_launches_none_and_is_not_ready() {
    needs!(root, bpf, cgroup);
    let mut host = Host::new();
    let mut daemon = host.serving();
    let id = host.start(&["--limit", "3s", "--grace", "100ms"], shell("while :; do sleep 0.1; done"));
    host.in_state(&id, "running");
    assert!(daemon.terminate().success());

    let lossy = host.path("lossy");
    fs::write(&lossy, "").expect("a scratch file");
    host.set_env("AGENT_LOOP_FAULT", format!("lossy:{}", lossy.display()));
    let mut daemon = host.serve();
    let ended = eventually("the deadline to be kept", || {
        let asked = host.ask(["ps", "--all", "--json"]);
        let runs: serde_json::Value = serde_json::from_slice(&asked.stdout).ok()?;
        runs["runs"].as_array()?.iter().find(|run| run["state"] == "ended").cloned()
    });
    assert_eq!((&ended["outcome"], &ended["proven"]), (&"deadline".into(), &true.into()), "{ended}\n{}", daemon.log());
    let waits = host.start(&[], shell("exit 7"));
    let said = host.degraded().concat();
    assert!(said.contains("is not ready until a life was told"), "{said}");
    assert_eq!(host.run(&waits)["state"], "queued");
    assert!(!daemon.log().contains("agent-loop: ready"), "{}", daemon.log());

    fs::remove_file(&lossy).expect("our file");
    daemon.ready();
    assert_eq!(host.ended(&waits)["code"], 7);
    assert_eq!(host.degraded(), [] as [String; 0]);
}

/// Nothing of a trial is an agent, is observed, or stays.
#[test]
fn a_trial_leaves_nothing_behind_and_is_nobody_that_is_told_of() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    let _daemon = host.serving();
    let status = host.asked(["status"]);
    assert_eq!(status["observed"], serde_json::json!([]), "{status}");
    assert_eq!(host.asked(["ps", "--all"])["runs"], serde_json::json!([]));
    assert_eq!(host.degraded(), [] as [String; 0]);
}

/// An upgrade or a downgrade with an agent alive: the kernel side of another version is replaced, and what nobody saw
/// meanwhile is declared. The run keeps its deadline and tells its true status.
#[test]
fn a_kernel_side_of_another_version_is_replaced_with_a_declared_gap_and_its_run_goes_on() {
    needs!(root, bpf, cgroup);
    for version in [ABI - 1, ABI + 1] {
        let host = Host::new();
        let mut daemon = host.serving();
        let go = host.path("agents/go");
        let script = format!("until [ -e {} ]; do sleep 0.05; done; exit 31", go.display());
        let id = host.start(&["--limit", "1h", "--grace", "200ms"], shell(&script));
        host.in_state(&id, "running");
        let remaining = || host.run(&id)["remaining_ms"].as_i64().expect("it has a limit");
        let before = remaining();
        assert!(daemon.terminate().success());
        let abi = host.pins().join("ABI");
        bpf::change(&abi, &mut [0; ABI_BYTES], |abi| abi[8..12].copy_from_slice(&version.to_ne_bytes()))
            .expect("what the pins say of themselves");

        let daemon = host.serving();
        let said = format!("the kernel side is loaded anew: it was of version {version}, this is version {ABI}");
        assert!(daemon.log().contains(&said), "{}", daemon.log());
        assert!(remaining() <= before, "its deadline moved");
        fs::write(&go, "").expect("a scratch file");
        let run = host.ended(&id);
        assert_eq!(
            (&run["outcome"], &run["code"], &run["proven"]),
            (&"ended".into(), &31.into(), &true.into()),
            "{run}"
        );
        let events = host.events(&id);
        assert!(count(&events, "gap") > 0, "{events:#?}");
        assert_eq!(count(&events, "signal.intent"), 0, "{events:#?}");
    }
}

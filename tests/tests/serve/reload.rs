//! SIGHUP and SIGTERM.

use std::fs;

use agent_loop_tests::harness::{Daemon, Host, eventually};
use agent_loop_tests::needs;

use crate::{shell, stop};

const FOREVER: &str = "while :; do sleep 0.1; done";

/// Asks the daemon to read its configuration again, and waits until it said `words` of it once more.
fn reload(daemon: &Daemon, words: &str) {
    let before = daemon.log().matches(words).count();
    daemon.signal(libc::SIGHUP);
    eventually(&format!("{words:?} in {}", daemon.log()), || {
        (daemon.log().matches(words).count() > before).then_some(())
    });
}

#[test]
fn a_reload_takes_up_slots_and_limits_for_new_runs_and_says_so() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    host.configure("max_agents = 1\n", "user = \"nobody\"\n", "");
    let mut daemon = host.serving();
    let first = host.start(&[], shell(FOREVER));
    let second = host.start(&[], shell(FOREVER));
    host.in_state(&first, "running");
    assert_eq!(host.run(&second)["state"], "queued");

    host.configure("max_agents = 3\n", "user = \"nobody\"\n", "[limits]\nwall = \"300ms\"\ngrace = \"100ms\"\n");
    reload(&daemon, "limits.wall: nothing becomes \"300ms\"");
    assert!(daemon.log().contains("reload: host.max_agents: 1 becomes 3\n"), "{}", daemon.log());
    host.in_state(&second, "running");
    assert_eq!(host.asked(["status"])["max_agents"], 3);
    let third = host.start(&[], shell(FOREVER));
    assert_eq!(host.ended(&third)["outcome"], "deadline");
    for id in [&first, &second] {
        assert_eq!(host.run(id)["state"], "running", "the limits that were submitted stay");
        stop(&host, id);
    }
    reload(&daemon, "reload: nothing changed");
    assert!(daemon.terminate().success());
}

#[test]
fn fewer_slots_stop_nobody() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    let daemon = host.serving();
    let ids = [(); 3].map(|()| host.start(&[], shell(FOREVER)));
    for id in &ids {
        host.in_state(id, "running");
    }
    host.configure("max_agents = 1\n", "user = \"nobody\"\n", "");
    reload(&daemon, "host.max_agents: 4 becomes 1");
    let waits = host.start(&[], shell("exit 3"));
    for id in &ids[..2] {
        assert_eq!(host.run(id)["state"], "running");
        stop(&host, id);
        assert_eq!(host.run(&waits)["state"], "queued");
    }
    stop(&host, &ids[2]);
    assert_eq!(host.ended(&waits)["code"], 3);
}

#[test]
fn a_bad_configuration_is_told_and_the_old_one_stays() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    let mut daemon = host.serving();
    let id = host.start(&[], shell(FOREVER));
    let good = fs::read_to_string(host.path("config.toml")).expect("the configuration");
    let write = |text: &str| fs::write(host.path("config.toml"), text).expect("a scratch file");
    for (bad, words) in [
        ("[host]\nmax_agents = \"many\"\n", "config.toml:2: `host.max_agents`"),
        ("[host]\nno_such_key = 1\n", "no_such_key"),
        ("[agent]\nuser = \"no-such-user\"\n", "there is no user \"no-such-user\""),
        ("[agent]\nuser = \"root\"\n", "allow_root"),
        ("[host\n", "config.toml:1"),
    ] {
        write(bad);
        reload(&daemon, "the old configuration stays");
        assert!(daemon.log().contains(words), "{bad}: {}", daemon.log());
    }
    fs::remove_file(host.path("config.toml")).expect("our file");
    reload(&daemon, "the old configuration stays");
    write(&good);
    reload(&daemon, "reload: nothing changed");
    assert_eq!(host.run(&id)["state"], "running");
    assert_eq!(host.ended(&host.start(&[], shell("exit 8")))["code"], 8);
    stop(&host, &id);
    assert!(daemon.terminate().success());
}

#[test]
fn what_only_a_restart_takes_up_is_said_to() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    let daemon = host.serving();
    host.configure(
        "owner = \"nobody\"\nsocket_group = \"root\"\n",
        "user = \"nobody\"\n",
        "[kernel]\nwatch = [\"x\"]\n",
    );
    reload(&daemon, "kernel.watch: [\"claude\"] becomes [\"x\"], from the next restart of agent-loop on");
    for key in ["host.owner: nothing becomes \"nobody\"", "host.socket_group: nothing becomes \"root\""] {
        let line = format!("{key}, from the next restart of agent-loop on\n");
        assert!(daemon.log().contains(&line), "{key}: {}", daemon.log());
    }
}

#[test]
fn root_that_is_allowed_by_a_reload_needs_a_keeper_that_is_told_and_runs_wait_for_it() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    let daemon = host.serving();
    host.configure("", "user = \"root\"\nallow_root = true\n", "");
    reload(&daemon, "agent.allow_root: false becomes true");
    let id = host.start(&[], shell("exit 0"));
    assert_eq!(host.run(&id)["state"], "queued");
    let told = host.degraded().concat();
    let keeper = host.keeper();
    assert!(told.contains("agent.allow_root") && told.contains(&format!("kill {keeper}")), "what to do: {told}");
    assert!(daemon.log().contains(&told), "{}", daemon.log());
    host.kill_keeper();
    assert_eq!(host.ended(&id)["code"], 0);
    assert_eq!(host.degraded(), [] as [String; 0]);
    // Another user, whom this keeper was not started for.
    host.configure("", "user = \"daemon\"\n", "");
    reload(&daemon, "agent.user: \"root\" becomes \"daemon\"");
    let id = host.start(&[], ["id", "-un"]);
    assert_eq!(host.run(&id)["state"], "queued");
    assert!(host.degraded().concat().contains("agent.allow_root"), "{:?}", host.degraded());
    host.kill_keeper();
    assert_eq!(host.ended(&id)["code"], 0);
    assert_eq!(host.output(&id), "daemon\n");
}

#[test]
fn at_sigterm_the_daemon_ends_well_and_the_next_one_goes_on() {
    needs!(root, bpf, cgroup);
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let host = Host::new();
        let mut daemon = host.serving();
        let go = host.path("agents/go");
        let script = format!("until [ -e {} ]; do sleep 0.02; done; exit 17", go.display());
        let id = host.start(&[], shell(&script));
        let before = host.in_state(&id, "running");
        let keeper = host.keeper();
        daemon.signal(signal);
        assert_eq!(daemon.wait().code(), Some(0), "{}", daemon.log());
        assert!(daemon.log().contains("stopping as asked; 1 runs go on under the keeper"), "{}", daemon.log());
        let _daemon = host.serving();
        assert_eq!(host.keeper(), keeper, "the keeper stayed");
        let run = host.run(&id);
        assert_eq!((&run["state"], &run["main_pid"]), (&"running".into(), &before["main_pid"]), "{run}");
        assert_eq!(run["born"], before["born"], "{run}");
        fs::write(&go, "").expect("a scratch file");
        assert_eq!(host.ended(&id)["code"], 17);
    }
}

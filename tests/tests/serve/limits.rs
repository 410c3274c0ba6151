//! What a run may take, and how many may run.

use std::fs;

use agent_loop_tests::harness::{Host, eventually, skip};
use agent_loop_tests::{needs, test_name};
use serde_json::Value;

use crate::{said, shell, stop};

const FOREVER: &str = "while :; do sleep 0.1; done";

fn why(host: &Host, id: &str) -> String {
    String::from_utf8_lossy(&host.ask(["why", id]).stdout).into_owned()
}

/// A file of a run's cgroup; nothing where there is none.
fn of_run(host: &Host, id: &str, name: &str) -> String {
    fs::read_to_string(host.runs().join(format!("run-{id}")).join(name)).unwrap_or_default()
}

/// Whether limits of memory, tasks and processors can be kept below the root of the runs.
fn has_controllers(host: &Host) -> bool {
    let there = fs::read_to_string(host.runs().join("cgroup.controllers")).unwrap_or_default();
    ["memory", "pids", "cpu"].iter().any(|wanted| there.split_whitespace().any(|name| name == *wanted))
}

#[test]
fn a_run_is_stopped_at_its_wall_limit() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    let _daemon = host.serving();
    let id = host.start(&["--limit", "300ms", "--grace", "100ms"], shell(FOREVER));
    let run = host.ended(&id);
    assert_eq!((&run["outcome"], &run["reason"]), (&"deadline".into(), &"deadline".into()), "{run}");
    assert_eq!(run["proven"], true, "{run}");
    assert!(run["elapsed_ms"].as_u64() >= Some(300), "{run}");
    assert!(why(&host, &id).contains("its wall limit was reached"), "{}", why(&host, &id));
}

#[test]
fn the_limits_of_the_configuration_are_those_of_a_run_that_names_none() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    host.configure("", "user = \"nobody\"\n", "[limits]\nwall = \"300ms\"\ngrace = \"100ms\"\n");
    let _daemon = host.serving();
    let id = host.start(&[], shell(FOREVER));
    let own = host.start(&["--limit", "1h"], shell(FOREVER));
    assert_eq!(host.ended(&id)["outcome"], "deadline");
    assert_eq!(host.run(&own)["state"], "running", "its own limit goes before");
    stop(&host, &own);
}

#[test]
fn a_run_is_stopped_at_its_limit_of_waking_time() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    let _daemon = host.serving();
    let id = host.start(&["--active-limit", "300ms", "--grace", "100ms"], shell(FOREVER));
    let run = host.ended(&id);
    assert_eq!((&run["outcome"], &run["proven"]), (&"active_limit".into(), &true.into()), "{run}");
    assert!(run["elapsed_ms"].as_u64() >= Some(300), "{run}");
}

#[test]
fn a_silent_run_is_stopped_and_one_that_writes_is_not() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    let _daemon = host.serving();
    let silent = host.start(&["--idle", "2s", "--grace", "100ms"], shell("echo once; while :; do sleep 0.1; done"));
    // Twice as long as its limit, and never silent for long.
    let busy = "i=0; while [ $i -lt 40 ]; do echo $i >&2; sleep 0.1; i=$((i+1)); done; exit 3";
    let busy = host.start(&["--idle", "2s", "--grace", "100ms"], shell(busy));
    let run = host.ended(&silent);
    assert_eq!((&run["outcome"], &run["reason"]), (&"idle".into(), &"idle".into()), "{run}");
    let run = host.ended(&busy);
    assert_eq!((&run["outcome"], &run["code"]), (&"ended".into(), &3.into()), "{run}");
    assert!(run["elapsed_ms"].as_u64() >= Some(4_000), "{run}");
}

#[test]
fn a_run_that_writes_more_than_its_budget_is_stopped_and_no_more_is_kept() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    let _daemon = host.serving();
    let flood = "trap '' INT TERM; while :; do echo 0123456789; echo abcdefghij >&2; done";
    let id = host.start(&["--output-bytes", "5000", "--grace", "200ms"], shell(flood));
    let run = host.ended(&id);
    assert_eq!((&run["outcome"], &run["reason"]), (&"output_budget".into(), &"output_budget".into()), "{run}");
    let length = |name: &str| {
        let path = host.path("log/runs").join(&id).join(name);
        fs::metadata(path).expect("its output").len()
    };
    assert_eq!(length("stdout") + length("stderr"), 5_000, "what fits is kept, and no byte more");
    assert_eq!(run["output_bytes"], 5_000, "{run}");

    // Exactly its budget is no excess.
    let id = host.start(&["--output-bytes", "11"], shell("echo 0123456789; exit 4"));
    let run = host.ended(&id);
    assert_eq!((&run["outcome"], &run["code"]), (&"ended".into(), &4.into()), "{run}");
    assert_eq!(host.output(&id), "0123456789\n");
}

#[test]
fn a_limit_that_no_controller_keeps_is_refused_with_what_to_do() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    let _daemon = host.serving();
    if has_controllers(&host) {
        return skip(test_name!(), "needs a host whose cgroups have no controllers");
    }
    let ran = host.path("agents/ran");
    let script = format!("touch {}", ran.display());
    for (option, value, file) in [
        ("--memory-bytes", "100000000", "memory.max"),
        ("--tasks", "50", "pids.max"),
        ("--cpu-percent", "50", "cpu.max"),
    ] {
        let id = host.start(&[option, value], shell(&script));
        let run = host.ended(&id);
        assert_eq!(run["outcome"], "launch_failed", "{run}");
        let why = why(&host, &id);
        assert!(why.contains(file) && why.contains("leave the limit out, or enable the controller"), "{why}");
    }
    assert!(!ran.exists(), "nothing of it ran");
    assert_eq!(host.ended(&host.start(&[], shell(&script)))["outcome"], "ended", "others run on");
}

#[test]
fn a_limit_that_a_controller_keeps_is_set() {
    needs!(root, bpf, cgroup);
    let host = match Host::with_controllers() {
        Ok(host) => host,
        Err(lacks) => return skip(test_name!(), lacks),
    };
    let _daemon = host.serving();
    let limits = ["--tasks", "50", "--memory-bytes", "100000000", "--cpu-percent", "150"];
    let id = host.start(&limits, shell("exec sleep 600"));
    host.in_state(&id, "running");
    let read = |name: &str| of_run(&host, &id, name);
    assert_eq!(read("pids.max").trim(), "50");
    assert!(read("memory.max").trim().parse::<u64>().is_ok_and(|bytes| bytes <= 100_000_000), "{}", read("memory.max"));
    assert_eq!(read("cpu.max").trim(), "150000 100000");
    stop(&host, &id);
}

#[test]
fn who_takes_more_memory_than_its_limit_is_killed_by_the_kernel_and_the_end_says_so() {
    needs!(root, bpf, cgroup);
    let host = match Host::with_controllers() {
        Ok(host) => host,
        Err(lacks) => return skip(test_name!(), lacks),
    };
    let _daemon = host.serving();
    // One line without an end, kept whole in memory: of a child, then of the command itself.
    let child = host.start(&["--memory-bytes", "50000000"], shell("tail -n 1 /dev/zero; exit $?"));
    let run = host.ended(&child);
    assert_eq!((&run["outcome"], &run["code"]), (&"ended".into(), &137.into()), "{run}");
    assert!(why(&host, &child).contains("killed 1 of its processes for want of memory"), "{}", why(&host, &child));

    let command = host.start(&["--memory-bytes", "50000000"], ["tail", "-n", "1", "/dev/zero"]);
    let run = host.ended(&command);
    assert_eq!((&run["signal"], &run["proven"]), (&9.into(), &true.into()), "{run}");
    assert!(why(&host, &command).contains("killed 1 of its processes for want of memory"), "{}", why(&host, &command));

    // A SIGKILL of somebody else is none.
    let other = host.start(&["--memory-bytes", "50000000"], shell("kill -KILL $$"));
    host.ended(&other);
    assert!(!why(&host, &other).contains("want of memory"), "{}", why(&host, &other));
}

#[test]
fn a_fork_bomb_is_kept_within_its_limit_of_tasks_and_its_tree_ends_empty() {
    needs!(root, bpf, cgroup);
    let host = match Host::with_controllers() {
        Ok(host) => host,
        Err(lacks) => return skip(test_name!(), lacks),
    };
    let _daemon = host.serving();
    let bomb = "bomb() { bomb | bomb; }; while :; do bomb 2>/dev/null; sleep 600 & done";
    let id = host.start(&["--tasks", "30", "--grace", "100ms"], shell(bomb));
    eventually("the limit to be met", || {
        let events = of_run(&host, &id, "pids.events");
        let met = events.lines().find_map(|line| line.strip_prefix("max ")?.parse::<u64>().ok());
        met.filter(|count| *count > 0)
    });
    let tasks = of_run(&host, &id, "pids.current").trim().parse::<u64>();
    assert!(tasks.as_ref().is_ok_and(|count| *count <= 30), "{tasks:?}");
    let run = stop(&host, &id);
    assert_eq!(run["proven"], true, "{run}");
}

#[test]
fn a_limit_of_processors_throttles_the_run() {
    needs!(root, bpf, cgroup);
    let host = match Host::with_controllers() {
        Ok(host) => host,
        Err(lacks) => return skip(test_name!(), lacks),
    };
    let _daemon = host.serving();
    let id = host.start(&["--cpu-percent", "10", "--grace", "100ms"], shell("while :; do :; done"));
    host.in_state(&id, "running");
    assert_eq!(of_run(&host, &id, "cpu.max").trim(), "10000 100000");
    eventually("the kernel to hold it back", || {
        let stat = of_run(&host, &id, "cpu.stat");
        let held = stat.lines().find_map(|line| line.strip_prefix("nr_throttled ")?.parse::<u64>().ok());
        held.filter(|times| *times > 0)
    });
    stop(&host, &id);
}

#[test]
fn what_outlives_the_command_is_stopped_or_waited_for_as_was_asked() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    let _daemon = host.serving();
    let file = host.path("agents/go");
    let child = format!("(until [ -e {} ]; do sleep 0.05; done; echo late) & exit 6", file.display());
    let killed = host.start(&["--leftovers", "kill", "--grace", "100ms"], shell(&child));
    let run = host.ended(&killed);
    assert_eq!((&run["outcome"], &run["code"]), (&"ended".into(), &6.into()), "{run}");
    assert!(why(&host, &killed).contains("outlived its command and were stopped"), "{}", why(&host, &killed));
    assert_eq!(host.output(&killed), "");

    let waited = host.start(&["--leftovers", "wait"], shell(&child));
    host.in_state(&waited, "draining");
    fs::write(&file, "").expect("a scratch file");
    let run = host.ended(&waited);
    assert_eq!((&run["outcome"], &run["code"]), (&"ended".into(), &6.into()), "{run}");
    assert!(why(&host, &waited).contains("outlived its command and were waited for"), "{}", why(&host, &waited));
    assert_eq!(host.output(&waited), "late\n", "it came to its own end");

    // The limit holds for them too.
    let child = "sleep 600 & exit 6";
    let limited = host.start(&["--leftovers", "wait", "--limit", "500ms", "--grace", "100ms"], shell(child));
    let run = host.ended(&limited);
    assert_eq!((&run["outcome"], &run["proven"]), (&"deadline".into(), &true.into()), "{run}");
}

#[test]
fn with_one_slot_runs_are_launched_one_after_the_other_as_they_were_submitted() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    host.configure("max_agents = 1\n", "user = \"nobody\"\n", "");
    let _daemon = host.serving();
    let (go, book) = (host.path("agents/go"), host.path("agents/book"));
    let script = format!(
        "echo begin $0 >> {book}; until [ -e {go} ]; do sleep 0.02; done; echo end $0 >> {book}",
        go = go.display(),
        book = book.display()
    );
    let ids: Vec<String> = (0..3).map(|number| host.start(&[], ["sh", "-c", &script, &number.to_string()])).collect();
    host.in_state(&ids[0], "running");
    assert_eq!(host.run(&ids[1])["state"], "queued");
    assert_eq!(host.run(&ids[2])["state"], "queued");
    let runs = |state: &str| host.asked(["status"])["runs"][state].as_u64().unwrap_or(0);
    assert_eq!((runs("running"), runs("queued")), (1, 2));
    fs::write(&go, "").expect("a scratch file");
    for id in &ids {
        assert_eq!(host.ended(id)["code"], 0);
    }
    let book = fs::read_to_string(&book).expect("the agents' own account");
    assert_eq!(book, "begin 0\nend 0\nbegin 1\nend 1\nbegin 2\nend 2\n");
}

#[test]
fn a_queued_run_that_is_killed_is_withdrawn_and_never_runs() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    host.configure("max_agents = 1\n", "user = \"nobody\"\n", "");
    let mut daemon = host.serving();
    let first = host.start(&[], shell("exec sleep 600"));
    host.in_state(&first, "running");
    let ran = host.path("agents/ran");
    let script = format!("touch {}", ran.display());
    let queued = host.start(&[], shell(&script));
    let third = host.start(&[], shell("exit 9"));
    let killed: Value = host.asked(["kill", &queued, "--reason", "the wrong one"]);
    assert_eq!(killed["state"], "queued", "{killed}");
    let run = eventually("it to be withdrawn", || Some(host.run(&queued)).filter(|run| run["state"] == "ended"));
    assert_eq!((&run["outcome"], &run["main_pid"]), (&"withdrawn".into(), &Value::Null), "{run}");
    let again = host.ask(["kill", &queued, "--reason", "once more"]);
    assert_eq!(again.status.code(), Some(5), "{}", said(&again));
    stop(&host, &first);
    assert_eq!(host.ended(&third)["code"], 9);
    assert!(daemon.terminate().success());
    let _daemon = host.serving();
    assert_eq!(host.run(&queued)["outcome"], "withdrawn", "for good");
    assert!(!ran.exists(), "it never ran");
}

//! What goes on, as it is told: the events, the output, the tree, the reasons.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use agent_loop_tests::harness::{Host, agent_loop, eventually};
use agent_loop_tests::needs;
use serde_json::Value;

use crate::{shell, stop};

/// A command of ours that follows something; it is ended with this value.
struct Following(Child);

impl Following {
    fn new(host: &Host, args: &[&str]) -> Self {
        let mut command = Command::new(agent_loop());
        command.args(args).env("AGENT_LOOP_SOCKET", host.path("run/socket")).env("NO_COLOR", "1");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        Self(command.spawn().expect("asking the daemon"))
    }

    fn lines(&mut self) -> impl Iterator<Item = String> {
        let out = BufReader::new(self.0.stdout.take().expect("piped"));
        out.lines().map(|line| line.expect("UTF-8"))
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn event(line: &str) -> Value {
    serde_json::from_str(line).expect("JSON")
}

#[test]
fn events_come_as_they_are_written_after_the_latest() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    let _daemon = host.serving();
    let before = host.start(&[], shell("exit 3"));
    host.ended(&before);
    // Without following: the latest lines, which are those of the log, and the end.
    let latest = host.ask(["events", "--json"]);
    let latest: Vec<Value> = String::from_utf8_lossy(&latest.stdout).lines().map(event).collect();
    let of_run: Vec<&Value> = latest.iter().filter(|line| line["run"] == before.as_str()).collect();
    assert_eq!(of_run, host.events(&before).iter().collect::<Vec<_>>());
    assert_eq!(latest.first().map(|line| &line["kind"]), Some(&"host.start".into()), "and those of the daemon");
    let people = host.ask(["events"]);
    assert_eq!(String::from_utf8_lossy(&people.stdout).lines().count(), latest.len());

    let mut following = Following::new(&host, &["events", "-f", "--json"]);
    let mut lines = following.lines().map(|line| event(&line));
    assert_eq!(lines.by_ref().take(latest.len()).collect::<Vec<_>>(), latest);
    let id = host.start(&[], shell("read word < /dev/zero; exit 5"));
    let born = lines.by_ref().find(|line| line["kind"] == "run.born").expect("it is followed while the run lives");
    assert!(born.to_string().contains(&id), "{born}");
    stop(&host, &id);
    let written = host.events(&id);
    let last = written.last().expect("lines").clone();
    assert!(lines.any(|line| line == last), "up to the last line of the run");
}

#[test]
fn output_is_followed_to_the_end_of_the_run() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    let _daemon = host.serving();
    let go = host.path("agents/go");
    let script = format!("echo first; echo aside >&2; until [ -e {} ]; do sleep 0.02; done; echo last", go.display());
    let id = host.start(&[], shell(&script));
    let mut following = Following::new(&host, &["logs", &id, "-f", "--stdout"]);
    let mut lines = following.lines();
    assert_eq!(lines.next().as_deref(), Some("first"), "while it runs");
    assert_eq!(host.run(&id)["state"], "running");
    std::fs::write(&go, "").expect("a scratch file");
    assert_eq!(lines.collect::<Vec<_>>(), ["last"]);
    assert_eq!(host.ended(&id)["code"], 0);
    assert!(following.0.wait().expect("our child").success(), "it ends with the run");
    let both = host.ask(["logs", &id]);
    assert_eq!((both.stdout, both.stderr), (b"first\nlast\n".to_vec(), b"aside\n".to_vec()));
}

#[test]
fn the_tree_and_the_reasons_of_a_run_are_told() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    let _daemon = host.serving();
    let id = host.start(&["--grace", "100ms"], shell("sleep 600 & sleep 601 & wait"));
    let tree = eventually("both children", || {
        let tree = host.asked(["tree", &id]);
        let named = |name: &str| {
            tree["processes"].as_array().map_or(0, |all| {
                all.iter().filter(|it| it["command"].as_str().is_some_and(|it| it.starts_with(name))).count()
            })
        };
        (named("sleep 60") == 2).then_some(tree)
    });
    let main = host.run(&id)["main_pid"].clone();
    let processes = tree["processes"].as_array().expect("a list");
    assert_eq!(processes.len(), 3, "{tree}");
    assert_eq!(processes.iter().filter(|it| it["parent"] == main).count(), 2, "{tree}");
    assert_eq!(host.run(&id)["alive"], 3);
    let drawn = host.ask(["tree", &id]);
    assert!(String::from_utf8_lossy(&drawn.stdout).contains("sleep"), "{drawn:?}");
    let killed = host.ask(["kill", &id, "--reason", "because the test says so"]);
    assert!(killed.status.success());
    host.ended(&id);
    let why = String::from_utf8_lossy(&host.ask(["why", &id]).stdout).into_owned();
    for words in ["somebody asked for it", "the keeper's waitid", "3 processes were born", "proven empty"] {
        assert!(why.contains(words), "{words}: {why}");
    }
    let log: Vec<String> = host.events(&id).iter().map(Value::to_string).collect();
    assert!(log.iter().any(|line| line.contains("because the test says so")), "{log:#?}");
    assert_eq!(host.asked(["tree", &id])["processes"], serde_json::json!([]));
}

#[test]
fn who_asked_for_the_end_of_a_run_is_told_by_every_later_daemon() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    host.configure("max_agents = 1\n", "user = \"nobody\"\n", "");
    let mut daemon = host.serving();
    let asked = |id: &str| {
        let output = host.ask(["kill", id, "--reason", "it answers nobody"]);
        assert!(output.status.success(), "{output:?}");
    };
    // One that runs and stops at once, one in the queue, and one that is being stopped when its daemon is lost.
    let runs = host.start(&["--grace", "100ms"], shell("sleep 600"));
    host.in_state(&runs, "running");
    let waits = host.start(&[], ["true"]);
    asked(&waits);
    asked(&runs);
    host.ended(&runs);
    let stops = host.start(&["--grace", "1s"], shell("trap '' INT TERM; while :; do sleep 0.1; done"));
    host.in_state(&stops, "running");
    asked(&stops);
    eventually("its stop to be under way", || (host.run(&stops)["state"] != "running").then_some(()));
    daemon.kill();
    let mut daemon = host.serving();
    host.ended(&stops);
    for restart in 0..2 {
        for (id, outcome) in [(&runs, "operator"), (&waits, "withdrawn"), (&stops, "operator")] {
            let run = host.run(id);
            let why = String::from_utf8_lossy(&host.ask(["why", id]).stdout).into_owned();
            assert_eq!(run["outcome"], outcome, "{run}");
            let told = why.lines().find(|line| line.contains("over the control socket: it answers nobody."));
            let told = told.unwrap_or_else(|| panic!("restart {restart}: {why}\n{}", daemon.log()));
            assert!(told.contains("asked by user 0 (process "), "{told}");
            assert_eq!(why.matches("it answers nobody").count(), 1, "{why}");
        }
        assert!(daemon.terminate().success());
        daemon = host.serving();
    }
}

#[test]
fn i12_a_follower_that_never_reads_does_not_hold_up_the_daemon() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    let mut daemon = host.serving();
    let mut silent = UnixStream::connect(host.path("run/socket")).expect("the socket");
    silent.write_all(b"GET /v1/events?follow=true HTTP/1.1\r\nHost: x\r\n\r\n").expect("the socket");
    let mut first = [0; 12];
    silent.read_exact(&mut first).expect("the head of the answer");
    assert_eq!(&first, b"HTTP/1.1 200");
    // More than a socket holds: each process of these is three lines.
    let busy = host.start(&[], shell("i=0; while [ $i -lt 600 ]; do /bin/true; i=$((i+1)); done; exit 6"));
    let limited = host.start(&["--limit", "300ms", "--grace", "100ms"], shell("while :; do sleep 0.1; done"));
    assert_eq!(host.ended(&limited)["outcome"], "deadline");
    assert_eq!(host.ended(&busy)["code"], 6);
    assert!(host.events(&busy).iter().map(|line| line.to_string().len()).sum::<usize>() > 400_000, "a flood");
    assert!(daemon.terminate().success());
    drop(silent);
}

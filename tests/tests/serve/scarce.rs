//! What the kernel refuses the keeper, and what it takes from the daemon: tasks (EAGAIN), memory (ENOMEM, OOM).

use std::fs;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixDatagram, UnixStream};

use agent_loop_tests::harness::{Host, OldCell, eventually, skip};
use agent_loop_tests::{needs, sys, test_name};

use crate::trouble::Keeper;
use crate::{Stranger, shell, stop};

const LOOPS: &str = "while :; do sleep 0.1; done";

/// A run that the keeper could not bear is told as never started, with what the kernel said, once.
fn never_started(host: &Host, words: &str) {
    let ran = host.path("agents/ran");
    let id = host.start(&[], shell(&format!("touch {}", ran.display())));
    let run = host.ended(&id);
    assert_eq!((&run["outcome"], &run["state"]), (&"launch_failed".into(), &"ended".into()), "{run}");
    let why = run["why"].to_string();
    assert!(why.contains("creating the process") && why.contains(words), "{why}");
    let ends = host.events(&id).iter().filter(|line| line["kind"] == "run.exit").count();
    assert!(ends <= 1, "told once: {ends}");
    assert!(!ran.exists(), "it never ran");
}

#[test]
fn without_a_task_left_for_the_keeper_a_launch_is_refused_and_what_runs_goes_on() {
    needs!(root, bpf, cgroup);
    let tasks = match OldCell::new("pids") {
        Ok(tasks) => tasks,
        Err(why) => return skip(test_name!(), why),
    };
    let host = Host::new();
    let keeper = Keeper::start(&host, 4_096);
    let daemon = host.serving();
    let runs = host.start(&["--limit", "4s", "--grace", "100ms"], shell(LOOPS));
    host.in_state(&runs, "running");
    tasks.take(keeper.pid());
    tasks.set("pids.max", "0");
    never_started(&host, "Resource temporarily unavailable");
    // What needs no new task goes on: a limit, and an end.
    let run = host.ended(&runs);
    assert_eq!((&run["outcome"], &run["proven"]), (&"deadline".into(), &true.into()), "{run}\n{}", daemon.log());
    never_started(&host, "Resource temporarily unavailable");
    assert!(keeper_is(&host, &keeper) && tasks.get("pids.events").contains("max 2"), "{}", tasks.get("pids.events"));
    tasks.set("pids.max", "max");
    assert_eq!(host.ended(&host.start(&[], shell("exit 4")))["code"], 4);
}

#[test]
fn without_memory_for_a_new_process_a_launch_is_refused_and_the_keeper_serves_on() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    let (to, from) = UnixDatagram::pair().expect("a pair of sockets");
    // As if the kernel had no memory for them; the keeper's own thread is born before it listens.
    std::thread::spawn(move || {
        let fds = eventually("the keeper to ask", || sys::receive(from.as_fd()).ok()).1;
        sys::refuse_births(&fds[0], libc::ENOMEM).expect("a listener");
    });
    let keeper = Keeper::start_with(&host, 4_096, move || sys::ask_before(libc::SYS_clone3, to.as_fd()));
    let _daemon = host.serving();
    for _ in 0..2 {
        never_started(&host, "Cannot allocate memory");
    }
    assert!(keeper_is(&host, &keeper), "the same one");
    // The next keeper can.
    drop(keeper);
    assert_eq!(host.ended(&host.start(&[], shell("exit 4")))["code"], 4);
}

fn keeper_is(host: &Host, keeper: &Keeper) -> bool {
    host.has_keeper() == Some(keeper.pid())
}

#[test]
fn a_daemon_that_the_kernel_kills_for_want_of_memory_is_followed_by_one_that_tells_true_statuses() {
    needs!(root, bpf, cgroup);
    let memory = match OldCell::new("memory") {
        Ok(memory) => memory,
        Err(why) => return skip(test_name!(), why),
    };
    let host = Host::new();
    let mut daemon = host.serving();
    let mut stranger = Stranger::new();
    let go = host.path("agents/go");
    let script = format!("until [ -e {} ]; do sleep 0.05; done; exit 7", go.display());
    let ends = host.start(&[], shell(&script));
    let goes_on = host.start(&["--grace", "100ms"], shell(LOOPS));
    for id in [&ends, &goes_on] {
        host.in_state(id, "running");
    }
    let pids: Vec<_> = [&ends, &goes_on].map(|id| host.run(id)["main_pid"].clone()).into();
    // From now on it may have one MiB more.
    memory.take(daemon.pid());
    memory.set("memory.limit_in_bytes", "1M");
    let body = "x".repeat(200 << 10);
    let head = format!("POST /v1/runs HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len() + 1);
    let mut clients = Vec::new();
    eventually("the kernel to kill the daemon", || {
        for _ in 0..8 {
            if let Ok(mut client) = UnixStream::connect(host.path("run/socket")) {
                // Held by the daemon until its last byte comes.
                let _ = client.set_write_timeout(Some(std::time::Duration::from_millis(100)));
                let _ = client.write_all(head.as_bytes()).and_then(|()| client.write_all(body.as_bytes()));
                clients.push(client);
            }
        }
        daemon.ended().then_some(())
    });
    assert!(memory.get("memory.oom_control").contains("oom_kill 1"), "{}", memory.get("memory.oom_control"));
    drop(clients);
    fs::write(&go, "").expect("a scratch file");
    host.emptied(&ends);
    let daemon = host.serving();
    let run = host.ended(&ends);
    assert_eq!((&run["outcome"], &run["code"]), (&"ended".into(), &7.into()), "{run}\n{}", daemon.log());
    assert_eq!(host.in_state(&goes_on, "running")["main_pid"], pids[1], "it goes on");
    assert_eq!(stop(&host, &goes_on)["outcome"], "operator");
    stranger.assert_alive();
}

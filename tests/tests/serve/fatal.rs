//! A fault in any thread ends the process, which is noticed and survived: it does not go on without what that thread did.

use std::fs;

use agent_loop_tests::harness::{Host, eventually};
use agent_loop_tests::needs;

use crate::{count, shell};

#[test]
fn a_fault_in_the_thread_of_the_store_ends_the_daemon_and_the_next_one_goes_on() {
    needs!(root, bpf, cgroup);
    let mut host = Host::new();
    let now = host.path("now");
    host.set_env("AGENT_LOOP_FAULT", format!("panic:store:{}", now.display()));
    let mut daemon = host.serving();
    let go = host.path("agents/go");
    let wait = format!("until [ -e {} ]; do sleep 0.05; done; exit 23", go.display());
    let id = host.start(&["--limit", "1h"], shell(&wait));
    host.in_state(&id, "running");
    fs::write(&now, "").expect("a scratch file");
    // It has something to be remembered, and does not say that it was.
    let asked = host.ask(["start", "--cwd", "/", "--", "true"]);
    assert!(!asked.status.success());
    eventually("its end, without its store", || daemon.ended().then_some(()));
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&daemon.wait()), Some(libc::SIGABRT), "{}", daemon.log());
    let log = daemon.log();
    assert!(log.contains("a fault in the thread store") && log.contains("agents go on"), "{log}");
    let daemon = host.serving();
    fs::write(&go, "").expect("a scratch file");
    let run = host.ended(&id);
    assert_eq!((&run["outcome"], &run["code"]), (&"ended".into(), &23.into()), "{run}\n{}", daemon.log());
}

#[test]
fn a_fault_in_the_thread_that_drains_ends_the_keeper_and_the_next_one_drains() {
    needs!(root, bpf, cgroup);
    let mut host = Host::new();
    let now = host.path("now");
    host.set_env("AGENT_LOOP_FAULT", format!("panic:drainer:{}", now.display()));
    let daemon = host.serving();
    let go = host.path("agents/go");
    let script = format!("until [ -e {} ]; do sleep 0.05; done; seq 30000; exit 24", go.display());
    let id = host.start(&["--limit", "1h"], shell(&script));
    host.in_state(&id, "running");
    let first = host.keeper();
    fs::write(&now, "").expect("a scratch file");
    fs::write(&go, "").expect("a scratch file");
    // More than its pipe can hold: without a keeper that drains it never ends.
    let run = host.ended(&id);
    assert_eq!((&run["outcome"], &run["code"]), (&"ended".into(), &24.into()), "{run}\n{}", daemon.log());
    assert_ne!(host.keeper(), first, "{}", daemon.log());
    assert!(daemon.log().contains("a fault in the thread drainer"), "{}", daemon.log());
    let whole: String = (1..=30_000).map(|line| format!("{line}\n")).collect();
    eventually("all of its output", || (host.output(&id) == whole).then_some(()));
    assert_eq!(count(&host.events(&id), "signal.intent"), 0);
}

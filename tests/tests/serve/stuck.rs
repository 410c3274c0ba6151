//! A real process that no signal reaches, in state D: it is told, it is awaited, and it holds up nobody else.

use std::ffi::OsStr;
use std::fs;

use agent_loop_tests::deaf_fs::DeafFs;
use agent_loop_tests::harness::{Host, eventually};
use agent_loop_tests::needs;

use crate::{Stranger, count, shell, stop};

#[test]
fn one_in_state_d_is_named_and_awaited_and_the_daemon_serves_on() {
    needs!(root, bpf, cgroup, fuse);
    let host = Host::new();
    fs::create_dir(host.path("mount")).expect("a directory");
    let deaf = DeafFs::mount(&host.path("mount"));
    let mut daemon = host.serving();
    let mut stranger = Stranger::new();
    let script = format!("cat {} & wait", deaf.file().display());
    let id = host.start(&["--limit", "300ms", "--grace", "100ms"], shell(&script));
    eventually("it to wait", || (deaf.waiting() == 1).then_some(()));

    // Its limit is reached, the kill is given, and it is told who withstands it.
    host.in_state(&id, "unkillable");
    let stuck = host.run(&id);
    let tree = host.asked(["tree", &id]);
    let left = tree["processes"].as_array().expect("processes");
    assert!(left.iter().any(|it| it["command"].as_str().is_some_and(|it| it.starts_with("cat "))), "{tree}");
    assert!(stuck["code"].is_null(), "{stuck}");
    let told =
        eventually("it to be told", || daemon.log().lines().find(|it| it.contains("after SIGKILL")).map(str::to_owned));
    assert!(told.contains("cat (state D") && told.contains(&id), "{told}");

    // Meanwhile others come, go, and are stopped.
    let other = host.start(&[], shell("exit 3"));
    assert_eq!(host.ended(&other)["code"], 3);
    let third = host.start(&["--grace", "100ms"], shell("sleep 600"));
    host.in_state(&third, "running");
    assert_eq!(stop(&host, &third)["outcome"], "operator");

    // Nor does a new daemon wait for it, or forget it.
    daemon.kill();
    let _daemon = host.serving();
    host.in_state(&id, "unkillable");
    let other = host.start(&[], shell("exit 4"));
    assert_eq!(host.ended(&other)["code"], 4);

    // Once the kernel lets it go it dies of the kill, and the run ends for the reason that it had.
    deaf.let_go();
    let run = host.ended(&id);
    assert_eq!((&run["outcome"], &run["proven"]), (&"deadline".into(), &true.into()), "{run}");
    let events = host.events(&id);
    assert!(count(&events, "signal.intent") > 0, "{events:#?}");
    // Once by each daemon.
    assert_eq!(count(&events, "run.unkillable"), 2, "{events:#?}");
    let why = host.ask(["why", &id]);
    assert!(String::from_utf8_lossy(&why.stdout).contains("wall limit"), "{why:?}");
    let story = host.ask([OsStr::new("audit"), OsStr::new("why"), OsStr::new(&id), host.path("log/audit").as_os_str()]);
    let story = String::from_utf8_lossy(&story.stdout).into_owned();
    assert!(story.contains("ms after SIGKILL: ") && story.contains("cat (state D"), "{story}");
    stranger.assert_alive();
}

//! A disk that fails (EIO) under the state, the output and the log: deadlines are kept, what cannot be remembered is
//! not begun, and what was lost is declared once the disk is well again.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use agent_loop::audit::verify::{self, Options};
use agent_loop_tests::harness::{Host, eventually};
use agent_loop_tests::ill_disk::IllDisk;
use agent_loop_tests::needs;

use crate::{Stranger, said, shell, stop};

/// A disk under one of a host's directories.
fn under(host: &Host, name: &str, mode: u32) -> IllDisk {
    let (behind, at) = (host.path(format!("{name}-behind")), host.path(name));
    for dir in [&behind, &at] {
        fs::create_dir(dir).expect("a directory");
        fs::set_permissions(dir, fs::Permissions::from_mode(mode)).expect("our directory");
    }
    IllDisk::mount(&behind, &at)
}

const LOOPS: &str = "while :; do sleep 0.1; done";

#[test]
fn a_deadline_is_kept_while_the_states_disk_fails_and_its_end_is_remembered_when_it_is_well() {
    needs!(root, bpf, cgroup, fuse);
    let host = Host::new();
    let disk = under(&host, "state", 0o700);
    let mut daemon = host.serving();
    let mut stranger = Stranger::new();
    let limited = host.start(&["--limit", "3s", "--grace", "100ms"], shell(LOOPS));
    let free = host.start(&["--grace", "100ms"], shell(LOOPS));
    for id in [&limited, &free] {
        host.in_state(id, "running");
    }
    disk.fall_ill(true);
    let refused = host.ask(["start", "--cwd", "/", "--", "true"]);
    assert!(!refused.status.success() && said(&refused).contains("cannot be remembered"), "{refused:?}");
    host.emptied(&limited);
    // Nothing is told as over that could be forgotten.
    let told = eventually("it to be told", || Some(host.degraded().concat()).filter(|it| it.contains(&limited)));
    assert!(told.contains("cannot be remembered"), "{told}");
    assert_ne!(host.run(&limited)["state"], "ended");
    // A stop waits for no disk either.
    let second = host.ask(["kill", &free, "--reason", "while its disk fails"]);
    assert!(second.status.success(), "{}", said(&second));
    host.emptied(&free);
    assert!(disk.refused() > 0, "it was ill");
    disk.fall_ill(false);
    let run = host.ended(&limited);
    assert_eq!((&run["outcome"], &run["proven"]), (&"deadline".into(), &true.into()), "{run}\n{}", daemon.log());
    let run = host.ended(&free);
    assert_eq!((&run["outcome"], &run["proven"]), (&"operator".into(), &true.into()), "{run}\n{}", daemon.log());
    assert_eq!(host.degraded(), [] as [String; 0]);
    assert_eq!(host.ended(&host.start(&[], shell("exit 4")))["code"], 4);
    // What was refused was never begun.
    assert_eq!(host.asked(["ps", "--all"])["runs"].as_array().map_or(0, Vec::len), 3);
    stranger.assert_alive();
    assert!(daemon.terminate().success());
}

/// A disk that others keep busy is no fault of an agent: not of one that is launched, nor of one that runs while its daemon
/// starts again.
#[test]
fn with_a_slow_disk_of_the_log_agents_are_launched_late_and_none_is_stopped_for_it() {
    needs!(root, bpf, cgroup, fuse);
    let host = Host::new();
    let disk = under(&host, "log", 0o700);
    let mut daemon = host.serving();
    let before = host.start(&["--grace", "100ms"], shell(LOOPS));
    host.in_state(&before, "running");
    disk.be_slow(Duration::from_millis(1_200));
    assert_eq!(host.ended(&host.start(&[], shell("exit 4")))["code"], 4, "{}", daemon.log());
    daemon.kill();
    let mut daemon = host.serving();
    assert_eq!(host.ended(&host.start(&[], shell("exit 5")))["code"], 5, "{}", daemon.log());
    assert_eq!(host.run(&before)["state"], "running", "{}", daemon.log());
    disk.be_slow(Duration::ZERO);
    stop(&host, &before);
    assert!(daemon.terminate().success());
    let audit = host.path("log/audit");
    let report = verify::verify(&audit, &Options { account: true, ..Options::default() }, &mut |_| {}).expect("read");
    assert!(report.verdict().code() <= 2 && report.damage.is_empty(), "{report:?}");
}

/// A kill of what is not born yet is carried out later, by another daemon perhaps: it is acknowledged once it is remembered.
#[test]
fn a_kill_that_cannot_be_remembered_is_not_acknowledged() {
    needs!(root, bpf, cgroup, fuse);
    let host = Host::new();
    host.configure("max_agents = 1\n", "user = \"nobody\"\n", "");
    let disk = under(&host, "state", 0o700);
    let daemon = host.serving();
    let first = host.start(&["--grace", "100ms"], shell(LOOPS));
    host.in_state(&first, "running");
    let queued = host.start(&[], shell("exit 4"));
    assert_eq!(host.run(&queued)["state"], "queued");
    disk.fall_ill(true);
    let kill = || host.ask(["kill", &queued, "--reason", "while its disk fails"]);
    let refused = kill();
    assert!(!refused.status.success(), "{}", daemon.log());
    assert!(said(&refused).contains("which a restart would forget"), "{}", said(&refused));
    disk.fall_ill(false);
    // It is tried until it is remembered, and is no agent then.
    let run = host.ended(&queued);
    assert_eq!(run["outcome"], "withdrawn", "{run}\n{}", daemon.log());
    stop(&host, &first);
}

#[test]
fn a_daemon_lost_while_the_states_disk_fails_is_replaced_by_one_that_goes_on_with_its_runs() {
    needs!(root, bpf, cgroup, fuse);
    let host = Host::new();
    let disk = under(&host, "state", 0o700);
    let mut daemon = host.serving();
    let go = host.path("agents/go");
    let script = format!("until [ -e {} ]; do sleep 0.05; done; exit 5", go.display());
    let ends = host.start(&[], shell(&script));
    let goes_on = host.start(&["--grace", "100ms"], shell(LOOPS));
    for id in [&ends, &goes_on] {
        host.in_state(id, "running");
    }
    disk.fall_ill(true);
    daemon.kill();
    fs::write(&go, "").expect("a scratch file");
    host.emptied(&ends);
    // One that starts meanwhile supervises or says why not; it takes nobody's life for it.
    let mut between = host.serve();
    eventually("it to serve or to end", || (between.ended() || host.ask(["status"]).status.success()).then_some(()));
    assert!(between.log().contains("I/O error") || between.log().contains("Input/output error"), "{}", between.log());
    between.kill();
    disk.fall_ill(false);
    let daemon = host.serving();
    let run = host.ended(&ends);
    assert_eq!((&run["outcome"], &run["code"]), (&"ended".into(), &5.into()), "{run}\n{}", daemon.log());
    assert_eq!(host.in_state(&goes_on, "running")["alive"].as_u64().map(|alive| alive > 0), Some(true));
    assert_eq!(stop(&host, &goes_on)["outcome"], "operator");
}

#[test]
fn a_deadline_is_kept_while_the_disk_of_log_and_output_fails_and_the_gap_is_declared() {
    needs!(root, bpf, cgroup, fuse);
    let host = Host::new();
    let disk = under(&host, "log", 0o755);
    let mut daemon = host.serving();
    let id = host.start(&["--limit", "3s", "--grace", "100ms"], shell("while :; do echo more; sleep 0.02; done"));
    host.in_state(&id, "running");
    eventually("its output", || (!host.output(&id).is_empty()).then_some(()));
    disk.fall_ill(true);
    let run = host.ended(&id);
    assert_eq!((&run["outcome"], &run["proven"]), (&"deadline".into(), &true.into()), "{run}\n{}", daemon.log());
    let told = host.degraded().concat();
    assert!(told.contains("the audit log cannot be written"), "{told}");
    assert!(daemon.log().contains("output can no longer be written"), "{}", daemon.log());
    // Nothing is launched without its evidence.
    let waits = host.ask(["start", "--cwd", "/", "--", "sh", "-c", "exit 4"]);
    let waits = waits.status.success().then(|| String::from_utf8_lossy(&waits.stdout).trim().to_owned());
    if let Some(id) = &waits {
        assert_eq!(host.run(id)["state"], "queued");
    }
    disk.fall_ill(false);
    eventually("the log to be written again", || host.degraded().is_empty().then_some(()));
    let id = waits.unwrap_or_else(|| host.start(&[], shell("exit 4")));
    assert_eq!(host.ended(&id)["code"], 4);
    assert!(daemon.terminate().success());
    let options = Options { account: true, ..Options::default() };
    let report = verify::verify(&host.path("log/audit"), &options, &mut |_| {}).expect("a log");
    assert!(report.damage.is_empty(), "{report:?}");
}

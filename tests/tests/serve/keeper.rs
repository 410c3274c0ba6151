//! A keeper that hangs, one with other rights than configured, and what is in the pipes when it dies.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use agent_loop_tests::harness::{Host, eventually, skip};
use agent_loop_tests::{needs, sys, test_name};

use crate::trouble::Keeper;
use crate::{count, kinds, said, shell, stop};

/// A run that bears children all the time.
const BUSY: &str = "while :; do sleep 0.02; done";

/// The keepers that live in the cgroup of the host.
fn keepers(host: &Host) -> Vec<u32> {
    let is_keeper = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).nth(1) == Some(b"keeper")
    };
    host.processes().into_iter().filter(is_keeper).collect()
}

/// A run that ends with 13 as soon as its first line is written, and has no child whose end its tracer would be told.
fn tracee(host: &Host) -> (String, i32, PathBuf) {
    let pipe = host.path("agents/pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).expect("a pipe");
    fs::set_permissions(&pipe, fs::Permissions::from_mode(0o666)).expect("our pipe");
    let id = host.start(&[], shell(&format!("read line < {}; exit 13", pipe.display())));
    let run = host.in_state(&id, "running");
    let pid = run["main_pid"].as_u64().and_then(|pid| i32::try_from(pid).ok()).expect("a number");
    eventually("it to execute its command", || {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "sh\n").then_some(())
    });
    sys::seize(pid).expect("root may trace it");
    (id, pid, pipe)
}

fn hangs(host: &Host) -> Option<String> {
    host.keeper_missing().filter(|why| why.contains("lives and has not answered"))
}

#[test]
fn a_keeper_that_hangs_holds_nobody_up_is_told_and_is_not_replaced_while_it_lives() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    let daemon = host.serving();
    let busy = host.start(&["--grace", "100ms"], shell(BUSY));
    host.in_state(&busy, "running");
    let keeper = host.keeper_process();
    keeper.stop();
    let ran = host.path("agents/ran");
    let script = format!("echo ran >> {}; exit 6", ran.display());
    // The question that it does not answer is asked for this one: while it is waited for, others are answered.
    let asked = host.start(&[], shell(&script));
    eventually("an answer beside the one that is waited for", || {
        let launching = host.asked(["ps"]).to_string().contains("\"launching\"");
        assert!(hangs(&host).is_none(), "it was not asked while the keeper was waited for");
        launching.then_some(())
    });
    let told = eventually("the word that it hangs", || hangs(&host));
    assert!(told.contains(&format!("kill -CONT {}", keeper.pid)), "{told}");
    // The rings are read on, and nothing is lost.
    let births = |host: &Host| count(&host.events(&busy), "proc.fork");
    let before = births(&host);
    eventually("more births to be told", || (births(&host) > before + 20).then_some(()));
    assert_eq!(host.asked(["status"])["lost"], 0);
    // What is asked meanwhile is answered at once, and done once there is a keeper.
    let killed = host.ask(["kill", &busy, "--reason", "while nobody can"]);
    assert!(killed.status.success(), "{}", said(&killed));
    assert_eq!(host.run(&busy)["state"], "stopping");
    assert_eq!(keepers(&host), [keeper.pid], "{}", daemon.log());
    assert!(keeper.is_alive() && hangs(&host).is_some(), "{}", daemon.log());
    keeper.signal(libc::SIGCONT);
    assert_eq!(host.ended(&busy)["outcome"], "operator", "{}", daemon.log());
    assert_eq!(host.ended(&asked)["code"], 6, "{}", daemon.log());
    assert_eq!(fs::read_to_string(&ran).expect("its account"), "ran\n", "once");
    assert_eq!(host.keeper(), keeper.pid, "the same one");
    assert!(!daemon.log().contains("ended at once"), "none was started beside it: {}", daemon.log());
}

#[test]
fn a_keeper_in_a_cgroup_that_was_killed_before_launches_all_the_same() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    let before = host.runs().parent().expect("the host's cgroup").join("killed-before");
    fs::create_dir(&before).expect("a cgroup");
    for _ in 0..2 {
        if fs::write(before.join("cgroup.kill"), "1").is_err() {
            return skip(test_name!(), "the kernel has no cgroup.kill");
        }
    }
    let procs = before.join("cgroup.procs");
    let _keeper = Keeper::start_with(&host, 4_096, move || fs::write(&procs, "0"));
    let daemon = host.serving();
    for code in [4, 5] {
        let run = host.ended(&host.start(&[], shell(&format!("true; exit {code}"))));
        assert_eq!((&run["code"], &run["proven"]), (&code.into(), &true.into()), "{run}\n{}", daemon.log());
    }
}

#[test]
fn a_keeper_that_hangs_when_a_daemon_starts_is_waited_for_and_one_that_dies_is_replaced() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    let _keeper = Keeper::start(&host, 4_096);
    let mut daemon = host.serving();
    let id = host.start(&["--limit", "3s", "--grace", "100ms"], shell(BUSY));
    host.in_state(&id, "running");
    let keeper = host.keeper_process();
    keeper.stop();
    daemon.kill();
    let daemon = host.serving();
    assert!(hangs(&host).is_some(), "{:?}", host.keeper_missing());
    // Its deadline passes, and nobody can stop it.
    host.in_state(&id, "stopping");
    assert_eq!(keepers(&host), [keeper.pid]);
    keeper.kill();
    let run = host.ended(&id);
    assert_eq!((&run["outcome"], &run["proven"]), (&"deadline".into(), &true.into()), "{run}\n{}", daemon.log());
    assert_ne!(host.keeper(), keeper.pid);
}

#[test]
fn a_stop_that_was_asked_for_in_an_unsure_launch_is_not_forgotten_by_a_crash() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    let _keeper = Keeper::start(&host, 4_096);
    let mut daemon = host.serving();
    let keeper = host.keeper_process();
    keeper.stop();
    let ran = host.path("agents/ran");
    let id = host.start(&[], shell(&format!("touch {}", ran.display())));
    eventually("the word that it hangs", || hangs(&host));
    assert_eq!(host.run(&id)["state"], "launching");
    let killed = host.ask(["kill", &id, "--reason", "the wrong one"]);
    assert!(killed.status.success(), "{}", said(&killed));
    daemon.kill();
    keeper.signal(libc::SIGCONT);
    let daemon = host.serving();
    let run = host.ended(&id);
    assert_eq!((&run["outcome"], &run["proven"]), (&"withdrawn".into(), &true.into()), "{run}\n{}", daemon.log());
    assert_eq!(host.ended(&host.start(&[], shell("exit 4")))["code"], 4);
    assert!(!ran.exists(), "it never ran");
}

#[test]
fn a_keeper_with_another_root_of_runs_is_not_asked_for_anything() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    let mut daemon = host.serving();
    // The keeper stays, and the next daemon has its runs elsewhere.
    let keeper = host.keeper();
    assert!(daemon.terminate().success());
    let text = fs::read_to_string(host.path("config.toml")).expect("the configuration");
    let runs = host.runs().display().to_string();
    fs::write(host.path("config.toml"), text.replace(&runs, &format!("{runs}/deeper"))).expect("a scratch file");
    let _daemon = host.serving();
    let missing = host.keeper_missing().expect("no keeper");
    assert!(missing.contains("has its runs below") && missing.contains(&keeper.to_string()), "{missing}");
    let id = host.start(&[], ["true"]);
    assert_eq!(host.run(&id)["state"], "queued");
}

#[test]
fn a_main_process_that_a_tracer_holds_does_not_keep_its_run_from_its_end() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    let daemon = host.serving();
    let (id, pid, go) = tracee(&host);
    fs::write(&go, "go\n").expect("it reads");
    // The tracer has not let go.
    let run = host.ended(&id);
    assert_eq!((&run["outcome"], &run["code"]), (&"ended".into(), &13.into()), "{run}\n{}", daemon.log());
    assert!(run["why"].to_string().contains("the kernel's"), "{run}");
    assert_eq!(count(&host.events(&id), "proc.exit"), count(&host.events(&id), "proc.fork") + 1);
    sys::wait(pid).expect("we trace it");
    assert_eq!(host.ended(&host.start(&[], shell("exit 4")))["code"], 4);
}

#[test]
fn a_main_process_that_a_tracer_held_through_a_restart_is_told_as_ended() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    let mut daemon = host.serving();
    let (id, pid, go) = tracee(&host);
    daemon.kill();
    fs::write(&go, "go\n").expect("it reads");
    host.emptied(&id);
    let daemon = host.serving();
    let run = host.ended(&id);
    assert_eq!((&run["outcome"], &run["code"]), (&"ended".into(), &13.into()), "{run}\n{}", daemon.log());
    sys::wait(pid).expect("we trace it");
}

#[test]
fn what_a_run_wrote_last_outlives_it_and_its_keeper_while_the_daemon_lives() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    let daemon = host.serving();
    let go = host.path("agents/go");
    let script = format!("until [ -e {} ]; do sleep 0.02; done; echo last; echo words >&2; exit 3", go.display());
    let id = host.start(&[], shell(&script));
    host.in_state(&id, "running");
    let keeper = host.keeper_process();
    keeper.stop();
    fs::write(&go, "").expect("a scratch file");
    host.emptied(&id);
    assert_eq!(host.output(&id), "", "nobody has read it");
    keeper.kill();
    let run = host.ended(&id);
    assert_eq!((&run["outcome"], &run["code"]), (&"ended".into(), &3.into()), "{run}\n{}", daemon.log());
    assert_eq!(host.output(&id), "last\n");
    assert_eq!(fs::read_to_string(host.path("log/runs").join(&id).join("stderr")).expect("its output"), "words\n");
    assert_eq!(count(&host.events(&id), "run.output_unheard"), 0);
}

#[test]
fn output_that_nobody_could_have_kept_is_declared() {
    needs!(root, bpf, cgroup);
    for ends in [true, false] {
        let host = Host::new();
        let _keeper = Keeper::start(&host, 4_096);
        let mut daemon = host.serving();
        let go = host.path("agents/go");
        let script = format!("until [ -e {} ]; do sleep 0.02; done; echo last; exit 3", go.display());
        let id = host.start(&[], shell(&script));
        host.in_state(&id, "running");
        let keeper = host.keeper_process();
        keeper.stop();
        daemon.kill();
        if ends {
            fs::write(&go, "").expect("a scratch file");
            host.emptied(&id);
        }
        keeper.kill();
        let daemon = host.serving();
        fs::write(&go, "").expect("a scratch file");
        let run = host.ended(&id);
        assert_eq!((&run["outcome"], &run["code"]), (&"ended".into(), &3.into()), "{run}\n{}", daemon.log());
        let events = host.events(&id);
        assert_eq!(count(&events, "run.output_unheard"), usize::from(ends), "{:?}", kinds(&events));
        let why = run["why"].to_string();
        assert_eq!(why.contains("The end of its output may be missing"), ends, "{why}");
        assert_eq!(host.output(&id), if ends { "" } else { "last\n" });
    }
}

#[test]
fn output_that_cannot_be_opened_is_said_and_is_read_once_it_can_be() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    let mut daemon = host.serving();
    let go = host.path("agents/go");
    let script = format!("until [ -e {} ]; do sleep 0.02; done; echo last; exit 3", go.display());
    let id = host.start(&[], shell(&script));
    host.in_state(&id, "running");
    let file = host.path("log/runs").join(&id).join("stdout");
    let mode = |mode| fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("our file");
    mode(0o666);
    host.kill_keeper();
    let told = |host: &Host| host.degraded().into_iter().find(|line| line.contains("nobody reads its output"));
    let why = eventually("the word that nobody reads it", || told(&host));
    assert!(why.contains(&id) && why.contains("0666"), "{why}");
    // Over another daemon too, which finds it held by the keeper.
    assert!(daemon.terminate().success());
    let daemon = host.serving();
    assert!(told(&host).is_some(), "{}", daemon.log());
    mode(0o600);
    eventually("it to be read again", || told(&host).is_none().then_some(()));
    fs::write(&go, "").expect("a scratch file");
    assert_eq!(host.ended(&id)["code"], 3, "{}", daemon.log());
    assert_eq!(host.output(&id), "last\n");
}

#[test]
fn i12_an_agent_that_waits_at_a_full_pipe_holds_nobody_up() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    let _daemon = host.serving();
    let keeper = host.keeper_process();
    let go = host.path("agents/go");
    let flood = format!("until [ -e {} ]; do sleep 0.02; done; head -c 1000000 /dev/zero; exit 5", go.display());
    let id = host.start(&[], shell(&flood));
    let busy = host.start(&["--grace", "100ms"], shell(BUSY));
    host.in_state(&id, "running");
    host.in_state(&busy, "running");
    // Nobody reads: the agent fills its pipe and waits.
    keeper.stop();
    fs::write(&go, "").expect("a scratch file");
    eventually("a process that waits for its pipe", || {
        let procs = fs::read_to_string(host.runs().join(format!("run-{id}/cgroup.procs"))).ok()?;
        let waits = |pid: &str| fs::read_to_string(format!("/proc/{pid}/wchan")).is_ok_and(|it| it.contains("pipe"));
        procs.split_whitespace().any(waits).then_some(())
    });
    let births = |host: &Host| count(&host.events(&busy), "proc.fork");
    let before = births(&host);
    eventually("others to be heard", || (births(&host) > before + 20).then_some(()));
    assert_eq!(host.run(&id)["state"], "running");
    keeper.signal(libc::SIGCONT);
    assert_eq!(host.ended(&id)["code"], 5);
    assert_eq!(host.output(&id).len(), 1_000_000);
    stop(&host, &busy);
}

#[test]
fn a_keeper_that_is_asked_to_end_in_a_flood_of_output_loses_no_byte_between_pipe_and_file() {
    needs!(root, bpf, cgroup);
    const FLOODS: u64 = 12;
    const LINES: u64 = 400_000;
    let host = Host::new();
    let daemon = host.serving();
    let go = host.path("agents/go");
    // Each flood is many times what a pipe holds: it is under way when its keeper is asked to end.
    let script = format!(
        "n=0; while [ $n -lt {FLOODS} ]; do until [ -e {0}$n ]; do sleep 0.01; done; \
         seq $((1000000 + n * {LINES})) $((1000000 + n * {LINES} + {LINES} - 1)); n=$((n + 1)); done; exit 5",
        go.display()
    );
    let id = host.start(&["--limit", "1h", "--grace", "100ms"], shell(&script));
    host.in_state(&id, "running");
    let file = host.path(format!("log/runs/{id}/stdout"));
    let written = || fs::metadata(&file).expect("its output").len();
    // Numbers of seven digits, with an end of line.
    let flood = 8 * LINES;
    for n in 0..FLOODS {
        let keeper = host.keeper_process();
        fs::write(format!("{}{n}", go.display()), "").expect("a scratch file");
        eventually("a flood", || (written() > n * flood).then_some(()));
        keeper.signal(libc::SIGTERM);
        eventually("another keeper", || host.has_keeper().filter(|another| *another != keeper.pid));
        eventually("the rest of the flood", || (written() >= (n + 1) * flood).then_some(()));
        assert_eq!(written(), (n + 1) * flood, "after {n} keepers");
    }
    let run = host.ended(&id);
    assert_eq!((&run["code"], &run["output_bytes"]), (&5.into(), &(FLOODS * flood).into()), "{run}\n{}", daemon.log());
    let whole: String = (0..FLOODS * LINES).map(|line| format!("{}\n", 1_000_000 + line)).collect();
    assert!(host.output(&id) == whole);
}

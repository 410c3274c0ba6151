//! Bad input, bad moments and full disks: a clear error, the documented exit code, nothing left behind.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use agent_loop_tests::bpf::BpfFs;
use agent_loop_tests::harness::{Exec, Outcome, Running, adversary, agent_loop, cgroup, eventually, host, skip};
use agent_loop_tests::ill_disk::IllDisk;
use agent_loop_tests::traced::{self, Run};
use agent_loop_tests::{needs, sys, test_name};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use serde_json::Value;

/// The end of an `exec` whose command never ran.
fn refused(outcome: &Outcome, code: i32, says: &str) {
    assert_eq!(outcome.code, code, "{}", outcome.stderr);
    assert!(outcome.stderr.to_lowercase().contains(&says.to_lowercase()), "no {says:?} in:\n{}", outcome.stderr);
    assert!(!outcome.was_ready(), "the command ran all the same");
    outcome.assert_nothing_left();
}

#[test]
fn an_unknown_command_is_127() {
    let outcome = Exec::new().cmd(["/nonexistent/agent"]).run();
    refused(&outcome, 127, "/nonexistent/agent");
    refused(&Exec::new().cmd(["no-such-agent-in-the-path"]).run(), 127, "no-such-agent-in-the-path");
}

#[test]
fn a_file_that_is_not_executable_is_126() {
    let exec = Exec::new();
    let file = exec.path("agent");
    fs::write(&file, "#!/bin/sh\n").expect("a file");
    refused(&exec.cmd([&file]).run(), 126, "agent");
    refused(&Exec::new().cmd(["/etc"]).run(), 126, "/etc");
}

#[test]
fn in_a_cgroup_that_was_killed_before_a_command_is_started_all_the_same() {
    needs!(cgroup);
    for kills in [0, 1, 3] {
        // From Linux 6.14 to 7.2 who is born from it into a new one is killed at birth.
        let before = Run::new();
        for _ in 0..kills {
            if fs::write(before.path().join("cgroup.kill"), "1").is_err() {
                return skip(test_name!(), "the kernel has no cgroup.kill");
            }
        }
        let exec = Exec::new().with(|command| {
            traced::enter(command, before.path());
            command
        });
        let outcome = exec.cmd(["sh", "-c", "true; exit 5"]).run();
        assert_eq!(outcome.code, 5, "after {kills} kills: {}", outcome.stderr);
        outcome.assert_tree_accounted();
        outcome.assert_nothing_left();
    }
}

#[test]
fn a_file_of_no_known_format_is_126() {
    let exec = Exec::new();
    let file = exec.path("agent");
    fs::write(&file, [0u8, 1, 2, 3]).expect("a file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("our file");
    refused(&exec.cmd([&file]).run(), 126, "agent");
}

#[test]
fn what_another_user_may_not_execute_is_126() {
    needs!(root);
    let exec = Exec::new().arg("--user").arg("nobody");
    let file = exec.path("agent");
    host::copy_program(&adversary(), &file);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o700)).expect("our file");
    fs::set_permissions(exec.path(""), fs::Permissions::from_mode(0o755)).expect("our directory");
    refused(&exec.cmd([file.as_os_str(), "hold".as_ref()]).run(), 126, "agent");
}

#[test]
fn usage_is_2() {
    for args in [
        &["--limit", "0"][..],
        &["--limit", "0s"],
        &["--limit", "soon"],
        &["--limit", "-1s"],
        &["--grace", "x"],
        &["--leftovers", "keep"],
        &["--no-such-option"],
        &["--user", "no-such-user-here"],
    ] {
        let exec = args.iter().fold(Exec::new(), Exec::arg);
        let outcome = exec.adversary(["hold", "--hold-ms", "0"]).run();
        assert_eq!(outcome.code, 2, "{args:?}: {}", outcome.stderr);
        assert!(!outcome.stderr.is_empty() && !outcome.was_ready(), "{args:?}");
        outcome.assert_nothing_left();
    }
    assert_eq!(Exec::new().run().code, 2, "no command");
    assert_eq!(Exec::new().arg("--").run().code, 2, "no command after the dashes");
}

#[test]
fn an_unwritable_events_path_is_125_and_nothing_runs() {
    for path in ["/nonexistent/events.jsonl", "/proc/events.jsonl", "/"] {
        let outcome = Exec::without_events().arg("--events").arg(path).adversary(["hold"]).run();
        refused(&outcome, 125, path);
        let outcome = Exec::new().arg("--output").arg(path).adversary(["hold"]).run();
        refused(&outcome, 125, path);
    }
}

#[test]
fn exec_returns_what_the_command_returned() {
    for code in [0, 1, 2, 63, 124, 125, 126, 127, 128, 255] {
        let outcome = Exec::new().adversary(["exit-code", &code.to_string()]).run();
        assert_eq!(outcome.code, code, "{}", outcome.stderr);
    }
    for signal in [libc::SIGTERM, libc::SIGKILL, libc::SIGHUP] {
        let outcome = Exec::new().adversary(["die-by-signal", &signal.to_string()]).run();
        assert_eq!(outcome.code, 128 + signal, "{}", outcome.stderr);
    }
}

#[test]
fn a_caller_that_ignores_sigchld_learns_the_status_all_the_same() {
    needs!(root);
    let mut exec = Command::new("env");
    exec.arg("--ignore-signal=CHLD").arg(agent_loop()).args(["exec", "--quiet", "--", "sh", "-c", "exit 7"]);
    let status = exec.status();
    assert_eq!(status.expect("env").code(), Some(7));
}

#[test]
fn at_the_limit_it_is_124_whatever_the_command_then_returned() {
    let script = "trap 'exit 7' INT TERM; touch \"$0\"; while :; do sleep 0.05; done";
    let exec = Exec::new().limit("1s").grace("20s");
    let ready = exec.path("ready");
    let outcome = exec.cmd(["sh".as_ref(), "-c".as_ref(), script.as_ref(), ready.as_os_str()]).run();
    assert!(outcome.was_ready());
    assert_eq!(outcome.code, 124, "{}", outcome.stderr);
    outcome.assert_tree_accounted();
    outcome.assert_nothing_left();
}

#[test]
fn a_signal_to_exec_stops_the_tree_and_is_its_exit_code() {
    needs!(bpf, cgroup);
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        for args in [&["double-fork-daemon"][..], &["term-ignorer", "3"]] {
            let running = Exec::new().grace("300ms").adversary(args).start();
            running.wait_ready();
            running.signal(signal);
            let outcome = running.finish();
            assert_eq!(outcome.code, 128 + signal, "{}", outcome.stderr);
            outcome.assert_tree_accounted();
            outcome.assert_nothing_left();
        }
    }
}

#[test]
fn a_second_signal_skips_the_grace() {
    needs!(bpf, cgroup);
    let running = Exec::new().grace("50s").adversary(["term-ignorer"]).start();
    running.wait_ready();
    running.signal(libc::SIGINT);
    running.wait_event("the first step", |event| event.kind == "signal.intent");
    running.signal(libc::SIGINT);
    let begin = std::time::Instant::now();
    let outcome = running.finish();
    assert!(begin.elapsed().as_secs() < 25, "the grace was waited for");
    outcome.assert_tree_accounted();
    outcome.assert_nothing_left();
}

#[test]
fn events_on_a_full_disk_stop_the_tree() {
    let exec = Exec::without_events().grace("300ms").arg("--events").arg("/dev/full");
    let outcome = exec.adversary(["term-ignorer", "2"]).run();
    assert_eq!(outcome.code, 125, "{}", outcome.stderr);
    assert!(!outcome.stderr.is_empty());
    outcome.assert_nothing_left();
}

#[test]
fn output_on_a_full_disk_stops_the_tree() {
    let exec = Exec::new().grace("300ms").arg("--output").arg("/dev/full");
    let outcome = exec.adversary(["print-flood", "100000000"]).run();
    assert_ne!(outcome.code, 0, "{}", outcome.stderr);
    outcome.assert_tree_accounted();
    outcome.assert_nothing_left();
}

#[test]
fn without_a_timer_the_tree_is_stopped_all_the_same() {
    needs!(root, bpf, cgroup);
    let exec = Exec::new()
        .limit("1h")
        .grace("300ms")
        .with(|command| sys::before_exec(command, || sys::refuse_call(libc::SYS_timerfd_settime, libc::EPERM as u16)));
    let outcome = exec.adversary(["term-ignorer", "2"]).run();
    assert_eq!(outcome.code, 125, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("setting the timer"), "{}", outcome.stderr);
    outcome.assert_tree_accounted();
    outcome.assert_nothing_left();
}

#[test]
fn with_too_few_descriptors_a_run_ends_at_once_and_leaves_nothing() {
    needs!(root, bpf, cgroup);
    let (mut ran, mut failed) = (0, 0);
    let limits = (12..52u64).map(|most| (most, "auto")).chain((12..30).map(|most| (most, "pidfd")));
    for (most, backend) in limits {
        // The grace, after which the rest of a failed launch is killed, is longer than any test waits.
        let exec = Exec::without_events().grace("1h").arg("--backend").arg(backend).with(|command| {
            sys::before_exec(command, move || {
                Ok(nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, most, most)?)
            })
        });
        let outcome = exec.cmd(["true"]).run();
        match outcome.code {
            0 => ran += 1,
            125 => failed += 1,
            code => panic!("{most} descriptors: {code}: {}", outcome.stderr),
        }
        assert!(!outcome.stderr.contains("exec was killed"), "{most} descriptors: {}", outcome.stderr);
        outcome.assert_nothing_left();
    }
    assert!(ran > 0 && failed > 0, "{ran} ran, {failed} failed");
}

#[test]
fn what_is_given_up_is_left_to_the_guard_which_says_whose_it_was() {
    needs!(bpf, cgroup);
    // Given up in the very moment of the kill, before anybody can have died of it.
    let exec = Exec::new().limit("1s").grace("0s").arg("--give-up").arg("1ns");
    let outcome = exec.adversary(["term-ignorer", "20"]).run();
    assert_eq!(outcome.code, 125, "{}", outcome.stderr);
    assert!(outcome.was_ready() && outcome.stderr.contains("NOT stopped"), "{}", outcome.stderr);
    let told = || fs::read_to_string(outcome.path("stderr")).expect("stderr");
    eventually("the guard's word", || told().contains("agent-loop: exec gave up; its").then_some(()));
    assert!(!told().contains("exec was killed"), "{}", told());
    eventually("the end of its cgroup", || std::panic::catch_unwind(|| outcome.assert_no_cgroup()).ok());
    outcome.assert_nothing_left();
}

/// An `exec` whose command this thread traces; it exits with 7 once its standard input ends.
fn traced_command(exec: Exec) -> (Running, i32) {
    let script = "echo > \"$0\"; read line; exit 7";
    let exec = exec.with(|command| command.stdin(Stdio::piped()));
    let ready = exec.path("ready");
    let running = exec.cmd(["sh".as_ref(), "-c".as_ref(), script.as_ref(), ready.as_os_str()]).start();
    running.wait_ready();
    let main = running.wait_event("the birth", |event| event.kind == "run.born").who().pid;
    sys::trace(main).expect("root may trace");
    (running, main)
}

#[test]
fn a_tracer_that_holds_the_dead_command_holds_up_nothing() {
    needs!(root, bpf, cgroup);
    let (mut running, main) = traced_command(Exec::new());
    running.feed("go\n");
    let outcome = running.finish();
    sys::wait(main).expect("the tracer has not been told before");
    assert_eq!(outcome.code, 7, "{}", outcome.stderr);
    assert_eq!(outcome.run_exit().value["exit"]["source"], "kernel", "{}", outcome.run_exit().value);
    assert_eq!(outcome.run_exit().value["tree"], "empty");
    outcome.assert_tree_accounted();
    outcome.assert_nothing_left();
}

#[test]
fn without_ebpf_the_status_of_a_command_that_a_tracer_holds_is_unknown() {
    needs!(root, cgroup);
    let (mut running, main) = traced_command(Exec::new().arg("--backend").arg("pidfd"));
    running.feed("go\n");
    let outcome = running.finish();
    sys::wait(main).expect("the tracer has not been told before");
    assert_eq!(outcome.code, 125, "{}", outcome.stderr);
    assert!(outcome.run_exit().value["exit"]["code"].is_null(), "{}", outcome.run_exit().value);
    outcome.assert_nothing_left();
}

#[test]
fn a_tracer_that_lets_go_leaves_the_status_to_waitid() {
    needs!(root, bpf, cgroup);
    // Somebody whom the command leaves behind keeps the run until the tracer has let go.
    let exec = Exec::new().arg("--leftovers").arg("wait").with(|command| command.stdin(Stdio::piped()));
    let (ready, go) = (exec.path("ready"), exec.path("go"));
    let script = "(while ! test -e \"$1\"; do sleep 0.05; done) </dev/null & echo > \"$0\"; read line; exit 7";
    let arguments = ["sh".as_ref(), "-c".as_ref(), script.as_ref(), ready.as_os_str(), go.as_os_str()];
    let mut running = exec.cmd(arguments).start();
    running.wait_ready();
    let main = running.wait_event("the birth", |event| event.kind == "run.born").who().clone();
    sys::trace(main.pid).expect("root may trace");
    running.feed("go\n");
    running.wait_event("its death", |event| event.is_death() && event.who().id == main.id);
    sys::wait(main.pid).expect("the tracer has not been told before");
    eventually("its end by waitid", || host::state(&main).is_none().then_some(()));
    fs::write(&go, "").expect("our directory");
    let outcome = running.finish();
    assert_eq!(outcome.code, 7, "{}", outcome.stderr);
    assert_eq!(outcome.run_exit().value["exit"]["source"], "waitid", "{}", outcome.run_exit().value);
    outcome.assert_tree_accounted();
    outcome.assert_nothing_left();
}

/// Lets `change` mounts in a mount namespace that only `exec` has.
fn mounts(exec: Exec, change: impl Fn() -> nix::Result<()> + Send + Sync + 'static) -> Exec {
    let hook = move || {
        let none: Option<&str> = None;
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        Ok(change()?)
    };
    exec.with(|command| sys::before_exec(command, hook))
}

/// A tmpfs of this size at `at`, for `exec` alone.
fn tmpfs_at(exec: Exec, at: &Path, size: &str) -> Exec {
    let (at, options) = (at.to_owned(), format!("size={size}"));
    mounts(exec, move || mount(Some("tmpfs"), &at, Some("tmpfs"), MsFlags::empty(), Some(options.as_str())))
}

#[test]
fn a_disk_that_fills_while_it_runs_stops_the_tree() {
    needs!(root);
    for option in ["--events", "--output"] {
        let exec = Exec::without_events();
        let small = exec.path("small");
        fs::create_dir(&small).expect("a directory");
        let exec = tmpfs_at(exec.grace("300ms").arg(option).arg(small.join("file")), &small, "64k");
        let noisy = if option == "--events" { ["fork-no-exec", "20000"] } else { ["print-flood", "100000000"] };
        let outcome = exec.adversary(noisy).run();
        assert_ne!(outcome.code, 0, "{option}: {}", outcome.stderr);
        assert!(!outcome.was_ready() && !outcome.stderr.is_empty(), "{option}");
        outcome.assert_nothing_left();
    }
}

#[test]
fn a_disk_that_fails_while_it_runs_stops_the_tree() {
    needs!(root, bpffs, fuse);
    // A mount namespace of this thread: what it starts sees the disk, and nobody else does.
    let _ours = BpfFs::mount();
    for option in ["--events", "--output"] {
        let exec = Exec::without_events();
        let (behind, at) = (exec.path("behind"), exec.path("disk"));
        for dir in [&behind, &at] {
            fs::create_dir(dir).expect("a directory");
        }
        let disk = IllDisk::mount(&behind, &at);
        let exec = exec.grace("300ms").arg(option).arg(at.join("file"));
        let noisy = if option == "--events" { ["fork-no-exec", "20000"] } else { ["print-flood", "100000000"] };
        let running = exec.adversary(noisy).start();
        eventually("something to be written", || {
            fs::metadata(behind.join("file")).is_ok_and(|file| file.len() > 0).then_some(())
        });
        disk.fall_ill(true);
        let outcome = running.finish();
        assert_ne!(outcome.code, 0, "{option}: {}", outcome.stderr);
        assert!(outcome.stderr.contains("Input/output error"), "{option}: {}", outcome.stderr);
        assert!(disk.refused() > 0);
        drop(disk);
        outcome.assert_nothing_left();
    }
}

#[test]
fn without_btf_it_says_so() {
    needs!(root);
    let outcome = tmpfs_at(Exec::new(), Path::new("/sys/kernel/btf"), "4k").adversary(["hold", "--hold-ms", "0"]).run();
    assert!(outcome.stderr.to_lowercase().contains("btf"), "{}", outcome.stderr);
    assert!([0, 125].contains(&outcome.code), "{}", outcome.code);
    outcome.assert_nothing_left();
}

#[test]
fn without_cgroup_v2_it_says_so() {
    needs!(root, cgroup);
    let at = cgroup::mount().expect("cgroup v2 is mounted");
    let exec = mounts(Exec::new(), move || umount2(&at, MntFlags::MNT_DETACH));
    let outcome = exec.adversary(["hold", "--hold-ms", "0"]).run();
    assert!(outcome.stderr.to_lowercase().contains("cgroup"), "{}", outcome.stderr);
    assert!([0, 125].contains(&outcome.code), "{}", outcome.code);
    outcome.assert_nothing_left();
}

#[test]
fn without_privileges_it_works_degraded_and_says_so() {
    needs!(root);
    let exec = Exec::without_events();
    fs::set_permissions(exec.path(""), fs::Permissions::from_mode(0o777)).expect("our directory");
    let exec = exec.with(|command| command.uid(65534).gid(65534)).limit("1s").grace("300ms");
    let outcome = exec.adversary(["double-fork-daemon"]).run();
    assert!(outcome.was_ready(), "{}", outcome.stderr);
    assert_eq!(outcome.code, 124, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("degraded"), "{}", outcome.stderr);
    outcome.assert_nothing_left();
}

/// A pipe whose reader is gone.
fn closed_pipe() -> Stdio {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    writer.into()
}

#[test]
fn events_on_a_closed_stdout_stop_the_tree() {
    let exec = Exec::without_events().grace("300ms").arg("--events").arg("-");
    let outcome = exec.with(|command| command.stdout(closed_pipe())).adversary(["term-ignorer", "2"]).run();
    assert_ne!(outcome.code, 0, "{}", outcome.stderr);
    outcome.assert_nothing_left();
}

/// A pipe that is full after a few lines and that nobody reads; keep the reader.
fn stuck_pipe() -> (std::io::PipeReader, Stdio) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    (reader, writer.into())
}

#[test]
fn i12_a_reader_of_events_that_never_reads_holds_up_no_limit() {
    let (_reader, stdout) = stuck_pipe();
    let exec = Exec::without_events().limit("700ms").grace("100ms").arg("--events").arg("-");
    let outcome = exec.with(|command| command.stdout(stdout)).cmd(["sh", "-c", "while :; do (exit 0); done"]).run();
    // The tree is stopped in time; what could not be told is a failure of ours.
    assert!(outcome.stderr.contains("its limit was reached"), "{}", outcome.stderr);
    assert_eq!(outcome.code, 125, "{}", outcome.stderr);
    outcome.assert_nothing_left();
}

#[test]
fn i12_a_terminal_that_is_stopped_holds_up_no_limit() {
    let (_reader, stderr) = stuck_pipe();
    let exec = Exec::new().limit("700ms").grace("100ms").with(|command| command.stderr(stderr));
    let outcome = exec.cmd(["sh", "-c", "while :; do (exit 0); done"]).run();
    assert_eq!(outcome.code, 124);
    outcome.assert_tree_accounted();
    outcome.assert_nothing_left();
}

#[test]
fn a_command_that_writes_to_a_closed_stdout_dies_of_sigpipe() {
    let exec = Exec::new().with(|command| command.stdout(closed_pipe()));
    let outcome = exec.adversary(["print-flood", "1000000"]).run();
    assert_eq!(outcome.code, 128 + libc::SIGPIPE, "{}", outcome.stderr);
    outcome.assert_tree_accounted();
    outcome.assert_nothing_left();
}

#[test]
fn events_on_stdout_move_the_commands_output_to_stderr() {
    let exec = Exec::without_events().arg("--events").arg("-");
    let outcome = exec.cmd(["sh", "-c", "echo from the command"]).run();
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("from the command"), "{}", outcome.stderr);
    let kinds: Vec<Value> = outcome.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(kinds.iter().any(|event| event["kind"] == "run.exit"));
}

#[test]
fn output_goes_to_its_file_whole() {
    let exec = Exec::new();
    let file = exec.path("output");
    let outcome = exec.arg("--output").arg(&file).adversary(["print-flood", "3000000"]).run();
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert_eq!(fs::metadata(outcome.path("output")).expect("the output").len(), 3_000_000);
    assert!(outcome.stdout.is_empty());
}

#[test]
fn the_command_has_the_callers_stdin() {
    let mut running = Exec::new().with(|command| command.stdin(Stdio::piped())).cmd(["cat"]).start();
    running.feed("one\ntwo\n");
    let outcome = running.finish();
    assert_eq!((outcome.code, outcome.stdout.as_str()), (0, "one\ntwo\n"), "{}", outcome.stderr);
}

/// What an agent sees under `exec`, started by a caller that `prepare` made.
fn report(exec: Exec, prepare: impl FnMut() -> std::io::Result<()> + Send + Sync + 'static) -> Value {
    let exec = exec.with(|command| sys::before_exec(command, prepare));
    let agent = exec.path("agent");
    host::copy_program(&adversary(), &agent);
    fs::set_permissions(exec.path(""), fs::Permissions::from_mode(0o755)).expect("our directory");
    let outcome = exec.cmd([agent.as_os_str(), "report".as_ref()]).run();
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    serde_json::from_str(&outcome.stdout).expect("a report")
}

const NONE: &str = "0000000000000000";

#[test]
fn agent_sees_default_dispositions_and_three_fds() {
    let seen = report(Exec::new(), || {
        sys::default_signals();
        sys::leak_stdin_as(77)
    });
    assert_eq!(seen["fds"].as_object().expect("descriptors").keys().collect::<Vec<_>>(), ["0", "1", "2"]);
    for set in ["SigBlk", "SigIgn", "SigCgt"] {
        assert_eq!(seen["signals"][set], NONE, "{set}");
    }
}

#[test]
fn agent_ignores_what_its_caller_ignored() {
    let seen = report(Exec::new(), || {
        sys::default_signals();
        sys::ignore(libc::SIGHUP)
    });
    assert_eq!(seen["signals"]["SigIgn"], "0000000000000001", "as under nohup");
}

#[test]
fn agent_has_the_callers_environment_directory_and_rights() {
    let exec = Exec::new().with(|command| command.env_clear().env("PATH", "/usr/bin:/bin").env("A", "b c\nd"));
    let own = exec.path("");
    let seen = report(exec.with(|command| command.current_dir(own)), || Ok(()));
    assert_eq!(seen["env"], serde_json::json!({"PATH": "/usr/bin:/bin", "A": "b c\nd"}));
    assert!(seen["cwd"].as_str().is_some_and(|cwd| cwd.contains("agent-loop-tests-")));
    assert_eq!(seen["uid"][1], nix::unistd::geteuid().as_raw());
    assert_eq!(seen["pid"], seen["pgid"], "a process group of its own");
    let mine = fs::read_to_string("/proc/self/status").expect("/proc");
    let mine =
        |name: &str| mine.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t")).map(str::to_owned);
    assert_eq!(seen["caps"]["CapEff"].as_str().map(str::to_owned), mine("CapEff"));
    assert_eq!(seen["no_new_privs"].as_str().map(str::to_owned), mine("NoNewPrivs"));
}

#[test]
fn user_drops_everything() {
    needs!(root);
    let nobody = nix::unistd::User::from_name("nobody").ok().flatten().expect("a user nobody");
    let seen = report(Exec::new().arg("--user").arg("nobody"), || Ok(()));
    let (uid, gid) = (nobody.uid.as_raw(), nobody.gid.as_raw());
    assert_eq!(seen["uid"], serde_json::json!([uid, uid, uid]));
    assert_eq!(seen["gid"], serde_json::json!([gid, gid, gid]));
    assert!(seen["groups"].as_array().expect("groups").iter().all(|group| group == gid), "{}", seen["groups"]);
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(seen["caps"][set], NONE, "{set}");
    }
    assert_eq!(seen["no_new_privs"], "1");
}

#[test]
fn help_and_version_say_what_is_inside() {
    for args in [&["--version"][..], &["exec", "--help"]] {
        let out = Command::new(agent_loop()).args(args).stdin(Stdio::null()).output();
        let out = out.expect("agent-loop can be started");
        assert!(out.status.success() && !out.stdout.is_empty(), "{args:?}");
    }
    let full = File::options().write(true).open("/dev/full").expect("/dev/full");
    let status = Command::new(agent_loop()).arg("--version").stdout(full).status();
    assert!(status.is_ok_and(|status| status.code().is_some()), "no crash on a full disk");
}

/// The guard of an `exec` under way, if it has one now: its child that is not the command.
fn guard_of(running: &Running) -> Option<i32> {
    let main = running.wait_event("the birth", |event| event.kind == "run.born").who().pid;
    let list = format!("/proc/{0}/task/{0}/children", running.pid());
    let children = fs::read_to_string(list).expect("children");
    children.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()).find(|pid| *pid != main)
}

fn signal_guard(running: &Running, signal: i32) {
    let fd = sys::pidfd_open(guard_of(running).expect("a guard")).expect("the guard lives");
    sys::pidfd_signal(&fd, signal).expect("the guard can be signalled");
}

#[test]
fn a_stopped_guard_keeps_nobody_waiting() {
    needs!(bpf, cgroup);
    let running = Exec::new().limit("1s").grace("100ms").cmd(["sleep", "50"]).start();
    signal_guard(&running, libc::SIGSTOP);
    let outcome = running.finish();
    assert_eq!(outcome.code, 124, "{}", outcome.stderr);
    outcome.assert_nothing_left();
}

#[test]
fn a_killed_guard_is_told_of_and_replaced() {
    needs!(bpf, cgroup);
    let running = Exec::new().cmd(["sh", "-c", "sleep 1"]).start();
    let before = guard_of(&running);
    signal_guard(&running, libc::SIGKILL);
    eventually("another guard", || guard_of(&running).filter(|_| guard_of(&running) != before));
    let outcome = running.finish();
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("the guard of the tree ended before its time"), "{}", outcome.stderr);
    outcome.assert_nothing_left();
}

#[test]
fn signals_that_the_caller_had_blocked_still_stop_the_tree() {
    needs!(bpf, cgroup);
    let blocked = |command: &mut Command| {
        sys::before_exec(command, || {
            nix::sys::signal::SigSet::all().thread_block()?;
            Ok(())
        });
    };
    let exec = Exec::new().grace("100ms").with(|command| {
        blocked(command);
        command
    });
    let running = exec.cmd(["sleep", "50"]).start();
    running.wait_event("the command", |event| event.kind == "proc.exec");
    running.signal(libc::SIGTERM);
    let outcome = running.finish();
    assert_eq!(outcome.code, 128 + libc::SIGTERM, "{}", outcome.stderr);
    outcome.assert_nothing_left();
}

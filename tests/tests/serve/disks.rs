//! The log's disk full or read-only: deadlines are kept, nobody is signalled in vain, and it is said.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use agent_loop_tests::harness::{Host, eventually, skip};
use agent_loop_tests::{needs, test_name};
use nix::mount::{MsFlags, mount};

use crate::{kinds, said as said_by, shell, stop};

/// A small disk, in the mount namespace of this thread, which ends with it.
fn small(path: &Path, size: &str) {
    fs::create_dir(path).expect("a directory");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("our directory");
    let options = format!("size={size},mode=0755");
    mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), Some(options.as_str())).expect("a small disk");
}

fn fill(log: &Path) -> PathBuf {
    let filler = log.join("filler");
    fs::write(&filler, vec![0; 8 << 20]).expect_err("the disk to be full");
    filler
}

#[test]
fn a_deadline_is_kept_with_the_logs_disk_full() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    small(&host.path("log"), "1m");
    let daemon = host.serving();
    let go = host.path("agents/go");
    let flood = format!("until [ -e {} ]; do sleep 0.02; done; while :; do echo more; sleep 0.02; done", go.display());
    let id = host.start(&["--limit", "3s", "--grace", "100ms"], shell(&flood));
    host.in_state(&id, "running");
    let filler = fill(&host.path("log"));
    fs::write(&go, "").expect("a scratch file");
    let run = host.ended(&id);
    assert_eq!((&run["outcome"], &run["proven"]), (&"deadline".into(), &true.into()), "{run}\n{}", daemon.log());
    assert!(daemon.log().contains("No space left"), "it is said: {}", daemon.log());
    fs::remove_file(&filler).expect("our file");
    // With room again all is as before.
    eventually("the audit log to be written again", || (!host.degraded().concat().contains("audit log")).then_some(()));
    let id = host.start(&[], shell("echo here; exit 4"));
    assert_eq!(host.ended(&id)["code"], 4);
    assert_eq!(host.output(&id), "here\n");
}

#[test]
fn a_deadline_is_kept_with_the_logs_disk_read_only() {
    needs!(root, bpf, cgroup);
    let host = Host::new();
    small(&host.path("log"), "1m");
    let mut daemon = host.serving();
    let id = host.start(&["--limit", "5s", "--grace", "100ms"], shell("while :; do sleep 0.1; done"));
    host.in_state(&id, "running");
    // With nobody who has a file of it open for writing it can be made so.
    host.kill_keeper();
    daemon.kill();
    let log = host.path("log");
    eventually("a disk that is read-only", || {
        for pid in host.processes() {
            let pidfd = agent_loop_tests::sys::pidfd_open(pid.cast_signed()).ok()?;
            let _ = agent_loop_tests::sys::pidfd_signal(&pidfd, libc::SIGKILL);
        }
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(None::<&str>, &log, None::<&str>, flags, None::<&str>).ok()
    });
    let daemon = host.serving();
    let said = host.degraded().concat();
    assert!(said.contains("nobody reads its output"), "{said}");
    let run = eventually("its end", || Some(host.run(&id)).filter(|run| run["state"] == "ended"));
    assert_eq!((&run["outcome"], &run["proven"]), (&"deadline".into(), &true.into()), "{run}\n{}", daemon.log());
}

/// Leaves so many bytes of a disk.
fn leave(disk: &Path, bytes: u64) {
    let free = nix::sys::statvfs::statvfs(disk).expect("a disk");
    let free = free.blocks_available() * free.fragment_size();
    let filler = fs::File::create(disk.join("filler")).expect("a file");
    nix::fcntl::fallocate(&filler, nix::fcntl::FallocateFlags::empty(), 0, (free - bytes).cast_signed()).expect("room");
}

#[test]
fn what_is_launched_while_the_logs_disk_is_nearly_full_is_as_was_configured() {
    needs!(root, bpf, cgroup);
    for launches in [true, false] {
        let host = Host::new();
        let policy = if launches { "launch" } else { "stop-launching" };
        host.configure("", "user = \"nobody\"\n", &format!("[audit]\non_full = \"{policy}\"\n"));
        small(&host.path("log"), "32m");
        leave(&host.path("log"), 1 << 20);
        let _daemon = host.serving();
        let said = eventually("it to be told", || Some(host.degraded().concat()).filter(|it| it.contains("audit log")));
        let output = host.ask(["start", "--cwd", "/", "--", "sh", "-c", "exit 4"]);
        let id = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if launches {
            assert!(said.contains("nearly full"), "{said}");
            assert_eq!(host.ended(&id)["code"], 4);
            continue;
        }
        assert!(said.contains("nothing is launched"), "{said}");
        // It waits, and is launched once there is room.
        if output.status.success() {
            assert_eq!(host.run(&id)["state"], "queued");
        }
        fs::remove_file(host.path("log/filler")).expect("our file");
        eventually("room to be seen", || host.degraded().is_empty().then_some(()));
        let id = if output.status.success() { id } else { host.start(&[], shell("exit 4")) };
        assert_eq!(host.ended(&id)["code"], 4);
    }
}

/// A disk of its own, in the mount namespace of this thread, that stops answering when it is told to.
struct Hanging {
    path: PathBuf,
    hangs: bool,
}

impl Hanging {
    fn mount(host: &Host, name: &str) -> Self {
        let (image, path) = (host.path(format!("{}.img", name.replace('/', "-"))), host.path(name));
        fs::File::create(&image).and_then(|file| file.set_len(64 << 20)).expect("a scratch file");
        run("mkfs.ext4", &["-q".as_ref(), image.as_os_str()]);
        fs::create_dir(&path).expect("a directory");
        run("mount", &["-o".as_ref(), "loop".as_ref(), image.as_os_str(), path.as_os_str()]);
        fs::remove_dir(path.join("lost+found")).expect("an empty directory");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("our directory");
        Self { path, hangs: false }
    }

    /// Whoever writes to it waits, where no signal reaches it, until it answers again.
    fn hang(&mut self) {
        run("fsfreeze", &["-f".as_ref(), self.path.as_os_str()]);
        self.hangs = true;
    }

    fn answer(&mut self) {
        if std::mem::take(&mut self.hangs) {
            run("fsfreeze", &["-u".as_ref(), self.path.as_os_str()]);
        }
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        self.answer();
    }
}

fn run(program: &str, args: &[&OsStr]) {
    let done = Command::new(program).args(args).output().expect("a program of the host");
    assert!(done.status.success(), "{program}: {}", String::from_utf8_lossy(&done.stderr));
}

/// Why no disk can be made to hang here, if so.
fn without_loops() -> Option<&'static str> {
    let programs = ["/usr/sbin/mkfs.ext4", "/usr/sbin/fsfreeze"].iter().all(|it| Path::new(it).exists());
    (!programs || !Path::new("/dev/loop-control").exists()).then_some("loop devices, mkfs.ext4 or fsfreeze are missing")
}

#[test]
fn with_a_disk_of_the_log_that_does_not_answer_runs_are_stopped_in_time_and_by_hand() {
    needs!(root, bpf, cgroup);
    if let Some(why) = without_loops() {
        return skip(test_name!(), why);
    }
    let host = Host::new();
    let log = Hanging::mount(&host, "log");
    let daemon = host.serving();
    // Where the test fails it answers before anybody's end is awaited.
    let mut log = log;
    let flood = "while :; do echo more; sleep 0.01; done";
    let limited = host.start(&["--limit", "3s", "--grace", "100ms"], shell(flood));
    let other = host.start(&["--grace", "100ms"], shell(flood));
    for id in [&limited, &other] {
        host.in_state(id, "running");
        eventually("some output", || (!host.output(id).is_empty()).then_some(()));
    }

    log.hang();
    let ended = host.ended(&limited);
    assert_eq!((&ended["outcome"], &ended["proven"]), (&"deadline".into(), &true.into()), "{ended}\n{}", daemon.log());
    let ended = stop(&host, &other);
    assert_eq!((&ended["outcome"], &ended["proven"]), (&"operator".into(), &true.into()), "{ended}\n{}", daemon.log());
    // Nothing is launched without its record.
    let third = host.ask(["start", "--cwd", "/", "--", "sh", "-c", "exit 4"]);
    let third = third.status.success().then(|| String::from_utf8_lossy(&third.stdout).trim().to_owned());
    let said = eventually("it to be told", || Some(daemon.log()).filter(|it| it.contains("its disk does not answer")));
    assert!(said.contains("its disk does not answer"), "{said}");

    // Once it answers, the log has all of it, and what waited is launched.
    log.answer();
    let id = third.unwrap_or_else(|| host.start(&[], shell("exit 4")));
    assert_eq!(host.ended(&id)["code"], 4);
    eventually("the log to be whole", || {
        let has = |id, kind: &str| kinds(&host.events(id)).contains(&kind);
        (has(&limited, "run.exit") && has(&other, "run.exit") && has(&other, "signal.result")).then_some(())
    });
    assert!(!host.output(&other).is_empty());
    let audit = host.path("log/audit");
    let judged = host.ask([OsStr::new("audit"), OsStr::new("verify"), OsStr::new("--account"), audit.as_os_str()]);
    // 1: some lines came after the latest checkpoint.
    let text = String::from_utf8_lossy(&judged.stdout).into_owned();
    assert!(judged.status.code().is_some_and(|code| code <= 1), "{text}{}", said_by(&judged));
}

#[test]
fn while_the_disk_of_the_output_does_not_answer_nobody_is_stopped_for_silence() {
    needs!(root, bpf, cgroup);
    if let Some(why) = without_loops() {
        return skip(test_name!(), why);
    }
    let host = Host::new();
    let log = Hanging::mount(&host, "log");
    let daemon = host.serving();
    // Where the test fails it answers before anybody's end is awaited.
    let mut log = log;
    // One that writes all the time, and waits once its pipe is full; one that has nothing to say.
    let loud = host.start(&["--idle", "2s", "--grace", "100ms"], shell("while :; do echo more; sleep 0.01; done"));
    let silent = host.start(&["--idle", "2s", "--grace", "100ms"], shell("read x < /dev/null; exec sleep 600"));
    let clock = host.start(&["--limit", "8s", "--grace", "100ms"], shell("exec sleep 600"));
    host.in_state(&loud, "running");
    eventually("some output", || (!host.output(&loud).is_empty()).then_some(()));
    log.hang();
    assert_eq!(host.ended(&clock)["outcome"], "deadline");
    // Long after the limit of silence: whoever was held up by our own disk lives.
    assert_eq!(host.run(&loud)["state"], "running", "{}", daemon.log());
    log.answer();
    assert_eq!(host.ended(&silent)["outcome"], "idle", "{}", daemon.log());
    assert_eq!(host.run(&loud)["state"], "running", "{}", daemon.log());
    let before = host.output(&loud).len();
    eventually("more output", || (host.output(&loud).len() > before).then_some(()));
    stop(&host, &loud);
}

#[test]
fn with_a_disk_of_the_state_that_does_not_answer_runs_are_stopped_and_questions_are_answered() {
    needs!(root, bpf, cgroup);
    if let Some(why) = without_loops() {
        return skip(test_name!(), why);
    }
    let host = Host::new();
    let state = Hanging::mount(&host, "state");
    let daemon = host.serving();
    // Where the test fails it answers before anybody's end is awaited.
    let mut state = state;
    let over = host.start(&[], shell("exit 3"));
    assert_eq!(host.ended(&over)["code"], 3);
    let limited = host.start(&["--limit", "2s", "--grace", "100ms"], shell("sleep 600"));
    let other = host.start(&["--grace", "100ms"], shell("sleep 600"));
    for id in [&limited, &other] {
        host.in_state(id, "running");
    }
    let mains = [&limited, &other].map(|id| host.run(id)["main_pid"].as_i64().expect("a process"));

    state.hang();
    let gone = |pid: i64| !Path::new(&format!("/proc/{pid}")).exists();
    eventually("the limit to be kept", || gone(mains[0]).then_some(()));
    let killed = host.ask(["kill", &other, "--reason", "the test is over"]);
    assert!(killed.status.success(), "{}", said_by(&killed));
    eventually("the other to be stopped", || gone(mains[1]).then_some(()));
    // What is told needs no state; that it does not answer is told too.
    assert_eq!(host.run(&limited)["alive"], 0);
    let said =
        eventually("it to be told", || Some(host.degraded().concat()).filter(|it| it.contains("disk of the state")));
    assert!(said.contains("has not answered for"), "{said}");

    state.answer();
    for (id, outcome) in [(&limited, "deadline"), (&other, "operator")] {
        let ended = host.ended(id);
        assert_eq!((&ended["outcome"], &ended["proven"]), (&outcome.into(), &true.into()), "{ended}\n{}", daemon.log());
    }
    eventually("all to be well", || host.degraded().is_empty().then_some(()));
    let id = host.start(&[], shell("exit 4"));
    assert_eq!((host.ended(&id)["code"].as_i64(), host.run(&over)["code"].as_i64()), (Some(4), Some(3)));
}

#[test]
fn with_a_disk_of_the_files_of_runs_that_does_not_answer_limits_are_kept_and_a_launch_is_given_up_with_its_reason() {
    needs!(root, bpf, cgroup);
    if let Some(why) = without_loops() {
        return skip(test_name!(), why);
    }
    let host = Host::new();
    fs::create_dir(host.path("log")).expect("a directory");
    fs::set_permissions(host.path("log"), fs::Permissions::from_mode(0o755)).expect("our directory");
    // The audit log and the state are elsewhere, and answer.
    let runs = Hanging::mount(&host, "log/runs");
    let daemon = host.serving();
    let mut runs = runs;
    let limited = host.start(&["--limit", "3s", "--grace", "100ms"], shell("exec sleep 600"));
    let other = host.start(&["--grace", "100ms"], shell("exec sleep 600"));
    for id in [&limited, &other] {
        host.in_state(id, "running");
    }
    runs.hang();
    let ran = host.path("agents/ran");
    let launched = host.start(&[], shell(&format!("touch {}", ran.display())));
    host.in_state(&launched, "launching");
    let ended = host.ended(&limited);
    assert_eq!((&ended["outcome"], &ended["proven"]), (&"deadline".into(), &true.into()), "{ended}\n{}", daemon.log());
    let ended = host.ended(&launched);
    let why = ended["why"].to_string();
    assert_eq!(ended["outcome"], "launch_failed", "{ended}\n{}", daemon.log());
    assert!(why.contains("making the files of its output: their disk has not answered for"), "{why}");
    assert!(host.degraded().concat().contains("a disk of the files of runs has not answered for"));
    assert_eq!(stop(&host, &other)["outcome"], "operator", "{}", daemon.log());
    // A keeper that is lost meanwhile is replaced, and nothing waits for what it would have to open.
    let last = host.keeper();
    host.kill_keeper();
    eventually("another keeper", || host.has_keeper().filter(|keeper| *keeper != last));

    runs.answer();
    let id = host.start(&[], shell("echo here; exit 4"));
    assert_eq!(host.ended(&id)["code"], 4, "{}", daemon.log());
    assert_eq!(host.output(&id), "here\n");
    // What came too late is removed as everything else.
    let pipes = || fs::read_dir(host.path("state/pipes")).expect("the pipes").count();
    eventually("no pipe of a run to be left", || (pipes() == 0).then_some(()));
    assert!(!ran.exists(), "it was given up");
    eventually("all to be well", || host.degraded().is_empty().then_some(()));
}

#[test]
fn a_keeper_that_is_lost_while_the_disk_of_the_state_does_not_answer_is_replaced_and_limits_are_kept() {
    needs!(root, bpf, cgroup);
    if let Some(why) = without_loops() {
        return skip(test_name!(), why);
    }
    let host = Host::new();
    let state = Hanging::mount(&host, "state");
    let daemon = host.serving();
    let mut state = state;
    let over = host.start(&[], shell("exit 3"));
    assert_eq!(host.ended(&over)["code"], 3);
    let go = host.path("agents/go");
    let wait = format!("until [ -e {} ]; do sleep 0.02; done; exec sleep 600", go.display());
    let limited = host.start(&["--limit", "12s", "--grace", "100ms"], shell(&wait));
    host.in_state(&limited, "running");
    let first = host.start(&["--limit", "3s", "--grace", "100ms"], shell("exec sleep 600"));
    host.in_state(&first, "running");
    let mains = [&first, &limited].map(|id| host.run(id)["main_pid"].as_i64().expect("a process"));
    let gone = |pid: i64| !Path::new(&format!("/proc/{pid}")).exists();
    // Of nobody that the fleet knows: what it is, only the state could tell.
    fs::create_dir(host.runs().join(format!("run-{over}.7"))).expect("a cgroup");

    state.hang();
    // What is to be remembered of its end waits for the disk from now on.
    eventually("the first limit to be kept", || gone(mains[0]).then_some(()));
    eventually("the silence to be seen", || host.degraded().concat().contains("disk of the state").then_some(()));
    let last = host.keeper();
    host.kill_keeper();
    eventually("another keeper", || host.has_keeper().filter(|keeper| *keeper != last));
    fs::write(&go, "").expect("a scratch file");
    eventually("the limit to be kept", || gone(mains[1]).then_some(()));
    assert!(daemon.log().contains("that are not known are left as they are"), "{}", daemon.log());

    state.answer();
    let ended = host.ended(&limited);
    assert_eq!((&ended["outcome"], &ended["proven"]), (&"deadline".into(), &true.into()), "{ended}\n{}", daemon.log());
    assert_eq!(host.ended(&host.start(&[], shell("exit 4")))["code"], 4);
    let _ = fs::remove_dir(host.runs().join(format!("run-{over}.7")));
}

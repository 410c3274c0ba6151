//! The log's disk full or read-only: deadlines are kept, nobody is signalled in vain, and it is said.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use agent_loop_tests::harness::{Host, eventually};
use agent_loop_tests::needs;
use nix::mount::{MsFlags, mount};

use crate::shell;

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

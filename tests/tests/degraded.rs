//! Less than everything: no rights, no cgroup, no BTF, no eBPF program, namespaces. What is promised holds, what is
//! not known is said, and nothing is left.

use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;

use agent_loop_tests::harness::cgroup::{self, Cell};
use agent_loop_tests::harness::{Exec, Outcome, adversary, agent_loop, eventually, host};
use agent_loop_tests::{needs, sys};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

/// What an `exec` has to do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Without {
    /// eBPF, by its own choice.
    Choice,
    /// Rights.
    Rights,
    /// A mount of cgroup v2.
    Cgroup,
    /// The kernel's type information.
    Btf,
    /// A whole eBPF program.
    Program,
    /// Ring buffers, as kernels before Linux 5.8.
    Rings,
}

impl Without {
    const ALL: [Self; 6] = [Self::Choice, Self::Rights, Self::Cgroup, Self::Btf, Self::Program, Self::Rings];

    /// Whether the tree has a cgroup all the same, which proves it empty.
    fn is_proven(self) -> bool {
        !matches!(self, Self::Rights | Self::Cgroup)
    }
}

/// A copy of `agent-loop` and the adversary that everybody may execute.
struct Programs {
    dir: TempDir,
}

impl Programs {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("agent-loop-tests-").tempdir().expect("a directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("our directory");
        for (program, name) in [(agent_loop(), "agent-loop"), (&*adversary(), "adversary")] {
            host::copy_program(program, &dir.path().join(name));
        }
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Damages the eBPF program inside the copy, so that it is no ELF file any more.
    fn without_program(self) -> Self {
        let path = self.path("agent-loop");
        let mut bytes = fs::read(&path).expect("the copy");
        // 64 bits, little endian, relocatable, for BPF (machine 247).
        let is_object = |at: &[u8]| at.starts_with(b"\x7fELF\x02\x01") && at[16..20] == [1, 0, 247, 0];
        let at: Vec<usize> = (1..bytes.len() - 20).filter(|at| is_object(&bytes[*at..])).collect();
        assert_eq!(at.len(), 1, "the eBPF program is inside once");
        bytes[at[0] + 1] = b'X';
        // By another process again: a descriptor of ours that writes to it may be inherited by what other tests start.
        let damaged = self.path("damaged");
        fs::write(&damaged, bytes).expect("room");
        host::copy_program(&damaged, &path);
        self
    }
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

/// An `exec` in `cell` that has to do without something, and what must live until its end.
fn exec(without: Without, cell: &Cell) -> (Exec, Programs) {
    let programs = Programs::new();
    let programs = if without == Without::Program { programs.without_program() } else { programs };
    let mut command = Command::new("setpriv");
    if without == Without::Rights {
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    }
    command.arg(programs.path("agent-loop"));
    let exec = Exec::started_by(command).with_events().with(|command| cell.hold(command)).grace("300ms");
    fs::set_permissions(exec.path(""), fs::Permissions::from_mode(0o777)).expect("our directory");
    let exec = match without {
        Without::Choice => exec.arg("--backend").arg("pidfd"),
        Without::Rights | Without::Program => exec,
        Without::Cgroup => {
            let at = cgroup::mount().expect("cgroup v2 is mounted");
            mounts(exec, move || umount2(&at, MntFlags::MNT_DETACH))
        }
        Without::Btf => {
            let none: Option<&str> = None;
            let at = Path::new("/sys/kernel/btf/vmlinux");
            mounts(exec, move || mount(Some("/dev/null"), at, none, MsFlags::MS_BIND, none))
        }
        Without::Rings => exec.with(without_rings),
    };
    (exec, programs)
}

/// Has the kernel answer as one without ring buffers does: EINVAL to who creates one.
fn without_rings(command: &mut Command) -> &mut Command {
    const BPF_MAP_TYPE_RINGBUF: u32 = 27;
    let (to, from) = UnixDatagram::pair().expect("a pair of sockets");
    std::thread::spawn(move || {
        let fds = eventually("the command to start", || sys::receive(from.as_fd()).ok()).1;
        sys::refuse_maps(&fds[0], BPF_MAP_TYPE_RINGBUF, libc::EINVAL).expect("a listener");
    });
    sys::before_exec(command, move || sys::ask_before(libc::SYS_bpf, to.as_fd()))
}

#[test]
fn without_ring_buffers_doctor_says_what_is_missing() {
    needs!(root, bpf, cgroup);
    let mut doctor = Command::new(agent_loop());
    let said = without_rings(doctor.args(["doctor", "--json"])).output().expect("it starts");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("ring buffer"), "{said}");
}

fn says_degraded(without: Without, outcome: &Outcome) {
    let tree = if without.is_proven() { "tree: proven empty" } else { "tree: not proven" };
    for word in ["agent-loop: degraded: ", tree, "degraded mode"] {
        assert!(outcome.stderr.contains(word), "{without:?}: no {word:?} in\n{}", outcome.stderr);
    }
    let host = outcome.of_kind("host.start").next().expect("a record of the host");
    assert_eq!(host.value["host"]["backend"], "pidfd", "{without:?}");
    assert!(
        host.value["host"]["degraded"].as_array().is_some_and(|why| !why.is_empty()),
        "{without:?}: {}",
        host.value
    );
    let tree = if without.is_proven() { "empty" } else { "not proven" };
    assert_eq!(outcome.run_exit().value["tree"], tree, "{}", outcome.run_exit().value);
}

#[test]
fn at_the_limit_the_tree_is_stopped_whatever_is_missing() {
    needs!(root, cgroup);
    for without in Without::ALL {
        for act in [&["double-fork-daemon"][..], &["term-ignorer", "3"], &["subreaper-daemon"], &["stopper"]] {
            let cell = Cell::new();
            let (exec, programs) = exec(without, &cell);
            let (oracle, ready) = (exec.path("oracle"), exec.path("ready"));
            let mut command = vec![programs.path("adversary").into_os_string()];
            command.extend(act.iter().map(Into::into));
            command.extend(["--oracle".into(), oracle.into(), "--ready".into(), ready.into()]);
            let outcome = exec.limit("1s").cmd(command).run();
            assert_eq!(outcome.code, 124, "{without:?} {act:?}: {}", outcome.stderr);
            assert!(outcome.was_ready(), "{without:?} {act:?}: {}", outcome.stderr);
            says_degraded(without, &outcome);
            cell.assert_empty();
            outcome.assert_nothing_left();
        }
    }
}

#[test]
fn leftovers_are_named_and_stopped_whatever_is_missing() {
    needs!(root, cgroup);
    for without in Without::ALL {
        let cell = Cell::new();
        let (exec, _programs) = exec(without, &cell);
        let outcome = exec.cmd(["sh", "-c", "setsid sleep 50 & exit 3"]).run();
        assert_eq!(outcome.code, 3, "{without:?}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(", 1 left behind by the command"), "{without:?}: {}", outcome.stderr);
        let births: Vec<_> = outcome.births().filter(|birth| birth.kind == "proc.fork").collect();
        assert_eq!(births.len(), 1, "{without:?}: {}", outcome.stderr);
        let named = format!("left behind: {} ", births[0].who().pid);
        assert!(outcome.stderr.contains(&named), "{without:?}: no {named:?} in\n{}", outcome.stderr);
        says_degraded(without, &outcome);
        cell.assert_empty();
        outcome.assert_nothing_left();
    }
}

#[test]
fn the_commands_own_end_is_exact_whatever_is_missing() {
    needs!(root, cgroup);
    for without in Without::ALL {
        for (script, code) in [("exit 0", 0), ("exit 77", 77), ("kill -KILL $$", 128 + 9), ("kill -TERM $$", 128 + 15)]
        {
            let cell = Cell::new();
            let (exec, _programs) = exec(without, &cell);
            let outcome = exec.cmd(["sh", "-c", script]).run();
            assert_eq!(outcome.code, code, "{without:?}: {}", outcome.stderr);
            cell.assert_empty();
        }
    }
}

#[test]
fn ebpf_or_nothing_is_nothing_and_leaves_nothing() {
    needs!(root, cgroup);
    for without in [Without::Rights, Without::Cgroup, Without::Btf, Without::Program, Without::Rings] {
        let cell = Cell::new();
        let (exec, _programs) = exec(without, &cell);
        let ready = exec.path("ready");
        let outcome = exec.arg("--backend").arg("ebpf").cmd(["touch".as_ref(), ready.as_os_str()]).run();
        assert_eq!(outcome.code, 125, "{without:?}: {}", outcome.stderr);
        assert!(!outcome.was_ready(), "{without:?}: the command ran all the same");
        let missing = match without {
            Without::Rights => "Permission denied",
            Without::Cgroup => "no cgroup",
            Without::Btf => "BTF",
            Without::Program => "eBPF program",
            Without::Rings => "ring buffer",
            Without::Choice => unreachable!("it is not among them"),
        };
        for word in [missing, "agent-loop doctor"] {
            assert!(outcome.stderr.contains(word), "{without:?}: no {word:?} in\n{}", outcome.stderr);
        }
        cell.assert_empty();
        outcome.assert_nothing_left();
    }
}

/// An `exec` with eBPF or nothing, started by `unshare` with these options.
fn unshared(cell: &Cell, options: &[&str]) -> Exec {
    let mut command = Command::new("unshare");
    command.args(options).arg(agent_loop());
    let exec = Exec::started_by(command).with_events().with(|command| cell.hold(command));
    exec.arg("--backend").arg("ebpf").grace("300ms")
}

#[test]
fn in_a_time_namespace_the_limit_is_kept_and_times_are_right() {
    needs!(root, bpf, cgroup);
    // A day ahead of the kernel's own clock: by that, the limit would have passed long ago.
    let ahead = 86_400_000_000_000i64;
    let cell = Cell::new();
    let exec = unshared(&cell, &["--time", "--boottime", "86400", "--fork", "--kill-child"]);
    let outcome = exec.limit("1h").cmd(["sh", "-c", "(exit 3); exit 7"]).run();
    assert_eq!(outcome.code, 7, "{}", outcome.stderr);
    outcome.assert_tree_accounted();
    let text = fs::read_to_string(outcome.path("events.jsonl")).expect("the events");
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines[0]["clock_ahead_ns"], ahead, "{}", lines[0]);
    let times: Vec<&str> = lines.iter().filter_map(|line| line["time"].as_str()).collect();
    let (first, last) = (times[0], times[times.len() - 1]);
    assert!(times.iter().all(|time| (first..=last).contains(time)), "{times:?}");
    let elapsed = outcome.run_exit().value["elapsed_ms"].as_u64().expect("a number");
    assert!(elapsed < 3_600_000, "{elapsed} ms");
    for line in outcome.stderr.lines().filter(|line| line.contains(" end ") || line.contains(" exec ")) {
        let at: f64 = line.trim_start().split('s').next().and_then(|at| at.parse().ok()).expect("seconds");
        assert!(at < 3_600.0, "{line}");
    }
    cell.assert_empty();
}

#[test]
fn in_a_time_namespace_the_limit_still_strikes() {
    needs!(root, bpf, cgroup);
    for offset in ["86400", "-60"] {
        let cell = Cell::new();
        let exec = unshared(&cell, &["--time", "--boottime", offset, "--fork", "--kill-child"]);
        let outcome = exec.limit("1s").adversary(["term-ignorer"]).run();
        assert_eq!(outcome.code, 124, "{offset}: {}", outcome.stderr);
        assert!(outcome.was_ready(), "{offset}: {}", outcome.stderr);
        let killed = |event: &agent_loop_tests::harness::Event| {
            event.is_death() && event.status.is_some_and(|status| status.signal == Some(libc::SIGKILL))
        };
        assert!(outcome.events.iter().any(killed), "{offset}: {}", outcome.stderr);
        let text = fs::read_to_string(outcome.path("events.jsonl")).expect("the events");
        let causes = text.lines().filter(|line| line.contains("\"proc.exit\"") && line.contains("\"signal\":9"));
        assert!(causes.clone().all(|line| line.contains("stopped_by_us")), "{offset}: {text}");
        cell.assert_empty();
    }
}

/// As on kernels before Linux 5.14: frozen, then swept.
#[test]
fn without_the_kill_of_a_cgroup_the_tree_is_stopped_and_proven_empty() {
    needs!(root, bpf, cgroup);
    for backend in ["ebpf", "pidfd"] {
        for act in [
            &["fork-bomb", "200", "100000"][..],
            &["hopper", "5"],
            &["phoenix", "2"],
            &["term-ignorer", "5"],
            &["leader-exits-first"],
            &["nested-cgroup", "--freeze"],
            &["nested-cgroup", "--threaded"],
            &["stopper"],
        ] {
            let cell = Cell::new();
            let exec = Exec::new().with(|command| cell.hold(command)).arg("--no-cgroup-kill");
            let exec = exec.arg("--backend").arg(backend).limit("1s").grace("100ms");
            let outcome = exec.adversary(act).run();
            assert_eq!(outcome.code, 124, "{backend} {act:?}: {}", outcome.stderr);
            assert!(
                outcome.was_ready() && outcome.stderr.contains("tree: proven empty"),
                "{act:?}: {}",
                outcome.stderr
            );
            // Looks at the tree miss how others ended.
            if backend == "ebpf" {
                outcome.assert_tree_accounted();
            }
            cell.assert_empty();
            outcome.assert_nothing_left();
        }
    }
}

#[test]
fn without_the_kill_of_a_cgroup_the_guard_empties_the_tree_too() {
    needs!(root, bpf, cgroup);
    for act in [&["fork-bomb", "200", "100000"][..], &["hopper", "5"]] {
        let cell = Cell::new();
        let exec = Exec::new().with(|command| cell.hold(command)).arg("--no-cgroup-kill");
        let running = exec.adversary(act).start();
        running.wait_ready();
        running.signal(libc::SIGKILL);
        let outcome = running.finish();
        assert_eq!(outcome.code, -libc::SIGKILL);
        eventually("the end of the tree's cgroup", || cell.below().is_empty().then_some(()));
        cell.assert_empty();
    }
}

const PID_NAMESPACE: &[&str] = &["--pid", "--fork", "--kill-child", "--mount-proc"];
const CGROUP_NAMESPACE: &[&str] = &["--cgroup"];

#[test]
fn in_namespaces_every_birth_and_death_is_exact_and_has_their_numbers() {
    needs!(bpf, cgroup);
    for options in [PID_NAMESPACE, CGROUP_NAMESPACE, &[PID_NAMESPACE, CGROUP_NAMESPACE].concat()] {
        let cell = Cell::new();
        let outcome = unshared(&cell, options).adversary(["fork-no-exec", "100"]).run();
        assert_eq!(outcome.code, 0, "{options:?}: {}", outcome.stderr);
        // The adversary knows the numbers of its own namespace alone.
        outcome.assert_agrees_with(&outcome.oracle());
        outcome.assert_tree_accounted();
        outcome.assert_no_gap();
        assert_eq!(outcome.births().count(), 101, "{options:?}");
        if options.contains(&"--pid") {
            assert!(outcome.births().all(|birth| birth.who().pid < 1000), "{options:?}: {}", outcome.stderr);
        }
        cell.assert_empty();
    }
}

#[test]
fn in_namespaces_the_tree_is_stopped_and_proven_empty() {
    needs!(bpf, cgroup);
    for options in [PID_NAMESPACE, CGROUP_NAMESPACE, &[PID_NAMESPACE, CGROUP_NAMESPACE].concat()] {
        for act in [&["double-fork-daemon"][..], &["term-ignorer", "3"], &["setsid-chain", "10"]] {
            let cell = Cell::new();
            let outcome = unshared(&cell, options).limit("1s").adversary(act).run();
            assert_eq!(outcome.code, 124, "{options:?} {act:?}: {}", outcome.stderr);
            assert!(outcome.was_ready() && outcome.stderr.contains("tree: proven empty"), "{}", outcome.stderr);
            outcome.assert_tree_accounted();
            cell.assert_empty();
        }
    }
}

/// The numbers in it mean other processes: a signal could hit one of them.
#[test]
fn the_proc_of_another_namespace_is_refused() {
    needs!(root, cgroup);
    for backend in ["auto", "ebpf", "pidfd"] {
        let cell = Cell::new();
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child"]).arg(agent_loop());
        let exec = Exec::started_by(command).with(|command| cell.hold(command)).arg("--backend").arg(backend);
        let outcome = exec.adversary(["hold", "--hold-ms", "0"]).run();
        assert_eq!(outcome.code, 125, "{backend}: {}", outcome.stderr);
        assert!(outcome.stderr.contains("mount -t proc proc /proc"), "{backend}: {}", outcome.stderr);
        assert!(!outcome.was_ready(), "{backend}: the command ran all the same");
        cell.assert_empty();
    }
}

/// Closes what a shell closes by `<&- >&- 2>&-`.
fn close(exec: Exec, fds: &'static [i32]) -> Exec {
    exec.with(|command| sys::before_exec(command, || fds.iter().try_for_each(|fd| sys::close(*fd))))
}

#[test]
fn closed_streams_lead_nowhere_and_not_into_our_files() {
    for fds in [&[0, 1, 2][..], &[0], &[1], &[2], &[0, 2]] {
        for output in [false, true] {
            let mut exec = close(Exec::new(), fds);
            let (file, own) = (exec.path("output"), exec.path("own"));
            if output {
                exec = exec.arg("--output").arg(&file);
            }
            let script = "echo STRAY; echo STRAY >&2; readlink /proc/$$/fd/* > \"$0\"; exit 5";
            let outcome = exec.cmd(["sh".as_ref(), "-c".as_ref(), script.as_ref(), own.as_os_str()]).run();
            assert_eq!(outcome.code, 5, "{fds:?}: {}", outcome.stderr);
            // Every line of the events file was read as a record; the word is in the command's arguments alone.
            outcome.assert_tree_accounted();
            let lines = fs::read_to_string(outcome.path("events.jsonl")).expect("events");
            assert!(lines.lines().all(|line| line.starts_with('{')), "{fds:?}: {lines}");
            let wrote = fs::read_to_string(outcome.path("output")).unwrap_or_default();
            assert_eq!(wrote, if output { "STRAY\nSTRAY\n" } else { "" }, "{fds:?}");
            let seen = fs::read_to_string(outcome.path("own")).expect("the command ran");
            assert!(!seen.contains("events") && !seen.contains("memfd"), "{fds:?}: {seen}");
            outcome.assert_nothing_left();
        }
    }
}

#[test]
fn events_on_a_closed_stdout_are_refused() {
    let exec = close(Exec::without_events().arg("--events").arg("-"), &[1]);
    let outcome = exec.adversary(["hold", "--hold-ms", "0"]).run();
    assert_eq!(outcome.code, 125, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("closed"), "{}", outcome.stderr);
    assert!(!outcome.was_ready(), "the command ran all the same");
    outcome.assert_nothing_left();
}

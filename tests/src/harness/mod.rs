//! Runs the built `agent-loop`, reads its events, and looks at what it leaves.
//!
//! - [`Exec`] builds a command line, [`Running`] is the process under way, [`Outcome`] is its end
//! - [`Event`] is one JSON line of `--events`
//! - [`Claude`] is the real `claude` command under it
//! - [`Host`] has a daemon and a keeper of its own, [`Daemon`] is one of them
//! - [`Scene`] is a host that takes issues of a fake forge
//! - [`Terminal`] is what a person types and sees
//! - [`host`] is what the kernel says of processes, cgroups and pins afterwards
//! - [`cgroup`] finds cgroup v2, [`OldCell`] limits a process by a controller of v1
//!
//! Nothing here waits for a time: it polls for a fact, within [`PATIENCE`].

pub mod cgroup;
mod claude;
mod daemon;
mod events;
mod exec;
pub mod host;
mod old_cgroup;
mod outcome;
mod scene;
mod terminal;

use std::io::{Read as _, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

pub use claude::{Claude, claude};
pub use daemon::{Daemon, Host};
pub use events::{Event, Proc};
pub use exec::{Exec, Running};
pub use old_cgroup::OldCell;
pub use outcome::Outcome;
pub use scene::{Scene, WORKS};
pub use terminal::Terminal;

/// How long a test waits for a fact before it fails.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Polls until `fact` gives something.
///
/// # Panics
/// When it has not after [`PATIENCE`].
pub fn eventually<T>(what: &str, mut fact: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = fact() {
            return found;
        }
        assert!(Instant::now() < end, "waited {PATIENCE:?} for {what}");
        thread::sleep(Duration::from_millis(3));
    }
}

/// The built `agent-loop`: `AGENT_LOOP_BIN`, else the one beside this test, which cargo brings up to date once.
///
/// # Panics
/// When it cannot be built.
#[must_use]
pub fn agent_loop() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = std::env::var_os("AGENT_LOOP_BIN") {
            return path.into();
        }
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        build.args(["build", "--quiet", "--package", "agent-loop"]);
        // What cargo told this test is not for that build: scripts of crates that look at it would be run again, and again
        // by whoever builds next.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CARGO_")) {
            if name != "CARGO_HOME" && name != "CARGO_TARGET_DIR" {
                build.env_remove(name);
            }
        }
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        let built = build.status();
        assert!(built.as_ref().is_ok_and(std::process::ExitStatus::success), "building agent-loop: {built:?}");
        program("agent-loop")
    })
}

/// The adversaries' program.
#[must_use]
pub fn adversary() -> PathBuf {
    program("adversary")
}

/// The program that pins the eBPF program.
#[must_use]
pub fn pinner() -> PathBuf {
    program("pinner")
}

/// A program that cargo put beside this test.
fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a test has a path");
    let dir = own.ancestors().nth(2).expect("a test lies in target/PROFILE/deps");
    dir.join(name)
}

/// Says that the test `name` cannot run here, on stderr and in the file that `AGENT_LOOP_SKIPS` names.
pub fn skip(name: &str, reason: &str) {
    let line = format!("SKIPPED {name}: {reason}\n");
    // Not `eprint!`, which the test runner would capture: a skip is never silent.
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(path) = std::env::var_os("AGENT_LOOP_SKIPS") {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
    }
}

/// Why this host cannot run what needs root, if it cannot.
#[must_use]
pub fn without_root() -> Option<&'static str> {
    (!nix::unistd::geteuid().is_root()).then_some("needs root")
}

/// Why this host cannot run what needs eBPF, if it cannot.
#[must_use]
pub fn without_bpf() -> Option<&'static str> {
    // Where it was taken away by a mount over it, the file is there and empty.
    let btf = std::fs::File::open("/sys/kernel/btf/vmlinux").and_then(|mut file| file.read_exact(&mut [0]));
    if btf.is_err() {
        return Some("needs a kernel with BTF");
    }
    (!crate::sys::may_bpf()).then_some("needs the right to load eBPF programs")
}

/// Why this host cannot run what needs a bpffs of its own, if it cannot.
#[must_use]
pub fn without_bpffs() -> Option<&'static str> {
    const CAP_SYS_ADMIN: u32 = 21;
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let effective = read("/proc/self/status").lines().find_map(|line| {
        let mask = line.strip_prefix("CapEff:")?.trim();
        u64::from_str_radix(mask, 16).ok()
    });
    if effective.unwrap_or(0) >> CAP_SYS_ADMIN & 1 == 0 {
        return Some("needs the right to mount");
    }
    let known = read("/proc/filesystems").lines().any(|line| line.split_whitespace().last() == Some("bpf"));
    (!known).then_some("needs a kernel with bpffs")
}

/// Why this host cannot run what needs to make cgroups, if it cannot.
#[must_use]
pub fn without_cgroup() -> Option<&'static str> {
    without_root().or_else(|| cgroup::own().is_none().then_some("needs cgroup v2"))
}

/// Why processes have no inodes here, if they have none: without pins nothing then proves a process of another's child.
#[must_use]
pub fn without_pidfs() -> Option<&'static str> {
    let own = crate::sys::pidfd_open(std::process::id().cast_signed()).ok();
    let none = own.and_then(crate::sys::pidfd_ino).is_none();
    none.then_some("needs pidfds with inodes (Linux 6.9): before, a child of another is proven by pins alone")
}

/// Why this host cannot run the real `claude`, if it cannot.
#[must_use]
pub fn without_claude() -> Option<&'static str> {
    let bare = |program: &str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        !std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
    };
    match claude() {
        None => Some("needs the real claude; `cargo xtask claude` fetches it where npm and a network are"),
        Some(_) if bare("bash") || bare("git") => Some("needs bash and git, for claude's tools"),
        Some(_) => None,
    }
}

/// Why this host must not have its clock stepped: it is everybody's, unless the kernel was told at its start that the
/// machine is of the tests alone.
#[must_use]
pub fn without_a_machine_of_its_own() -> Option<&'static str> {
    let words = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let own = words.split_whitespace().any(|word| word == "agent_loop.vm");
    (!own).then_some("needs a machine of its own: `agent_loop.vm` on the command line of its kernel")
}

/// The name of the function it stands in.
#[macro_export]
macro_rules! test_name {
    () => {{
        fn here() {}
        let name = std::any::type_name_of_val(&here);
        name.strip_suffix("::here").unwrap_or(name)
    }};
}

/// Returns from the test, reported as skipped by name, unless the host has all of: `root`, `bpf`, `bpffs`,
/// `cgroup`, `fuse`, `vm`, `claude`.
#[macro_export]
macro_rules! needs {
    ($($what:ident),+) => {
        $(if let Some(reason) = $crate::needs!(@ $what) {
            return $crate::harness::skip($crate::test_name!(), reason);
        })+
    };
    (@ root) => { $crate::harness::without_root() };
    (@ bpf) => { $crate::harness::without_bpf() };
    (@ bpffs) => { $crate::harness::without_bpffs() };
    (@ cgroup) => { $crate::harness::without_cgroup() };
    (@ pidfs) => { $crate::harness::without_pidfs() };
    (@ browser) => { $crate::browser::without_browser() };
    (@ fuse) => { $crate::deaf_fs::without_fuse() };
    (@ vm) => { $crate::harness::without_a_machine_of_its_own() };
    (@ claude) => { $crate::harness::without_claude() };
}

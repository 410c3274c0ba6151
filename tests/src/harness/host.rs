//! What the kernel says afterwards: is it alive, is something of ours left.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use super::Proc;
use crate::sys;

/// The bpffs directory whose entries named after agent-loop are ours.
const BPFFS: &str = "/sys/fs/bpf";

/// Whether the running kernel is older than this version of Linux.
///
/// # Panics
/// When its release has no such form.
#[must_use]
pub fn before(major: u32, minor: u32) -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("procfs");
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|it| it.parse::<u32>().expect("a version"));
    (numbers.next().expect("a version"), numbers.next().expect("a version")) < (major, minor)
}

/// Whether a status that is told is the one that waitid gave. Before Linux 6.0 it may be unknown where the threads of a
/// process leave one by one.
#[must_use]
pub fn agrees<T: PartialEq>(told: Option<&T>, waited: Option<&T>) -> bool {
    told == waited || told.is_none() && before(6, 0)
}

/// A pidfd of this very process, if it lives. A zombie all of whose threads have ended does not; one whose leader
/// thread alone has ended does.
#[must_use]
pub fn alive(proc: &Proc) -> Option<OwnedFd> {
    let pidfd = sys::pidfd_open(proc.pid).ok()?;
    (started(&stat(proc.pid)?)? == ticks(proc.start_ns)).then_some(())?;
    (!sys::pidfd_ended(pidfd.as_fd(), Duration::ZERO)).then_some(pidfd)
}

/// The state letter of this very process, zombie or not; `None` once it is reaped.
#[must_use]
pub fn state(proc: &Proc) -> Option<char> {
    let stat = stat(proc.pid)?;
    (started(&stat)? == ticks(proc.start_ns)).then(|| stat.chars().next())?
}

/// /proc/PID/stat from the state letter on.
fn stat(pid: i32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ").map(|(_, rest)| rest.to_owned())
}

/// Field 22: the start in ticks.
fn started(stat: &str) -> Option<u64> {
    stat.split(' ').nth(19)?.parse().ok()
}

fn ticks(start_ns: u64) -> u64 {
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
    start_ns / (1_000_000_000 / per_second.cast_unsigned())
}

/// The numbers of live processes that name `path` in their argv: `exec`, its guard and adversaries do.
#[must_use]
pub fn naming(path: &Path) -> Vec<i32> {
    let path = path.as_os_str().as_bytes();
    let pids = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let names = |pid: &i32| {
        let argv = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        argv.windows(path.len()).any(|part| part == path)
    };
    pids.filter(names).collect()
}

/// Names under bpffs that are agent-loop's.
#[must_use]
pub fn pins() -> BTreeSet<String> {
    let entries = fs::read_dir(BPFFS).into_iter().flatten().filter_map(Result::ok);
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with("agent-loop") || name.starts_with("agent_loop")).collect()
}

/// Copies a program by another process: a descriptor of ours open for writing would be inherited by what other
/// tests start meanwhile, and keep the copy from being executed (ETXTBSY).
///
/// # Panics
/// When it cannot be copied.
pub fn copy_program(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").arg("--").arg(from).arg(to).status();
    assert!(copied.as_ref().is_ok_and(std::process::ExitStatus::success), "copying {}: {copied:?}", from.display());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::Stub;

    fn proc(pid: i32, start_ns: u64) -> Proc {
        Proc { id: String::new(), pid, start_ns }
    }

    #[test]
    fn a_zombie_is_not_alive_and_a_namesake_neither() {
        let before = sys::boot_ns();
        let child = sys::clone(Stub::Pause, None).expect("clone3");
        let tick = 10_000_000;
        let born =
            (before..=sys::boot_ns() + tick).step_by(tick as usize).find(|at| alive(&proc(child.pid, *at)).is_some());
        let born = born.expect("it lives, born about now");
        assert!(alive(&proc(child.pid, born - 2 * tick)).is_none());
        sys::pidfd_signal(&child.pidfd, libc::SIGKILL).expect("our child");
        assert!(sys::pidfd_ended(child.pidfd.as_fd(), Duration::from_secs(10)));
        assert!(alive(&proc(child.pid, born)).is_none());
        assert_eq!(state(&proc(child.pid, born)), Some('Z'));
        sys::wait(child.pid).expect("our child");
        assert_eq!(state(&proc(child.pid, born)), None);
    }
}

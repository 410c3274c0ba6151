//! What the kernel says afterwards: is it alive, is something of ours left.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use super::Proc;
use crate::sys;

/// The bpffs directory whose entries named after agent-loop are ours.
const BPFFS: &str = "/sys/fs/bpf";

/// A pidfd of this very process, if it lives. A zombie all of whose threads have ended does not; one whose leader
/// thread alone has ended does.
#[must_use]
pub fn alive(proc: &Proc) -> Option<OwnedFd> {
    let pidfd = sys::pidfd_open(proc.pid).ok()?;
    (started(proc.pid)? == ticks(proc.start_ns)).then_some(())?;
    (!sys::pidfd_ended(pidfd.as_fd(), Duration::ZERO)).then_some(pidfd)
}

/// Field 22 of /proc/PID/stat: the start in ticks.
fn started(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(19)?.parse().ok()
}

fn ticks(start_ns: u64) -> u64 {
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
    start_ns / (1_000_000_000 / per_second.cast_unsigned())
}

/// Names under bpffs that are agent-loop's.
#[must_use]
pub fn pins() -> BTreeSet<String> {
    let entries = fs::read_dir(BPFFS).into_iter().flatten().filter_map(Result::ok);
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with("agent-loop") || name.starts_with("agent_loop")).collect()
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
        sys::wait(child.pid).expect("our child");
    }
}

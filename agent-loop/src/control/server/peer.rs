//! Which process is at the other end of a connection, by the kernel: for the record, not for any right.

use std::os::fd::AsFd as _;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};
use tokio::net::UnixStream;

/// The process that connected, and the cgroup that it was in; `None` for what is not known.
pub(super) fn process(stream: &UnixStream) -> (Option<u32>, Option<String>) {
    let pid = stream.peer_cred().ok().and_then(|cred| cred.pid());
    let pid = pid.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0);
    (pid, pid.and_then(|pid| cgroup(stream, pid)))
}

/// Its cgroup (SO_PEERPIDFD, Linux 6.5 and later; without it nothing is said).
fn cgroup(stream: &UnixStream, pid: u32) -> Option<String> {
    let pidfd = getsockopt(stream, sockopt::PeerPidfd).ok()?;
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    // Alive after it was read: the number was its own all the while.
    let mut ended = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    if poll(&mut ended, PollTimeout::ZERO) != Ok(0) {
        return None;
    }
    text.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}

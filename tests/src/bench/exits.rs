//! Processes that exit at a rate, each leaving the time of its exit where an observer in another process reads it.

use std::collections::VecDeque;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::sys;

/// How long a process lives.
const LIFE: Duration = Duration::from_millis(2);
/// How long a pidfd stays open after the exit: closed, its readiness would be taken from the observer.
const KEEP: Duration = Duration::from_millis(300);
/// Numbers fall into slots by their remainder; two that share one are seconds apart.
const SLOTS: usize = 1 << 16;

/// The time of exit of each number, in ns of CLOCK_BOOTTIME, shared with forks.
#[derive(Clone, Copy)]
pub(super) struct Stamps(&'static [AtomicU64]);

impl Stamps {
    /// None yet.
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self(sys::shared_words(SLOTS)?))
    }

    /// When this number exited last, just before its `_exit`.
    pub(super) fn of(self, pid: u32) -> u64 {
        self.slot(pid).load(Ordering::Acquire)
    }

    fn slot(self, pid: u32) -> &'static AtomicU64 {
        &self.0[pid as usize % SLOTS]
    }
}

/// Makes processes at `rate` a second for `span`; with `epoll` each one's pidfd is put into that instance.
///
/// Never returns an error to nowhere: what goes wrong ends it with a message.
pub(super) fn generate(stamps: Stamps, rate: u32, span: Duration, epoll: Option<&OwnedFd>) -> std::io::Result<u8> {
    let began = Instant::now();
    let gap = Duration::from_secs(1) / rate;
    let mut open: VecDeque<(Instant, OwnedFd)> = VecDeque::new();
    let mut turn = 0_u32;
    while began.elapsed() < span {
        let due = began + gap * turn;
        turn += 1;
        if let Some(rest) = due.checked_duration_since(Instant::now()) {
            thread::sleep(rest);
        }
        let pid = sys::fork(|| {
            thread::sleep(LIFE);
            let slot = stamps.slot(std::process::id());
            slot.store(sys::boot_ns(), Ordering::Release);
            0
        })?;
        if let Some(epoll) = epoll {
            let pidfd = sys::pidfd_open(pid)?;
            sys::epoll_add_once(epoll.as_fd(), pidfd.as_fd(), u64::from(pid.cast_unsigned()))?;
            open.push_back((Instant::now(), pidfd));
        }
        while open.front().is_some_and(|(since, _)| since.elapsed() > KEEP) {
            open.pop_front();
        }
        while sys::reap_any()?.is_some() {}
    }
    thread::sleep(KEEP);
    while sys::wait_any()?.is_some() {}
    Ok(0)
}

//! Two methods by number, which must hit strangers, and a plain one by pidfd, which must not.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::Method;
use crate::sys;

/// agent_loop.py: `kill(pid, 0)` tells that it lives, then `kill(pid, 9)`.
#[derive(Debug)]
pub struct ByNumber(());

impl ByNumber {
    /// Only in a PID namespace where every number is ours: it kills whoever has the number.
    #[must_use]
    pub fn contained(_: &super::space::Contained) -> Self {
        Self(())
    }
}

impl Method for ByNumber {
    type Identity = i32;
    type Opened = i32;
    type Proof<'a> = i32;

    fn record(&mut self, pid: i32, _pidfd: BorrowedFd<'_>) -> io::Result<i32> {
        Ok(pid)
    }

    fn open(&mut self, known: &i32) -> Option<i32> {
        Some(*known)
    }

    fn verify(&mut self, _known: &i32, opened: &i32) -> Option<i32> {
        sys::kill(*opened, 0).is_ok().then_some(*opened)
    }

    fn signal(&mut self, proof: i32) -> bool {
        sys::kill(proof, libc::SIGKILL).is_ok()
    }
}

/// The stopgap: the name and the start time in ticks of 10 ms are compared, then `kill(pid, 9)`.
#[derive(Debug)]
pub struct Stopgap(());

impl Stopgap {
    /// See [`ByNumber::contained`].
    #[must_use]
    pub fn contained(_: &super::space::Contained) -> Self {
        Self(())
    }
}

impl Method for Stopgap {
    type Identity = (i32, Looks);
    type Opened = Looks;
    type Proof<'a> = i32;

    fn record(&mut self, pid: i32, _pidfd: BorrowedFd<'_>) -> io::Result<Self::Identity> {
        Ok((pid, Looks::of(pid)?))
    }

    fn open(&mut self, (pid, _): &Self::Identity) -> Option<Looks> {
        Looks::of(*pid).ok()
    }

    fn verify(&mut self, (pid, looks): &Self::Identity, opened: &Looks) -> Option<i32> {
        (opened == looks).then_some(*pid)
    }

    fn signal(&mut self, proof: i32) -> bool {
        sys::kill(proof, libc::SIGKILL).is_ok()
    }
}

/// What /proc/PID/stat says of a process: its name, and field 22, its start in ticks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Looks {
    comm: String,
    start_ticks: u64,
}

impl Looks {
    fn of(pid: i32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let parse = || {
            let (head, rest) = stat.rsplit_once(") ")?;
            let (_, comm) = head.split_once(" (")?;
            let start_ticks = rest.split(' ').nth(19)?.parse().ok()?;
            Some(Self { comm: comm.to_owned(), start_ticks })
        };
        parse().ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// The recommended order: open a pidfd, compare its inode (Linux 6.9 and later), signal through it.
#[derive(Debug, Default)]
pub struct PidfdInode;

impl Method for PidfdInode {
    type Identity = (i32, u64);
    type Opened = OwnedFd;
    type Proof<'a> = BorrowedFd<'a>;

    fn record(&mut self, pid: i32, pidfd: BorrowedFd<'_>) -> io::Result<Self::Identity> {
        Ok((pid, inode(pidfd)?))
    }

    fn open(&mut self, (pid, _): &Self::Identity) -> Option<OwnedFd> {
        sys::pidfd_open(*pid).ok()
    }

    fn verify<'a>(&mut self, (_, known): &Self::Identity, opened: &'a OwnedFd) -> Option<BorrowedFd<'a>> {
        (inode(opened.as_fd()).ok()? == *known).then_some(opened.as_fd())
    }

    fn signal(&mut self, proof: BorrowedFd<'_>) -> bool {
        sys::pidfd_signal(proof, libc::SIGKILL).is_ok()
    }
}

/// The pidfd's inode; an error where all pidfds share one.
fn inode(pidfd: BorrowedFd<'_>) -> io::Result<u64> {
    let none = || io::Error::new(io::ErrorKind::Unsupported, "pidfds have no inodes before Linux 6.9");
    sys::pidfd_ino(pidfd).ok_or_else(none)
}

//! A look at the tree of a run: numbers and names for the core, which has each verified before anything is done to it.

use std::collections::BTreeSet;
use std::io;

use super::cgroup::OwnCgroup;
use super::pidfd::PidFd;
use super::scan;
use crate::event::Member;
use crate::model::{Live, PidfsIno, ProcessKey};

/// How many members of a tree are described: more would make a look at a large tree slow.
const DESCRIBE: usize = 32;

/// Whether somebody is in the cgroup; in one that was removed there is nobody, or it could not have been.
///
/// # Errors
/// When it cannot be told.
pub fn is_populated(cgroup: &OwnCgroup) -> io::Result<bool> {
    match cgroup.populated() {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENOENT)) => Ok(false),
        other => other,
    }
}

/// Says of these numbers who they are, as far as the live set knows, and of the first of them what they do.
#[must_use]
pub fn describe(pids: &BTreeSet<u32>, live: &[Live]) -> Vec<Member> {
    let member = |(index, &pid): (usize, &u32)| {
        let key = live.iter().find(|live| live.key.tgid == pid).map(|live| live.key);
        if index < DESCRIBE {
            scan::member(pid, key)
        } else {
            Member { pid, key, state: None, wchan: None, comm: None }
        }
    };
    pids.iter().enumerate().map(member).collect()
}

/// Whether it is certain that this process is gone: its number is free, or another's.
///
/// `ticks` says whether the start times of /proc are on our own clock: in a time namespace not even they refute.
#[must_use]
pub fn is_gone(key: ProcessKey, ino: Option<PidfsIno>, ticks: bool) -> bool {
    let fd = match PidFd::open(key.tgid) {
        Ok(Some(fd)) => fd,
        Ok(None) => return true,
        Err(_) => return false,
    };
    match (ino, fd.ino()) {
        (Some(recorded), Some(found)) if recorded != found => return true,
        (Some(_) | None, Some(_) | None) => {}
    }
    if fd.has_exited().unwrap_or(false) {
        return true;
    }
    // Ticks can refute who it is, never prove it.
    let Ok(Some(stat)) = scan::Stat::read(key.tgid) else { return false };
    ticks && stat.key().start_boottime_ns.abs_diff(key.start_boottime_ns) > 2 * scan::ticks_to_ns(1)
}

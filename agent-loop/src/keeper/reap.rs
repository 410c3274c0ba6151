//! Orphans that fall to us: found one by one, reaped one by one.
//!
//! Never `waitpid(-1)`, which would take the status of a main process or a guard from whoever waits for it. Nor a
//! loop over `waitid(P_ALL, WNOWAIT)`: it returns the same first zombie for ever if that one is to be left alone.
//! /proc names the children instead, and each is asked for by its number, which stays its own until we reap it.

use std::collections::BTreeSet;
use std::io;

use super::pidfd::wait_id;
use super::scan;
use crate::model::WaitStatus;

/// Makes this process the parent of orphans among its descendants.
///
/// # Errors
/// What prctl reports.
pub fn become_subreaper() -> io::Result<()> {
    Ok(nix::sys::prctl::set_child_subreaper(true)?)
}

/// An orphan that was reaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reaped {
    /// Its number, which is free from now on.
    pub pid: u32,
    /// How it ended.
    pub status: WaitStatus,
}

/// Our children that have ended and wait to be reaped, without those to be left alone (main processes, guards).
///
/// One look may miss a child while a sibling ends (proc_pid_task_children(5)): look again at the next occasion,
/// and once more after the tree is empty.
///
/// # Errors
/// When /proc cannot be read.
pub fn zombies(leave_alone: &BTreeSet<u32>) -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    for pid in scan::children(std::process::id())? {
        if !leave_alone.contains(&pid) && ended(libc::P_PID, pid, libc::WNOWAIT)?.is_some() {
            found.push(pid);
        }
    }
    Ok(found)
}

/// Reaps this child if it has ended; `None` if it has not or is not our child.
///
/// # Errors
/// What waitid reports.
pub fn reap(pid: u32) -> io::Result<Option<Reaped>> {
    if pid == 0 {
        return Ok(None);
    }
    Ok(ended(libc::P_PID, pid, 0)?.map(|(pid, status)| Reaped { pid, status }))
}

/// Reaps all that [`zombies`] finds, in at most as many steps as there are children.
///
/// # Errors
/// As those two.
pub fn reap_orphans(leave_alone: &BTreeSet<u32>) -> io::Result<Vec<Reaped>> {
    let mut reaped = Vec::new();
    for pid in zombies(leave_alone)? {
        reaped.extend(reap(pid)?);
    }
    Ok(reaped)
}

fn ended(kind: libc::idtype_t, id: u32, options: i32) -> io::Result<Option<(u32, WaitStatus)>> {
    match wait_id(kind, id, libc::WNOHANG | options) {
        Err(error) if error.raw_os_error() == Some(libc::ECHILD) => Ok(None),
        other => other,
    }
}

//! Processes that leave their parent, their session or their signals behind.

use std::ffi::CString;
use std::io;

use nix::sys::prctl;
use nix::unistd::{chdir, setsid};

use super::{Stage, me};
use crate::oracle::Life;
use crate::sys;

/// The daemon of the textbooks; the starter reaps the middle process and holds.
pub(super) fn double_fork(stage: &Stage) -> io::Result<u8> {
    let middle = stage.fork("middle", || {
        setsid()?;
        let daemon = stage.fork("daemon", || {
            chdir("/")?;
            stage.ready()?;
            sys::close_from(0)?;
            stage.live_on();
            Ok(0)
        })?;
        stage.oracle.write(&[daemon])?;
        Ok(0)
    })?;
    stage.wait_for(middle)?;
    stage.live_on();
    Ok(0)
}

/// Each generation leaves the session of the one before, which exits.
pub(super) fn setsid_chain(stage: &Stage, count: u16) -> io::Result<u8> {
    let first = stage.fork("generation", || generation(stage, count))?;
    stage.wait_for(first)?;
    stage.live_on();
    Ok(0)
}

fn generation(stage: &Stage, left: u16) -> io::Result<u8> {
    setsid()?;
    if left > 1 {
        let next = stage.fork("generation", || generation(stage, left - 1))?;
        stage.oracle.write(&[next])?;
        return Ok(0);
    }
    stage.ready()?;
    stage.live_on();
    Ok(0)
}

/// Orphans fall to a subreaper inside the tree, not to the supervisor.
pub(super) fn subreaper(stage: &Stage) -> io::Result<u8> {
    let reaper = stage.fork("reaper", || {
        prctl::set_child_subreaper(true)?;
        let middle = stage.fork("middle", || {
            let grandchild = stage.fork("grandchild", || {
                stage.ready()?;
                stage.live_on();
                Ok(0)
            })?;
            stage.oracle.write(&[grandchild])?;
            Ok(0)
        })?;
        stage.wait_for(middle)?;
        while let Some(orphan) = sys::wait_any()? {
            let life = Life {
                pid: orphan.pid,
                parent: me(),
                role: "orphan".to_owned(),
                after_ns: 0,
                before_ns: sys::boot_ns(),
                status: Some(orphan.status),
            };
            stage.oracle.write(&[life])?;
        }
        Ok(0)
    })?;
    stage.wait_for(reaper)?;
    Ok(0)
}

/// INT, TERM and HUP do nothing, here and in every child.
pub(super) fn term_ignorer(stage: &Stage, count: u16) -> io::Result<u8> {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        sys::ignore(signal)?;
    }
    for _ in 0..count {
        stage.fork("ignorer", || {
            stage.live_on();
            Ok(0)
        })?;
    }
    stage.ready()?;
    stage.live_on();
    Ok(0)
}

/// A stopped process handles no signal but SIGKILL and SIGCONT.
pub(super) fn stopper(stage: &Stage) -> io::Result<u8> {
    stage.ready()?;
    sys::kill(me(), libc::SIGSTOP)?;
    stage.live_on();
    Ok(0)
}

/// Takes another name, which children inherit.
pub(super) fn rename(stage: &Stage, name: &str, count: u16) -> io::Result<u8> {
    prctl::set_name(&CString::new(name)?)?;
    for _ in 0..count {
        stage.fork("renamed", || {
            stage.live_on();
            Ok(0)
        })?;
    }
    stage.ready()?;
    stage.live_on();
    Ok(0)
}

/// A child that the own parent has to reap.
pub(super) fn sibling() -> io::Result<u8> {
    sys::clone_at(sys::Stub::Exit(5), sys::Place { sibling: true, ..sys::Place::default() })?;
    Ok(0)
}

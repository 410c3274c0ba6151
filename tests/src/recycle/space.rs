//! A PID namespace in which methods by number can hit nobody else.

use std::io;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::oracle::Status;
use crate::sys;

/// Proof that this process is in a PID namespace of its own, with a /proc of its own.
#[derive(Debug)]
pub struct Contained(());

/// Runs `act` in a process of its own that is PID 1 of a fresh namespace; returns its exit code.
///
/// # Errors
/// When namespaces are not permitted, or the process did not exit by itself.
pub fn in_own_pid_namespace(act: impl FnOnce(&Contained) -> io::Result<u8>) -> io::Result<u8> {
    unshare(CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS)?;
    let first = sys::fork(|| {
        let none: Option<&str> = None;
        let ended = mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
            .and_then(|()| mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), none))
            .map_err(io::Error::from)
            .and_then(|()| act(&Contained(())));
        ended.unwrap_or_else(|err| {
            eprintln!("recycler: {err}");
            1
        })
    })?;
    match sys::wait(first)? {
        Status { code: Some(code), .. } => Ok(u8::try_from(code).unwrap_or(1)),
        other => Err(io::Error::other(format!("ended by {other:?}"))),
    }
}

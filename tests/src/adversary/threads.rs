//! Threads whose end is not the end of their process.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::thread;
use std::time::Duration;

use super::{Stage, me};
use crate::sys;

/// The leader thread exits; another lives on, then ends the process.
pub(super) fn leader_exits_first(stage: &Stage, code: u8, by_thread: bool) -> io::Result<u8> {
    thread::scope(|scope| {
        thread::Builder::new().spawn_scoped(scope, || {
            while !leader_is_gone() {
                thread::sleep(Duration::from_millis(1));
            }
            if stage.ready().is_err() {
                sys::exit(241);
            }
            stage.live_on();
            if by_thread { sys::exit_thread(code) } else { sys::exit(code) }
        })?;
        sys::exit_thread(0)
    })
}

/// Whether the leader thread is a zombie.
fn leader_is_gone() -> bool {
    let stat = fs::read_to_string(format!("/proc/self/task/{}/stat", me())).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
}

/// A thread that is not the leader executes this program, which holds and exits with `code`.
pub(super) fn exec_by_thread(stage: &Stage, code: u8) -> io::Result<u8> {
    let mut command = stage.again(&["hold", "--code", &code.to_string()])?;
    let failed = thread::spawn(move || command.exec());
    match failed.join() {
        Ok(err) => Err(err),
        Err(_) => Err(io::Error::other("the thread panicked")),
    }
}

/// Threads start and end while the process lives.
pub(super) fn come_and_go(stage: &Stage, count: u16) -> io::Result<u8> {
    for _ in 0..count {
        if thread::spawn(|| ()).join().is_err() {
            return Err(io::Error::other("a thread panicked"));
        }
    }
    stage.ready()?;
    Ok(0)
}

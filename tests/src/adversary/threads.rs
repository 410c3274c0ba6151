//! Threads whose end is not the end of their process.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::sync::{Arc, Barrier};
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

/// Threads of a child.
const THREADS: usize = 8;

/// Children with many threads; by turns all threads exit together, one ends the process, two do, one kills it, and
/// the leader leaves first.
pub(super) fn ends(stage: &Stage, rounds: u16) -> io::Result<u8> {
    for round in 0..rounds {
        let [code, _] = round.to_le_bytes();
        let child = stage.fork("threads", || end_with_threads(round % 5, code))?;
        stage.wait_for(child)?;
    }
    stage.ready()?;
    Ok(0)
}

fn end_with_threads(way: u16, code: u8) -> io::Result<u8> {
    let together = Arc::new(Barrier::new(THREADS));
    for index in 1..THREADS {
        let together = Arc::clone(&together);
        thread::Builder::new().stack_size(64 << 10).spawn(move || {
            together.wait();
            match (way, index) {
                (0, _) => sys::exit_thread(code),
                (1, 3) => sys::exit(code),
                (2, 2) => sys::exit(code),
                (2, 5) => sys::exit(code.wrapping_add(1)),
                (3, 4) => drop(sys::die_by(libc::SIGKILL)),
                (4, _) => {
                    thread::sleep(Duration::from_millis(1));
                    sys::exit_thread(code)
                }
                _ => thread::sleep(Duration::from_secs(20)),
            }
        })?;
    }
    together.wait();
    match way {
        0 | 4 => sys::exit_thread(code.wrapping_add(7)),
        _ => thread::sleep(Duration::from_secs(20)),
    }
    Err(io::Error::other("the threads did not end the process"))
}

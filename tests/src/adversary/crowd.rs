//! Many processes.

use std::io;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{Stage, me};
use crate::oracle::Life;
use crate::sys;

/// What the processes of a fork bomb share.
struct Bomb {
    /// How many live, and how many may.
    alive: &'static AtomicU32,
    alive_max: u32,
    /// How many there were, and how many may be.
    lives: &'static AtomicU32,
    lives_max: u32,
    ends: Instant,
}

/// Every process forks whenever there is room, and ends after some milliseconds: at any moment some are being born.
pub(super) fn fork_bomb(stage: &Stage, alive_max: u32, lives_max: u32) -> io::Result<u8> {
    let [alive, lives, ..] = sys::shared_counters()?;
    let bomb = Bomb { alive, alive_max, lives, lives_max, ends: Instant::now() + stage.hold };
    bomb.live(stage, bomb.ends);
    Ok(0)
}

impl Bomb {
    fn live(&self, stage: &Stage, until: Instant) {
        while Instant::now() < until {
            self.reap();
            if self.claim() {
                let seed = self.lives.load(Ordering::Relaxed);
                let span = Duration::from_millis(u64::from(seed % 40));
                let born = sys::fork(|| {
                    self.live(stage, (Instant::now() + span).min(self.ends));
                    0
                });
                if born.is_err() {
                    self.alive.fetch_sub(1, Ordering::Relaxed);
                    thread::sleep(Duration::from_millis(1));
                }
            } else {
                if stage.ready.as_ref().is_some_and(|path| !path.exists()) {
                    let _ = stage.ready();
                }
                thread::sleep(Duration::from_millis(1));
            }
        }
        self.reap();
    }

    /// Takes a place, if there is one.
    fn claim(&self) -> bool {
        let room = |count: u32, max| (count < max).then_some(count + 1);
        let claim = |counter: &AtomicU32, max| {
            counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| room(count, max)).is_ok()
        };
        if !claim(self.alive, self.alive_max) {
            return false;
        }
        let born = claim(self.lives, self.lives_max);
        if !born {
            self.alive.fetch_sub(1, Ordering::Relaxed);
        }
        born
    }

    /// Gives the places of ended children back.
    fn reap(&self) {
        while let Ok(Some(_)) = sys::reap_any() {
            let _ = self.alive.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| count.checked_sub(1));
        }
    }
}

/// Children that never exec, with every exit code.
pub(super) fn fork_no_exec(stage: &Stage, count: u32) -> io::Result<u8> {
    for code in (0..=u8::MAX).cycle().take(count as usize) {
        let child = stage.fork("fork", || Ok(code))?;
        stage.wait_for(child)?;
    }
    stage.ready()?;
    Ok(0)
}

/// Children whose parent is suspended in vfork while they exec or exit.
pub(super) fn vfork_spawner(stage: &Stage, count: u16) -> io::Result<u8> {
    let exe = std::env::current_exe()?;
    for code in (0..=u8::MAX).cycle().take(count.into()) {
        let after_ns = sys::boot_ns();
        let child = Command::new(&exe).args(["exit-code", &code.to_string()]).stdin(Stdio::null()).spawn()?;
        stage.wait_for(life(child.id().cast_signed(), "exec", after_ns))?;
        let after_ns = sys::boot_ns();
        let child = sys::clone(sys::Stub::Exit(code), None)?;
        stage.wait_for(life(child.pid, "vfork", after_ns))?;
    }
    stage.ready()?;
    Ok(0)
}

fn life(pid: i32, role: &str, after_ns: u64) -> Life {
    Life { pid, parent: me(), role: role.to_owned(), after_ns, before_ns: sys::boot_ns(), status: None }
}

//! Births and deaths at full rate, each with the status that waitid gave.

use std::collections::HashMap;
use std::io;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{Stage, me};
use crate::oracle::Life;
use crate::sys;

/// Children a generator has at a time.
const WINDOW: usize = 32;

/// Runs the generators and waits for them; they are in the oracle too.
pub(super) fn storm(stage: &Stage, span: Duration, generators: u8, exec_every: u32) -> io::Result<u8> {
    let ends = Instant::now() + span;
    let children = (0..generators)
        .map(|index| stage.fork("generator", || Generator::new(index, exec_every)?.run(stage, ends)))
        .collect::<io::Result<Vec<_>>>()?;
    for child in children {
        stage.wait_for(child)?;
    }
    stage.ready()?;
    Ok(0)
}

struct Generator {
    exe: std::path::PathBuf,
    exec_every: u32,
    turn: u32,
    /// Children that were born and not yet reaped.
    open: HashMap<i32, Life>,
    /// Kept in memory until the storm is over.
    closed: Vec<Life>,
    signals: Vec<i32>,
}

impl Generator {
    fn new(index: u8, exec_every: u32) -> io::Result<Self> {
        Ok(Self {
            exe: std::env::current_exe()?,
            exec_every,
            turn: u32::from(index) * 7,
            open: HashMap::new(),
            closed: Vec::new(),
            signals: sys::fatal_signals().collect(),
        })
    }

    fn run(mut self, stage: &Stage, ends: Instant) -> io::Result<u8> {
        while Instant::now() < ends {
            self.birth()?;
            while self.open.len() >= WINDOW {
                self.reap()?;
            }
        }
        while !self.open.is_empty() {
            self.reap()?;
        }
        stage.oracle.write(&self.closed)?;
        Ok(0)
    }

    fn birth(&mut self) -> io::Result<()> {
        self.turn += 1;
        let code = self.turn.to_le_bytes()[0];
        let after_ns = sys::boot_ns();
        let (pid, role) = if self.turn.is_multiple_of(self.exec_every) {
            let mut command = Command::new(&self.exe);
            (command.args(["exit-code", &code.to_string()]).stdin(Stdio::null()).spawn()?.id().cast_signed(), "exec")
        } else if self.turn.is_multiple_of(5) {
            let signal = self.signals[self.turn as usize % self.signals.len()];
            (sys::fork(|| signalled(signal))?, "signal")
        } else if self.turn.is_multiple_of(2) {
            (sys::clone(sys::Stub::Exit(code), None)?.pid, "vfork")
        } else {
            (sys::fork(|| code)?, "fork")
        };
        let before_ns = sys::boot_ns();
        let life = Life { pid, parent: me(), role: role.to_owned(), after_ns, before_ns, status: None };
        self.open.insert(pid, life);
        Ok(())
    }

    fn reap(&mut self) -> io::Result<()> {
        let reaped = sys::wait_any()?.ok_or_else(|| io::Error::other("children got lost"))?;
        let life = self.open.remove(&reaped.pid).ok_or_else(|| io::Error::other("a child nobody made"))?;
        self.closed.push(Life { status: Some(reaped.status), ..life });
        Ok(())
    }
}

/// Dies by `signal`, without a core dump.
fn signalled(signal: i32) -> u8 {
    let _ = super::ends::die_by_signal(signal, false);
    242
}

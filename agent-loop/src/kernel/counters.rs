//! The kernel's own count of what it saw and what it could not tell.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use agent_loop_common::counter::Counter;
use aya::maps::{MapData, MapError, PerCpuArray};

use super::bpf::recursion_misses;
use crate::model::Totals;

/// The counters, and the programs whose skipped runs are counted with them.
pub struct Counters {
    map: PerCpuArray<MapData, u64>,
    programs: Vec<Program>,
}

/// A program of a hook.
pub(super) struct Program {
    /// The hook's name.
    pub(super) name: &'static str,
    /// Whether another copy of the hook does its work where the kernel skips it.
    pub(super) copied: bool,
    pub(super) fd: OwnedFd,
}

impl Counters {
    pub(super) fn new(map: aya::maps::Map, programs: Vec<Program>) -> Result<Self, MapError> {
        Ok(Self { map: PerCpuArray::try_from(map)?, programs })
    }

    /// Sums every counter over the CPUs.
    ///
    /// # Errors
    /// When the map or a program's information cannot be read.
    pub fn read(&self) -> io::Result<Totals> {
        Ok(Totals {
            seen_fork: self.sum(Counter::SeenFork)?,
            seen_exec: self.sum(Counter::SeenExec)?,
            seen_exit: self.sum(Counter::SeenExit)?,
            lost_fork: self.sum(Counter::LostFork)?,
            lost_exec: self.sum(Counter::LostExec)?,
            lost_exit: self.sum(Counter::LostExit)?,
            ..self.of_no_run()?
        })
    }

    /// What cannot be told by run; the rest is zero.
    pub(super) fn of_no_run(&self) -> io::Result<Totals> {
        // A skipped copy is no loss: what all of them are skipped for is known by what it leaves.
        let mut missed = self.sum(Counter::Unreadable)? + self.sum(Counter::SkippedExec)?;
        for program in self.programs.iter().filter(|program| !program.copied) {
            missed += recursion_misses(program.fd.as_fd())?;
        }
        Ok(Totals {
            live_full: self.sum(Counter::LiveFull)?,
            stale: self.sum(Counter::Stale)?,
            missed,
            ..Totals::default()
        })
    }

    /// How often the kernel skipped each hook's program, copies included, by the hook's name.
    ///
    /// # Errors
    /// When a program's information cannot be read.
    pub fn skipped(&self) -> io::Result<Vec<(&'static str, u64)>> {
        self.programs.iter().map(|program| Ok((program.name, recursion_misses(program.fd.as_fd())?))).collect()
    }

    /// Sums one counter over the CPUs.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn sum(&self, counter: Counter) -> io::Result<u64> {
        let values = self.map.get(&(counter as u32), 0).map_err(io::Error::other)?;
        Ok(values.iter().sum())
    }
}

//! The kernel's own count of what it saw and what it could not tell.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use agent_loop_common::counter::Counter;
use aya::maps::{MapData, MapError, PerCpuArray};

use crate::model::Totals;

/// The counters, and the programs whose skipped runs are counted with them.
pub struct Counters {
    map: PerCpuArray<MapData, u64>,
    programs: Vec<OwnedFd>,
}

impl Counters {
    pub(super) fn new(map: aya::maps::Map, programs: Vec<OwnedFd>) -> Result<Self, MapError> {
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
        let mut missed = self.sum(Counter::Unreadable)?;
        for program in &self.programs {
            missed += recursion_misses(program)?;
        }
        Ok(Totals {
            live_full: self.sum(Counter::LiveFull)?,
            stale: self.sum(Counter::Stale)?,
            missed,
            ..Totals::default()
        })
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

/// How often the kernel skipped a run of this program (`bpf_prog_info.recursion_misses`, Linux 5.12 and
/// later; 0 before). aya has no accessor for it.
fn recursion_misses(program: &OwnedFd) -> io::Result<u64> {
    const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
    /// The offset of the field in `struct bpf_prog_info`, fixed by the user-space ABI (linux/bpf.h).
    const OFFSET: usize = 208;
    #[repr(C)]
    struct Attr {
        fd: u32,
        len: u32,
        info: u64,
    }
    let mut info = [0_u8; 256];
    let attr = Attr {
        fd: program.as_raw_fd().cast_unsigned(),
        len: u32::try_from(info.len()).unwrap_or(0),
        info: info.as_mut_ptr() as u64,
    };
    // SAFETY: the attribute names a buffer of the length it says, alive during the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_GET_INFO_BY_FD, &raw const attr, size_of::<Attr>()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(info.get(OFFSET..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u64::from_ne_bytes(*bytes)))
}

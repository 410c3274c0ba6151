//! The types that the eBPF program and user space share: settings, map values, records and counters.
//!
//! Everything here is `repr(C)` with explicit padding and fixed-width integers, its sizes and offsets
//! asserted at compile time, so that both sides agree whatever compiled them. [`decode`] turns the bytes
//! of a ring into these types and is the only place that does so.
#![cfg_attr(not(test), no_std)]

pub mod counter;
pub mod decode;
pub mod map;
pub mod record;

/// The version of the layout of maps and records.
///
/// Pinned maps of another version are replaced, never read.
pub const ABI_VERSION: u32 = 4;

/// The length of the kernel's `task_struct.comm`, terminator included.
pub const COMM_LEN: usize = 16;

/// A process: its number and its start time, which together are unique within one boot.
///
/// `tgid` is the number in the supervisor's PID namespace; `start_boottime_ns` is
/// `task_struct.start_boottime` of the thread-group leader, in nanoseconds of CLOCK_BOOTTIME.
/// Both survive an exec by any thread of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcessKey {
    /// The process's number, for people and for opening a pidfd; never an identity alone.
    pub tgid: u32,
    /// The start of the process in nanoseconds of CLOCK_BOOTTIME.
    pub start_boottime_ns: u64,
}

impl ProcessKey {
    /// Names the process that has number `tgid` and started at `start_boottime_ns`.
    #[must_use]
    pub const fn new(tgid: u32, start_boottime_ns: u64) -> Self {
        Self { tgid, start_boottime_ns }
    }
}

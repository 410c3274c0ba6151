//! The values of the maps that the eBPF program and user space both touch.

use crate::ProcessKey;

/// The bit of a run tag that marks processes which are only observed: nobody launched them through us.
///
/// The other bits are then the number of the watch rule. Without the bit a tag is the id of the run's cgroup.
pub const OBSERVED: u64 = 1 << 63;

/// The value of [`RunEntry::exit_valid`] once the main process ended and its status is known.
pub const EXIT_KNOWN: u32 = 1;

/// The value of [`RunEntry::exit_valid`] once the main process ended with a status that could not be read for certain.
pub const EXIT_STATUS_UNKNOWN: u32 = 2;

/// A live, tracked process: the value of `LIVE`, keyed by its number.
///
/// Inserted by the fork hook (by the exec hook or the snapshot when discovered), deleted by the exit hook.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct LiveEntry {
    /// `task_struct.start_boottime` of the leader, nanoseconds.
    pub start_boottime_ns: u64,
    /// The run's tag: the id of its cgroup, or [`OBSERVED`] with a rule.
    pub run: u64,
    /// The inode of the process's pidfd (Linux 6.9 and later), 0 where the kernel has none.
    pub pidfs_ino: u64,
    /// The start of the process that forked it, 0 where unknown.
    pub forker_start_boottime_ns: u64,
    /// The number of the process that forked it, 0 where unknown.
    pub forker_tgid: u32,
    /// How it came to be known: bits of [`crate::record::flag`].
    pub flags: u32,
    /// The kernel's count of its execs at the last one that was told, or at its birth; [`NO_EXEC_ID`] where nothing has
    /// to know it.
    ///
    /// Where a hook has copies, the one that runs first writes it for the others.
    pub exec_id: u64,
}

/// A count of execs that is not known.
pub const NO_EXEC_ID: u64 = u64::MAX;

/// A run: the value of `RUNS`, keyed by the id of the run's cgroup.
///
/// User space inserts it before the launch; the fork hook fills in the main process, the exit hook its end.
///
/// A reader copies it while a hook may be writing, so no reader may depend on the order of two stores: the status
/// and its mark share one word, which the hook stores at once, and a time or a start of 0 is "not yet".
///
/// The counters are those of [`crate::counter::Counter`] for the processes of this run alone, added to atomically. A
/// hook runs on its process's behalf and is over before the process leaves its cgroup: once that is empty they are
/// exact, whatever else the host does and however many readers came and went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RunEntry {
    /// The start of the main process; 0 until it is born.
    pub main_start_boottime_ns: u64,
    /// When the main process ended, nanoseconds of CLOCK_BOOTTIME.
    pub exit_boot_ns: u64,
    /// The main process's wait status, as `wait(2)` encodes it.
    pub exit_status: i32,
    /// [`EXIT_KNOWN`] or [`EXIT_STATUS_UNKNOWN`] once the main process ended; in one aligned word with the status.
    pub exit_valid: u32,
    /// The number of the main process; 0 until it is born.
    pub main_tgid: u32,
    /// Explicit padding.
    pub pad: u32,
    /// Births of its processes.
    pub seen_fork: u64,
    /// Execs of its processes.
    pub seen_exec: u64,
    /// Deaths of its processes.
    pub seen_exit: u64,
    /// Births whose record found no room in the ring.
    pub lost_fork: u64,
    /// Execs whose record found no room in the ring.
    pub lost_exec: u64,
    /// Deaths whose record found no room in the ring.
    pub lost_exit: u64,
}

impl RunEntry {
    /// The run's main process, once it was born.
    #[must_use]
    pub fn main(&self) -> Option<ProcessKey> {
        (self.main_tgid != 0 && self.main_start_boottime_ns != 0)
            .then(|| ProcessKey::new(self.main_tgid, self.main_start_boottime_ns))
    }

    /// The main process's wait status, where it is known, and the time of its end; `None` until it ended.
    #[must_use]
    pub fn exit(&self) -> Option<(Option<i32>, u64)> {
        let status = (self.exit_valid == EXIT_KNOWN).then_some(self.exit_status);
        (self.exit_valid != 0 && self.exit_boot_ns != 0).then_some((status, self.exit_boot_ns))
    }
}

const _: () = {
    assert!(size_of::<LiveEntry>() == 48);
    assert!(size_of::<RunEntry>() == 80);
    assert!(core::mem::offset_of!(RunEntry, exit_status) == 16);
    assert!(core::mem::offset_of!(RunEntry, exit_valid) == 20);
    assert!(core::mem::offset_of!(RunEntry, seen_fork) == 32);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_once_time_and_mark_are_both_there() {
        let word =
            |exit_valid, exit_boot_ns| RunEntry { exit_valid, exit_boot_ns, exit_status: 9, ..RunEntry::default() };
        assert_eq!(word(0, 0).exit(), None);
        assert_eq!(word(0, 5).exit(), None, "the mark is stored after the time");
        assert_eq!(word(EXIT_KNOWN, 0).exit(), None, "or seen before it");
        assert_eq!(word(EXIT_KNOWN, 5).exit(), Some((Some(9), 5)));
        assert_eq!(word(EXIT_STATUS_UNKNOWN, 5).exit(), Some((None, 5)));
        assert_eq!(word(77, 5).exit(), Some((None, 5)), "a mark that is not known is no status");
    }
}

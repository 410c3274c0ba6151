//! The per-CPU counters that the eBPF program keeps and user space sums.

/// What is counted, by index into the counters' map.
///
/// `Seen*` counts events of tracked processes, whether or not their record found room; `Lost*` counts
/// those whose record did not. Seen is therefore always emitted plus lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Counter {
    /// Births of tracked processes.
    SeenFork = 0,
    /// Execs of tracked processes.
    SeenExec = 1,
    /// Deaths of tracked processes.
    SeenExit = 2,
    /// Births whose record found no room in the ring.
    LostFork = 3,
    /// Execs whose record found no room in the ring.
    LostExec = 4,
    /// Deaths whose record found no room in the ring.
    LostExit = 5,
    /// Processes that could not be tracked since the live set was full; at an exec each copy of the hook counts.
    LiveFull = 6,
    /// Entries of the live set that named a process that was gone, found and replaced.
    Stale = 7,
    /// Execs whose argument vector could not be read.
    ArgvUnread = 8,
    /// Tasks skipped since they do not exist in the supervisor's PID namespace.
    Outside = 9,
    /// Hooks that ended early since a kernel structure could not be read.
    Unreadable = 10,
    /// Execs that the kernel's own count of a tracked process has and no hook told: every copy of the hook was skipped.
    SkippedExec = 11,
}

impl Counter {
    /// The number of counters: the size of their map.
    pub const COUNT: u32 = 12;

    /// Every counter, in index order.
    pub const ALL: [Self; Self::COUNT as usize] = [
        Self::SeenFork,
        Self::SeenExec,
        Self::SeenExit,
        Self::LostFork,
        Self::LostExec,
        Self::LostExit,
        Self::LiveFull,
        Self::Stale,
        Self::ArgvUnread,
        Self::Outside,
        Self::Unreadable,
        Self::SkippedExec,
    ];
}

const _: () = {
    let mut index = 0;
    while index < Counter::ALL.len() {
        assert!(Counter::ALL[index] as usize == index);
        index += 1;
    }
};

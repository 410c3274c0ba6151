//! The records that the eBPF program writes into its rings.

/// Bits of a record's `flags`.
pub mod flag {
    /// Found at its exec, by its cgroup or a watch rule: its fork was not seen.
    pub const AT_EXEC: u32 = 1 << 0;
    /// Found by the snapshot: it lived before the hooks were attached.
    pub const AT_SNAPSHOT: u32 = 1 << 1;
    /// The main process of its run.
    pub const MAIN: u32 = 1 << 2;
    /// The argument vector is longer than the record.
    pub const ARGV_TRUNCATED: u32 = 1 << 3;
    /// The argument vector could not be read.
    pub const ARGV_UNREAD: u32 = 1 << 4;
    /// The file name is longer than the record, or could not be read.
    pub const FILENAME_TRUNCATED: u32 = 1 << 5;
    /// The status of a death could not be read for certain.
    pub const STATUS_UNKNOWN: u32 = 1 << 6;
}

/// The kind of a record: its first four bytes.
pub mod kind {
    /// A [`super::BirthRecord`].
    pub const BIRTH: u32 = 1;
    /// A [`super::DeathRecord`].
    pub const DEATH: u32 = 2;
    /// A [`super::ExecHeader`] and its bytes.
    pub const EXEC: u32 = 3;
}

/// A process was born: from `sched_process_fork`, or discovered later (see [`flag`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct BirthRecord {
    /// [`kind::BIRTH`].
    pub kind: u32,
    /// Bits of [`flag`].
    pub flags: u32,
    /// When the hook ran, nanoseconds of CLOCK_BOOTTIME.
    pub boot_ns: u64,
    /// The start of the new process.
    pub start_boottime_ns: u64,
    /// The inode of its pidfd, 0 where the kernel has none.
    pub pidfs_ino: u64,
    /// Its run's tag.
    pub run: u64,
    /// The start of the process that called fork, 0 where unknown.
    pub forker_start_boottime_ns: u64,
    /// Its number.
    pub tgid: u32,
    /// The number of the process that called fork, 0 where unknown.
    pub forker_tgid: u32,
    /// The number of its parent at birth; with CLONE_PARENT not the forker.
    pub parent_tgid: u32,
    /// The user id it was born with.
    pub uid: u32,
}

/// A process died: from `sched_process_exit`, once per process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct DeathRecord {
    /// [`kind::DEATH`].
    pub kind: u32,
    /// Bits of [`flag`].
    pub flags: u32,
    /// When the hook ran, nanoseconds of CLOCK_BOOTTIME.
    pub boot_ns: u64,
    /// The start of the process.
    pub start_boottime_ns: u64,
    /// The inode of its pidfd, 0 where the kernel has none.
    pub pidfs_ino: u64,
    /// Its run's tag.
    pub run: u64,
    /// The start of the process that had forked it, 0 where unknown.
    pub forker_start_boottime_ns: u64,
    /// Its number.
    pub tgid: u32,
    /// The number of the process that had forked it, 0 where unknown.
    pub forker_tgid: u32,
    /// Its status as `wait(2)` encodes it: code, signal and core bit. Means nothing with [`flag::STATUS_UNKNOWN`];
    /// read it with [`DeathRecord::wait_status`].
    pub status: i32,
    /// The thread that was the last to leave, by its number in the initial PID namespace.
    pub tid: u32,
}

impl DeathRecord {
    /// Its status as `wait(2)` encodes it, where it is known.
    #[must_use]
    pub fn wait_status(&self) -> Option<i32> {
        (self.flags & flag::STATUS_UNKNOWN == 0).then_some(self.status)
    }
}

/// A process executed a file: from `sched_process_exec`.
///
/// Followed in the record by `filename_cap` bytes that hold the file name (NUL-terminated) and by
/// `argv_len` bytes of the argument vector (each argument NUL-terminated).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ExecHeader {
    /// [`kind::EXEC`].
    pub kind: u32,
    /// Bits of [`flag`].
    pub flags: u32,
    /// When the hook ran, nanoseconds of CLOCK_BOOTTIME.
    pub boot_ns: u64,
    /// The start of the process; an exec does not change it.
    pub start_boottime_ns: u64,
    /// The inode of its pidfd, 0 where the kernel has none.
    pub pidfs_ino: u64,
    /// Its run's tag.
    pub run: u64,
    /// The inode of the executed file, 0 where unknown.
    pub exe_ino: u64,
    /// The device of the executed file in the kernel's own encoding (`MKDEV`), 0 where unknown.
    pub exe_dev: u32,
    /// The process's number.
    pub tgid: u32,
    /// The thread that called exec, by its number in the initial PID namespace; the process keeps its own.
    pub old_tid: u32,
    /// The user id after the exec.
    pub uid: u32,
    /// The number of arguments.
    pub argc: u32,
    /// The length of the whole argument vector in bytes.
    pub argv_total: u32,
    /// The length of what this record holds of it.
    pub argv_len: u32,
    /// The room for the file name.
    pub filename_cap: u32,
}

/// The size of an exec record of the small class; most fit.
pub const EXEC_SMALL: usize = 512;
/// The size of an exec record of the medium class.
pub const EXEC_MEDIUM: usize = 4096;
/// The size of an exec record of the large class; longer argument vectors are truncated and marked.
pub const EXEC_LARGE: usize = 32768;
/// The room for the file name in the small class.
pub const FILENAME_SMALL: usize = 128;
/// The room for the file name in the medium and large classes.
pub const FILENAME_LARGE: usize = 512;

/// A process found by the snapshot (`iter/task`); written by the iterator, never in a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SnapshotRecord {
    /// The start of the process.
    pub start_boottime_ns: u64,
    /// The inode of its pidfd, 0 where the kernel has none.
    pub pidfs_ino: u64,
    /// Its run's tag.
    pub run: u64,
    /// Its number.
    pub tgid: u32,
    /// The number of its parent now.
    pub parent_tgid: u32,
    /// When it was found, nanoseconds of CLOCK_BOOTTIME.
    pub boot_ns: u64,
    /// 1 if this pass put it into the live set, 0 if it was there.
    pub inserted: u32,
    /// Explicit padding.
    pub pad: u32,
}

const _: () = {
    assert!(size_of::<BirthRecord>() == 64);
    assert!(size_of::<DeathRecord>() == 64);
    assert!(size_of::<ExecHeader>() == 80);
    assert!(size_of::<SnapshotRecord>() == 48);
    assert!(core::mem::offset_of!(DeathRecord, status) == 56);
    assert!(core::mem::offset_of!(ExecHeader, filename_cap) == 76);
};

//! The only writer of records: reserve room and fill it, or count the loss.

use agent_loop_common::ProcessKey;
use agent_loop_common::counter::Counter;
use agent_loop_common::map::LiveEntry;
use agent_loop_common::record::{
    BirthRecord, DeathRecord, EXEC_LARGE, EXEC_MEDIUM, EXEC_SMALL, ExecHeader, FILENAME_LARGE, FILENAME_SMALL, flag,
    kind,
};
use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use aya_ebpf::helpers::bpf_probe_read_kernel;
use aya_ebpf::helpers::generated::{bpf_probe_read_kernel_str, bpf_probe_read_user};
use aya_ebpf::maps::ring_buf::RingBufEntry;

use crate::maps::{EVENTS, EXECS, Kind, Run, count};
use crate::task::{Binprm, WaitStatus};

const HEADER: usize = size_of::<ExecHeader>();
const ARGV_SMALL: usize = EXEC_SMALL - HEADER - FILENAME_SMALL;
const ARGV_MEDIUM: usize = EXEC_MEDIUM - HEADER - FILENAME_LARGE;
const ARGV_LARGE: usize = EXEC_LARGE - HEADER - FILENAME_LARGE;

/// Now, in nanoseconds of CLOCK_BOOTTIME.
pub fn now() -> u64 {
    // SAFETY: the helper takes nothing and only reads a clock.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// Records a birth.
pub fn birth(run: Run, tgid: u32, entry: &LiveEntry, parent_tgid: u32, uid: u32) {
    fill_birth(reserve_birth(), run, tgid, entry, parent_tgid, uid);
}

/// Room for a birth, if there is any; goes to [`fill_birth`] or [`discard`].
#[inline(always)]
pub fn reserve_birth() -> Option<RingBufEntry<BirthRecord>> {
    EVENTS.reserve(0)
}

/// Gives the room back: there is no birth to tell.
#[inline(always)]
pub fn discard(room: Option<RingBufEntry<BirthRecord>>) {
    if let Some(room) = room {
        room.discard(0);
    }
}

/// Records a birth in the room reserved for it, or counts its loss.
#[inline(always)]
pub fn fill_birth(
    room: Option<RingBufEntry<BirthRecord>>,
    run: Run,
    tgid: u32,
    entry: &LiveEntry,
    parent_tgid: u32,
    uid: u32,
) {
    run.seen(Kind::Fork);
    let Some(mut room) = room else { return run.lost(Kind::Fork) };
    room.write(BirthRecord {
        kind: kind::BIRTH,
        flags: entry.flags,
        boot_ns: now(),
        start_boottime_ns: entry.start_boottime_ns,
        pidfs_ino: entry.pidfs_ino,
        run: entry.run,
        forker_start_boottime_ns: entry.forker_start_boottime_ns,
        tgid,
        forker_tgid: entry.forker_tgid,
        parent_tgid,
        uid,
    });
    room.submit(0);
}

/// Records a death.
pub fn death(run: Run, tgid: u32, entry: &LiveEntry, status: WaitStatus, tid: u32, boot_ns: u64) {
    run.seen(Kind::Exit);
    let Some(mut room) = EVENTS.reserve::<DeathRecord>(0) else { return run.lost(Kind::Exit) };
    room.write(DeathRecord {
        kind: kind::DEATH,
        flags: entry.flags | if status.is_known() { 0 } else { flag::STATUS_UNKNOWN },
        boot_ns,
        start_boottime_ns: entry.start_boottime_ns,
        pidfs_ino: entry.pidfs_ino,
        run: entry.run,
        forker_start_boottime_ns: entry.forker_start_boottime_ns,
        tgid,
        forker_tgid: entry.forker_tgid,
        status: status.status(),
        tid,
    });
    room.submit(0);
}

/// What the exec hook knows of an exec.
pub struct Exec {
    /// Who.
    pub key: ProcessKey,
    /// Its pidfd's inode.
    pub pidfs_ino: u64,
    /// Its run's tag.
    pub run: u64,
    /// Its run's entry.
    pub counted: Run,
    /// The thread that called exec.
    pub old_tid: u32,
    /// The user id after it.
    pub uid: u32,
    /// Where its arguments are in its memory: start and length.
    pub arguments: (u64, u64),
}

/// Records an exec in the smallest class that its arguments and the file name fit.
pub fn exec(exec: &Exec, bprm: Binprm) {
    exec.counted.seen(Kind::Exec);
    let (_, length) = exec.arguments;
    if length <= ARGV_SMALL as u64 && sized::<FILENAME_SMALL, ARGV_SMALL>(exec, bprm, false) {
        return;
    }
    if length <= ARGV_MEDIUM as u64 {
        sized::<FILENAME_LARGE, ARGV_MEDIUM>(exec, bprm, true);
    } else {
        sized::<FILENAME_LARGE, ARGV_LARGE>(exec, bprm, true);
    }
}

/// An exec record of one size class: `bpf_ringbuf_reserve` takes only constants.
#[repr(C)]
struct ExecRecord<const FILENAME: usize, const ARGV: usize> {
    header: ExecHeader,
    filename: [u8; FILENAME],
    argv: [u8; ARGV],
}

/// Records an exec in this class; `false` if the file name does not fit and a larger class is left.
#[inline(always)]
fn sized<const FILENAME: usize, const ARGV: usize>(exec: &Exec, bprm: Binprm, largest_name: bool) -> bool {
    let Some(mut room) = EXECS.reserve::<ExecRecord<FILENAME, ARGV>>(0) else {
        exec.counted.lost(Kind::Exec);
        return true;
    };
    let record = room.as_mut_ptr();
    let (start, length) = exec.arguments;
    let mut flags = 0;

    // SAFETY: the record's file name bytes.
    let filename = unsafe { &raw mut (*record).filename };
    let source = bprm.filename().unwrap_or(core::ptr::null());
    // SAFETY: the helper checks the address itself and terminates within FILENAME bytes.
    let name = unsafe { bpf_probe_read_kernel_str(filename.cast(), FILENAME as u32, source.cast()) };
    if name <= 0 {
        // SAFETY: the first byte of the record's file name.
        unsafe { filename.cast::<u8>().write(0) };
        flags |= flag::FILENAME_TRUNCATED;
    } else if name as usize >= FILENAME && !ends_at(source, FILENAME - 1) {
        if !largest_name {
            room.discard(0);
            return false;
        }
        flags |= flag::FILENAME_TRUNCATED;
    }

    if length > ARGV as u64 {
        flags |= flag::ARGV_TRUNCATED;
    }
    let mut captured = at_most::<ARGV>(length);
    // SAFETY: the record's argument bytes; at most ARGV of them are written.
    let argv = unsafe { &raw mut (*record).argv };
    // SAFETY: the helper checks the user address itself; the length was bounded by the room above.
    let read = unsafe { bpf_probe_read_user(argv.cast(), captured, start as *const _) };
    if read != 0 {
        captured = 0;
        flags |= flag::ARGV_UNREAD;
        count(Counter::ArgvUnread);
    }

    let (exe_ino, exe_dev) = bprm.file().unwrap_or((0, 0));
    // SAFETY: the record's header.
    let header = unsafe { &raw mut (*record).header };
    // SAFETY: reserved, aligned to eight bytes, and written once.
    unsafe {
        header.write(ExecHeader {
            kind: kind::EXEC,
            flags,
            boot_ns: now(),
            start_boottime_ns: exec.key.start_boottime_ns,
            pidfs_ino: exec.pidfs_ino,
            run: exec.run,
            exe_ino,
            exe_dev,
            tgid: exec.key.tgid,
            old_tid: exec.old_tid,
            uid: exec.uid,
            argc: bprm.argc().unwrap_or(0),
            argv_total: length as u32,
            argv_len: captured,
            filename_cap: FILENAME as u32,
        });
    }
    room.submit(0);
    true
}

/// `length`, and `MOST` where it is longer.
///
/// The compiler would compare a copy and hand on the other, of which a verifier before Linux 6.12 knows no bound: here it
/// is compared and bounded in the register that comes out.
#[inline(always)]
fn at_most<const MOST: usize>(length: u64) -> u32 {
    let bounded: u64;
    // SAFETY: it touches nothing but this register.
    unsafe {
        core::arch::asm!(
            "if {0} <= {most} goto +1",
            "{0} = {most}",
            inout(reg) length => bounded,
            most = const MOST,
            options(pure, nomem, nostack)
        );
    }
    bounded as u32
}

/// Whether the text, which reaches up to this byte at least, ends there.
fn ends_at(text: *const u8, byte: usize) -> bool {
    // SAFETY: the helper checks the address itself.
    let read = unsafe { bpf_probe_read_kernel(text.wrapping_add(byte)) };
    read == Ok(0)
}

//! The system calls of the tests, and all `unsafe` of this crate.
//!
//! Signals by number (`kill`) exist here for two purposes only: a process that signals itself, and the attackers
//! of [`crate::recycle`], which run in a PID namespace of their own.

mod seccomp;

use std::ffi::CString;
use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::oracle::Status;

pub use seccomp::{ask_before, refuse_births, refuse_call, refuse_maps};

/// When the process and all its forks die, in ns of CLOCK_BOOTTIME; 0 is never.
static DIES_AT: AtomicU64 = AtomicU64::new(0);

fn check(ret: i32) -> io::Result<i32> {
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(ret) }
}

fn check_long(ret: libc::c_long) -> io::Result<i32> {
    check(i32::try_from(ret).unwrap_or(-1))
}

/// Nanoseconds of CLOCK_BOOTTIME.
#[must_use]
pub fn boot_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is valid for writing; the clock exists since Linux 2.6.39.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut now) };
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

/// Arranges that this process, and all it forks with [`fork`], get SIGKILL from the kernel after `limit`.
///
/// A POSIX timer whose signal is SIGKILL: it ends stopped processes and those that ignore or block signals.
/// It does not survive exec.
///
/// # Errors
/// When the kernel has no timer left.
pub fn die_after(limit: Duration) -> io::Result<()> {
    DIES_AT.store(boot_ns() + u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX / 2), Ordering::Relaxed);
    arm()
}

fn arm() -> io::Result<()> {
    let at = DIES_AT.load(Ordering::Relaxed);
    if at == 0 {
        return Ok(());
    }
    // SAFETY: an all-zero sigevent is a valid value of this plain C struct.
    let mut event: libc::sigevent = unsafe { mem::zeroed() };
    event.sigev_notify = libc::SIGEV_SIGNAL;
    event.sigev_signo = libc::SIGKILL;
    let mut timer: libc::timer_t = ptr::null_mut();
    // SAFETY: both pointers are valid for the call.
    check(unsafe { libc::timer_create(libc::CLOCK_BOOTTIME, &raw mut event, &raw mut timer) })?;
    let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let value =
        libc::timespec { tv_sec: (at / 1_000_000_000).cast_signed(), tv_nsec: (at % 1_000_000_000).cast_signed() };
    let spec = libc::itimerspec { it_interval: zero, it_value: value };
    // SAFETY: the timer was just created; `spec` is valid for reading.
    check(unsafe { libc::timer_settime(timer, libc::TIMER_ABSTIME, &raw const spec, ptr::null_mut()) })?;
    Ok(())
}

/// Forks; the child runs `child` and exits with what it returns. The time limit of [`die_after`] holds there too.
///
/// # Errors
/// When fork fails.
pub fn fork(child: impl FnOnce() -> u8) -> io::Result<i32> {
    // SAFETY: the adversaries call this while they have one thread, so the child may run any code.
    let pid = check(unsafe { libc::fork() })?;
    if pid == 0 {
        let code = if arm().is_ok() { child() } else { 250 };
        exit(code);
    }
    Ok(pid)
}

/// Forks; true in the parent. The child goes on with the caller's code, under the time limit of [`die_after`].
///
/// # Errors
/// When fork fails.
pub fn fork_on() -> io::Result<bool> {
    // SAFETY: the adversaries call this while they have one thread, so the child may run any code.
    let pid = check(unsafe { libc::fork() })?;
    if pid == 0 && arm().is_err() {
        exit(250);
    }
    Ok(pid != 0)
}

/// Ends the process, all threads, without running anything.
pub fn exit(code: u8) -> ! {
    // SAFETY: always sound; nothing of this process runs afterwards.
    unsafe { libc::_exit(i32::from(code)) }
}

/// Ends this thread alone, with the bare system call.
pub fn exit_thread(code: u8) -> ! {
    // SAFETY: the thread's stack stays mapped; others may go on using what it owned.
    unsafe { libc::syscall(libc::SYS_exit, libc::c_long::from(code)) };
    unreachable!("SYS_exit does not return")
}

/// What a child made by [`clone`] does, in bare system calls.
#[derive(Clone, Copy, Debug)]
pub enum Stub {
    /// Exits at once with this code.
    Exit(u8),
    /// Lives until a signal ends it.
    Pause,
}

/// A child made by [`clone`].
#[derive(Debug)]
pub struct Cloned {
    /// Its number.
    pub pid: i32,
    /// Its pidfd, from the clone3 that made it.
    pub pidfd: OwnedFd,
}

/// Makes a child as [`clone_at`], where the caller is.
///
/// # Errors
/// What clone3 says.
pub fn clone(stub: Stub, pid: Option<i32>) -> io::Result<Cloned> {
    clone_at(stub, Place { pid, ..Place::default() })
}

/// Where a child is born.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place<'a> {
    /// Its exact number (Linux 5.5, CAP_CHECKPOINT_RESTORE): EEXIST where it is taken.
    pub pid: Option<i32>,
    /// Its cgroup (Linux 5.7), else the caller's.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Whether it is a child of the caller's parent, not of the caller.
    pub sibling: bool,
}

/// Makes a child by clone3 that shares this process's memory and descriptors and runs `stub` without touching a stack.
///
/// With [`Stub::Exit`] it is a vfork: the caller waits until the child has exited.
///
/// # Errors
/// What clone3 says.
pub fn clone_at(stub: Stub, place: Place<'_>) -> io::Result<Cloned> {
    let mut pidfd: RawFd = -1;
    let mut set_tid = [place.pid.unwrap_or(0)];
    // SAFETY: an all-zero clone_args is a valid value of this plain C struct.
    let mut args: libc::clone_args = unsafe { mem::zeroed() };
    let vfork = match stub {
        Stub::Exit(_) => libc::CLONE_VFORK,
        Stub::Pause => 0,
    };
    // It shares the descriptors too: copies would keep open what other tests close.
    let shared = libc::CLONE_VM | libc::CLONE_FILES;
    args.flags = u64::from((shared | libc::CLONE_PIDFD | vfork).cast_unsigned()) | CLONE_CLEAR_SIGHAND;
    if place.sibling {
        // It inherits the caller's own exit signal.
        args.flags |= u64::from(libc::CLONE_PARENT.cast_unsigned());
    } else {
        args.exit_signal = u64::from(libc::SIGCHLD.cast_unsigned());
    }
    if let Some(cgroup) = place.cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(cgroup.as_raw_fd().cast_unsigned());
    }
    args.pidfd = (&raw mut pidfd).expose_provenance() as u64;
    if place.pid.is_some() {
        args.set_tid = set_tid.as_mut_ptr().expose_provenance() as u64;
        args.set_tid_size = 1;
    }
    let (nr, arg) = match stub {
        Stub::Exit(code) => (libc::SYS_exit_group, i64::from(code)),
        Stub::Pause => (libc::SYS_ppoll, 0),
    };
    let ret = clone_into_loop(&args, nr, arg);
    if ret < 0 {
        return Err(io::Error::from_raw_os_error(i32::try_from(-ret).unwrap_or(libc::EINVAL)));
    }
    // SAFETY: the kernel has just put an open descriptor there, which nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Cloned { pid: i32::try_from(ret).unwrap_or(-1), pidfd })
}

/// Handlers do not reach the child, whose stack is ours.
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;

/// Linux 5.7 and later.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// clone3, the child then repeating one system call for ever; returns the child's number or a negative errno.
#[cfg(target_arch = "x86_64")]
fn clone_into_loop(args: &libc::clone_args, nr: i64, arg: i64) -> i64 {
    let ret: i64;
    // SAFETY: parent and child share memory, so the child runs system calls from registers alone and never leaves
    // this block; handlers are cleared by CLONE_CLEAR_SIGHAND. For the parent it is one system call.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 3f",
            "2:",
            "mov rax, {nr}",
            "mov rdi, {arg}",
            "xor esi, esi",
            "xor edx, edx",
            "xor r10d, r10d",
            "syscall",
            "jmp 2b",
            "3:",
            nr = in(reg) nr,
            arg = in(reg) arg,
            inlateout("rax") libc::SYS_clone3 => ret,
            in("rdi") ptr::from_ref(args),
            in("rsi") size_of::<libc::clone_args>(),
            out("rcx") _,
            out("r11") _,
            out("rdx") _,
            out("r10") _,
            options(nostack),
        );
    }
    ret
}

/// See above; AArch64.
#[cfg(target_arch = "aarch64")]
fn clone_into_loop(args: &libc::clone_args, nr: i64, arg: i64) -> i64 {
    let ret: i64;
    // SAFETY: see the x86-64 version.
    unsafe {
        std::arch::asm!(
            "svc #0",
            "cbnz x0, 3f",
            "2:",
            "mov x8, {nr}",
            "mov x0, {arg}",
            "mov x1, xzr",
            "mov x2, xzr",
            "mov x3, xzr",
            "svc #0",
            "b 2b",
            "3:",
            nr = in(reg) nr,
            arg = in(reg) arg,
            inlateout("x0") ptr::from_ref(args) => ret,
            inlateout("x1") size_of::<libc::clone_args>() => _,
            inlateout("x8") libc::SYS_clone3 => _,
            out("x2") _,
            out("x3") _,
            options(nostack),
        );
    }
    ret
}

/// A child that was waited for.
#[derive(Clone, Copy, Debug)]
pub struct Reaped {
    /// Its number, free again.
    pub pid: i32,
    /// How it ended.
    pub status: Status,
}

fn waitid(idtype: libc::idtype_t, id: libc::id_t, options: i32) -> io::Result<Option<Reaped>> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    loop {
        // SAFETY: `info` is valid for writing.
        let ret = unsafe { libc::waitid(idtype, id, info.as_mut_ptr(), libc::WEXITED | options) };
        match check(ret) {
            Ok(_) => break,
            Err(err) if err.raw_os_error() == Some(libc::EINTR) => {}
            Err(err) => return Err(err),
        }
    }
    // SAFETY: zeroed at first, then written by the kernel; every bit pattern is valid.
    let info = unsafe { info.assume_init() };
    // SAFETY: waitid fills the SIGCHLD members, or leaves them zero.
    let pid = unsafe { info.si_pid() };
    if pid == 0 {
        return Ok(None);
    }
    // SAFETY: as above.
    let value = unsafe { info.si_status() };
    let status = match info.si_code {
        libc::CLD_EXITED => Status::exited(value),
        code => Status::signaled(value, code == libc::CLD_DUMPED),
    };
    Ok(Some(Reaped { pid, status }))
}

/// Waits for this child and reaps it.
///
/// # Errors
/// When it is not our child.
pub fn wait(pid: i32) -> io::Result<Status> {
    let found = waitid(libc::P_PID, pid.cast_unsigned(), 0)?;
    found.map(|reaped| reaped.status).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Waits for any child; `None` when there is none at all.
///
/// # Errors
/// When the kernel refuses.
pub fn wait_any() -> io::Result<Option<Reaped>> {
    childless(waitid(libc::P_ALL, 0, 0))
}

/// Reaps a child that has ended already, if there is one.
///
/// # Errors
/// When the kernel refuses.
pub fn reap_any() -> io::Result<Option<Reaped>> {
    childless(waitid(libc::P_ALL, 0, libc::WNOHANG))
}

fn childless(found: io::Result<Option<Reaped>>) -> io::Result<Option<Reaped>> {
    match found {
        Err(err) if err.raw_os_error() == Some(libc::ECHILD) => Ok(None),
        other => other,
    }
}

/// Opens a pidfd.
///
/// # Errors
/// ESRCH when nobody has this number.
pub fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd = check_long(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: just opened, owned by nobody else; the kernel sets CLOEXEC.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The inode of the process that the pidfd names; `None` before Linux 6.9, where all pidfds share one.
#[must_use]
pub fn pidfd_ino(pidfd: impl AsFd) -> Option<u64> {
    const PID_FS_MAGIC: i64 = 0x5049_4446;
    let fs = nix::sys::statfs::fstatfs(&pidfd).ok()?;
    (fs.filesystem_type().0 == PID_FS_MAGIC).then(|| nix::sys::stat::fstat(&pidfd).ok().map(|it| it.st_ino))?
}

/// Signals the process that the pidfd names.
///
/// # Errors
/// ESRCH when it was reaped.
pub fn pidfd_signal(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    let fd = pidfd.as_fd().as_raw_fd();
    // SAFETY: the null siginfo asks the kernel to fill it in.
    let ret = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, ptr::null::<libc::siginfo_t>(), 0) };
    check_long(ret).map(drop)
}

/// Whether the whole process behind the pidfd has ended, be it reaped or not.
#[must_use]
pub fn pidfd_ended(pidfd: BorrowedFd<'_>, within: Duration) -> bool {
    let mut poll = libc::pollfd { fd: pidfd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let timeout = i32::try_from(within.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: one valid pollfd.
    (unsafe { libc::poll(&raw mut poll, 1, timeout) }) == 1
}

/// Sends a signal by number.
///
/// # Errors
/// What kill says.
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: no pointers; the callers are named at the top of this module.
    check(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// Gives this signal its default disposition and unblocks all, then sends it to this process.
///
/// # Errors
/// When it did not end the process.
pub fn die_by(signal: i32) -> io::Error {
    default_signal(signal);
    let none = 0u64;
    // SAFETY: the kernel's signal set is 8 bytes, read from `none`; the old one is not asked for.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const none, ptr::null::<u64>(), 8) };
    match kill(std::process::id().cast_signed(), signal) {
        Ok(()) => io::Error::other(format!("signal {signal} did not end the process")),
        Err(err) => err,
    }
}

/// Gives every signal its default disposition; makes system calls only.
pub fn default_signals() {
    (1..=64).for_each(default_signal);
}

/// Gives this signal its default disposition, with the bare system call: libc keeps 32 and 33 to itself, and its
/// posix_spawn leaves them ignored in the child.
fn default_signal(signal: i32) {
    // The kernel's `struct sigaction`, 32 bytes on x86-64 and 24 on AArch64; zeros are SIG_DFL, no flags, no mask.
    let default = [0u64; 4];
    let none = ptr::null_mut::<u64>();
    // SAFETY: the kernel reads `default` and is not asked for the old action; its signal set is 8 bytes.
    unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), none, 8) };
}

/// Leaves a copy of the standard input open as descriptor `fd`, also across exec; makes system calls only.
///
/// # Errors
/// When dup2 fails.
pub fn leak_stdin_as(fd: RawFd) -> io::Result<()> {
    // SAFETY: no pointers; nothing of ours is at `fd` in a child between fork and exec.
    check(unsafe { libc::dup2(0, fd) }).map(drop)
}

/// Ignores this signal.
///
/// # Errors
/// When it cannot be ignored.
pub fn ignore(signal: i32) -> io::Result<()> {
    // SAFETY: SIG_IGN runs no code.
    let old = unsafe { libc::signal(signal, libc::SIG_IGN) };
    if old == libc::SIG_ERR { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Signals that end a process whose dispositions are the default ones.
pub fn fatal_signals() -> impl Iterator<Item = i32> {
    let harmless = [
        libc::SIGCHLD,
        libc::SIGCONT,
        libc::SIGURG,
        libc::SIGWINCH,
        libc::SIGSTOP,
        libc::SIGTSTP,
        libc::SIGTTIN,
        libc::SIGTTOU,
    ];
    (1..=64).filter(move |signal| !harmless.contains(signal))
}

/// Counters that forks share.
///
/// # Errors
/// When there is no memory.
pub fn shared_counters() -> io::Result<&'static [AtomicU32; 4]> {
    // SAFETY: a fresh anonymous mapping, never unmapped.
    let at = unsafe {
        libc::mmap(
            ptr::null_mut(),
            size_of::<[AtomicU32; 4]>(),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if at == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: page-aligned, zeroed, large enough, alive for ever; zero is a valid AtomicU32.
    Ok(unsafe { &*at.cast() })
}

/// Zeroed words that forks share.
///
/// # Errors
/// When there is no memory.
pub fn shared_words(count: usize) -> io::Result<&'static [AtomicU64]> {
    let bytes = count * size_of::<AtomicU64>();
    let (read_write, shared) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    // SAFETY: a fresh anonymous mapping, never unmapped.
    let at = unsafe { libc::mmap(ptr::null_mut(), bytes, read_write, shared, -1, 0) };
    if at == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: page-aligned, zeroed, of this size, alive for ever; zero is a valid AtomicU64.
    Ok(unsafe { std::slice::from_raw_parts(at.cast(), count) })
}

/// Forks a child that does nothing but `_exit`, without the limit of [`die_after`].
///
/// # Errors
/// When fork fails.
pub fn fork_exiting(code: u8) -> io::Result<i32> {
    // SAFETY: the child makes one system call.
    let pid = check(unsafe { libc::fork() })?;
    if pid == 0 {
        exit(code);
    }
    Ok(pid)
}

/// A new epoll instance.
///
/// # Errors
/// When there are too many descriptors.
pub fn epoll() -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
    // SAFETY: just opened, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Has the instance tell once that `fd` is readable, as `data`.
///
/// # Errors
/// What epoll_ctl says.
pub fn epoll_add_once(epoll: BorrowedFd<'_>, fd: BorrowedFd<'_>, data: u64) -> io::Result<()> {
    let events = (libc::EPOLLIN | libc::EPOLLONESHOT).cast_unsigned();
    let mut event = libc::epoll_event { events, u64: data };
    // SAFETY: `event` is valid for the call.
    let done = unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd.as_raw_fd(), &raw mut event) };
    check(done).map(drop)
}

/// Waits for what the instance has to tell, and puts the data of each into `ready`.
///
/// # Errors
/// What epoll_wait says.
pub fn epoll_wait(epoll: BorrowedFd<'_>, ready: &mut Vec<u64>, within: Duration) -> io::Result<()> {
    const MOST: usize = 256;
    ready.clear();
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; MOST];
    let timeout = i32::try_from(within.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: room for `MOST` events.
    let count = unsafe { libc::epoll_wait(epoll.as_raw_fd(), events.as_mut_ptr(), MOST as i32, timeout) };
    let count = match check(count) {
        Err(err) if err.raw_os_error() == Some(libc::EINTR) => 0,
        count => usize::try_from(count?).unwrap_or(0),
    };
    ready.extend(events[..count].iter().map(|event| event.u64));
    Ok(())
}

fn bpf(command: libc::c_int, attr: &mut [u64]) -> io::Result<i32> {
    // SAFETY: the callers' attributes are of their size and name memory that lives during the call.
    check_long(unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), size_of_val(attr)) })
}

/// Has the kernel take the times of eBPF programs while the descriptor is open (Linux 5.8 and later).
///
/// # Errors
/// When this process may not.
pub fn bpf_enable_stats() -> io::Result<OwnedFd> {
    const BPF_ENABLE_STATS: libc::c_int = 32;
    const BPF_STATS_RUN_TIME: u64 = 0;
    let fd = bpf(BPF_ENABLE_STATS, &mut [BPF_STATS_RUN_TIME])?;
    // SAFETY: just opened, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// How often a program ran, and how long in all.
#[derive(Clone, Debug)]
pub struct ProgramStats {
    /// Its name.
    pub name: String,
    /// How often it ran since times are taken.
    pub runs: u64,
    /// How long in all, in ns.
    pub ns: u64,
}

/// The times of the eBPF program with this id.
///
/// # Errors
/// When there is none, or this process may not look.
pub fn bpf_program_stats(id: u32) -> io::Result<ProgramStats> {
    const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
    const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
    // Offsets in `struct bpf_prog_info`, fixed by the user-space ABI (linux/bpf.h).
    const NAME: std::ops::Range<usize> = 64..80;
    const RUN_TIME_NS: usize = 192;
    const RUN_CNT: usize = 200;
    let fd = bpf(BPF_PROG_GET_FD_BY_ID, &mut [u64::from(id), 0])?;
    // SAFETY: just opened, owned by nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut info = [0_u8; 256];
    let fd_and_length = u64::from(fd.as_raw_fd().cast_unsigned()) | (info.len() as u64) << 32;
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut [fd_and_length, info.as_mut_ptr().expose_provenance() as u64])?;
    let word = |at: usize| info[at..].first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
    let name = info[NAME].split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(ProgramStats { name: String::from_utf8_lossy(name).into_owned(), runs: word(RUN_CNT), ns: word(RUN_TIME_NS) })
}

/// Closes every descriptor from `first` on.
///
/// # Errors
/// When the kernel has no close_range (before 5.9).
pub fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: the callers use no descriptor afterwards that they opened before.
    check_long(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) }).map(drop)
}

/// Closes this descriptor; for a child between fork and exec.
///
/// # Errors
/// When it is not open.
pub fn close(fd: RawFd) -> io::Result<()> {
    // SAFETY: nothing of ours is used in a child between fork and exec.
    check(unsafe { libc::close(fd) }).map(drop)
}

/// Makes the terminal `tty` this session's controlling terminal; for a child between fork and exec.
///
/// # Errors
/// When it is another session's.
pub fn take_terminal(tty: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: setsid has no arguments.
    check(unsafe { libc::setsid() })?;
    // SAFETY: TIOCSCTTY takes an integer.
    check(unsafe { libc::ioctl(tty.as_raw_fd(), libc::TIOCSCTTY, 0) })?;
    Ok(())
}

/// Runs `hook` in the child of `command`, between fork and exec; it must only make system calls.
pub fn before_exec(
    command: &mut std::process::Command,
    hook: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
) -> &mut std::process::Command {
    use std::os::unix::process::CommandExt;
    // SAFETY: the callers' hooks make system calls only, which is allowed after fork.
    unsafe { command.pre_exec(hook) }
}

/// Becomes the tracer of a process, which runs on: its end is then told to this thread first.
///
/// # Errors
/// EPERM without the right to, or where it has a tracer.
pub fn trace(pid: i32) -> io::Result<()> {
    // SAFETY: PTRACE_SEIZE takes a number and flags, of which there are none.
    check_long(unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, 0, 0) })?;
    Ok(())
}

/// Lets this thread's parent trace what this process executes next; it stops there.
///
/// # Errors
/// EPERM where it is traced.
pub fn be_traced() -> io::Result<()> {
    // SAFETY: PTRACE_TRACEME ignores the other arguments.
    check_long(unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) })?;
    Ok(())
}

/// Runs a child that called [`be_traced`] until it has done the system call `number` with success, `most` system
/// calls at most; it is stopped then, before it can do anything else.
///
/// # Errors
/// What ptrace reports; an error of its own if the child ended, or did no such call.
pub fn run_past_call(pid: i32, number: libc::c_long, most: u32) -> io::Result<()> {
    const GET_SYSCALL_INFO: libc::c_uint = 0x420e;
    let (mut last, number) = (None, u64::try_from(number).map_err(io::Error::other)?);
    for _ in 0..most {
        let mut status = 0;
        // SAFETY: the status outlives the call.
        check(unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) })?;
        if !libc::WIFSTOPPED(status) {
            return Err(io::Error::other(format!("the traced child ended: {status:#x}")));
        }
        let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL;
        // SAFETY: PTRACE_SETOPTIONS takes an integer. Without it stops at system calls are not told from others.
        check_long(unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, pid, 0, options) })?;
        // `struct ptrace_syscall_info`: what it is in the first byte, the number or the result in the fourth word.
        let mut info = [0u64; 11];
        // SAFETY: the size and the address are those of `info`.
        let got = unsafe { libc::ptrace(GET_SYSCALL_INFO, pid, size_of_val(&info), info.as_mut_ptr()) };
        check_long(got)?;
        match info[0] & 0xff {
            1 => last = Some(info[3]),
            2 if last == Some(number) && info[3].cast_signed() >= 0 => return Ok(()),
            _ => {}
        }
        // Signals but the stop's own are handed on.
        let signal = Some(libc::WSTOPSIG(status)).filter(|signal| signal & 0x7f != libc::SIGTRAP).unwrap_or(0);
        // SAFETY: PTRACE_SYSCALL takes a signal, or none.
        check_long(unsafe { libc::ptrace(libc::PTRACE_SYSCALL, pid, 0, signal) })?;
    }
    Err(io::Error::other("the traced child does not do that"))
}

/// An execve as it is given to the kernel, prepared before the fork.
#[derive(Debug)]
pub struct Image {
    dir: RawFd,
    path: CString,
    flags: i32,
    argv: Vec<usize>,
    _texts: Vec<CString>,
}

impl Image {
    /// Executes this path with exactly these arguments; none at all is possible.
    #[must_use]
    pub fn path(path: CString, argv: Vec<CString>) -> Self {
        Self::new(libc::AT_FDCWD, path, 0, argv)
    }

    /// Executes what this descriptor is open on (`fexecve`).
    #[must_use]
    pub fn descriptor(fd: RawFd, argv: Vec<CString>) -> Self {
        Self::new(fd, CString::default(), libc::AT_EMPTY_PATH, argv)
    }

    fn new(dir: RawFd, path: CString, flags: i32, texts: Vec<CString>) -> Self {
        let argv = texts.iter().map(|text| text.as_ptr().expose_provenance()).chain([0]).collect();
        Self { dir, path, flags, argv, _texts: texts }
    }

    /// Executes it, with an empty environment; returns only the error. Makes one system call.
    pub fn execute(&self) -> io::Error {
        let none = [0usize];
        let (path, argv, envp) = (self.path.as_ptr(), self.argv.as_ptr(), none.as_ptr());
        // SAFETY: the path and both arrays end with a null and live as long as `self` and this frame.
        unsafe { libc::syscall(libc::SYS_execveat, self.dir, path, argv, envp, self.flags) };
        io::Error::last_os_error()
    }
}

/// Makes a child, as fork does, that is born in this cgroup and executes `image` at once (Linux 5.7).
///
/// # Errors
/// What clone3 says; an exec that fails becomes exit code 250.
pub fn born_in(cgroup: BorrowedFd<'_>, image: &Image) -> io::Result<i32> {
    // SAFETY: an all-zero clone_args is a valid value of this plain C struct.
    let mut args: libc::clone_args = unsafe { mem::zeroed() };
    args.flags = CLONE_INTO_CGROUP | CLONE_CLEAR_SIGHAND;
    args.exit_signal = u64::from(libc::SIGCHLD.cast_unsigned());
    args.cgroup = u64::from(cgroup.as_raw_fd().cast_unsigned());
    // SAFETY: without CLONE_VM the child has a copy of this memory, and makes system calls only.
    let pid = check_long(unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) })?;
    if pid == 0 {
        image.execute();
        exit(250);
    }
    Ok(pid)
}

/// Runs `command` until it is about to make its `nth` system call (from 0) of these numbers, and kills it there;
/// returns whether it came so far, else it has ended by itself. Also how many of them it had made.
///
/// Only its first thread is watched.
///
/// # Errors
/// When it cannot be traced.
pub fn kill_at_call(
    command: &mut std::process::Command,
    numbers: &[libc::c_long],
    nth: usize,
) -> io::Result<(bool, usize)> {
    before_exec(command, || {
        // SAFETY: PTRACE_TRACEME takes no pointers; our parent becomes the tracer.
        let traced = unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, ptr::null_mut::<u8>(), ptr::null_mut::<u8>()) };
        check_long(traced).map(drop)
    });
    let child = command.spawn()?;
    let pid = child.id().cast_signed();
    let pidfd = pidfd_open(pid)?;
    let (mut made, mut entering) = (0, false);
    // The stop after its exec comes first.
    let mut status = stopped(pid)?;
    let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL;
    // SAFETY: a stopped tracee of ours; the options are an integer.
    check_long(unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, pid, ptr::null_mut::<u8>(), options) })?;
    loop {
        if !libc::WIFSTOPPED(status) {
            return Ok((false, made));
        }
        let mut signal = 0;
        if libc::WSTOPSIG(status) == libc::SIGTRAP | 0x80 {
            entering = !entering;
            if entering && numbers.contains(&call_of(pid)?) {
                if made == nth {
                    pidfd_signal(&pidfd, libc::SIGKILL)?;
                    while libc::WIFSTOPPED(stopped(pid)?) {}
                    return Ok((true, made));
                }
                made += 1;
            }
        } else if libc::WSTOPSIG(status) != libc::SIGTRAP {
            signal = libc::WSTOPSIG(status);
        }
        // SAFETY: a stopped tracee of ours; the signal is an integer.
        check_long(unsafe { libc::ptrace(libc::PTRACE_SYSCALL, pid, ptr::null_mut::<u8>(), signal) })?;
        status = stopped(pid)?;
    }
}

/// Waits for a tracee to stop or end.
fn stopped(pid: i32) -> io::Result<i32> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is valid for writing.
        match check(unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) }) {
            Err(err) if err.raw_os_error() == Some(libc::EINTR) => {}
            other => return other.map(|_| status),
        }
    }
}

/// The number of the system call that a stopped tracee is about to make (Linux 5.3).
fn call_of(pid: i32) -> io::Result<libc::c_long> {
    // `struct ptrace_syscall_info`: operation and architecture, instruction and stack pointer, then the number.
    let mut info = [0_u64; 16];
    let size = ptr::without_provenance_mut::<u8>(size_of_val(&info));
    // SAFETY: a stopped tracee of ours; the kernel writes at most the size it is told.
    check_long(unsafe { libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, pid, size, info.as_mut_ptr()) })?;
    Ok(info[3].cast_signed())
}

/// Whether this kernel lets this process make a BPF map.
#[must_use]
pub fn may_bpf() -> bool {
    // The start of `union bpf_attr` for BPF_MAP_CREATE: type array, key 4, value 4, one entry.
    let attr: [u32; 5] = [2, 4, 4, 1, 0];
    // SAFETY: the pointer and size describe `attr`, which the kernel only reads.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, 0, attr.as_ptr(), size_of_val(&attr)) };
    let Ok(fd) = check_long(fd) else { return false };
    // SAFETY: just opened, owned by nobody else.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    true
}

/// Traces a process from now on, without stopping it: its end is told to its parent only after [`wait`] told us.
///
/// # Errors
/// When the kernel refuses.
pub fn seize(pid: i32) -> io::Result<()> {
    let none = ptr::null_mut::<libc::c_void>();
    // SAFETY: PTRACE_SEIZE reads no memory of ours; its options are 0.
    check_long(unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, none, none) }).map(drop)
}

/// Gives this thread alone another user id.
///
/// # Errors
/// When the kernel refuses.
pub fn thread_becomes(uid: u32) -> io::Result<()> {
    // SAFETY: integers only. The C library's call would change every thread.
    check_long(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}

/// Receives a datagram of at most 64 KiB and its descriptors, without waiting.
///
/// # Errors
/// EAGAIN when there is none.
pub fn receive(socket: BorrowedFd<'_>) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
    let mut bytes = vec![0; 64 << 10];
    let mut control = nix::cmsg_space!([RawFd; 16]);
    let mut part = [io::IoSliceMut::new(&mut bytes)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut part, Some(&mut control), flags)?;
    let mut fds = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(rights) = control {
            // SAFETY: the kernel has just made them for us.
            fds.extend(rights.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    let length = message.bytes;
    bytes.truncate(length);
    Ok((bytes, fds))
}

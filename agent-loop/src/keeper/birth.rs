//! The birth of a process by `clone3`: into a cgroup, with its pidfd, straight into this program again.
//!
//! The child is a copy of a process that may have threads: until its execve it makes system calls on memory that
//! was prepared before, and nothing else. No allocation, no lock, no panic.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

use super::launch::Step;

/// `struct clone_args` of linux/sched.h in its Linux 5.7 version.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct CloneArgs {
    pub(super) flags: u64,
    pub(super) pidfd: u64,
    pub(super) child_tid: u64,
    pub(super) parent_tid: u64,
    pub(super) exit_signal: u64,
    pub(super) stack: u64,
    pub(super) stack_size: u64,
    pub(super) tls: u64,
    pub(super) set_tid: u64,
    pub(super) set_tid_size: u64,
    pub(super) cgroup: u64,
}

const _: () = assert!(size_of::<CloneArgs>() == 88);

pub(super) const CLONE_PIDFD: u64 = 0x1000;
pub(super) const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
pub(super) const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// The raw call, without a stack of its own, so like fork: 0 in the child.
///
/// # Safety
/// The addresses in `args` are valid for the kernel's writes. In the child, until execve or exit, only what is
/// safe in a signal handler may be done.
pub(super) unsafe fn clone3(args: &CloneArgs) -> Result<libc::pid_t, Errno> {
    // SAFETY: the structure has the size that is given; the rest is the caller's promise.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, std::ptr::from_ref(args), size_of::<CloneArgs>()) };
    Errno::result(pid).map(|pid| libc::pid_t::try_from(pid).unwrap_or(-1))
}

/// What a new process is to be.
pub(super) struct Birth<'a> {
    /// The arguments of this program.
    pub(super) args: &'a [CString],
    /// The descriptors it keeps, besides 0, 1 and 2.
    pub(super) keep: &'a [RawFd],
    /// Where it is born.
    pub(super) cgroup: Option<BorrowedFd<'a>>,
    /// Without a frozen cgroup: a pipe, and it does nothing before a byte arrives there.
    pub(super) hold: Option<Hold<'a>>,
    /// Where it says that its execve failed.
    pub(super) errors: Option<BorrowedFd<'a>>,
}

/// Both ends of the pipe that holds a child back.
pub(super) struct Hold<'a> {
    pub(super) read: BorrowedFd<'a>,
    pub(super) write: BorrowedFd<'a>,
}

/// A failure on the way, as it crosses the pipe.
pub(super) fn report(step: Step, errno: i32) -> [u8; 8] {
    let [a, b, c, d] = errno.to_ne_bytes();
    [b'!', step as u8, 0, 0, a, b, c, d]
}

/// Everything the child needs, as plain numbers and pointers.
struct Prepared {
    argv: *const *const libc::c_char,
    envp: *const *const libc::c_char,
    exe: RawFd,
    keep: *const RawFd,
    keep_len: usize,
    hold_read: RawFd,
    hold_write: RawFd,
    errors: RawFd,
    parent: libc::pid_t,
}

/// Makes a process that executes this program with other arguments and an empty environment.
pub(super) fn bear(birth: &Birth<'_>) -> io::Result<(u32, OwnedFd)> {
    // By descriptor as well: /proc may not be there, and the file may have been replaced by an upgrade.
    let exe = std::fs::File::open("/proc/self/exe").or_else(|_| std::fs::File::open(std::env::current_exe()?)).ok();
    let argv: Vec<_> = birth.args.iter().map(|arg| arg.as_ptr()).chain([std::ptr::null()]).collect();
    let envp = [std::ptr::null()];
    let raw = |fd: Option<BorrowedFd<'_>>| fd.map_or(-1, |fd| fd.as_raw_fd());
    let prepared = Prepared {
        argv: argv.as_ptr(),
        envp: envp.as_ptr(),
        exe: exe.as_ref().map_or(-1, AsRawFd::as_raw_fd),
        keep: birth.keep.as_ptr(),
        keep_len: birth.keep.len(),
        hold_read: raw(birth.hold.as_ref().map(|hold| hold.read)),
        hold_write: raw(birth.hold.as_ref().map(|hold| hold.write)),
        errors: raw(birth.errors),
        parent: nix::unistd::getpid().as_raw(),
    };
    let mut pidfd: RawFd = -1;
    let mut args = CloneArgs {
        // Handlers are cleared at birth: a signal to the child must not run ours on our shared descriptors.
        flags: CLONE_PIDFD | CLONE_CLEAR_SIGHAND,
        pidfd: (&raw mut pidfd).addr() as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if let Some(cgroup) = birth.cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(cgroup.as_raw_fd().unsigned_abs());
    }
    // SAFETY: `pidfd` outlives the call; the child runs `child` alone, which keeps to what a handler may do.
    let pid = match unsafe { clone3(&args) }? {
        // SAFETY: `prepared` and all it points to is in this frame, which the child has a copy of.
        0 => unsafe { child(&prepared) },
        pid => pid,
    };
    // SAFETY: CLONE_PIDFD made this descriptor for us.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok((pid.unsigned_abs(), pidfd))
}

/// The first instructions of a new process.
///
/// # Safety
/// Called in the child of a `clone3`, with pointers that were prepared before it.
unsafe fn child(prepared: &Prepared) -> ! {
    if prepared.hold_read >= 0 {
        // SAFETY: this process has nothing else to do with the write end; its own copy would keep the pipe open.
        unsafe { libc::close(prepared.hold_write) };
        // SAFETY: prctl with integers.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        // SAFETY: getppid takes nothing. A parent that died before the line above sends no signal any more.
        if unsafe { libc::getppid() } != prepared.parent {
            // SAFETY: _exit runs no handlers.
            unsafe { libc::_exit(125) };
        }
        let mut byte = 0u8;
        loop {
            // SAFETY: one byte into one byte.
            let got = unsafe { libc::read(prepared.hold_read, (&raw mut byte).cast(), 1) };
            if got == 1 {
                break;
            }
            if got == 0 || errno() != libc::EINTR {
                // SAFETY: _exit runs no handlers.
                unsafe { libc::_exit(125) };
            }
        }
    }
    let mut next = 0;
    while next < prepared.keep_len {
        // SAFETY: `next` is below the length of the array that the parent prepared.
        let fd = unsafe { prepared.keep.add(next) };
        // SAFETY: it points into that array.
        let fd = unsafe { fd.read() };
        // SAFETY: fcntl with integers; only this process's flag changes.
        unsafe { libc::fcntl(fd, libc::F_SETFD, 0) };
        next += 1;
    }
    // SAFETY: path, arguments and environment are terminated and were prepared before the clone.
    unsafe { libc::execve(c"/proc/self/exe".as_ptr(), prepared.argv, prepared.envp) };
    if prepared.exe >= 0 {
        // SAFETY: as above; the empty path with AT_EMPTY_PATH names the descriptor.
        unsafe {
            libc::syscall(
                libc::SYS_execveat,
                prepared.exe,
                c"".as_ptr(),
                prepared.argv,
                prepared.envp,
                libc::AT_EMPTY_PATH,
            )
        };
    }
    if prepared.errors >= 0 {
        let report = report(Step::Launcher, errno());
        // SAFETY: the bytes are on this stack.
        unsafe { libc::write(prepared.errors, report.as_ptr().cast(), report.len()) };
    }
    // SAFETY: _exit runs no handlers.
    unsafe { libc::_exit(125) }
}

/// The error number of the last call; in the child it is the thread's own copy.
fn errno() -> i32 {
    Errno::last_raw()
}

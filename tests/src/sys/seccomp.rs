//! Filters of system calls (seccomp): a call that is refused, and one whose answer another process gives.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::{check, check_long};

/// Lets this process and its children have `errno` for the system call `number`; needs CAP_SYS_ADMIN.
///
/// # Errors
/// What seccomp reports.
pub fn refuse_call(number: libc::c_long, errno: u16) -> io::Result<()> {
    filter(number, libc::SECCOMP_RET_ERRNO | u32::from(errno), 0).map(drop)
}

/// Has the kernel do this at the system call `number` from now on.
fn filter(number: libc::c_long, action: u32, flags: libc::c_ulong) -> io::Result<i32> {
    let number = u32::try_from(number).map_err(io::Error::other)?;
    let line = |code, jf, k| libc::sock_filter { code, jt: 0, jf, k };
    let mut lines = [
        // The number is the first word of `struct seccomp_data`.
        line((libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, 0, 0),
        line((libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, 1, number),
        line((libc::BPF_RET | libc::BPF_K) as u16, 0, action),
        line((libc::BPF_RET | libc::BPF_K) as u16, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 4, filter: lines.as_mut_ptr() };
    let set = libc::SECCOMP_SET_MODE_FILTER;
    // SAFETY: the program and its lines outlive the call, which copies them.
    check_long(unsafe { libc::syscall(libc::SYS_seccomp, set, flags, &raw const program) })
}

/// From now on this process's clone3 waits for what [`refuse_births`] says, whose descriptor is sent through `to`.
///
/// # Errors
/// When the kernel takes no such filter (Linux 5.0), or nobody listens.
pub fn ask_before_clone3(to: BorrowedFd<'_>) -> io::Result<()> {
    let fd = filter(libc::SYS_clone3, libc::SECCOMP_RET_USER_NOTIF, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER)?;
    // SAFETY: just opened, owned by nobody else.
    let listener = unsafe { OwnedFd::from_raw_fd(fd) };
    let fds = [listener.as_raw_fd()];
    let (rights, flags) = (nix::sys::socket::ControlMessage::ScmRights(&fds), nix::sys::socket::MsgFlags::empty());
    nix::sys::socket::sendmsg::<()>(to.as_raw_fd(), &[io::IoSlice::new(b"x")], &[rights], flags, None)?;
    Ok(())
}

/// Has every birth of a process fail with this error until nobody is left who asks; births of threads go on.
///
/// # Errors
/// What the kernel says of the descriptor.
pub fn refuse_births(listener: &OwnedFd, errno: i32) -> io::Result<()> {
    let fd = listener.as_raw_fd();
    // Who asked may be gone.
    let gone = |error: &io::Error| error.raw_os_error() == Some(libc::ENOENT);
    loop {
        let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid entry.
        check(unsafe { libc::poll(&raw mut poll, 1, -1) })?;
        if poll.revents & libc::POLLIN == 0 {
            return Ok(());
        }
        // SAFETY: a plain C struct, which the kernel wants all zero.
        let mut asked: libc::seccomp_notif = unsafe { mem::zeroed() };
        // SAFETY: valid for writing.
        match check(unsafe { libc::ioctl(fd, libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut asked) }) {
            Err(error) if gone(&error) => continue,
            other => other?,
        };
        // The flags are the first field of `struct clone_args`.
        let mut flags = [0; 8];
        let memory = std::fs::File::open(format!("/proc/{}/mem", asked.pid))?;
        std::os::unix::fs::FileExt::read_exact_at(&memory, &mut flags, asked.data.args[0])?;
        let thread = u64::from_ne_bytes(flags) & libc::CLONE_THREAD as u64 != 0;
        let mut answer = libc::seccomp_notif_resp {
            id: asked.id,
            val: 0,
            error: if thread { 0 } else { -errno },
            flags: if thread { libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32 } else { 0 },
        };
        // SAFETY: valid for reading.
        match check(unsafe { libc::ioctl(fd, libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut answer) }) {
            Err(error) if gone(&error) => {}
            other => drop(other?),
        }
    }
}

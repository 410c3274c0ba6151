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

/// From now on the system call `number` of this process waits for what [`refuse_births`] or [`refuse_maps`] says, whose
/// descriptor is sent through `to`.
///
/// # Errors
/// When the kernel takes no such filter (Linux 5.0), or nobody listens.
pub fn ask_before(number: libc::c_long, to: BorrowedFd<'_>) -> io::Result<()> {
    let fd = filter(number, libc::SECCOMP_RET_USER_NOTIF, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER)?;
    // SAFETY: just opened, owned by nobody else.
    let listener = unsafe { OwnedFd::from_raw_fd(fd) };
    let fds = [listener.as_raw_fd()];
    let (rights, flags) = (nix::sys::socket::ControlMessage::ScmRights(&fds), nix::sys::socket::MsgFlags::empty());
    nix::sys::socket::sendmsg::<()>(to.as_raw_fd(), &[io::IoSlice::new(b"x")], &[rights], flags, None)?;
    Ok(())
}

/// Has every birth of a process by clone3 fail with this error until nobody is left who asks; births of threads go on.
///
/// # Errors
/// What the kernel says of the descriptor.
pub fn refuse_births(listener: &OwnedFd, errno: i32) -> io::Result<()> {
    answer(listener, errno, |asked| {
        // The flags are the first field of `struct clone_args`.
        let flags = u64::from_ne_bytes(read_memory(asked.pid, asked.data.args[0])?);
        Ok(flags & libc::CLONE_THREAD as u64 == 0)
    })
}

/// Has every creation of an eBPF map of this type by bpf(2) fail with this error until nobody is left who asks.
///
/// # Errors
/// What the kernel says of the descriptor.
pub fn refuse_maps(listener: &OwnedFd, map_type: u32, errno: i32) -> io::Result<()> {
    const BPF_MAP_CREATE: u64 = 0;
    answer(listener, errno, |asked| {
        // The type is the first field of what a map is created by (`union bpf_attr`).
        let [command, attributes, ..] = asked.data.args;
        Ok(command == BPF_MAP_CREATE && u32::from_ne_bytes(read_memory(asked.pid, attributes)?) == map_type)
    })
}

/// Bytes of another process's memory.
fn read_memory<const LENGTH: usize>(pid: u32, at: u64) -> io::Result<[u8; LENGTH]> {
    let mut bytes = [0; LENGTH];
    let memory = std::fs::File::open(format!("/proc/{pid}/mem"))?;
    std::os::unix::fs::FileExt::read_exact_at(&memory, &mut bytes, at)?;
    Ok(bytes)
}

/// Has the calls that are `refused` fail with this error, and lets the others go on, until nobody is left who asks.
fn answer(
    listener: &OwnedFd,
    errno: i32,
    refused: impl Fn(&libc::seccomp_notif) -> io::Result<bool>,
) -> io::Result<()> {
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
        let refused = refused(&asked)?;
        let mut answer = libc::seccomp_notif_resp {
            id: asked.id,
            val: 0,
            error: if refused { -errno } else { 0 },
            flags: if refused { 0 } else { libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32 },
        };
        // SAFETY: valid for reading.
        match check(unsafe { libc::ioctl(fd, libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut answer) }) {
            Err(error) if gone(&error) => {}
            other => drop(other?),
        }
    }
}

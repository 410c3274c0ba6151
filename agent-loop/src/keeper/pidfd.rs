//! A process held by a file descriptor, which is never reused for another process.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

use crate::model::{PidfsIno, RunTag, WaitStatus};

/// The file system of pidfds, Linux 6.9 and later (`PID_FS_MAGIC` of linux/magic.h).
const PID_FS_MAGIC: u64 = 0x5049_4446;

/// `_IOWR(0xff, 11, struct pidfd_info)` for the first, 64-byte version of the structure (linux/pidfd.h).
const PIDFD_GET_INFO: u32 = 0xc040_ff0b;
const PIDFD_INFO_PID: u64 = 1 << 0;
const PIDFD_INFO_CGROUPID: u64 = 1 << 2;
const PIDFD_INFO_EXIT: u64 = 1 << 3;

/// A pidfd together with the number it was opened on.
///
/// The number is for people and for /proc; it is never used to reach the process.
#[derive(Debug)]
pub struct PidFd {
    fd: OwnedFd,
    pid: u32,
    /// The run for which our own `clone3` made the process and this descriptor.
    made_for: Option<RunTag>,
}

/// What the kernel says about the process behind a pidfd (Linux 6.13 and later).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PidInfo {
    /// Its number in our PID namespace.
    pub pid: u32,
    /// Its parent's number now.
    pub ppid: u32,
    /// The id of its cgroup, where the kernel has cgroups.
    pub cgroup: Option<u64>,
}

/// `struct pidfd_info` of linux/pidfd.h, first version.
#[repr(C)]
#[derive(Default)]
struct RawInfo {
    mask: u64,
    cgroupid: u64,
    pid: u32,
    tgid: u32,
    ppid: u32,
    credentials: [u32; 8],
    exit_code: i32,
}

const _: () = assert!(size_of::<RawInfo>() == 64);

impl PidFd {
    /// Opens the process that has this number now; `None` if there is none.
    ///
    /// # Errors
    /// Whatever else `pidfd_open` reports: no descriptor left, a kernel before 5.3.
    pub fn open(pid: u32) -> io::Result<Option<Self>> {
        let Ok(number) = libc::pid_t::try_from(pid) else { return Ok(None) };
        // SAFETY: pidfd_open takes two integers and touches no memory of ours.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, number, 0) };
        match Errno::result(fd) {
            Ok(fd) => {
                let fd = RawFd::try_from(fd).expect("a file descriptor fits its type");
                // SAFETY: the kernel has just made this descriptor for us and nobody else owns it.
                let fd = unsafe { OwnedFd::from_raw_fd(fd) };
                Ok(Some(Self { fd, pid, made_for: None }))
            }
            // EINVAL: older kernels say so when the number has no task any more; ENOENT: it is only a thread's.
            Err(Errno::ESRCH | Errno::ENOENT | Errno::EINVAL) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Wraps the descriptor that our own `clone3` returned together with the child.
    pub(super) fn of_own_child(fd: OwnedFd, pid: u32, run: RunTag) -> Self {
        Self { fd, pid, made_for: Some(run) }
    }

    /// The number it was opened on.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The run our own `clone3` made it for, if it did.
    #[must_use]
    pub fn made_for(&self) -> Option<RunTag> {
        self.made_for
    }

    /// Its inode, unique within this boot, where pidfds have their own file system (Linux 6.9 and later).
    #[must_use]
    pub fn ino(&self) -> Option<PidfsIno> {
        let fs = nix::sys::statfs::fstatfs(&self.fd).ok()?;
        // Before 6.9 all pidfds share one anonymous inode.
        if u64::try_from(fs.filesystem_type().0).ok()? != PID_FS_MAGIC {
            return None;
        }
        nix::sys::stat::fstat(&self.fd).ok().map(|stat| PidfsIno(stat.st_ino))
    }

    /// Whether every thread of it has ended, reaped or not. A leader that left its threads behind has not.
    ///
    /// # Errors
    /// What `poll` reports.
    pub fn has_exited(&self) -> io::Result<bool> {
        let mut fds = [libc::pollfd { fd: self.fd.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
        // SAFETY: the pointer is to an array of exactly one pollfd that outlives the call.
        let ready = unsafe { libc::poll(fds.as_mut_ptr(), 1, 0) };
        Ok(Errno::result(ready)? > 0)
    }

    /// Asks the kernel about the process; `None` where the kernel has no such question (before 6.13).
    ///
    /// # Errors
    /// ESRCH once the process has been reaped.
    pub fn info(&self) -> io::Result<Option<PidInfo>> {
        let mut raw = RawInfo { mask: PIDFD_INFO_PID | PIDFD_INFO_CGROUPID, ..RawInfo::default() };
        // SAFETY: the request's size is that of `RawInfo`, asserted above, and `raw` outlives the call.
        let done = unsafe { libc::ioctl(self.fd.as_raw_fd(), PIDFD_GET_INFO.into(), &raw mut raw) };
        match Errno::result(done) {
            Ok(_) => Ok(Some(PidInfo {
                pid: raw.tgid,
                ppid: raw.ppid,
                cgroup: (raw.mask & PIDFD_INFO_CGROUPID != 0).then_some(raw.cgroupid),
            })),
            Err(Errno::ENOTTY | Errno::EINVAL | Errno::EOPNOTSUPP) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Whether the kernel still tells how the process ended, after it was reaped (Linux 6.15 and later).
    ///
    /// # Errors
    /// What asking reports; a kernel that forgets is no error.
    pub fn remembers_exit(&self) -> io::Result<bool> {
        let mut raw = RawInfo { mask: PIDFD_INFO_EXIT, ..RawInfo::default() };
        // SAFETY: the request's size is that of `RawInfo`, asserted above, and `raw` outlives the call.
        let done = unsafe { libc::ioctl(self.fd.as_raw_fd(), PIDFD_GET_INFO.into(), &raw mut raw) };
        match Errno::result(done) {
            Ok(_) => Ok(raw.mask & PIDFD_INFO_EXIT != 0),
            Err(Errno::ESRCH | Errno::ENOTTY | Errno::EINVAL | Errno::EOPNOTSUPP) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Waits for our own child and reaps it.
    ///
    /// # Errors
    /// ECHILD if it is not our child or was reaped by somebody else: its status is unknown then.
    pub fn wait(&self) -> io::Result<WaitStatus> {
        loop {
            match wait_id(libc::P_PIDFD, self.id(), 0) {
                Ok(Some((_, status))) => return Ok(status),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Reaps our own child if it has ended.
    ///
    /// # Errors
    /// As [`PidFd::wait`].
    pub fn try_wait(&self) -> io::Result<Option<WaitStatus>> {
        Ok(wait_id(libc::P_PIDFD, self.id(), libc::WNOHANG)?.map(|(_, status)| status))
    }

    fn id(&self) -> u32 {
        self.fd.as_raw_fd().unsigned_abs()
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// `waitid` for one exited child, its number and status.
///
/// Not nix's: that fails, after reaping, on a death by a real-time signal.
pub(super) fn wait_id(kind: libc::idtype_t, id: u32, options: i32) -> io::Result<Option<(u32, WaitStatus)>> {
    // SAFETY: siginfo_t is plain data for which all zeroes is a valid value.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: `info` is a siginfo_t that outlives the call; the other arguments are integers.
    let done = unsafe { libc::waitid(kind, id, &raw mut info, libc::WEXITED | libc::__WALL | options) };
    Errno::result(done)?;
    // SAFETY: waitid succeeded, so the fields of SIGCHLD are set, or zero when nothing was ready.
    let pid = unsafe { info.si_pid() };
    // SAFETY: as above.
    let status = unsafe { info.si_status() };
    let Ok(pid @ 1..) = u32::try_from(pid) else { return Ok(None) };
    let [low, ..] = status.to_le_bytes();
    let status = match info.si_code {
        libc::CLD_EXITED => WaitStatus::Exited(low),
        code => WaitStatus::Signaled { signal: low, core: code == libc::CLD_DUMPED },
    };
    Ok(Some((pid, status)))
}

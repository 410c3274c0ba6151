//! The only module that sends a signal, and the only one that kills a cgroup (I1 to I4).
//!
//! ```text
//! PidFd::open(pid) -> verify(fd, expected, witnesses) -> LiveProof::send(signal)
//! ```
//! The order is the safety: a descriptor that was opened before the check cannot come to mean another process
//! after it. There is no way from a number to a signal, and none is tried when a descriptor cannot be had.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use thiserror::Error;

use super::cgroup::{OwnCgroup, write_at};
use super::pidfd::PidFd;
use super::scan::Stat;
use crate::model::{Live, PidfsIno, ProcessKey, ProofKind, RunTag};

/// The kernel's set of live tracked processes, asked at the moment of the call.
pub trait LiveSet {
    /// Who holds this number now, if it is tracked and alive.
    ///
    /// # Errors
    /// When the kernel could not be asked: that is never "nobody".
    fn lookup(&self, tgid: u32) -> io::Result<Option<Live>>;
}

/// What a proof may be made from.
pub struct Witnesses<'a> {
    /// The run that the process has to belong to.
    pub run: RunTag,
    /// The kernel's live set, where eBPF runs.
    pub live: Option<&'a dyn LiveSet>,
    /// The run's cgroup, where there is one.
    pub cgroup: Option<&'a OwnCgroup>,
}

/// Who the descriptor should be of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Our child, through the descriptor that came from the `clone3` that made it for this run.
    OwnChild,
    /// A process that was recorded in this boot.
    Known {
        /// Its key.
        key: ProcessKey,
        /// Its inode, where the record has one.
        ino: Option<PidfsIno>,
    },
    /// Whoever has this number, if it is in the run's cgroup.
    Member {
        /// The number.
        pid: u32,
    },
    /// Whoever has this number, if it descends from us: for hosts without eBPF and cgroups.
    Descendant {
        /// The number.
        pid: u32,
    },
}

/// The answer of a check.
#[derive(Debug)]
pub enum Verified<'fd> {
    /// It is the process that was meant, and ours to signal.
    Proof(LiveProof<'fd>),
    /// The process behind the descriptor has ended.
    Gone,
}

/// The right to signal one process, which only [`verify`] can make.
///
/// It can be stale, never wrong: when the process ends, the signal hits nobody.
#[derive(Debug)]
pub struct LiveProof<'fd> {
    fd: &'fd PidFd,
    kind: ProofKind,
}

/// What became of a signal that was not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The kernel took it, on this proof.
    Sent(ProofKind),
    /// The process had gone before; nothing was hit.
    Gone,
}

/// Why no signal was sent.
#[derive(Debug, Error)]
pub enum Refusal {
    /// Pid 0 is a group, pid 1 is the system.
    #[error("pid {0} is never signalled")]
    Forbidden(u32),
    /// It would be agent-loop itself.
    #[error("pid {0} is agent-loop itself")]
    Ourselves(u32),
    /// The kernel's own threads.
    #[error("pid {0} is a kernel thread")]
    KernelThread(u32),
    /// Not 1 to 64.
    #[error("{0} is not the number of a signal")]
    NotASignal(u8),
    /// The descriptor was opened on another number.
    #[error("the descriptor was opened on pid {opened}, not on {expected}")]
    OtherNumber {
        /// What it was opened on.
        opened: u32,
        /// What was expected.
        expected: u32,
    },
    /// The number belongs to another process now.
    #[error("pid {pid} is another process now: its inode is {found}, recorded is {recorded}")]
    OtherInode {
        /// The number.
        pid: u32,
        /// The inode of the descriptor.
        found: u64,
        /// The inode on record.
        recorded: u64,
    },
    /// The number belongs to another process now.
    #[error("pid {pid} is another process now: it started at {found} ns, recorded is {recorded} ns")]
    OtherStart {
        /// The number.
        pid: u32,
        /// The start time in the live set.
        found: u64,
        /// The start time on record.
        recorded: u64,
    },
    /// The kernel does not know it as a tracked live process.
    #[error("pid {0} is not in the live set")]
    NotLive(u32),
    /// Neither inode nor live set: a number and a time from a file prove nothing.
    #[error("nothing on this host can prove who pid {0} is")]
    NoMeans(u32),
    /// Its identity holds, but it is not in the run.
    #[error("pid {0} does not belong to the run")]
    NotOurs(u32),
    /// The descriptor was not made by our `clone3` for this run.
    #[error("pid {0} is not a child that was made for the run")]
    NotOurChild(u32),
    /// It does not descend from us.
    #[error("pid {0} does not descend from agent-loop")]
    NotADescendant(u32),
    /// agent-loop itself is in the cgroup that should be killed.
    #[error("agent-loop itself is in cgroup {}", .0.0)]
    HoldsOurselves(RunTag),
    /// A cgroup other than the run's.
    #[error("cgroup {} is not the run's, which is {}", found.0, recorded.0)]
    OtherCgroup {
        /// What the descriptor holds.
        found: RunTag,
        /// The run's.
        recorded: RunTag,
    },
    /// The kernel failed at something the proof needs, or refused the signal.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Refusal {
    /// The error number behind it, where there is one.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        if let Self::Io { source, .. } = self { source.raw_os_error() } else { None }
    }
}

/// How a check ends before its answer: refused, or without a process.
enum Stop {
    Gone,
    Refused(Refusal),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

fn failed(doing: &'static str) -> impl FnOnce(io::Error) -> Stop {
    move |source| Refusal::Io { doing, source }.into()
}

/// Checks, after the descriptor was opened, that its process is the expected one and belongs to the run.
///
/// # Errors
/// The reason why no proof can be made. "Gone" is not an error.
pub fn verify<'fd>(fd: &'fd PidFd, expected: Expected, witnesses: &Witnesses<'_>) -> Result<Verified<'fd>, Refusal> {
    match check(fd, expected, witnesses) {
        Ok(kind) => Ok(Verified::Proof(LiveProof { fd, kind })),
        Err(Stop::Gone) => Ok(Verified::Gone),
        // Only its own descriptor says that it is gone: a missing /proc or a removed cgroup does not.
        Err(Stop::Refused(refusal)) => match (&refusal, fd.has_exited()) {
            (Refusal::Io { .. }, Ok(true)) => Ok(Verified::Gone),
            _ => Err(refusal),
        },
    }
}

fn check(fd: &PidFd, expected: Expected, witnesses: &Witnesses<'_>) -> Result<ProofKind, Stop> {
    let pid = match expected {
        Expected::OwnChild => fd.pid(),
        Expected::Known { key, .. } => key.tgid,
        Expected::Member { pid } | Expected::Descendant { pid } => pid,
    };
    never_these(pid)?;
    never_these(fd.pid())?;
    if fd.pid() != pid {
        return Err(Refusal::OtherNumber { opened: fd.pid(), expected: pid }.into());
    }
    still_there(fd)?;
    // What our clone3 made is no thread of the kernel; the stop of a child needs no /proc.
    if expected != Expected::OwnChild {
        no_kernel_thread(fd)?;
    }
    match expected {
        Expected::OwnChild => match fd.made_for() {
            Some(run) if run == witnesses.run => Ok(ProofKind::OwnChild),
            _ => Err(Refusal::NotOurChild(pid).into()),
        },
        Expected::Known { key, ino } => known(fd, key, ino, witnesses),
        Expected::Member { .. } => {
            in_cgroup(fd, witnesses)?.then_some(ProofKind::OwnCgroup).ok_or_else(|| not_ours(pid))
        }
        Expected::Descendant { .. } => descends_from_us(fd).map(|()| ProofKind::Descendant),
    }
}

/// Identity by inode or live set, then belonging by live set or cgroup.
fn known(
    fd: &PidFd,
    key: ProcessKey,
    recorded: Option<PidfsIno>,
    witnesses: &Witnesses<'_>,
) -> Result<ProofKind, Stop> {
    let pid = key.tgid;
    let by_inode = match (fd.ino(), recorded) {
        (Some(found), Some(recorded)) if found == recorded => true,
        (Some(PidfsIno(found)), Some(PidfsIno(recorded))) => {
            return Err(Refusal::OtherInode { pid, found, recorded }.into());
        }
        (None, _) | (_, None) => false,
    };
    let live = match witnesses.live {
        Some(set) => set.lookup(pid).map_err(|source| Refusal::Io { doing: "asking the live set", source })?,
        None => None,
    };
    let tag = match live {
        // Whoever is live under this start time has held the number since then, so the descriptor is of it.
        Some(live) if live.key == key => Some(live.run),
        Some(live) if !by_inode => {
            let (found, recorded) = (live.key.start_boottime_ns, key.start_boottime_ns);
            return Err(Refusal::OtherStart { pid, found, recorded }.into());
        }
        // The inode is the better witness; a stale entry of another process lends no belonging.
        Some(_) | None => None,
    };
    if !by_inode && tag.is_none() {
        still_there(fd)?;
        let refusal = if witnesses.live.is_some() { Refusal::NotLive(pid) } else { Refusal::NoMeans(pid) };
        return Err(refusal.into());
    }
    if tag == Some(witnesses.run) || in_cgroup(fd, witnesses)? {
        Ok(if by_inode { ProofKind::PidfsIno } else { ProofKind::LiveSet })
    } else {
        Err(not_ours(pid))
    }
}

fn not_ours(pid: u32) -> Stop {
    Refusal::NotOurs(pid).into()
}

fn never_these(pid: u32) -> Result<(), Refusal> {
    match pid {
        0 | 1 => Err(Refusal::Forbidden(pid)),
        _ if pid == std::process::id() => Err(Refusal::Ourselves(pid)),
        _ => Ok(()),
    }
}

fn still_there(fd: &PidFd) -> Result<(), Stop> {
    if fd.has_exited().map_err(failed("polling a pidfd"))? { Err(Stop::Gone) } else { Ok(()) }
}

fn no_kernel_thread(fd: &PidFd) -> Result<(), Stop> {
    let none = || failed("reading /proc")(Errno::ESRCH.into());
    let stat = Stat::read(fd.pid()).map_err(failed("reading /proc"))?.ok_or_else(none)?;
    if stat.is_kernel_thread() { Err(Refusal::KernelThread(fd.pid()).into()) } else { Ok(()) }
}

fn in_cgroup(fd: &PidFd, witnesses: &Witnesses<'_>) -> Result<bool, Stop> {
    match witnesses.cgroup {
        Some(cgroup) if cgroup.id() != witnesses.run => {
            Err(Refusal::OtherCgroup { found: cgroup.id(), recorded: witnesses.run }.into())
        }
        Some(cgroup) => cgroup.holds(fd).map_err(failed("asking for the cgroup of a process")),
        None => Ok(false),
    }
}

/// The longest line of parents that is followed.
const DEEPEST: usize = 4_096;

/// Walks the parents up to us, then back down reading each link again.
///
/// A number on the way could be freed and reused between two reads. A link that is the same at two times held in
/// between, since a parent's death changes it for good; as each pair of reads lies within the pair below it, all
/// links held at once. The descriptor's process is alive at the end, so the number at the bottom was its own.
fn descends_from_us(fd: &PidFd) -> Result<(), Stop> {
    let own = std::process::id();
    let parent = |pid| match Stat::read(pid).map_err(failed("reading /proc"))? {
        Some(stat) => Ok(stat.ppid),
        None => Err(Stop::from(Refusal::NotADescendant(fd.pid()))),
    };
    let mut line = vec![fd.pid()];
    while let Some(&last) = line.last().filter(|&&last| last != own) {
        let next = parent(last)?;
        if next == 0 || line.len() > DEEPEST {
            still_there(fd)?;
            return Err(Refusal::NotADescendant(fd.pid()).into());
        }
        line.push(next);
    }
    for link in line.windows(2).rev() {
        if let [child, above] = link
            && parent(*child)? != *above
        {
            still_there(fd)?;
            return Err(Refusal::NotADescendant(fd.pid()).into());
        }
    }
    still_there(fd)
}

impl LiveProof<'_> {
    /// What proved it.
    #[must_use]
    pub fn kind(&self) -> ProofKind {
        self.kind
    }

    /// Sends the signal through the descriptor.
    ///
    /// # Errors
    /// [`Refusal::Io`] as the kernel says, EPERM above all; nothing else is tried.
    pub fn send(self, signal: u8) -> Result<Delivery, Refusal> {
        if !(1..=64).contains(&signal) {
            return Err(Refusal::NotASignal(signal));
        }
        let no_info = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: the descriptor is open while the proof borrows it; a null siginfo is allowed and the flags are 0.
        let sent = unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, self.fd.as_fd().as_raw_fd(), i32::from(signal), no_info, 0)
        };
        match Errno::result(sent) {
            Ok(_) => Ok(Delivery::Sent(self.kind)),
            Err(Errno::ESRCH) => Ok(Delivery::Gone),
            Err(errno) => Err(Refusal::Io { doing: "sending a signal through a pidfd", source: errno.into() }),
        }
    }
}

/// Opens, verifies and signals in that order, for callers with nothing to do in between.
///
/// # Errors
/// As [`verify`] and [`LiveProof::send`]; a descriptor that cannot be had (EMFILE) is a refusal too.
pub fn open_and_send(expected: Expected, witnesses: &Witnesses<'_>, signal: u8) -> Result<Delivery, Refusal> {
    let pid = match expected {
        // Its descriptor exists already; one opened now would not be the one from clone3.
        Expected::OwnChild => return Err(Refusal::NotOurChild(0)),
        Expected::Known { key, .. } => key.tgid,
        Expected::Member { pid } | Expected::Descendant { pid } => pid,
    };
    never_these(pid)?;
    let Some(fd) = PidFd::open(pid).map_err(|source| Refusal::Io { doing: "opening a pidfd", source })? else {
        return Ok(Delivery::Gone);
    };
    match verify(&fd, expected, witnesses)? {
        Verified::Proof(proof) => proof.send(signal),
        Verified::Gone => Ok(Delivery::Gone),
    }
}

/// Kills everything in the run's cgroup at once, forks under way included (Linux 5.14 and later).
///
/// Not enough alone: a process whose leader thread has exited survives it. Call [`sweep`] until it is empty.
///
/// # Errors
/// [`Refusal::Io`] with ENOENT before 5.14, EOPNOTSUPP if it was made threaded: freeze and sweep then.
pub fn kill_cgroup(cgroup: &OwnCgroup, recorded: RunTag) -> Result<(), Refusal> {
    may_end(cgroup, recorded)?;
    // Before the write: a process born after it would be killed at birth (I7).
    cgroup.spend();
    let written =
        if cgroup.is_swept_only() { Err(Errno::ENOENT.into()) } else { write_at(cgroup.dir(), "cgroup.kill", "1") };
    written.map_err(|source| Refusal::Io { doing: "writing cgroup.kill", source })
}

/// Writes to the cgroup.kill of a cgroup that nobody is in: who is born into it later lives or dies by how often that
/// was done.
///
/// # Errors
/// EBUSY where somebody is in it; what the kernel says.
pub(super) fn kill_nobody(cgroup: &OwnCgroup) -> io::Result<()> {
    if cgroup.populated()? {
        return Err(Errno::EBUSY.into());
    }
    write_at(cgroup.dir(), "cgroup.kill", "1")
}

/// Freezes the run's cgroup where it cannot be killed at once: who cannot fork is caught by [`sweep`], and SIGKILL
/// ends a frozen process too.
///
/// # Errors
/// As [`kill_cgroup`].
pub fn freeze_cgroup(cgroup: &OwnCgroup, recorded: RunTag) -> Result<(), Refusal> {
    may_end(cgroup, recorded)?;
    cgroup.spend();
    write_at(cgroup.dir(), "cgroup.freeze", "1")
        .map_err(|source| Refusal::Io { doing: "writing cgroup.freeze", source })
}

/// Whether a cgroup is the run's, and we are not in it.
fn may_end(cgroup: &OwnCgroup, recorded: RunTag) -> Result<(), Refusal> {
    if cgroup.id() != recorded {
        return Err(Refusal::OtherCgroup { found: cgroup.id(), recorded });
    }
    let io = |doing| move |source| Refusal::Io { doing, source };
    let own = PidFd::open(std::process::id()).map_err(io("opening a pidfd"))?;
    let own = own.ok_or_else(|| io("opening a pidfd")(Errno::ESRCH.into()))?;
    if cgroup.holds(&own).map_err(io("asking for our own cgroup"))? {
        return Err(Refusal::HoldsOurselves(recorded));
    }
    Ok(())
}

/// Whether this cgroup can be killed at once (Linux 5.14 and later).
///
/// # Errors
/// What looking for the file reports.
pub fn can_kill_cgroup(dir: BorrowedFd<'_>) -> io::Result<bool> {
    match nix::sys::stat::fstatat(dir, "cgroup.kill", nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::ENOENT) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Tries on ourselves whether signals can be sent through a pidfd: number 0, which delivers nothing.
///
/// # Errors
/// ENOSYS before Linux 5.1, or what a filter of system calls answers.
pub fn can_signal() -> io::Result<()> {
    let own = PidFd::open(std::process::id())?.ok_or(Errno::ESRCH)?;
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the descriptor is open; a null siginfo is allowed, signal 0 is only checked, and the flags are 0.
    let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, own.as_fd().as_raw_fd(), 0, no_info, 0) };
    Ok(Errno::result(sent).map(drop)?)
}

/// What one sweep did.
#[derive(Debug, Default)]
pub struct Sweep {
    /// Who got the signal.
    pub sent: Vec<u32>,
    /// Who was spared, and why.
    pub refused: Vec<(u32, Refusal)>,
    /// Whether the whole subtree was seen.
    pub complete: bool,
}

/// Sends SIGKILL to each process in the run's cgroup, each opened and verified; call until not populated.
///
/// # Errors
/// When the cgroup cannot be listed.
pub fn sweep(cgroup: &OwnCgroup) -> io::Result<Sweep> {
    let witnesses = Witnesses { run: cgroup.id(), live: None, cgroup: Some(cgroup) };
    let procs = cgroup.procs()?;
    let mut sweep = Sweep { complete: procs.complete && procs.unseen == 0, ..Sweep::default() };
    for pid in procs.pids {
        match open_and_send(Expected::Member { pid }, &witnesses, libc::SIGKILL as u8) {
            Ok(Delivery::Sent(_)) => sweep.sent.push(pid),
            Ok(Delivery::Gone) => {}
            Err(refusal) => sweep.refused.push((pid, refusal)),
        }
    }
    Ok(sweep)
}

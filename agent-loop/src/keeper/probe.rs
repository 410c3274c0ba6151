//! Tries what the hands need, for `doctor`: on a child that does nothing but end, and on a cgroup of its own.
//!
//! What is made here is removed here; of a probe that was killed half-way, the next one removes the empty cgroup.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{UnlinkatFlags, unlinkat};
use ulid::Ulid;

use super::birth::{CLONE_INTO_CGROUP, CLONE_PIDFD, CloneArgs, clone3};
use super::cgroup::{Home, OwnCgroup, RunCgroup};
use super::mounts;
use super::pidfd::PidFd;
use super::signal;
use crate::model::{RunTag, WaitStatus};

/// How the name of a probe's cgroup begins; a ULID follows.
const LEAF: &str = "agent-loop-doctor-";

/// After which time a probe's cgroup belongs to nobody any more: a probe takes some milliseconds.
const ABANDONED: Duration = Duration::from_secs(60);
/// How long an empty cgroup may take to freeze, and how often it is looked at.
const FREEZE: Duration = Duration::from_secs(1);
const FREEZE_LOOK: Duration = Duration::from_millis(2);

/// For how many numbers clone3 can be asked (MAX_PID_NS_LEVEL, linux/pid_namespace.h).
const MOST_NUMBERS: usize = 32;

/// What a trial found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe<T = ()> {
    /// It is there and works.
    Present(T),
    /// It is not, and why.
    Missing(String),
    /// It could not be tried, and why.
    Unknown(String),
}

impl<T> Probe<T> {
    /// What was found, if it is there.
    pub const fn present(&self) -> Option<&T> {
        match self {
            Self::Present(found) => Some(found),
            Self::Missing(_) | Self::Unknown(_) => None,
        }
    }
}

impl<T> From<io::Result<T>> for Probe<T> {
    fn from(result: io::Result<T>) -> Self {
        result.map_or_else(|error| Self::Missing(error.to_string()), Self::Present)
    }
}

/// What the kernel offers to hold, signal and reap a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calls {
    /// `clone3` with a pidfd.
    pub clone3: Probe,
    /// `pidfd_open`.
    pub open: Probe,
    /// `pidfd_send_signal`.
    pub send: Probe,
    /// `waitid(P_PIDFD)`.
    pub wait: Probe,
    /// Inodes that name a process for the whole boot.
    pub pidfs: Probe,
    /// `PIDFD_GET_INFO`.
    pub info: Probe,
    /// The exit status, from a pidfd whose process was reaped.
    pub exit_info: Probe,
}

impl Calls {
    /// Tries each on ourselves or on a child.
    #[must_use]
    pub fn probe() -> Self {
        let own = PidFd::open(std::process::id()).and_then(|own| own.ok_or_else(|| io::ErrorKind::NotFound.into()));
        let untried = || Probe::Unknown("there is no pidfd to try it on".to_owned());
        let (pidfs, info) = match &own {
            Ok(own) => (
                own.ino().map_or_else(|| Probe::Missing("pidfds have no inodes of their own".to_owned()), |_| HERE),
                match own.info() {
                    Ok(Some(_)) => HERE,
                    Ok(None) => Probe::Missing("the kernel has no such question".to_owned()),
                    Err(error) => Probe::Missing(error.to_string()),
                },
            ),
            Err(_) => (untried(), untried()),
        };
        let child = Ended::bear(None);
        let (wait, exit_info) = match &child {
            Ok(child) => (
                Probe::from(child.wait()),
                match child.0.remembers_exit() {
                    Ok(true) => HERE,
                    Ok(false) => Probe::Missing("the kernel forgets it".to_owned()),
                    Err(error) => Probe::Missing(error.to_string()),
                },
            ),
            Err(_) => (untried(), untried()),
        };
        Self {
            clone3: Probe::from(child.map(drop)),
            open: Probe::from(own.map(drop)),
            send: Probe::from(signal::can_signal()),
            wait,
            pidfs,
            info,
            exit_info,
        }
    }
}

const HERE: Probe = Probe::Present(());

/// What cgroups offer here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroups {
    /// Where version 2 is mounted, ours inside or not.
    pub mounts: Vec<PathBuf>,
    /// Our own cgroup.
    pub home: Probe<PathBuf>,
    /// Whether a run's cgroup can be made there.
    pub writable: Probe,
    /// Whether a process can be born into it.
    pub into: Probe,
    /// Whether it freezes.
    pub freeze: Probe,
    /// Whether it can be killed at once.
    pub kill: Probe,
    /// The controllers that version 2 has for our cgroup.
    pub controllers: Vec<String>,
    /// The controllers that version 1 holds.
    pub version1: Vec<String>,
    /// Whether we are in the host's cgroup namespace, where the depth of a cgroup is known.
    pub initial_namespace: bool,
}

impl Cgroups {
    /// Finds our own, makes one in it, tries it, and removes it.
    #[must_use]
    pub fn probe() -> Self {
        let read = |path: &str| std::fs::read(path).unwrap_or_default();
        let untried = || Probe::Unknown("there is no cgroup to try it in".to_owned());
        let mut found = Self {
            mounts: mounts::cgroup2(&read("/proc/self/mountinfo")).into_iter().map(|mount| mount.point).collect(),
            home: Probe::Unknown("not looked for".to_owned()),
            writable: untried(),
            into: untried(),
            freeze: untried(),
            kill: untried(),
            controllers: Vec::new(),
            version1: mounts::version1_controllers(&read("/proc/self/cgroup")),
            initial_namespace: super::cgroup::in_initial_namespace(),
        };
        match Home::find() {
            Ok(home) => {
                found.home = Probe::Present(home.path().to_owned());
                found.controllers = home.controllers().to_vec();
                found.try_in(&home);
            }
            Err(error) => found.home = Probe::Missing(error.to_string()),
        }
        found
    }

    fn try_in(&mut self, home: &Home) {
        remove_abandoned(home);
        let cgroup = match RunCgroup::create(home, &format!("{LEAF}{}", Ulid::new())) {
            Ok(cgroup) => Removed(cgroup),
            Err(error) => {
                self.writable = Probe::Missing(error.to_string());
                // The root has none of a run's files; any other cgroup shows what the kernel has.
                if signal::can_kill_cgroup(home.dir()).unwrap_or(false) {
                    self.kill = HERE;
                }
                return;
            }
        };
        self.writable = HERE;
        self.into = Probe::from(Ended::bear(Some(cgroup.0.own().dir())).and_then(|child| child.wait()));
        self.freeze = match cgroup.0.freeze().and_then(|()| becomes_frozen(&cgroup.0)) {
            Ok(true) => HERE,
            Ok(false) => Probe::Missing(format!("an empty cgroup does not freeze within {} s", FREEZE.as_secs())),
            Err(error) => Probe::Missing(error.to_string()),
        };
        self.kill = match signal::can_kill_cgroup(cgroup.0.own().dir()) {
            Ok(true) => HERE,
            Ok(false) => Probe::Missing("the kernel has no such file".to_owned()),
            Err(error) => Probe::Missing(error.to_string()),
        };
    }
}

/// Whether it freezes: who was waited for may be in it for a moment more, and does not freeze.
fn becomes_frozen(cgroup: &RunCgroup) -> io::Result<bool> {
    let began = Instant::now();
    while !cgroup.is_frozen()? {
        if began.elapsed() > FREEZE {
            return Ok(false);
        }
        std::thread::sleep(FREEZE_LOOK);
    }
    Ok(true)
}

/// Removes its cgroup however the trial ends.
struct Removed(RunCgroup);

impl Drop for Removed {
    fn drop(&mut self) {
        if let Err(error) = self.0.thaw().and_then(|()| self.0.remove()) {
            eprintln!("agent-loop: removing the cgroup {}: {error}", self.0.path().display());
        }
    }
}

/// Removes the cgroups of probes that were killed; the kernel refuses one that is not empty.
fn remove_abandoned(home: &Home) {
    let now = SystemTime::now();
    let abandoned = |name: &str| {
        let id = name.strip_prefix(LEAF).and_then(|id| Ulid::from_string(id).ok());
        id.is_some_and(|id| now.duration_since(id.datetime()).is_ok_and(|age| age > ABANDONED))
    };
    for name in super::nest::names(home.dir(), super::nest::MOST_CGROUPS).unwrap_or_default() {
        if name.to_str().is_some_and(abandoned) {
            let _ = unlinkat(home.dir(), name.as_path(), UnlinkatFlags::RemoveDir);
        }
    }
}

/// Whether a child of ours that is born into it is killed at once, which a child that only exits shows.
///
/// When it returns nobody is in it any more, or it says so.
///
/// # Errors
/// [`io::ErrorKind::TimedOut`] where the child does not come to its end: something above it is frozen. It was killed then, and
/// the cgroup is of no more use. Else why no child could be born or waited for.
pub(super) fn dies_at_birth(cgroup: &OwnCgroup) -> io::Result<bool> {
    let child = Ended::bear(Some(cgroup.dir()))?;
    let patience = PollTimeout::try_from(FREEZE).unwrap_or(PollTimeout::MAX);
    if poll(&mut [PollFd::new(child.0.as_fd(), PollFlags::POLLIN)], patience) == Ok(0) {
        signal::kill_cgroup(cgroup, cgroup.id()).map_err(io::Error::other)?;
        child.0.wait()?;
        let why = "a child that is born into it does not run: something above it is frozen; thaw it";
        return Err(io::Error::new(io::ErrorKind::TimedOut, why));
    }
    let killed = matches!(child.0.wait()?, WaitStatus::Signaled { signal, .. } if i32::from(signal) == libc::SIGKILL);
    // Who was waited for may be in it for a moment more.
    let began = Instant::now();
    while cgroup.populated()? && began.elapsed() < FREEZE {
        std::thread::sleep(FREEZE_LOOK);
    }
    Ok(killed)
}

/// How deep our own PID namespace lies below the initial one; `None` where that cannot be told.
///
/// No file tells it from inside. `clone3` does (Linux 5.5): asked for more numbers than there are namespaces it says EINVAL, and
/// asked for the number 1, which the namespace's own init has, it bears nobody and says EEXIST, or EPERM where numbers may not
/// be asked for (clone(2)).
#[must_use]
pub fn pid_level() -> Option<u32> {
    // Children may be born into another namespace than our own, whose number 1 is free.
    let own = |name: &str| std::fs::read_link(format!("/proc/self/ns/{name}")).ok();
    if own("pid")? != own("pid_for_children")? {
        return None;
    }
    let inits = [1 as libc::pid_t; MOST_NUMBERS];
    for numbers in (1..=MOST_NUMBERS).rev() {
        let args = CloneArgs {
            exit_signal: u64::from(libc::SIGCHLD.unsigned_abs()),
            set_tid: inits.as_ptr().addr() as u64,
            set_tid_size: numbers as u64,
            ..CloneArgs::default()
        };
        // SAFETY: `inits` outlives the call; a child, which there cannot be, would make one system call, which ends it.
        match unsafe { clone3(&args) } {
            // SAFETY: _exit runs no handlers.
            Ok(0) => unsafe { libc::_exit(0) },
            Err(Errno::EINVAL) => {}
            // More cannot be asked for: we may be deeper.
            Err(Errno::EEXIST | Errno::EPERM) if numbers < MOST_NUMBERS => return u32::try_from(numbers - 1).ok(),
            Ok(_) | Err(_) => return None,
        }
    }
    None
}

/// A child that has ended, or is about to.
struct Ended(PidFd);

impl Ended {
    /// Bears a child, in this cgroup if one is given, that does nothing but exit.
    fn bear(cgroup: Option<BorrowedFd<'_>>) -> io::Result<Self> {
        let mut pidfd: RawFd = -1;
        let mut args = CloneArgs {
            flags: CLONE_PIDFD,
            pidfd: (&raw mut pidfd).addr() as u64,
            exit_signal: u64::from(libc::SIGCHLD.unsigned_abs()),
            ..CloneArgs::default()
        };
        if let Some(cgroup) = cgroup {
            args.flags |= CLONE_INTO_CGROUP;
            args.cgroup = u64::from(cgroup.as_fd().as_raw_fd().unsigned_abs());
        }
        // SAFETY: `pidfd` outlives the call; the child makes one system call, which ends it.
        match unsafe { clone3(&args) }? {
            // SAFETY: _exit runs no handlers.
            0 => unsafe { libc::_exit(0) },
            pid => {
                // SAFETY: CLONE_PIDFD made this descriptor for us.
                let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
                Ok(Self(PidFd::of_own_child(pidfd, pid.unsigned_abs(), RunTag(0))))
            }
        }
    }

    fn wait(&self) -> io::Result<()> {
        match self.0.wait()? {
            WaitStatus::Exited(0) => Ok(()),
            status @ (WaitStatus::Exited(_) | WaitStatus::Signaled { .. }) => {
                Err(io::Error::other(format!("the child of a trial ended with {status}")))
            }
        }
    }
}

//! Run cgroups: made below our own, held by a descriptor, read and changed relative to it alone.
//!
//! No operation here follows a link or resolves a path twice. The kill of a cgroup is in [`super::signal`].

mod existing;
mod run;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use thiserror::Error;

use super::pidfd::PidFd;
use super::{mounts, nest};
use crate::model::RunTag;

pub use run::{Limits, MissingLimit, RunCgroup};

/// The file system of version 2 (`CGROUP2_SUPER_MAGIC` of linux/magic.h).
const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;
/// The cgroup namespace of the host (`PROC_CGROUP_INIT_INO` of linux/proc_ns.h).
const INITIAL_CGROUP_NAMESPACE: u64 = 0xefff_fffb;
/// How deep the search for our own cgroup goes.
const DEEPEST: usize = 64;
/// How many ids of cgroups below a run's own are remembered.
const MOST_KNOWN: usize = 65_536;
/// The most bytes read of one file: cgroup.procs of some million processes.
const LONGEST: u64 = 32 << 20;

/// Why there is no cgroup to run something in.
#[derive(Debug, Error)]
pub enum CgroupError {
    /// The host has version 1 only, or none that we can see.
    #[error("no cgroup of version 2 that holds this process is mounted")]
    NoVersion2,
    /// Our cgroup cannot have children of its own processes.
    #[error("{} is of type {kind}: it cannot hold a run", path.display())]
    NotADomain {
        /// The cgroup.
        path: PathBuf,
        /// What cgroup.type says.
        kind: String,
    },
    /// A name that is not one plain file name.
    #[error("{0:?} is not a name for a cgroup")]
    Name(String),
    /// The directory is not, or no longer, the recorded cgroup.
    #[error("the directory is cgroup {found}, not the recorded {recorded}")]
    OtherCgroup {
        /// What the descriptor holds.
        found: u64,
        /// What it should hold.
        recorded: u64,
    },
    /// The descriptor is of no cgroup, or of the root.
    #[error("the directory is not a cgroup below the root")]
    NotACgroup,
    /// A system call failed.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// What the kernel said.
        source: io::Error,
    },
}

impl CgroupError {
    /// Whether what was to be worked in is not there.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self, Self::Io { source, .. } if matches!(source.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)))
    }
}

fn doing(what: impl Into<String>) -> impl FnOnce(io::Error) -> CgroupError {
    let doing = what.into();
    move |source| CgroupError::Io { doing, source }
}

/// The cgroup below which runs are made: the one that agent-loop itself lives in, or a configured one.
#[derive(Debug)]
pub struct Home {
    dir: OwnedFd,
    path: PathBuf,
    name: PathBuf,
    level: Option<u32>,
    controllers: Vec<String>,
    /// How often a new cgroup is killed before anybody is born into it, once that was tried.
    kills: OnceLock<u32>,
}

impl Home {
    /// Finds it through /proc/self/mountinfo and /proc/self/cgroup, wherever version 2 is mounted.
    ///
    /// # Errors
    /// [`CgroupError::NoVersion2`] where no mount shows it; else what failed.
    pub fn find() -> Result<Self, CgroupError> {
        let read = |path: &str| fs::read(path).map_err(doing(format!("reading {path}")));
        let name = mounts::version2_path(&read("/proc/self/cgroup")?).ok_or(CgroupError::NoVersion2)?;
        let known_id = PidFd::open(std::process::id())
            .ok()
            .flatten()
            .and_then(|own| own.info().ok()?)
            .and_then(|info| info.cgroup);
        let mounts = mounts::cgroup2(&read("/proc/self/mountinfo")?);
        for mount in &mounts {
            let Some(path) = mounts::below(mount, &name) else { continue };
            // Another mount may lie over this one: what is opened must be a cgroup, and ours.
            let Ok(dir) = open_path(&path) else { continue };
            if !is_cgroup2(dir.as_fd()) {
                continue;
            }
            let id = id_of(dir.as_fd()).map_err(doing("reading the id of our cgroup"))?;
            if known_id.is_some_and(|known| known != id) {
                continue;
            }
            return Self::at(dir, path, name);
        }
        // A mount from outside our cgroup namespace shows us under a name that we are not told.
        for mount in &mounts {
            let Some(id) = known_id else { break };
            let Ok(dir) = open_path(&mount.point) else { continue };
            if is_cgroup2(dir.as_fd())
                && let Some((dir, path)) = search(dir, mount.point.clone(), id)
            {
                return Self::at(dir, path, name);
            }
        }
        Err(CgroupError::NoVersion2)
    }

    fn at(dir: OwnedFd, path: PathBuf, name: PathBuf) -> Result<Self, CgroupError> {
        let controllers = read_at(dir.as_fd(), "cgroup.controllers").map_err(doing("reading cgroup.controllers"))?;
        let controllers = controllers.split_ascii_whitespace().map(str::to_owned).collect();
        let level = in_initial_namespace().then(|| mounts::depth(&name));
        Ok(Self { dir, path, name, level, controllers, kills: OnceLock::new() })
    }

    /// Where it is seen in the file system, for people.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its path as /proc/PID/cgroup shows it to us.
    #[must_use]
    pub fn name(&self) -> &Path {
        &self.name
    }

    /// Its depth as the kernel counts, the root being 0; `None` in a cgroup namespace, which hides it.
    #[must_use]
    pub fn level(&self) -> Option<u32> {
        self.level
    }

    /// The controllers it could give to a run.
    #[must_use]
    pub fn controllers(&self) -> &[String] {
        &self.controllers
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

/// A run's own cgroup, proven: a directory descriptor whose id equals the recorded one.
#[derive(Debug)]
pub struct OwnCgroup {
    dir: OwnedFd,
    /// Its cgroup.events, open: whether it is empty can be told when no descriptor is left.
    events: File,
    id: RunTag,
    /// As /proc/PID/cgroup shows it to us, where known.
    name: Option<PathBuf>,
    /// The ids of cgroups seen below it: a cgroup never moves, and no id is given twice in a boot.
    known: Mutex<BTreeSet<u64>>,
    /// Set by [`OwnCgroup::sweep_only`].
    swept_only: AtomicBool,
    /// Set by a kill, and for one that we did not make: it may have seen one.
    spent: AtomicBool,
}

impl OwnCgroup {
    /// Proves that `dir` is the cgroup recorded in this boot. It never gets another process (I7).
    ///
    /// `name` is its path in /proc/PID/cgroup; before Linux 6.13 membership is told by it.
    ///
    /// # Errors
    /// [`CgroupError::OtherCgroup`] and [`CgroupError::NotACgroup`] when it is not.
    pub fn prove(dir: OwnedFd, recorded: RunTag, name: Option<PathBuf>) -> Result<Self, CgroupError> {
        Self::proven(dir, Some(recorded), name, true)
    }

    fn proven(dir: OwnedFd, recorded: Option<RunTag>, name: Option<PathBuf>, spent: bool) -> Result<Self, CgroupError> {
        if !is_cgroup2(dir.as_fd()) {
            return Err(CgroupError::NotACgroup);
        }
        let events = match openat(&dir, "cgroup.events", OFlag::O_RDONLY | FILE, Mode::empty()) {
            Ok(events) => File::from(events),
            // The root has none; it is nobody's run.
            Err(Errno::ENOENT) => return Err(CgroupError::NotACgroup),
            Err(errno) => return Err(doing("opening cgroup.events")(errno.into())),
        };
        let found = id_of(dir.as_fd()).map_err(doing("reading the id of a cgroup"))?;
        match recorded {
            Some(RunTag(recorded)) if recorded != found => Err(CgroupError::OtherCgroup { found, recorded }),
            _ => Ok(Self {
                dir,
                events,
                id: RunTag(found),
                name,
                known: Mutex::default(),
                swept_only: AtomicBool::new(false),
                spent: AtomicBool::new(spent),
            }),
        }
    }

    /// Its id, which is the run's tag.
    #[must_use]
    pub fn id(&self) -> RunTag {
        self.id
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Its path in /proc/PID/cgroup, where known.
    #[must_use]
    pub fn name(&self) -> Option<&Path> {
        self.name.as_deref()
    }

    /// Whether it must never get another process: it saw a kill, or may have.
    ///
    /// A process born into a cgroup that was killed more often than that of who bears it is killed at birth (Linux 6.14 to 7.2).
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.spent.load(Ordering::Acquire)
    }

    /// Does without cgroup.kill from now on, as kernels before Linux 5.14 have to: for tests of that way.
    pub fn sweep_only(&self) {
        self.swept_only.store(true, Ordering::Release);
    }

    pub(super) fn is_swept_only(&self) -> bool {
        self.swept_only.load(Ordering::Acquire)
    }

    pub(super) fn spend(&self) {
        self.spent.store(true, Ordering::Release);
    }

    /// How often the kernel killed something in it for want of memory; `None` without the controller.
    #[must_use]
    pub fn oom_kills(&self) -> Option<u64> {
        oom_kills(&read_at(self.dir(), "memory.events").ok()?)
    }

    /// Whether a live process is in it or below it, by the kernel's count. Zombies do not count.
    ///
    /// # Errors
    /// ENODEV or ENOENT once it was removed.
    pub fn populated(&self) -> io::Result<bool> {
        let mut text = [0; 256];
        let length = self.events.read_at(&mut text, 0)?;
        let events = String::from_utf8_lossy(text.get(..length).unwrap_or_default());
        key(&events, "populated").map(|value| value != "0").ok_or_else(|| unknown("cgroup.events"))
    }

    /// The processes in it and below it now: numbers, to be verified before anything is done to them.
    ///
    /// # Errors
    /// When its own list cannot be read.
    pub fn procs(&self) -> io::Result<Procs> {
        let mut procs = Procs { complete: true, ..Procs::default() };
        let mut ids = BTreeSet::new();
        let complete = nest::each_cgroup(self.dir(), &mut |dir, id| {
            ids.insert(id);
            let (text, threads) = match read_at(dir, "cgroup.procs") {
                // A threaded cgroup lists threads only; its processes may be listed above it, or not.
                Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => (read_at(dir, "cgroup.threads")?, true),
                other => (other?, false),
            };
            for number in text.split_ascii_whitespace() {
                match number.parse::<u32>() {
                    // The kernel writes 0 for a process outside our PID namespace.
                    Ok(0) | Err(_) => procs.unseen += 1,
                    Ok(thread) if threads => procs.pids.extend(process_of(thread)),
                    Ok(pid) => procs.pids.extend([pid]),
                }
            }
            Ok(())
        })?;
        self.remember(ids);
        procs.complete &= complete;
        Ok(procs)
    }

    /// Whether the process behind `fd` is in it or below it, asked after the descriptor was opened.
    ///
    /// # Errors
    /// ESRCH once the process has gone; what reading reports.
    pub fn holds(&self, fd: &PidFd) -> io::Result<bool> {
        match fd.info()? {
            Some(info) => self.holds_id(info.cgroup.ok_or_else(|| unknown("the kernel's answer for a pidfd"))?, fd),
            None => self.holds_by_name(fd),
        }
    }

    fn holds_id(&self, id: u64, fd: &PidFd) -> io::Result<bool> {
        let mut id = id;
        // It may move between two of our cgroups while we look: ask again as long as the answer changes.
        for _ in 0..8 {
            if self.knows(id) {
                return Ok(true);
            }
            // Whoever was listed is known; a walk is for one in a cgroup that is younger, and for strangers.
            let complete = self.learn()?;
            if self.knows(id) {
                return Ok(true);
            }
            if !complete {
                return self.holds_by_name(fd);
            }
            match fd.info()?.and_then(|info| info.cgroup) {
                Some(now) if now != id => id = now,
                _ => return Ok(false),
            }
        }
        Ok(false)
    }

    pub(super) fn knows(&self, id: u64) -> bool {
        id == self.id.0 || self.known.lock().unwrap_or_else(PoisonError::into_inner).contains(&id)
    }

    fn remember(&self, ids: BTreeSet<u64>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() > MOST_KNOWN {
            known.clear();
        }
        known.extend(ids);
    }

    /// Notes the ids of the cgroups below it; whether it saw all.
    fn learn(&self) -> io::Result<bool> {
        let mut ids = BTreeSet::new();
        let complete = nest::each_cgroup(self.dir(), &mut |_, id| {
            ids.insert(id);
            Ok(())
        })?;
        self.remember(ids);
        Ok(complete)
    }

    /// The way before Linux 6.13. What was read under the number is of the pidfd's process if that is alive after; its
    /// path names this cgroup only if that is there after, for a removed one's name can be given to another.
    fn holds_by_name(&self, fd: &PidFd) -> io::Result<bool> {
        let name = match &self.name {
            Some(name) => name,
            None => return Err(io::Error::other("the name of the cgroup is not known")),
        };
        let text = fs::read(format!("/proc/{}/cgroup", fd.pid()))?;
        if fd.has_exited()? {
            return Err(Errno::ESRCH.into());
        }
        self.populated()?;
        Ok(mounts::version2_path(&text).is_some_and(|path| path.starts_with(name)))
    }

    #[cfg(test)]
    pub(super) fn holds_before_6_13(&self, fd: &PidFd) -> io::Result<bool> {
        self.holds_by_name(fd)
    }
}

/// What was found in a subtree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Procs {
    /// Numbers of processes.
    pub pids: BTreeSet<u32>,
    /// How many there are that have no number in our PID namespace.
    pub unseen: usize,
    /// Whether the whole subtree was read; a bound cut it off otherwise.
    pub complete: bool,
}

/// Whether it is one plain name. The kernel's own files are in the same directory: `cgroup.procs` is none for a run.
fn plain_name(leaf: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    leaf.starts_with(|c: char| c.is_ascii_alphanumeric())
        && leaf.chars().all(plain)
        && !leaf.contains("..")
        && leaf.len() <= 200
        && !leaf.starts_with("cgroup.")
}

pub(super) const DIRECTORY: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
const FILE: OFlag = OFlag::O_NOFOLLOW.union(OFlag::O_CLOEXEC);

fn open_path(path: &Path) -> io::Result<OwnedFd> {
    nix::fcntl::open(path, DIRECTORY, Mode::empty()).map_err(io::Error::from)
}

pub(super) fn open_at(dir: BorrowedFd<'_>, name: &Path) -> io::Result<OwnedFd> {
    openat(dir, name, DIRECTORY, Mode::empty()).map_err(io::Error::from)
}

fn read_at(dir: BorrowedFd<'_>, name: &str) -> io::Result<String> {
    let file = File::from(openat(dir, name, OFlag::O_RDONLY | FILE, Mode::empty())?);
    let mut text = String::new();
    file.take(LONGEST).read_to_string(&mut text)?;
    Ok(text)
}

pub(super) fn write_at(dir: BorrowedFd<'_>, name: &str, value: &str) -> io::Result<()> {
    let mut file = File::from(openat(dir, name, OFlag::O_WRONLY | FILE, Mode::empty())?);
    file.write_all(value.as_bytes())
}

pub(super) fn fstat_at(dir: BorrowedFd<'_>, name: &str) -> io::Result<u64> {
    let stat = nix::sys::stat::fstatat(dir, name, nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW)?;
    Ok(stat.st_ino)
}

/// A cgroup's id is the inode of its directory (64-bit inodes, Linux 5.5 and later).
pub(super) fn id_of(dir: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(nix::sys::stat::fstat(dir)?.st_ino)
}

/// The cgroup with this id below `top`, and its path; `None` if it is not among the first that are seen.
fn search(top: OwnedFd, path: PathBuf, id: u64) -> Option<(OwnedFd, PathBuf)> {
    let mut open = vec![(top, path, 0)];
    let mut budget = nest::MOST_CGROUPS;
    while let Some((dir, path, depth)) = open.pop() {
        if id_of(dir.as_fd()).is_ok_and(|found| found == id) {
            return Some((dir, path));
        }
        let names = if depth < DEEPEST { nest::names(dir.as_fd(), budget + 1).unwrap_or_default() } else { Vec::new() };
        for name in names {
            budget = budget.checked_sub(1)?;
            if let Ok(child) = open_at(dir.as_fd(), &name) {
                open.push((child, path.join(&name), depth + 1));
            }
        }
    }
    None
}

fn is_cgroup2(dir: BorrowedFd<'_>) -> bool {
    nix::sys::statfs::fstatfs(dir)
        .is_ok_and(|fs| u64::try_from(fs.filesystem_type().0).is_ok_and(|kind| kind == CGROUP2_SUPER_MAGIC))
}

pub(super) fn in_initial_namespace() -> bool {
    fs::metadata("/proc/self/ns/cgroup").is_ok_and(|namespace| namespace.ino() == INITIAL_CGROUP_NAMESPACE)
}

/// The process that a thread belongs to.
fn process_of(thread: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}

/// What memory.events says of kills (cgroup-v2.rst, "Memory Interface Files"): of processes, not of limits reached.
fn oom_kills(events: &str) -> Option<u64> {
    key(events, "oom_kill")?.parse().ok()
}

/// The value of a line `name value`.
fn key<'text>(text: &'text str, name: &str) -> Option<&'text str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).map(str::trim)
}

fn unknown(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what} has an unknown form"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_for_want_of_memory_are_counted_by_process_and_a_limit_reached_is_none() {
        let events = "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 1\n";
        assert_eq!(oom_kills(events), Some(2));
        assert_eq!(oom_kills("low 0\nmax 4\noom 1\n"), None, "an old kernel counts no kills: unknown, not none");
    }
}

//! The cgroup of one attempt: made once, frozen before anything is in it, limited, removed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::{
    CgroupError, FILE, Home, OwnCgroup, doing, fstat_at, key, open_at, plain_name, read_at, unknown, write_at,
};
use crate::keeper::{nest, probe, signal};
use crate::model::RunTag;

/// How often our own cgroup may have been killed.
const MOST_KILLS: u32 = 16;

/// A cgroup made for one attempt, and the way to remove it.
#[derive(Debug)]
pub struct RunCgroup {
    pub(super) own: OwnCgroup,
    pub(super) parent: OwnedFd,
    pub(super) leaf: String,
    pub(super) path: PathBuf,
    pub(super) level: Option<u32>,
}

impl RunCgroup {
    /// Makes a new one below `home`, for instance `agent-loop-exec-<id>`; an existing one is never used.
    ///
    /// # Errors
    /// EEXIST, EACCES, EROFS as the kernel says; [`CgroupError::NotADomain`] below a threaded cgroup.
    pub fn create(home: &Home, leaf: &str) -> Result<Self, CgroupError> {
        if !plain_name(leaf) {
            return Err(CgroupError::Name(leaf.to_owned()));
        }
        let path = home.path.join(leaf);
        mkdirat(&home.dir, leaf, Mode::from_bits_truncate(0o755))
            .map_err(io::Error::from)
            .map_err(doing(format!("making {}", path.display())))?;
        let made = open_at(home.dir.as_fd(), leaf.as_ref())
            .map_err(doing(format!("opening {}", path.display())))
            .and_then(|dir| OwnCgroup::proven(dir, None, Some(home.name.join(leaf)), false))
            .and_then(|own| {
                let kind = read_at(own.dir(), "cgroup.type").map_err(doing("reading cgroup.type"))?;
                match kind.trim() {
                    "domain" => Ok(own),
                    kind => Err(CgroupError::NotADomain { path: path.clone(), kind: kind.to_owned() }),
                }
            });
        let level = home.level.map(|level| level + 1);
        let made = made.and_then(|own| {
            let parent = home.dir.try_clone().map_err(doing("holding our cgroup"))?;
            let made = Self { own, parent, leaf: leaf.to_owned(), path, level };
            made.let_births_live(&home.kills).map_err(doing(format!("trying a birth in {}", made.path.display())))?;
            Ok(made)
        });
        if made.is_err() {
            // We made it and nothing is in it; a failure to remove it changes nothing for the caller.
            let _ = unlinkat(&home.dir, leaf, UnlinkatFlags::RemoveDir);
        }
        made
    }

    /// Has who is born into it by us live, whatever our own cgroup went through.
    ///
    /// A child is killed at birth where the cgroup that it is born into was killed another number of times than that
    /// of who bears it (Linux 6.14 to 7.2: `cgroup_css_set_fork` and `cgroup_post_fork` compare `kill_seq` of both). Ours
    /// was where it is used again after a kill of all that was in it. The kernel tells no such number: it is tried once
    /// with a child that exits, and a new cgroup, which holds nobody, is killed as often.
    fn let_births_live(&self, known: &OnceLock<u32>) -> io::Result<()> {
        if let Some(kills) = known.get() {
            return (0..*kills).try_for_each(|_| signal::kill_nobody(&self.own));
        }
        for kills in 0..=MOST_KILLS {
            match probe::dies_at_birth(&self.own) {
                Ok(false) => {
                    known.get_or_init(|| kills);
                    return Ok(());
                }
                Ok(true) => signal::kill_nobody(&self.own)?,
                Err(error) if error.kind() == io::ErrorKind::TimedOut => return Err(error),
                // No child can be born at present, which the launch tells; it is tried again with the next run.
                Err(_) => return Ok(()),
            }
        }
        Err(io::Error::other(format!("who is born into it is killed at once, also after {MOST_KILLS} kills of it")))
    }

    /// The proven directory.
    #[must_use]
    pub fn own(&self) -> &OwnCgroup {
        &self.own
    }

    /// Its id, which is the run's tag in the kernel.
    #[must_use]
    pub fn tag(&self) -> RunTag {
        self.own.id
    }

    /// Its depth as the kernel counts, the root being 0; `None` in a cgroup namespace, which hides it.
    #[must_use]
    pub fn level(&self) -> Option<u32> {
        self.level
    }

    /// Where it is seen in the file system, for people.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its last name.
    #[must_use]
    pub fn leaf(&self) -> &str {
        &self.leaf
    }

    /// The directory that holds it.
    #[must_use]
    pub fn parent(&self) -> BorrowedFd<'_> {
        self.parent.as_fd()
    }

    /// Asks the kernel to freeze it; one without processes is frozen at once, and so is what is born into it.
    ///
    /// # Errors
    /// What writing cgroup.freeze reports.
    pub fn freeze(&self) -> io::Result<()> {
        write_at(self.own.dir(), "cgroup.freeze", "1")
    }

    /// Lets it run.
    ///
    /// # Errors
    /// What writing cgroup.freeze reports.
    pub fn thaw(&self) -> io::Result<()> {
        write_at(self.own.dir(), "cgroup.freeze", "0")
    }

    /// Whether it was asked to freeze.
    ///
    /// # Errors
    /// What reading cgroup.freeze reports.
    pub fn is_freezing(&self) -> io::Result<bool> {
        Ok(read_at(self.own.dir(), "cgroup.freeze")?.trim() == "1")
    }

    /// Whether all of it is frozen now.
    ///
    /// # Errors
    /// What reading cgroup.events reports.
    pub fn is_frozen(&self) -> io::Result<bool> {
        let events = read_at(self.own.dir(), "cgroup.events")?;
        key(&events, "frozen").map(|value| value != "0").ok_or_else(|| unknown("cgroup.events"))
    }

    /// Opens cgroup.events: epoll reports EPOLLPRI on it at each change of populated or frozen.
    ///
    /// # Errors
    /// What opening reports.
    pub fn events(&self) -> io::Result<OwnedFd> {
        openat(self.own.dir(), "cgroup.events", OFlag::O_RDONLY | FILE, Mode::empty()).map_err(io::Error::from)
    }

    /// Sets limits and says which could not be set, each with its reason: the caller refuses or replaces them.
    #[must_use]
    pub fn limit(&self, limits: &Limits) -> Vec<MissingLimit> {
        // In microseconds of each tenth of a second (Documentation/admin-guide/cgroup-v2.rst).
        let cpu = limits.cpu_percent.map(|percent| format!("{} 100000", u64::from(percent) * 1_000));
        let wanted = [
            ("memory", "memory.max", limits.memory_max.map(|bytes| bytes.to_string())),
            ("pids", "pids.max", limits.pids_max.map(|tasks| tasks.to_string())),
            ("cpu", "cpu.max", cpu),
        ];
        let mut missing = Vec::new();
        for (controller, file, value) in wanted {
            let Some(value) = value else { continue };
            let set = || {
                if fstat_at(self.own.dir(), file).is_err() {
                    let available = read_at(self.parent.as_fd(), "cgroup.controllers")?;
                    if !available.split_ascii_whitespace().any(|name| name == controller) {
                        return Err(io::Error::other(format!("no {controller} controller is available here")));
                    }
                    write_at(self.parent.as_fd(), "cgroup.subtree_control", &format!("+{controller}"))?;
                }
                write_at(self.own.dir(), file, &value)
            };
            if let Err(error) = set() {
                missing.push(MissingLimit { file, why: error.to_string() });
            }
        }
        missing
    }

    /// Removes it and the cgroups that were made below it, from the bottom up; waits briefly for the last zombie.
    ///
    /// # Errors
    /// EBUSY while a process is in it. Nothing outside it is touched.
    pub fn remove(&self) -> io::Result<()> {
        nest::remove(self.parent.as_fd(), &self.leaf, &self.own)
    }
}

/// Optional limits of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory (memory.max).
    pub memory_max: Option<u64>,
    /// Number of tasks (pids.max).
    pub pids_max: Option<u64>,
    /// Processors in hundredths (cpu.max).
    pub cpu_percent: Option<u32>,
}

/// A limit that could not be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingLimit {
    /// The file it would have been written to.
    pub file: &'static str,
    /// Why not.
    pub why: String,
}

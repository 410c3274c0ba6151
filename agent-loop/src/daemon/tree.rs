//! A look at the tree of a run: who is left in its cgroup. Numbers for the core, which has each verified.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use nix::dir::{Dir, Type};
use nix::fcntl::{Flock, FlockArg, OFlag, open, openat};
use nix::sys::stat::Mode;

use crate::event::Tree;
use crate::keeper::cgroup::OwnCgroup;
use crate::keeper::tree;
use crate::model::{Live, RunTag};
use crate::run::RunName;

const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// The cgroup below which the runs are, which one daemon at a time has: another would take them for nobody's.
pub(super) struct Root {
    // Not a record lock: nothing here is open for writing. No child of ours keeps it: it is closed at execve.
    dir: Flock<OwnedFd>,
}

impl Root {
    /// Opens it, and claims it for this process; one that is open already is to be dropped before.
    ///
    /// # Errors
    /// When it is not there yet: the keeper makes it. EAGAIN while another daemon has it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let dir = open(path, DIRECTORY, Mode::empty())?;
        let dir = Flock::lock(dir, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno)?;
        Ok(Self { dir })
    }

    /// The runs' cgroups that are there, with their ids.
    ///
    /// # Errors
    /// When it cannot be listed.
    pub(super) fn runs(&self) -> io::Result<Vec<(RunName, RunTag)>> {
        let mut listing = Dir::openat(self.dir.as_fd(), ".", DIRECTORY, Mode::empty())?;
        let mut runs = Vec::new();
        for entry in listing.iter() {
            let entry = entry?;
            let Some(Ok(name)) = entry.file_name().to_str().ok().map(str::parse::<RunName>) else { continue };
            if entry.file_type() != Some(Type::Directory) {
                continue;
            }
            if let Some(tag) = self.id(name)? {
                runs.push((name, tag));
            }
        }
        Ok(runs)
    }

    /// The id of a run's cgroup; `None` if there is none.
    ///
    /// # Errors
    /// When that cannot be told.
    pub(super) fn id(&self, name: RunName) -> io::Result<Option<RunTag>> {
        let flags = nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
        match nix::sys::stat::fstatat(self.dir.as_fd(), name.to_string().as_str(), flags) {
            Ok(stat) => Ok(Some(RunTag(stat.st_ino))),
            Err(nix::errno::Errno::ENOENT) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The cgroup of a run that was recorded; `None` once it was removed, whatever has its name now.
    ///
    /// # Errors
    /// When it is there, or that cannot be told, and it cannot be opened.
    pub(super) fn present(&self, name: RunName, recorded: RunTag) -> io::Result<Option<OwnCgroup>> {
        if self.id(name)? == Some(recorded) { self.cgroup(name, recorded).map(Some) } else { Ok(None) }
    }

    /// The cgroup of a run, if it is the recorded one.
    ///
    /// # Errors
    /// When it is not there or another one.
    pub(super) fn cgroup(&self, name: RunName, recorded: RunTag) -> io::Result<OwnCgroup> {
        let dir = openat(self.dir.as_fd(), name.to_string().as_str(), DIRECTORY, Mode::empty())?;
        OwnCgroup::prove(dir, recorded, None).map_err(io::Error::other)
    }
}

/// What is left of the tree now. A cgroup that was removed holds nobody, or it could not have been.
///
/// # Errors
/// When it cannot be told.
pub(super) fn inspect(cgroup: Option<&OwnCgroup>, live: &[Live]) -> io::Result<Tree> {
    let Some(cgroup) = cgroup else { return Ok(Tree::Empty { proven: true }) };
    if !tree::is_populated(cgroup)? {
        return Ok(Tree::Empty { proven: true });
    }
    let pids = cgroup.procs()?.pids;
    if pids.is_empty() {
        return Ok(Tree::Unknown("the cgroup is populated by processes that cannot be listed".to_owned()));
    }
    Ok(Tree::Populated(tree::describe(&pids, live)))
}

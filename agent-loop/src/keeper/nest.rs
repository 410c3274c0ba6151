//! Cgroups below a run's own: seen and removed one by one, however deep an agent nested them.
//!
//! A walk holds one descriptor, not one for each level: it goes down by a name and up by `..`, and believes that
//! only if it leads to the cgroup it came from. What bounds it is a count, never a depth.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::dir::{Dir, Type};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::cgroup::{DIRECTORY, OwnCgroup, fstat_at, id_of, open_at};

/// Over how many cgroups one look goes: it must not hold up the event loop for long.
pub(super) const MOST_CGROUPS: usize = 4_096;
/// How many cgroups one removal removes: nobody makes more of them meanwhile.
const MOST_REMOVED: usize = 65_536;

/// How long a removal waits for a process that has just died to leave its cgroup.
const REMOVE_TRIES: u32 = 50;
const REMOVE_PAUSE: Duration = Duration::from_millis(2);

/// A cgroup on the way from the top to where a walk is.
struct Level {
    id: u64,
    name: PathBuf,
    /// What is below it and was not visited yet.
    rest: Vec<PathBuf>,
}

/// Where a walk is: the last of the levels.
struct Walk {
    here: OwnedFd,
    levels: Vec<Level>,
}

impl Walk {
    fn new(top: BorrowedFd<'_>, most: usize) -> io::Result<Self> {
        let here = open_at(top, Path::new("."))?;
        let level = Level { id: id_of(top)?, name: PathBuf::new(), rest: names(top, most)? };
        Ok(Self { here, levels: vec![level] })
    }

    /// Goes down into `child`, which is `name` below here.
    fn down(&mut self, child: OwnedFd, name: PathBuf, rest: Vec<PathBuf>) -> io::Result<()> {
        self.levels.push(Level { id: id_of(child.as_fd())?, name, rest });
        self.here = child;
        Ok(())
    }

    /// Leaves the cgroup for the one above it; the name by which that knows it, or `None` at the top.
    fn up(&mut self) -> io::Result<Option<PathBuf>> {
        let left = self.levels.pop();
        let (Some(left), Some(above)) = (left, self.levels.last()) else { return Ok(None) };
        let dir = open_at(self.here.as_fd(), Path::new(".."))?;
        if id_of(dir.as_fd())? != above.id {
            return Err(io::Error::other("a cgroup is not where it was found"));
        }
        self.here = dir;
        Ok(Some(left.name))
    }
}

/// Calls `look` with a cgroup and its id, and with each below it; says whether it saw all within the bounds.
///
/// # Errors
/// What `look` reports of the top; below it, what vanishes meanwhile is no error.
pub(super) fn each_cgroup(
    top: BorrowedFd<'_>,
    look: &mut dyn FnMut(BorrowedFd<'_>, u64) -> io::Result<()>,
) -> io::Result<bool> {
    look(top, id_of(top)?)?;
    let mut budget = MOST_CGROUPS;
    let mut walk = Walk::new(top, budget)?;
    while let Some(level) = walk.levels.last_mut() {
        let Some(name) = level.rest.pop() else {
            walk.up()?;
            continue;
        };
        if budget == 0 {
            return Ok(false);
        }
        budget -= 1;
        // One that is removed while we look had no processes left.
        let Some(child) = present(open_at(walk.here.as_fd(), &name))? else { continue };
        if present(look(child.as_fd(), id_of(child.as_fd())?))?.is_none() {
            continue;
        }
        if let Some(rest) = present(names(child.as_fd(), budget + 1))?.filter(|rest| !rest.is_empty()) {
            walk.down(child, name, rest)?;
        }
    }
    Ok(true)
}

/// Removes the cgroup `own`, known as `leaf` in `parent`, and those that were made below it, from the bottom up.
///
/// # Errors
/// EBUSY while a process is in one of them.
pub(super) fn remove(parent: BorrowedFd<'_>, leaf: &str, own: &OwnCgroup) -> io::Result<()> {
    for attempt in 0.. {
        let removed = remove_below(own.dir()).and_then(|()| {
            // Only what still is our cgroup: the name may have gone, or gone to another.
            match fstat_at(parent, leaf) {
                Ok(id) if id == own.id().0 => unlinkat(parent, leaf, UnlinkatFlags::RemoveDir).map_err(io::Error::from),
                Ok(_) => Err(io::Error::other("the name belongs to another cgroup")),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(error),
            }
        });
        match removed {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && attempt < REMOVE_TRIES => {
                std::thread::sleep(REMOVE_PAUSE);
            }
            other => return other,
        }
    }
    unreachable!("the loop returns at its bound")
}

fn remove_below(top: BorrowedFd<'_>) -> io::Result<()> {
    let mut budget = MOST_REMOVED;
    // A top that was removed has nothing below it.
    let Some(mut walk) = present(Walk::new(top, budget))? else { return Ok(()) };
    while let Some(level) = walk.levels.last_mut() {
        let done = match level.rest.pop() {
            None => walk.up()?,
            Some(name) => {
                budget =
                    budget.checked_sub(1).ok_or_else(|| io::Error::other("there are too many cgroups below it"))?;
                let Some(child) = present(open_at(walk.here.as_fd(), &name))? else { continue };
                let rest = present(names(child.as_fd(), budget + 1))?.unwrap_or_default();
                if rest.is_empty() {
                    Some(name)
                } else {
                    walk.down(child, name, rest)?;
                    None
                }
            }
        };
        if let Some(name) = done {
            present(unlinkat(&walk.here, &name, UnlinkatFlags::RemoveDir).map_err(io::Error::from))?;
        }
    }
    Ok(())
}

/// The names of the cgroups directly below, at most so many.
pub(super) fn names(dir: BorrowedFd<'_>, most: usize) -> io::Result<Vec<PathBuf>> {
    let mut listing = Dir::openat(dir, ".", DIRECTORY, Mode::empty())?;
    let mut names = Vec::new();
    for entry in listing.iter() {
        let entry = entry?;
        let name = Path::new(std::ffi::OsStr::from_bytes(entry.file_name().to_bytes()));
        if entry.file_type() == Some(Type::Directory) && name != Path::new(".") && name != Path::new("..") {
            names.push(name.to_path_buf());
            if names.len() >= most {
                break;
            }
        }
    }
    Ok(names)
}

/// Turns "it has been removed meanwhile" into `None`.
fn present<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => Ok(None),
        Err(error) => Err(error),
    }
}

//! Opens the daemon's directories so that nobody else can have put something there.
//!
//! Each component of a path is opened below the one before it, without following links, and must belong to root or
//! to us and be out of reach of others. That holds on every kernel, and says which component is wrong, which
//! `openat2(RESOLVE_NO_SYMLINKS)` would not.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, mkdirat};

use super::StoreError;
use super::entry::{self, Access, Known, kind, quoted, refused};

/// Opens an entry for its properties alone; a symbolic link opens as itself.
const LOOK: OFlag = OFlag::O_PATH.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
/// Opens a directory that was looked at.
const ENTER: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
/// The file whose record lock says that a daemon is running.
const LOCK: &str = "lock";

/// How far out of reach of others a directory must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Nobody else reads or writes in it, and nobody else could replace it.
    Private,
    /// Nobody else writes in it. Above it a group may write, as `syslog` may in the /var/log of Ubuntu: it could move
    /// the directory away, but put none of ours in its place.
    Readable,
}

/// A directory that was found safe, and is held.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    pub(super) dir: OwnedFd,
    reach: Reach,
}

/// The directory of durable state: ours, and closed to all others.
#[derive(Debug)]
pub struct StateDir(pub(super) Place);

/// The directory of the audit log and the output of runs: ours; others may read what we let them.
#[derive(Debug)]
pub struct LogDir(pub(super) Place);

impl StateDir {
    /// Opens the directory, which must be absolute; creates it (0700) where its parent exists.
    ///
    /// # Errors
    /// [`StoreError::Unsafe`] where somebody else could read, change or replace it, with what mends that;
    /// [`StoreError::Failed`] where it cannot be opened or made.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Place::open(path, Reach::Private).map(Self)
    }

    /// Where it is: the path as given, in which no component is a link.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The directory itself.
    #[must_use]
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.0.dir.as_fd()
    }

    /// Opens a file of ours in it for reading and writing, creating it (0600) where it is not there.
    ///
    /// # Errors
    /// [`StoreError::Unsafe`] where it is not a regular file of ours with mode 0600, one link and at most `cap` bytes;
    /// [`StoreError::Failed`] where it cannot be opened.
    pub fn file(&self, name: &str, cap: u64) -> Result<File, StoreError> {
        self.0.file(name, Access::ReadWrite, cap)
    }

    /// Takes the lock of the only daemon on this state. It ends with the process, however that ends, and is not
    /// inherited by its children (`F_SETLK`).
    ///
    /// # Errors
    /// [`StoreError::Busy`] names the process that has it; else as [`StateDir::file`].
    pub fn lock(&self) -> Result<Lock, StoreError> {
        Lock::take(&self.0)
    }
}

impl LogDir {
    /// Opens the directory, which must be absolute; creates it (0700) where its parent exists.
    ///
    /// # Errors
    /// As [`StateDir::open`]; here others may read.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Place::open(path, Reach::Readable).map(Self)
    }

    /// Where it is: the path as given, in which no component is a link.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The directory itself.
    #[must_use]
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.0.dir.as_fd()
    }
}

impl Place {
    fn open(path: &Path, reach: Reach) -> Result<Self, StoreError> {
        let parts = parts(path)?;
        let mut at = open(Path::new("/"), LOOK, Mode::empty()).map_err(failed("opening the root directory"))?;
        let mut so_far = PathBuf::from("/");
        let last = parts.len().saturating_sub(1);
        check_above(&fstat(&at).map_err(failed("looking at the root directory"))?, &so_far, reach)?;
        for (number, part) in parts.into_iter().enumerate() {
            so_far.push(part);
            let is_last = number == last;
            at = step(&at, part, &so_far, is_last, reach)?;
            let stat = fstat(&at).map_err(failed("looking at a directory"))?;
            if is_last {
                check_own(&stat, &so_far, reach)?;
            } else {
                check_above(&stat, &so_far, reach)?;
            }
        }
        let dir = openat(&at, ".", ENTER, Mode::empty()).map_err(failed("entering a directory"))?;
        Ok(Self { path: so_far, dir, reach })
    }

    /// Opens a directory of ours below, creating it where it is not there.
    pub(super) fn below(&self, name: &str) -> Result<Self, StoreError> {
        let path = self.path.join(name);
        let at = step(&self.dir, name.as_ref(), &path, true, self.reach)?;
        check_own(&fstat(&at).map_err(failed("looking at a directory"))?, &path, self.reach)?;
        let dir = openat(&at, ".", ENTER, Mode::empty()).map_err(failed("entering a directory"))?;
        Ok(Self { path, dir, reach: self.reach })
    }

    /// Opens a file of ours, creating it where it is not there and `access` is for writing.
    pub(super) fn file(&self, name: &str, access: Access, cap: u64) -> Result<File, StoreError> {
        entry::file(self.dir.as_fd(), &self.path, name, access, cap)
    }

    /// Checks a file of ours without opening it; `None` if there is none.
    pub(super) fn look(&self, name: &str, cap: u64) -> Result<Option<Known>, StoreError> {
        entry::look(self.dir.as_fd(), &self.path, name, cap)
    }

    /// Makes what was created, renamed or removed in it durable.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        nix::unistd::fsync(&self.dir).map_err(failed("making a change of a directory durable"))
    }
}

/// The names on the way from the root.
fn parts(path: &Path) -> Result<Vec<&std::ffi::OsStr>, StoreError> {
    let mut parts = Vec::new();
    let mut absolute = false;
    for component in path.components() {
        match component {
            Component::RootDir => absolute = true,
            Component::Normal(part) => parts.push(part),
            Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(refused(path, "contains `..`", "write the path without it"));
            }
        }
    }
    if !absolute || parts.is_empty() {
        return Err(refused(path, "is not an absolute path of a directory", "write one that begins with `/`"));
    }
    Ok(parts)
}

/// Opens one component for a look; makes the last one where it is not there.
fn step(
    at: &OwnedFd,
    part: &std::ffi::OsStr,
    path: &Path,
    may_make: bool,
    reach: Reach,
) -> Result<OwnedFd, StoreError> {
    match openat(at, part, LOOK, Mode::empty()) {
        Ok(found) => Ok(found),
        Err(Errno::ENOENT) if may_make => {
            match mkdirat(at, part, Mode::S_IRWXU) {
                // Somebody was faster; whether it is ours is looked at in any case.
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(failed_at("creating", path)(errno)),
            }
            if reach == Reach::Private {
                // A directory on the way is opened by O_PATH, which cannot be synced; its `.` can.
                let parent =
                    openat(at, ".", ENTER, Mode::empty()).map_err(failed_at("entering the parent of", path))?;
                nix::unistd::fsync(&parent).map_err(failed_at("making durable", path))?;
            }
            openat(at, part, LOOK, Mode::empty()).map_err(failed_at("opening", path))
        }
        Err(Errno::ENOENT) => Err(StoreError::Failed {
            doing: "opening a directory",
            why: format!("{} does not exist; make it: `mkdir -m 755 {}`", path.display(), quoted(path)),
        }),
        Err(errno) => Err(failed_at("opening", path)(errno)),
    }
}

/// Whether a directory above ours keeps what is in it from being replaced by others.
fn check_above(stat: &FileStat, path: &Path, reach: Reach) -> Result<(), StoreError> {
    is_directory(stat, path)?;
    if stat.st_uid != 0 && stat.st_uid != ours() {
        return Err(refused(
            path,
            &format!("belongs to user {}, who could replace what is below it", stat.st_uid),
            &format!("`chown root {}`, or choose a directory elsewhere", quoted(path)),
        ));
    }
    let dangerous = match reach {
        Reach::Private => Mode::S_IWGRP | Mode::S_IWOTH,
        Reach::Readable => Mode::S_IWOTH,
    };
    let mode = Mode::from_bits_truncate(stat.st_mode);
    // In a sticky directory only its owner and an entry's own owner may rename or remove the entry.
    if mode.intersects(dangerous) && !mode.contains(Mode::S_ISVTX) {
        return Err(refused(
            path,
            &format!("has mode {:04o}: others could replace what is below it", stat.st_mode & 0o7777),
            &format!("`chmod go-w {}`, or choose a directory elsewhere", quoted(path)),
        ));
    }
    Ok(())
}

/// Whether a directory is ours and out of reach.
fn check_own(stat: &FileStat, path: &Path, reach: Reach) -> Result<(), StoreError> {
    is_directory(stat, path)?;
    if stat.st_uid != ours() {
        return Err(refused(
            path,
            &format!("belongs to user {}, not to {}", stat.st_uid, ours()),
            &format!(
                "if what it holds is agent-loop's: `chown -R {} {}`; else choose another directory",
                ours(),
                quoted(path)
            ),
        ));
    }
    let (too_much, mend) = match reach {
        Reach::Private => (Mode::S_IRWXG | Mode::S_IRWXO, "go-rwx"),
        Reach::Readable => (Mode::S_IWGRP | Mode::S_IWOTH, "go-w"),
    };
    if Mode::from_bits_truncate(stat.st_mode).intersects(too_much) {
        return Err(refused(
            path,
            &format!("has mode {:04o}: it is open to others", stat.st_mode & 0o7777),
            &format!("look whether what it holds is agent-loop's, then `chmod {mend} {}`", quoted(path)),
        ));
    }
    Ok(())
}

fn is_directory(stat: &FileStat, path: &Path) -> Result<(), StoreError> {
    match kind(stat) {
        SFlag::S_IFDIR => Ok(()),
        SFlag::S_IFLNK => Err(refused(
            path,
            "is a symbolic link, which is never followed",
            &format!("write the path it leads to: `readlink -f {}`", quoted(path)),
        )),
        _ => Err(refused(path, "is not a directory", &format!("look what it is: `ls -ld {}`", quoted(path)))),
    }
}

/// The user we are.
pub(super) fn ours() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// Names what was being done.
pub(super) fn failed(doing: &'static str) -> impl Fn(Errno) -> StoreError {
    move |errno| StoreError::Failed { doing, why: io::Error::from(errno).to_string() }
}

/// Names what was being done, and to what.
pub(super) fn failed_at(doing: &'static str, path: &Path) -> impl Fn(Errno) -> StoreError {
    move |errno| StoreError::Failed { doing, why: format!("{}: {}", path.display(), io::Error::from(errno)) }
}

/// The directories that this process has locked: a record lock does not conflict with its own process, and ends
/// when any descriptor of the file is closed.
static HELD: Mutex<BTreeSet<(u64, u64)>> = Mutex::new(BTreeSet::new());

/// The lock of the only daemon on a state directory; dropping it lets it go.
#[derive(Debug)]
pub struct Lock {
    file: Option<File>,
    dir: (u64, u64),
}

impl Lock {
    fn take(place: &Place) -> Result<Self, StoreError> {
        let stat = fstat(&place.dir).map_err(failed("looking at a directory"))?;
        let dir = (stat.st_dev, stat.st_ino);
        if !HELD.lock().unwrap_or_else(PoisonError::into_inner).insert(dir) {
            return Err(busy(&place.path, Some(std::process::id())));
        }
        let taken = place.file(LOCK, Access::ReadWrite, 0).and_then(|file| {
            Self::set(&file, &place.path)?;
            Ok(file)
        });
        match taken {
            Ok(file) => Ok(Self { file: Some(file), dir }),
            Err(error) => {
                release(dir);
                Err(error)
            }
        }
    }

    fn set(file: &File, path: &Path) -> Result<(), StoreError> {
        // Who had it may be gone when we ask who it is.
        for _ in 0..3 {
            match fcntl(file, FcntlArg::F_SETLK(&whole(libc::F_WRLCK))) {
                Ok(_) => return Ok(()),
                Err(Errno::EAGAIN | Errno::EACCES) => {}
                Err(errno) => return Err(failed("locking the state directory")(errno)),
            }
            let mut other = whole(libc::F_WRLCK);
            fcntl(file, FcntlArg::F_GETLK(&mut other)).map_err(failed("asking who locked the state directory"))?;
            if i32::from(other.l_type) != libc::F_UNLCK {
                // 0 is a process of another PID namespace, -1 a lock of an open file description.
                return Err(busy(path, u32::try_from(other.l_pid).ok().filter(|pid| *pid != 0)));
            }
        }
        Err(busy(path, None))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // In this order: closing it would end the lock of whoever in this process took it in between.
        drop(self.file.take());
        release(self.dir);
    }
}

fn release(dir: (u64, u64)) {
    HELD.lock().unwrap_or_else(PoisonError::into_inner).remove(&dir);
}

fn busy(path: &Path, pid: Option<u32>) -> StoreError {
    StoreError::Busy { path: path.to_owned(), pid }
}

fn whole(kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: libc::c_short::try_from(kind).unwrap_or_default(),
        l_whence: libc::c_short::try_from(libc::SEEK_SET).unwrap_or_default(),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

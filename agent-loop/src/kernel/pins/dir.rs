//! The directory of the pins: root's alone, on bpffs, reached without a symbolic link.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, fstat, mkdirat};
use nix::sys::statfs::{BPF_FS_MAGIC, fstatfs};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// The directory, held open: it stays the one that was checked, whatever becomes of its name.
pub(super) struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

/// What is in it.
pub(super) struct Entry {
    /// Its name.
    pub(super) name: OsString,
    /// Whether it is a pin: bpffs holds nothing else but directories and symbolic links.
    pub(super) pin: bool,
    /// Whether nobody but root can open it.
    pub(super) private: bool,
}

impl Dir {
    /// Opens it.
    ///
    /// # Errors
    /// NotFound when it is not there; with what to do when it is not root's alone or not on bpffs.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let fd = open(path)?;
        on_bpffs(&fd, path)?;
        let stat = fstat(&fd)?;
        let shown = path.display();
        if stat.st_uid != 0 {
            return Err(refusal(format!(
                "{shown} belongs to user {}, not to root; remove it and start again",
                stat.st_uid
            )));
        }
        if stat.st_mode & 0o077 != 0 {
            let mode = stat.st_mode & 0o7777;
            return Err(refusal(format!(
                "{shown} has mode {mode:04o} and others than root may use it; remove it, or `chmod 0700` it if nobody \
                 else was meant to"
            )));
        }
        Ok(Self { fd, path: path.to_owned() })
    }

    /// Opens it, after making it if it is not there.
    ///
    /// # Errors
    /// As [`Dir::open`], and when it cannot be made.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(refusal(format!("{} names no directory", path.display())));
        };
        let above = open(parent)?;
        // Before anything is made: a directory on another file system would stay.
        on_bpffs(&above, parent)?;
        match mkdirat(&above, name, Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => Self::open(path),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The path of a name in it, for bpf(2), which takes no directory descriptor before Linux 6.5, and for aya.
    ///
    /// It goes by our descriptor, and in a directory of root's alone nobody else puts a name.
    pub(super) fn at(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.through().join(name.as_ref())
    }

    /// What is in it, by name.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn entries(&self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(self.through())? {
            let entry = entry?;
            let stat = entry.metadata()?;
            entries.push(Entry {
                name: entry.file_name(),
                pin: stat.is_file(),
                private: stat.uid() == 0 && stat.mode() & 0o077 == 0,
            });
        }
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// Removes a pin; one that is not there is removed already.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub(super) fn unpin(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        match unlinkat(&self.fd, name.as_ref(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Its descriptor alone.
    pub(super) fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// Its name.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn through(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.fd.as_raw_fd()))
    }
}

/// Opens a directory without following a symbolic link anywhere in its path.
fn open(path: &Path) -> io::Result<OwnedFd> {
    if !path.is_absolute() {
        return Err(refusal(format!("{} is not an absolute path", path.display())));
    }
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let how =
        OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let shown = path.display();
    openat2(AT_FDCWD, path, how).map_err(|errno| {
        if errno == Errno::ELOOP {
            refusal(format!("{shown} goes through a symbolic link; name the directory itself"))
        } else if errno == Errno::ENOTDIR {
            refusal(format!("{shown} is not a directory; remove it and start again"))
        } else {
            let error = io::Error::from(errno);
            io::Error::new(error.kind(), format!("opening {shown}: {error}"))
        }
    })
}

fn on_bpffs(fd: &OwnedFd, path: &Path) -> io::Result<()> {
    if fstatfs(fd)?.filesystem_type() == BPF_FS_MAGIC {
        return Ok(());
    }
    let shown = path.display();
    Err(refusal(format!("{shown} is not on a bpffs; mount one with `mount -t bpf bpf /sys/fs/bpf`")))
}

pub(super) fn refusal(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why)
}

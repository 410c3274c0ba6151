//! Opens one file of a safe directory, and refuses what is not a plain file of ours.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};

use super::StoreError;
use super::place::{failed, failed_at, ours};

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Reading.
    Read,
    /// Reading and writing; created where it is not there.
    ReadWrite,
    /// Writing at its end; created where it is not there.
    Append,
    /// Writing at its end; it must be there.
    AppendExisting,
    /// Reading and writing; it must not be there.
    New,
}

/// What a look at a file told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// How many bytes it has.
    pub(super) bytes: u64,
}

/// Opens `name` in `dir`, which is at `path`; what was opened is checked, not what the name leads to.
pub(super) fn file(dir: BorrowedFd<'_>, path: &Path, name: &str, access: Access, cap: u64) -> Result<File, StoreError> {
    let full = path.join(name);
    // Not waiting for the other end of a FIFO; without meaning for a regular file.
    let safe = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
    let wanted = match access {
        Access::Read => OFlag::O_RDONLY,
        Access::ReadWrite => OFlag::O_RDWR | OFlag::O_CREAT,
        Access::Append => OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT,
        Access::AppendExisting => OFlag::O_WRONLY | OFlag::O_APPEND,
        Access::New => OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL,
    };
    let opened = match openat(dir, name, safe | wanted, Mode::S_IRUSR | Mode::S_IWUSR) {
        Ok(opened) => opened,
        // A link, a FIFO that nobody reads, a directory, a device: a look says which.
        Err(errno @ (Errno::ELOOP | Errno::ENXIO | Errno::EISDIR | Errno::EACCES)) => {
            look(dir, path, name, cap)?;
            return Err(failed_at("opening", &full)(errno));
        }
        Err(errno) => return Err(failed_at("opening", &full)(errno)),
    };
    check(&fstat(&opened).map_err(failed("looking at a file"))?, &full, SFlag::S_IFREG, cap)?;
    Ok(opened.into())
}

/// Checks `name` in `dir` without opening it for anything.
///
/// This is for the database: closing a descriptor of it would end the locks that SQLite has on it, one opened by
/// `O_PATH` does not.
pub(super) fn look(dir: BorrowedFd<'_>, path: &Path, name: &str, cap: u64) -> Result<Option<Known>, StoreError> {
    let full = path.join(name);
    let found = match openat(dir, name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty()) {
        Ok(found) => found,
        Err(Errno::ENOENT) => return Ok(None),
        Err(errno) => return Err(failed_at("looking at", &full)(errno)),
    };
    let stat = fstat(&found).map_err(failed("looking at a file"))?;
    check(&stat, &full, SFlag::S_IFREG, cap)?;
    Ok(Some(Known { bytes: u64::try_from(stat.st_size).unwrap_or_default() }))
}

/// Checks an opened FIFO.
pub(super) fn check_fifo(fifo: impl AsFd, path: &Path) -> Result<(), StoreError> {
    check(&fstat(fifo).map_err(failed("looking at a pipe"))?, path, SFlag::S_IFIFO, u64::MAX)
}

fn check(stat: &FileStat, path: &Path, wanted: SFlag, cap: u64) -> Result<(), StoreError> {
    let away = format!("find out who put it there, then move it away: `mv {0} {0}.refused`", quoted(path));
    let is = kind(stat);
    if is != wanted {
        return Err(refused(path, &format!("is {}, where {} belongs", word(is), word(wanted)), &away));
    }
    if stat.st_uid != ours() {
        return Err(refused(path, &format!("belongs to user {}, not to {}", stat.st_uid, ours()), &away));
    }
    if stat.st_nlink != 1 {
        return Err(refused(
            path,
            &format!("has {} names: it can be changed by another one", stat.st_nlink),
            &format!("find the others: `find / -xdev -inum {}`, and remove them", stat.st_ino),
        ));
    }
    let mode = stat.st_mode & 0o7777;
    if mode != 0o600 {
        return Err(refused(
            path,
            &format!("has mode {mode:04o} instead of 0600"),
            &format!("look whether what it holds is agent-loop's, then `chmod 600 {}`", quoted(path)),
        ));
    }
    let bytes = u64::try_from(stat.st_size).unwrap_or_default();
    if bytes > cap {
        return Err(refused(path, &format!("has {bytes} bytes, more than the {cap} it may have"), &away));
    }
    Ok(())
}

/// The type of a file.
pub(super) fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

fn word(kind: SFlag) -> &'static str {
    match kind {
        SFlag::S_IFREG => "a regular file",
        SFlag::S_IFDIR => "a directory",
        SFlag::S_IFLNK => "a symbolic link",
        SFlag::S_IFIFO => "a FIFO",
        SFlag::S_IFSOCK => "a socket",
        SFlag::S_IFBLK => "a block device",
        SFlag::S_IFCHR => "a character device",
        _ => "of an unknown kind",
    }
}

/// Says what is wrong with `path`, and what to do.
pub(super) fn refused(path: &Path, wrong: &str, mend: &str) -> StoreError {
    StoreError::Unsafe(format!("{} {wrong}; {mend}", path.display()))
}

/// A path as a shell takes it.
pub(super) fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

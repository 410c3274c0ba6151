//! What an agent is given: a bundle, from which a process under its own user makes its clone.

use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::io::{self, Write as _};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{PermissionsExt as _, fchown};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::error::{GitError, io_at};
use super::repository::Repository;
use super::secret::memory;
use crate::forge::{Branch, Sha};
use crate::store::LogDir;

impl Repository {
    /// Writes a bundle to `to` that holds `refs/heads/<branch>` at `at` and `refs/heads/<base>` at `base_at`, with all of
    /// their histories. The file is new: what was there before is removed. It belongs to `reader` (a user id) where one is
    /// given, and only its owner can read it. Its directory has to be one of ours that the reader can pass through and
    /// that nobody else can change: else an agent could have us make a file of its own wherever it likes.
    ///
    /// # Errors
    /// [`GitError::Missing`] where a commit is not here, [`GitError::Place`] where others could change the directory; else
    /// where this host failed. Then no file is left.
    pub async fn give(
        &self,
        branch: &Branch,
        at: &Sha,
        base: &Branch,
        base_at: &Sha,
        to: &Path,
        reader: Option<u32>,
    ) -> Result<(), GitError> {
        let doing = format!("writing a bundle of branch {branch}");
        for commit in [at, base_at] {
            if !self.has(commit).await? {
                return Err(GitError::Missing { doing, commit: commit.to_string() });
            }
        }
        let (dir, name) = match (to.parent(), to.file_name()) {
            (Some(dir), Some(name)) if to.is_absolute() => (dir, name),
            (Some(_) | None, Some(_) | None) => {
                return Err(GitError::Unfit(format!("{} is no absolute path of a file", to.display())));
            }
        };
        let dir = LogDir::open(dir)?;
        let written = match create(dir.dir(), name, &header(branch, at, base, base_at)) {
            Ok(file) => self.pack(&doing, at, base_at, &file, reader).await,
            Err(error) => Err(io_at(format!("{doing} to {}", to.display()))(error)),
        };
        if written.is_err() {
            // A file that is cut off must be taken for nothing.
            let _ = unlinkat(dir.dir(), name, UnlinkatFlags::NoRemoveDir);
        }
        written
    }

    async fn pack(
        &self,
        doing: &str,
        at: &Sha,
        base_at: &Sha,
        file: &File,
        reader: Option<u32>,
    ) -> Result<(), GitError> {
        let wanted = memory(format!("{at}\n{base_at}\n").as_bytes()).map_err(io_at(doing))?;
        let into = file.try_clone().map_err(io_at(doing))?;
        let call = self.local(doing).stdin(wanted).stdout(into);
        let pack = ["pack-objects", "--revs", "--stdout", "--quiet", "--delta-base-offset"];
        self.git.must(call.args(pack)).await?;
        let hand_over = || {
            file.set_permissions(Permissions::from_mode(0o400))?;
            reader.map_or(Ok(()), |uid| fchown(file, Some(uid), None))
        };
        hand_over().map_err(io_at(format!("{doing}: giving it to its reader")))
    }
}

/// The head of a bundle (gitformat-bundle(5)). It is written here, since git's own command names refs, not commits: two at
/// work in one repository would need two refs of one name.
fn header(branch: &Branch, at: &Sha, base: &Branch, base_at: &Sha) -> String {
    let mut text = match at.as_str().len() {
        40 => "# v2 git bundle\n".to_owned(),
        _ => "# v3 git bundle\n@object-format=sha256\n".to_owned(),
    };
    text.push_str(&format!("{at} refs/heads/{branch}\n"));
    if base != branch {
        text.push_str(&format!("{base_at} refs/heads/{base}\n"));
    }
    text.push('\n');
    text
}

/// A new file of ours with this beginning, in a directory that is held.
fn create(dir: BorrowedFd<'_>, name: &OsStr, beginning: &str) -> io::Result<File> {
    match unlinkat(dir, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(errno) => return Err(errno.into()),
    }
    let new = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut file = File::from(openat(dir, name, new, Mode::S_IRUSR | Mode::S_IWUSR)?);
    file.write_all(beginning.as_bytes())?;
    Ok(file)
}

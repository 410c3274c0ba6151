//! What an agent is given: a bundle, from which a process under its own user makes its clone.

use std::fs::{File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::Path;

use super::error::{GitError, io_at};
use super::repository::Repository;
use super::secret::memory;
use crate::forge::{Branch, Sha};

impl Repository {
    /// Writes a bundle to `to` that holds `refs/heads/<branch>` at `at` and `refs/heads/<base>` at `base_at`, with all of
    /// their histories. The file is new: what was there before is removed, and no link is followed. It belongs to
    /// `reader` (a user id) where one is given, and only its owner can read it.
    ///
    /// # Errors
    /// [`GitError::Missing`] where a commit is not here; else where this host failed, and then no file is left.
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
        let written = match create(to, &header(branch, at, base, base_at)) {
            Ok(file) => self.pack(&doing, at, base_at, &file, reader).await,
            Err(error) => Err(io_at(format!("{doing} to {}", to.display()))(error)),
        };
        if written.is_err() {
            // A file that is cut off must be taken for nothing.
            let _ = std::fs::remove_file(to);
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

/// A new file of ours with this beginning.
fn create(path: &Path, beginning: &str) -> io::Result<File> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(beginning.as_bytes())?;
    Ok(file)
}

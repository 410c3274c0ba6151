//! Where a task has its files: what is ours alone below the state, what its agent works in below the work directory.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use nix::fcntl::OFlag;

use crate::agent::SessionId;
use crate::work::{IssueKey, RepoName, Sha};

/// The files of one task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Ours alone (0700): the session, prompts.
    ours: PathBuf,
    /// Root's, everybody may pass (0755): the clone below it is the agent's.
    open: PathBuf,
}

/// The account that agents run as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// The name of a task's directories; neither an owner nor a repository has a `+` in its name.
fn name(key: &IssueKey) -> String {
    format!("{}+{}+{}", key.repo.owner(), key.repo.name(), key.number)
}

/// Where our own bare repository of a forge's repository is.
pub(super) fn repository(state: &Path, repo: &RepoName) -> PathBuf {
    state.join("git").join(format!("{}+{}", repo.owner(), repo.name()))
}

/// The mark of a repository of which no issue is taken, since a person said so.
pub(super) fn paused(state: &Path, repo: &RepoName) -> PathBuf {
    state.join("issues/paused").join(format!("{}+{}", repo.owner(), repo.name()))
}

/// Whether a repository is marked so.
///
/// # Errors
/// Where that cannot be told.
pub(super) fn is_paused(mark: &Path) -> anyhow::Result<bool> {
    match fs::symlink_metadata(mark) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("looking at {}", mark.display())),
    }
}

/// Marks a repository so, or not any more; durable when it returns.
///
/// # Errors
/// What could not be written.
pub(super) fn set_paused(mark: &Path, paused: bool) -> anyhow::Result<()> {
    let dir = mark.parent().context("a mark without a directory")?;
    directory(dir, 0o700)?;
    if paused {
        write(mark, b"")?;
    } else if let Err(error) = fs::remove_file(mark)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error).with_context(|| format!("removing {}", mark.display()));
    }
    File::open(dir).and_then(|dir| dir.sync_all()).with_context(|| format!("writing {}", dir.display()))
}

impl Place {
    pub(super) fn of(state: &Path, work: &Path, key: &IssueKey) -> Self {
        Self { ours: state.join("issues").join(name(key)), open: work.join(name(key)) }
    }

    /// Makes what is not there; the clone's directory belongs to its agent.
    ///
    /// # Errors
    /// Where something is there that is not ours.
    pub(super) fn make(&self, owner: Owner) -> anyhow::Result<()> {
        for (dir, mode) in [(&self.ours, 0o700), (&self.open, 0o755)] {
            let parent = dir.parent().context("a directory without a parent")?;
            directory(parent, mode)?;
            directory(dir, mode)?;
        }
        match DirBuilder::new().mode(0o700).create(self.clone()) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other.with_context(|| format!("making {}", self.clone().display()))?,
        }
        let known =
            fs::symlink_metadata(self.clone()).with_context(|| format!("looking at {}", self.clone().display()))?;
        anyhow::ensure!(known.is_dir(), "{} is not a directory", self.clone().display());
        // Below a directory that only root changes: nobody can put a link in its place.
        std::os::unix::fs::lchown(self.clone(), Some(owner.uid), Some(owner.gid))
            .with_context(|| format!("handing over {}", self.clone().display()))
    }

    /// The clone.
    pub(super) fn clone(&self) -> PathBuf {
        self.open.join("clone")
    }

    /// What the clone is made from, and brought up to.
    pub(super) fn bundle(&self) -> PathBuf {
        self.open.join("bundle")
    }

    /// The prompt of an attempt.
    pub(super) fn prompt(&self, attempt: u32) -> PathBuf {
        self.ours.join(format!("prompt-{attempt}"))
    }

    /// Writes the prompt of an attempt.
    pub(super) fn write_prompt(&self, attempt: u32, text: &str) -> anyhow::Result<()> {
        write(&self.prompt(attempt), text.as_bytes())
    }

    /// Whether the clone was made whole.
    pub(super) fn is_cloned(&self) -> bool {
        self.ours.join("cloned").is_file()
    }

    /// Remembers that the clone was made whole, or that it is not.
    pub(super) fn set_cloned(&self, whole: bool) -> anyhow::Result<()> {
        let mark = self.ours.join("cloned");
        if whole {
            return write(&mark, b"");
        }
        match fs::remove_file(&mark) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).context("forgetting a clone"),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Remembers the commit that the clone's branch was made at.
    pub(super) fn set_given(&self, at: &Sha) -> anyhow::Result<()> {
        write(&self.ours.join("given"), at.to_string().as_bytes())
    }

    /// The commit that the clone's branch was made at, where that was remembered: its base may have moved on since.
    pub(super) fn given(&self) -> anyhow::Result<Option<Sha>> {
        let path = self.ours.join("given");
        match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().map(Some).with_context(|| format!("reading {}", path.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
        }
    }

    /// The session of the task's agent; made once.
    pub(super) fn session(&self) -> anyhow::Result<SessionId> {
        let path = self.ours.join("session");
        match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().with_context(|| format!("reading {}", path.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut bytes = [0; 16];
                File::open("/dev/urandom").and_then(|mut it| it.read_exact(&mut bytes)).context("making a session")?;
                let session = SessionId::from_random(bytes);
                write(&path, session.to_string().as_bytes())?;
                Ok(session)
            }
            Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
        }
    }

    /// Removes all of it; the clone was emptied by a process of its agent before.
    pub(super) fn remove(&self) -> anyhow::Result<()> {
        let gone = |result: io::Result<()>| match result {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        };
        // Not recursively: what an agent left is for its own rights to remove.
        gone(fs::remove_dir(self.clone())).with_context(|| format!("removing {}", self.clone().display()))?;
        gone(fs::remove_file(self.bundle())).context("removing a bundle")?;
        gone(fs::remove_dir(&self.open)).with_context(|| format!("removing {}", self.open.display()))?;
        gone(fs::remove_dir_all(&self.ours)).with_context(|| format!("removing {}", self.ours.display()))
    }
}

/// A directory of ours with this mode; one that is there must be ours.
fn directory(path: &Path, mode: u32) -> anyhow::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        // Whatever the umask says.
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(mode))
            .with_context(|| format!("opening {}", path.display()))?,
        other => other.with_context(|| format!("making {}", path.display()))?,
    }
    let known = fs::symlink_metadata(path).with_context(|| format!("looking at {}", path.display()))?;
    let ours = known.is_dir() && known.uid() == nix::unistd::geteuid().as_raw() && known.mode() & 0o022 == 0;
    anyhow::ensure!(
        ours,
        "{} is not a directory that only root can change: remove it, or name another place in the configuration",
        path.display()
    );
    Ok(())
}

/// Writes a file of ours anew, for us alone.
fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let doing = || format!("writing {}", path.display());
    let new = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(&new)
        .with_context(doing)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).with_context(doing)?;
    fs::rename(&new, path).with_context(doing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch() -> (tempfile::TempDir, Place) {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let (state, work) = (dir.path().join("state"), dir.path().join("work"));
        [&state, &work].into_iter().for_each(|it| fs::create_dir(it).expect("a directory"));
        let place = Place::of(&state, &work, &"o/r#7".parse().expect("an issue"));
        (dir, place)
    }

    fn us() -> Owner {
        Owner { uid: nix::unistd::geteuid().as_raw(), gid: nix::unistd::getegid().as_raw() }
    }

    #[test]
    fn a_session_is_made_once_and_prompts_are_ours_alone() {
        let (_dir, place) = scratch();
        place.make(us()).expect("room");
        let session = place.session().expect("it is made");
        place.make(us()).expect("it is there");
        assert_eq!(place.session().expect("it is read"), session);
        place.write_prompt(1, "hello").expect("room");
        let mode = fs::metadata(place.prompt(1)).expect("it is there").mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!place.is_cloned());
        place.set_cloned(true).expect("room");
        assert!(place.is_cloned());
        place.remove().expect("it goes");
        place.remove().expect("twice");
        assert!(!place.is_cloned());
    }

    #[test]
    fn a_directory_that_others_made_or_can_change_is_refused() {
        let (dir, place) = scratch();
        let open = dir.path().join("work/o+r+7");
        std::os::unix::fs::symlink("/tmp", &open).expect("a link");
        assert!(place.make(us()).is_err(), "a link");
        fs::remove_file(&open).expect("our link");
        fs::create_dir(&open).expect("a directory");
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).expect("our directory");
        assert!(place.make(us()).is_err(), "one that everybody can change");
        fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).expect("our directory");
        std::os::unix::fs::symlink("/tmp", open.join("clone")).expect("a link");
        assert!(place.make(us()).is_err(), "a link in place of the clone");
    }

    #[test]
    fn what_an_agent_left_is_not_removed_with_our_rights() {
        let (_dir, place) = scratch();
        place.make(us()).expect("room");
        fs::write(place.clone().join("left"), "x").expect("room");
        assert!(place.remove().is_err());
        assert!(place.clone().join("left").exists());
    }
}

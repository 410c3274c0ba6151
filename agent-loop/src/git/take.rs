//! What an agent committed, taken over from a bundle that it made: believed in nothing.
//!
//! Its objects go into a directory of their own beside our repository (a quarantine, as git-receive-pack(1) does), are
//! checked there by git, and move over only when all of it is sound and within its budgets.

use std::ffi::OsString;
use std::fs::{DirBuilder, File};
use std::io::{self, Seek as _, SeekFrom};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use ulid::Ulid;

use super::bundle;
use super::error::{GitError, io_at};
use super::process::{Call, Said};
use super::repository::{Repository, failed};
use crate::forge::{Branch, Sha};

/// How the directories of what is not trusted yet begin.
const QUARANTINE: &str = "quarantine-";

/// What one bundle may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TakeLimits {
    /// Bytes of the bundle.
    pub bytes: u64,
    /// Objects in it.
    pub objects: u32,
    /// Bytes of its objects once they are unpacked: a bundle of some kilobytes can hold gigabytes.
    pub unpacked: u64,
    /// Commits beyond what was given and what the forge has.
    pub commits: u32,
}

impl Default for TakeLimits {
    fn default() -> Self {
        Self { bytes: 256 << 20, objects: 200_000, unpacked: 2 << 30, commits: 1_000 }
    }
}

/// What came out of a clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Nothing beyond what was given.
    Nothing,
    /// It is in our repository now.
    Upto {
        /// The branch's head.
        head: Sha,
        /// How many commits are new: neither in what was given nor on a branch that was fetched from the forge. 0 where
        /// the agent only went on to one of those.
        commits: u32,
    },
    /// It was not taken, and why; for people.
    Refused(String),
}

impl Repository {
    /// Takes what an agent committed on `branch` beyond `since` out of a bundle that [`super::take_argv`] wrote.
    ///
    /// The bundle has to be a regular file that holds exactly this branch, with `since` in its history, sound for
    /// git-fsck(1) and within `limits`. Whatever it is, nothing in it is executed or read as configuration.
    ///
    /// # Errors
    /// [`GitError::Missing`] where `since` is not here; else where this host failed. A bundle that is not taken is no error.
    pub async fn take(
        &self,
        bundle: &Path,
        branch: &Branch,
        since: &Sha,
        limits: TakeLimits,
    ) -> Result<Taken, GitError> {
        let doing = format!("taking commits on branch {branch} from an agent");
        if !self.has(since).await? {
            return Err(GitError::Missing { doing, commit: since.to_string() });
        }
        let (mut file, length) = match open(bundle).map_err(io_at(format!("{doing}: opening its bundle")))? {
            Opened::Regular(file, length) => (file, length),
            Opened::Odd(why) => return Ok(Taken::Refused(why)),
        };
        if length > limits.bytes {
            return Ok(refused(format!("the bundle has {length} bytes, more than {} are let in", limits.bytes)));
        }
        let mut beginning = vec![0; bundle::LONGEST + 16];
        let read = read_at(&file, &mut beginning).map_err(io_at(format!("{doing}: reading its bundle")))?;
        let head = match bundle::read(beginning.get(..read).unwrap_or_default(), branch) {
            Ok(head) => head,
            Err(why) => return Ok(refused(why)),
        };
        if head.at == *since {
            return Ok(Taken::Nothing);
        }
        if head.objects > limits.objects {
            let most = limits.objects;
            return Ok(refused(format!("the bundle holds {} objects, more than {most} are let in", head.objects)));
        }
        file.seek(SeekFrom::Start(head.pack)).map_err(io_at(format!("{doing}: reading its bundle")))?;
        let quarantine = Quarantine::new(self.dir()).map_err(io_at(format!("{doing}: making a quarantine")))?;
        let _taking = self.taking.lock().await;
        let look = Look { repository: self, quarantine: &quarantine, doing: &doing };
        match look.judge(file, &head.at, since, limits).await {
            Ok(commits) => {
                quarantine.release().map_err(io_at(format!("{doing}: moving its objects over")))?;
                let name = format!("refs/agent-loop/taken/{branch}/+");
                self.git.must(self.local(&doing).args(["update-ref", &name, head.at.as_str()])).await?;
                Ok(Taken::Upto { head: head.at, commits })
            }
            Err(Ill::Work(why)) => Ok(refused(why)),
            Err(Ill::Host(error)) => Err(error),
        }
    }
}

fn refused(why: String) -> Taken {
    Taken::Refused(why)
}

/// Why a look at objects in quarantine comes to no good end.
enum Ill {
    /// It is the work's own: for people, told once. Looked at again it would be the same.
    Work(String),
    /// This host failed at it, which is nobody's fault; it can be tried again.
    Host(GitError),
}

impl From<GitError> for Ill {
    fn from(error: GitError) -> Self {
        if let GitError::TimedOut { after, .. } = error {
            // Nothing but what the agent made can take that long.
            return Self::Work(format!("git found no end of the bundle in {} s", after.as_secs()));
        }
        Self::Host(error)
    }
}

/// A look at objects in quarantine.
struct Look<'a> {
    repository: &'a Repository,
    quarantine: &'a Quarantine,
    doing: &'a str,
}

impl Look<'_> {
    /// Judges the objects of a pack; how many commits are new.
    async fn judge(&self, pack: File, head: &Sha, since: &Sha, limits: TakeLimits) -> Result<u32, Ill> {
        // Each object is checked, and that whatever it names is there.
        let ignored = "badTimezone=ignore,missingSpaceBeforeDate=ignore,zeroPaddedFilemode=ignore";
        let index = [
            "index-pack".to_owned(),
            "--stdin".to_owned(),
            "--fix-thin".to_owned(),
            format!("--strict={ignored}"),
            format!("--max-input-size={}", limits.bytes),
            "--threads=2".to_owned(),
        ];
        self.must(self.call().stdin(pack).args(index)).await?;
        let unpacked = self.unpacked().await?;
        if unpacked > limits.unpacked {
            let most = limits.unpacked;
            return Err(Ill::Work(format!(
                "the bundle holds {unpacked} bytes once unpacked, more than {most} are let in"
            )));
        }
        let commit = format!("{head}^{{commit}}");
        let said = self.ended(self.call().args(["cat-file", "-e", &commit])).await?;
        if said.code != Some(0) {
            return Err(Ill::Work(format!("the branch in the bundle points at {head}, which is no commit in it")));
        }
        // And that all of the history is there, as git itself does after a fetch.
        self.must(self.call().args(["rev-list", "--objects", "--quiet", head.as_str(), "--not", "--all"])).await?;
        let said = self.ended(self.call().args(["merge-base", "--is-ancestor", since.as_str(), head.as_str()])).await?;
        match said.code {
            Some(0) => {}
            Some(1) => {
                let why = "is not in the history of the branch: it was rewritten, or is another history";
                return Err(Ill::Work(format!("commit {}, which the agent was given, {why}", since.short())));
            }
            Some(_) | None => return Err(self.not_sound(&said)),
        }
        let most = u64::from(limits.commits);
        let count = [format!("--max-count={}", most + 1), head.to_string(), "--not".to_owned(), since.to_string()];
        let said =
            self.must(self.call().args(["rev-list", "--count"]).args(count).args(["--glob=refs/forge/*"])).await?;
        let commits: u64 =
            said.out.trim().parse().map_err(|error| failed(self.doing, format!("counting commits: {error}")))?;
        u32::try_from(commits)
            .ok()
            .filter(|commits| *commits <= limits.commits)
            .ok_or_else(|| Ill::Work(format!("there are more than {most} new commits")))
    }

    /// How many bytes the objects in quarantine have once they are unpacked; git reads that without unpacking them.
    async fn unpacked(&self) -> Result<u64, Ill> {
        let doing = || format!("{}: weighing its objects", self.doing);
        let path = self.quarantine.dir.join("sizes");
        let file = File::create_new(&path).map_err(io_at(doing()))?;
        // Without our own: a pack that was completed holds all that it needs.
        let args = ["cat-file", "--batch-all-objects", "--unordered", "--batch-check=%(objectsize)"];
        self.must(self.quarantined().stdout(file).args(args)).await?;
        let sizes = std::fs::read_to_string(&path).map_err(io_at(doing()))?;
        let sum = sizes.lines().try_fold(0_u64, |sum, size| Some(sum.saturating_add(size.parse::<u64>().ok()?)));
        sum.ok_or_else(|| failed(self.doing, "git told a size that is no number".to_owned()).into())
    }

    /// A call that sees the quarantine and our repository, and writes into the quarantine.
    fn call(&self) -> Call {
        let ours = self.repository.dir().join("objects");
        self.quarantined().env("GIT_ALTERNATE_OBJECT_DIRECTORIES", OsString::from(ours))
    }

    /// A call that sees the quarantine alone.
    fn quarantined(&self) -> Call {
        self.repository.local(self.doing).hostile().env("GIT_OBJECT_DIRECTORY", self.quarantine.objects())
    }

    /// Runs git, which has to succeed.
    async fn must(&self, call: Call) -> Result<Said, Ill> {
        let said = self.ended(call).await?;
        if said.code == Some(0) { Ok(said) } else { Err(self.not_sound(&said)) }
    }

    /// Runs git, which has to come to an end of its own.
    async fn ended(&self, call: Call) -> Result<Said, Ill> {
        let said = self.repository.git.run(call).await?;
        if said.code.is_some() { Ok(said) } else { Err(self.not_sound(&said)) }
    }

    /// git does not like what it read, or took more for it than it is given; or this host has trouble.
    fn not_sound(&self, said: &Said) -> Ill {
        const HOST: [&str; 4] = ["No space left", "Disk quota", "Read-only file system", "Input/output error"];
        if HOST.iter().any(|it| said.err.contains(it)) {
            return Ill::Host(failed(self.doing, said.why()));
        }
        Ill::Work(format!("git found the bundle unsound: {}", said.why()))
    }
}

/// A file that was opened without trusting its name.
enum Opened {
    Regular(File, u64),
    Odd(String),
}

/// Opens a regular file; follows no link, waits for no FIFO.
fn open(path: &Path) -> io::Result<Opened> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = match File::options().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        // ELOOP: a link. ENXIO: a socket, or a device without a driver.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ELOOP | libc::ENXIO)) => {
            return Ok(Opened::Odd("the bundle is a link or a socket, not a regular file".to_owned()));
        }
        Err(error) => return Err(error),
    };
    let stat = file.metadata()?;
    if stat.is_file() {
        return Ok(Opened::Regular(file, stat.len()));
    }
    Ok(Opened::Odd("the bundle is not a regular file".to_owned()))
}

/// Reads from the beginning until the buffer is full or the file ends.
fn read_at(file: &File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

/// A directory beside our repository for objects that are not trusted yet; it goes away with this value.
struct Quarantine {
    dir: PathBuf,
    ours: PathBuf,
}

impl Quarantine {
    fn new(repository: &Path) -> io::Result<Self> {
        let dir = repository.with_file_name(format!("{QUARANTINE}{}", Ulid::new()));
        let it = Self { dir, ours: repository.join("objects/pack") };
        DirBuilder::new().mode(0o700).recursive(true).create(it.objects().join("pack"))?;
        Ok(it)
    }

    fn objects(&self) -> PathBuf {
        self.dir.join("objects")
    }

    /// Moves the packs over. An index goes last: by it a pack is there.
    fn release(self) -> io::Result<()> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(self.objects().join("pack"))? {
            names.push(entry?.file_name());
        }
        names.sort_by_key(|name| name.as_encoded_bytes().ends_with(b".idx"));
        std::fs::create_dir_all(&self.ours)?;
        for name in names {
            std::fs::rename(self.objects().join("pack").join(&name), self.ours.join(&name))?;
        }
        File::open(&self.ours)?.sync_all()
    }
}

impl Drop for Quarantine {
    fn drop(&mut self) {
        // What is left is swept at the next start.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Removes what a crash left in quarantine.
pub(super) fn sweep(place: &Path) -> Result<(), GitError> {
    let doing = || format!("removing what was left in quarantine below {}", place.display());
    for entry in std::fs::read_dir(place).map_err(io_at(doing()))? {
        let entry = entry.map_err(io_at(doing()))?;
        if entry.file_name().as_encoded_bytes().starts_with(QUARANTINE.as_bytes()) {
            std::fs::remove_dir_all(entry.path()).map_err(io_at(doing()))?;
        }
    }
    Ok(())
}

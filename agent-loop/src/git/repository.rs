//! Our repository: made, checked, filled from the forge.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::Mutex;

use super::error::{GitError, io_at, of_remote};
use super::process::{Call, Git};
use super::secret::Secret;
use crate::forge::{Branch, Credential, Sha};
use crate::store::StateDir;

/// Where `prlimit` of util-linux may be.
const LIMITERS: [&str; 2] = ["/usr/bin/prlimit", "/bin/prlimit"];
/// The oldest git that takes all of the configuration that keeps it safe (GIT_CONFIG_GLOBAL).
const OLDEST: (u32, u32) = (2, 32);

/// How long git is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Where the forge takes part.
    pub remote: Duration,
    /// Where it does not.
    pub local: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { remote: Duration::from_secs(900), local: Duration::from_secs(600) }
    }
}

/// The bare repository of this daemon for one repository of a forge. Only we write to it (I23).
///
/// What the forge has is in `refs/forge/<branch>/+`, what was taken from agents in `refs/agent-loop/taken/<branch>/+`: no
/// branch is called `+`, so one named like a part of another stands in nobody's way.
#[derive(Debug)]
pub struct Repository {
    pub(super) git: Git,
    pub(super) url: String,
    pub(super) protocol: &'static str,
    pub(super) patience: Patience,
    /// Held by whoever fetches: two that move one ref would fail by each other's lock.
    fetching: Mutex<()>,
    /// Held by whoever takes from an agent, which never waits for the forge.
    pub(super) taking: Mutex<()>,
}

impl Repository {
    /// Opens the repository in `place`, an absolute path of a directory that only we can enter; makes both where they are
    /// not there. `git` is the absolute path of git, `url` where the forge serves the repository, without a credential.
    ///
    /// # Errors
    /// Where the directory, git or the URL cannot be used safely, with what mends that.
    pub async fn open(place: &Path, git: &Path, url: String) -> Result<Self, GitError> {
        let protocol = protocol(&url)?;
        let place = StateDir::open(place)?.path().to_owned();
        if place.as_os_str().as_encoded_bytes().iter().any(|byte| matches!(byte, b':' | b'"' | b'\n' | b'\\')) {
            let why = "has a character that git would take for a separator; choose another directory";
            return Err(GitError::Unfit(format!("{} {why}", place.display())));
        }
        trusted(git)?;
        let limiter = LIMITERS.iter().map(PathBuf::from).find(|path| path.is_file());
        let limiter = limiter.ok_or_else(|| {
            GitError::Unfit(format!("{} is not there, which bounds git: install util-linux", LIMITERS[0]))
        })?;
        let git = Git { program: git.to_owned(), limiter, dir: place.join("repository.git") };
        let repository = Self {
            git,
            url,
            protocol,
            patience: Patience::default(),
            fetching: Mutex::default(),
            taking: Mutex::default(),
        };
        repository.check_version().await?;
        super::take::sweep(&place)?;
        // Making it again changes nothing of one that is whole, and completes one whose making was cut off.
        let doing = "making our repository";
        let init = repository.local(doing).args(["init", "--quiet", "--bare", "--template=", "--initial-branch=main"]);
        repository.git.must(init).await?;
        Ok(repository)
    }

    /// With this patience instead of the default.
    #[must_use]
    pub fn with_patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    /// Where it is.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.git.dir
    }

    /// Brings a branch of the forge here; `None` where the forge has none of this name.
    ///
    /// # Errors
    /// Where the forge was not reached, did not let us in, or sent what is no sound history; or this host failed.
    pub async fn fetch(&self, branch: &Branch, credential: &Credential) -> Result<Option<Sha>, GitError> {
        let doing = format!("fetching branch {branch}");
        let name = forge_ref(branch);
        let secret = Secret::new(&self.url, credential)?;
        let call = Call::new(&doing, self.patience.remote)
            .remote(self.protocol, secret)
            .args(["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules"])
            .args(["--force", "--", &self.url, &format!("refs/heads/{branch}:{name}")]);
        let _fetching = self.fetching.lock().await;
        let said = self.git.run(call).await?;
        if said.code == Some(0) {
            return self.at(&name, &doing).await;
        }
        if said.err.contains("couldn't find remote ref") {
            self.git.must(self.local(&doing).args(["update-ref", "-d", &name])).await?;
            return Ok(None);
        }
        Err(of_remote(&doing, said.why()))
    }

    /// Whether `commit` is `head` or one of its ancestors. A commit that is not here is none: all of `head`'s are.
    ///
    /// # Errors
    /// [`GitError::Missing`] where `head` is not here; else where this host failed.
    pub async fn contains(&self, head: &Sha, commit: &Sha) -> Result<bool, GitError> {
        let doing = "looking for a commit in a history";
        if !self.has(head).await? {
            return Err(GitError::Missing { doing: doing.to_owned(), commit: head.to_string() });
        }
        Ok(self.has(commit).await? && self.is_ancestor(commit, head, self.local(doing)).await?)
    }

    /// Packs what has come together into few files and drops what nothing has pointed at for two weeks. Once a day is
    /// enough.
    ///
    /// # Errors
    /// Where this host failed.
    pub async fn tidy(&self) -> Result<(), GitError> {
        let (_fetching, _taking) = (self.fetching.lock().await, self.taking.lock().await);
        let call = self.local("tidying our repository").args(["gc", "--quiet", "--prune=2.weeks.ago"]);
        self.git.must(call).await.map(drop)
    }

    /// A call that talks to nobody.
    pub(super) fn local(&self, doing: impl Into<String>) -> Call {
        Call::new(doing, self.patience.local)
    }

    /// The commit that a ref of ours points at.
    pub(super) async fn at(&self, name: &str, doing: &str) -> Result<Option<Sha>, GitError> {
        let name = format!("{name}^{{commit}}");
        let said = self.git.run(self.local(doing).args(["rev-parse", "--verify", "--quiet", &name])).await?;
        match said.code {
            Some(0) => said.out.trim().parse().map(Some).map_err(|error| failed(doing, format!("{error}"))),
            Some(1) => Ok(None),
            Some(_) | None => Err(failed(doing, said.why())),
        }
    }

    /// Whether a commit is here.
    pub(super) async fn has(&self, commit: &Sha) -> Result<bool, GitError> {
        let doing = "looking for a commit";
        let said = self.git.run(self.local(doing).args(["cat-file", "-e", &format!("{commit}^{{commit}}")])).await?;
        match said.code {
            Some(0) => Ok(true),
            Some(1 | 128) => Ok(false),
            Some(_) | None => Err(failed(doing, said.why())),
        }
    }

    /// Whether the first is the second or one of its ancestors; both are known to be there.
    pub(super) async fn is_ancestor(&self, first: &Sha, second: &Sha, call: Call) -> Result<bool, GitError> {
        let said = self.git.run(call.args(["merge-base", "--is-ancestor", first.as_str(), second.as_str()])).await?;
        match said.code {
            Some(0) => Ok(true),
            Some(1) => Ok(false),
            Some(_) | None => Err(failed("comparing histories", said.why())),
        }
    }

    async fn check_version(&self) -> Result<(), GitError> {
        let said = self.git.must(self.local("asking git for its version").args(["--version"])).await?;
        if version(&said).is_some_and(|found| found >= OLDEST) {
            return Ok(());
        }
        let (major, minor) = OLDEST;
        Err(GitError::Unfit(format!(
            "{} says {:?}: git {major}.{minor} or later is needed; install one and name it in the configuration",
            self.git.program.display(),
            said.trim()
        )))
    }
}

/// Where a branch of the forge is kept.
pub(super) fn forge_ref(branch: &Branch) -> String {
    format!("refs/forge/{branch}/+")
}

pub(super) fn failed(doing: &str, said: String) -> GitError {
    GitError::Failed { doing: doing.to_owned(), said }
}

/// The protocol of a URL that git may be sent to with a credential: TLS, or loopback.
fn protocol(url: &str) -> Result<&'static str, GitError> {
    let (protocol, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => ("https", rest),
        (None, Some(rest)) => ("http", rest),
        (None, None) => ("", ""),
    };
    let known = |c: char| c.is_ascii_alphanumeric() || "-._~/:[]%+".contains(c);
    let host = rest.split('/').next().unwrap_or_default();
    let loopback = ["127.0.0.1", "localhost", "[::1]"].iter().any(|it| {
        host.strip_prefix(it)
            .is_some_and(|port| port.is_empty() || port.strip_prefix(':').is_some_and(|it| !it.is_empty()))
    });
    if !host.is_empty() && rest.chars().all(known) && (protocol == "https" || loopback) {
        return Ok(protocol);
    }
    // It is not said again: somebody may have written a token into it.
    let shape = "https://HOST/OWNER/NAME.git, without a user; without TLS only loopback is asked";
    Err(GitError::Unfit(format!("the address of the repository is not of the form {shape}")))
}

/// Whether a program can be run with our rights: nobody else could have changed it.
fn trusted(program: &Path) -> Result<(), GitError> {
    let name = program.display();
    if !program.is_absolute() {
        return Err(GitError::Unfit(format!("{name} is not an absolute path of git: write one, see `command -v git`")));
    }
    let stat = std::fs::metadata(program).map_err(io_at(format!("looking at {name}, which should be git")))?;
    let ours = nix::unistd::geteuid().as_raw();
    if !stat.is_file() || (stat.uid() != 0 && stat.uid() != ours) || stat.mode() & 0o022 != 0 {
        let why = "is not a program that only root can change: install git, or `chown root` and `chmod go-w` it";
        return Err(GitError::Unfit(format!("{name} {why}")));
    }
    Ok(())
}

/// Major and minor of `git version 2.47.3`.
fn version(said: &str) -> Option<(u32, u32)> {
    let mut numbers = said.trim().strip_prefix("git version ")?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_only_over_tls_or_loopback() {
        for (good, protocol_of) in [
            ("https://github.com/o/r.git", "https"),
            ("http://127.0.0.1:80/o/r.git", "http"),
            ("http://localhost/o/r.git", "http"),
            ("http://[::1]:1/r", "http"),
        ] {
            assert_eq!(protocol(good).ok(), Some(protocol_of), "{good}");
        }
        for bad in [
            "http://github.com/o/r.git",
            "http://localhost.evil.org/r",
            "http://127.0.0.1.evil.org/r",
            "http://127.0.0.1@evil.org/r",
            "https://u:t@h/r",
            "https:///r",
            "https://h/r\n",
            "https://h/\"]",
            "ssh://h/r",
            "file:///r",
            "ext::sh -c id",
            "--upload-pack=id",
            "/srv/r.git",
            "",
        ] {
            let error = protocol(bad).expect_err(bad).to_string();
            assert!(!error.contains("evil") && !error.contains("u:t"), "{error}");
        }
    }

    #[test]
    fn an_old_git_is_told_from_a_new_one() {
        assert_eq!(version("git version 2.47.3\n"), Some((2, 47)));
        assert_eq!(version("git version 2.39.5 (Apple Git-154)"), Some((2, 39)));
        assert!(version("git version 2.30.2").is_some_and(|it| it < OLDEST));
        for bad in ["", "git", "git version", "git version 2", "git version x.y"] {
            assert_eq!(version(bad), None, "{bad}");
        }
    }
}

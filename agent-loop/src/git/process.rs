//! How git is run: with nothing of ours but what is written here, bounded in time, output and work.
//!
//! The environment is empty but for the names below, no file of configuration is read but the one of our own repository,
//! and what that could say is said again on the command line, which wins. A process whose time is over is not signalled:
//! it ends by its limit of processor time, or by curl's limit of slowness, and keeps what it needs until then.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};

use super::error::{GitError, io_at};
use super::secret::Secret;

/// The most bytes of standard output that are kept.
const MOST_OUT: usize = 1 << 20;
/// The most bytes of standard error that are kept, the last ones.
const MOST_ERR: usize = 16 << 10;
/// The most characters of what git said that go into a text.
const MOST_SAID: usize = 1_200;
/// The most seconds of processor time for one process.
const CPU_SECONDS: u64 = 3_600;
/// The same, for one that reads what an agent made.
const HOSTILE_CPU_SECONDS: u64 = 900;
/// The most address space of a process that reads what an agent made, bytes.
const MEMORY: u64 = 6 << 30;

/// The environment of every git of ours.
const ENVIRONMENT: [(&str, &str); 11] = [
    ("PATH", "/usr/bin:/bin"),
    ("HOME", "/nonexistent"),
    ("LC_ALL", "C"),
    ("GIT_CONFIG_NOSYSTEM", "1"),
    ("GIT_CONFIG_SYSTEM", "/dev/null"),
    ("GIT_CONFIG_GLOBAL", "/dev/null"),
    ("GIT_ATTR_NOSYSTEM", "1"),
    ("GIT_TERMINAL_PROMPT", "0"),
    ("GIT_NO_REPLACE_OBJECTS", "1"),
    ("GIT_OPTIONAL_LOCKS", "0"),
    ("GIT_PROTOCOL_FROM_USER", "0"),
];

/// The configuration of every git of ours, stronger than any file.
const CONFIGURATION: &[&str] = &[
    // Nothing is executed.
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.askPass=",
    "core.attributesFile=/dev/null",
    "core.excludesFile=/dev/null",
    "core.useReplaceRefs=false",
    "credential.helper=",
    "push.gpgSign=false",
    "gc.auto=0",
    "maintenance.auto=false",
    // Nobody is talked to but the one forge.
    "protocol.allow=never",
    "protocol.version=2",
    "http.followRedirects=false",
    "http.sslVerify=true",
    "http.proxy=",
    "http.cookieFile=",
    "http.delegation=none",
    "http.userAgent=agent-loop",
    "transfer.bundleURI=false",
    "fetch.recurseSubmodules=false",
    "push.recurseSubmodules=no",
    "push.followTags=false",
    "submodule.recurse=false",
    // A connection that says nothing for a minute is over.
    "http.lowSpeedLimit=1000",
    "http.lowSpeedTime=60",
    // What comes in is looked at. The three are old sins of honest histories, which forges let pass too.
    "transfer.fsckObjects=true",
    "fetch.fsckObjects=true",
    "receive.fsckObjects=true",
    "fetch.fsck.badTimezone=ignore",
    "fetch.fsck.missingSpaceBeforeDate=ignore",
    "fetch.fsck.zeroPaddedFilemode=ignore",
    // Work and memory are bounded; what was saved is durable.
    "fetch.unpackLimit=1",
    "transfer.unpackLimit=1",
    "pack.threads=2",
    "core.bigFileThreshold=32m",
    "core.packedGitWindowSize=32m",
    "core.packedGitLimit=512m",
    "core.fsync=all",
];

/// Where git and its limits come from.
#[derive(Clone, Debug)]
pub(super) struct Git {
    /// git itself.
    pub(super) program: PathBuf,
    /// `prlimit` of util-linux.
    pub(super) limiter: PathBuf,
    /// Our repository.
    pub(super) dir: PathBuf,
}

/// One call of git.
#[derive(Debug)]
pub(super) struct Call {
    doing: String,
    args: Vec<OsString>,
    env: Vec<(&'static str, OsString)>,
    protocol: Option<&'static str>,
    secret: Option<Secret>,
    stdin: Option<File>,
    stdout: Option<File>,
    hostile: bool,
    patience: Duration,
}

/// What git said.
#[derive(Debug)]
pub(super) struct Said {
    /// Its exit code; `None` where a signal ended it.
    pub(super) code: Option<i32>,
    /// Its standard output, if that was not given elsewhere.
    pub(super) out: String,
    /// The end of its standard error, for people.
    pub(super) err: String,
}

impl Call {
    /// A call; `doing` says in errors what it is for.
    pub(super) fn new(doing: impl Into<String>, patience: Duration) -> Self {
        Self {
            doing: doing.into(),
            args: Vec::new(),
            env: Vec::new(),
            protocol: None,
            secret: None,
            stdin: None,
            stdout: None,
            hostile: false,
            patience,
        }
    }

    /// Adds arguments.
    pub(super) fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Adds a variable.
    pub(super) fn env(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.env.push((name, value.into()));
        self
    }

    /// Lets it talk, by this protocol and with this credential.
    pub(super) fn remote(mut self, protocol: &'static str, secret: Secret) -> Self {
        self.protocol = Some(protocol);
        self.secret = Some(secret);
        self
    }

    /// What it reads.
    pub(super) fn stdin(mut self, file: File) -> Self {
        self.stdin = Some(file);
        self
    }

    /// Where it writes.
    pub(super) fn stdout(mut self, file: File) -> Self {
        self.stdout = Some(file);
        self
    }

    /// Bounds its memory too: it reads what an agent made.
    pub(super) fn hostile(mut self) -> Self {
        self.hostile = true;
        self
    }
}

impl Git {
    /// Runs git and waits for its end.
    ///
    /// # Errors
    /// Where it cannot be started, says too much, or takes too long. Its exit code is the caller's matter.
    pub(super) async fn run(&self, mut call: Call) -> Result<Said, GitError> {
        let doing = call.doing.clone();
        let patience = call.patience;
        let child = self.command(&mut call).spawn().map_err(io_at(format!("{doing}: starting git")))?;
        // It and what it needs live on in the task if its caller loses patience or goes away: the number of the
        // descriptor that it may still read must not come to mean another file.
        let ending = tokio::spawn(ended(child, call.secret.take()));
        match tokio::time::timeout(patience, ending).await {
            Ok(Ok(ended)) => ended.map_err(io_at(format!("{doing}: waiting for git")))?.told(&doing),
            Ok(Err(join)) => Err(GitError::Failed { doing, said: format!("waiting for git: {join}") }),
            Err(_) => Err(GitError::TimedOut { doing, after: patience }),
        }
    }

    /// Runs git, which has to succeed.
    ///
    /// # Errors
    /// As [`Git::run`], and where its exit code is not 0.
    pub(super) async fn must(&self, call: Call) -> Result<String, GitError> {
        let doing = call.doing.clone();
        let said = self.run(call).await?;
        if said.code == Some(0) { Ok(said.out) } else { Err(GitError::Failed { doing, said: said.why() }) }
    }

    fn command(&self, call: &mut Call) -> Command {
        let mut command = Command::new(&self.limiter);
        command.arg("--core=0");
        if call.hostile {
            command.arg(format!("--cpu={HOSTILE_CPU_SECONDS}")).arg(format!("--as={MEMORY}"));
        } else {
            command.arg(format!("--cpu={CPU_SECONDS}"));
        }
        command.arg(&self.program);
        for setting in CONFIGURATION {
            command.args(["-c", setting]);
        }
        let allowed = call.protocol.unwrap_or("");
        if let Some(protocol) = call.protocol {
            command.arg("-c").arg(format!("protocol.{protocol}.allow=always"));
        }
        if let Some(secret) = &call.secret {
            command.arg("-c").arg(format!("include.path={}", secret.path()));
        }
        let mut dir = OsString::from("--git-dir=");
        dir.push(&self.dir);
        command.arg(dir).args(&call.args);
        command.env_clear().envs(ENVIRONMENT).env("GIT_ALLOW_PROTOCOL", allowed);
        command.envs(call.env.iter().map(|(name, value)| (name, value)));
        command.current_dir(self.dir.parent().unwrap_or(Path::new("/")));
        command.stdin(call.stdin.take().map_or_else(Stdio::null, Stdio::from));
        command.stdout(call.stdout.take().map_or_else(Stdio::piped, Stdio::from));
        command.stderr(Stdio::piped());
        command
    }
}

/// A process that has ended.
struct Ended {
    status: ExitStatus,
    out: Kept,
    err: Kept,
    secret: Option<Secret>,
}

async fn ended(mut child: Child, secret: Option<Secret>) -> std::io::Result<Ended> {
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let (out, err, status) = tokio::join!(kept(out, Keep::First), kept(err, Keep::Last), child.wait());
    Ok(Ended { status: status?, out: out?, err: err?, secret })
}

impl Ended {
    fn told(self, doing: &str) -> Result<Said, GitError> {
        if self.out.cut {
            let said = format!("it said more than {MOST_OUT} bytes");
            return Err(GitError::Failed { doing: doing.to_owned(), said });
        }
        let text = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            self.secret.as_ref().map_or_else(|| text.clone().into_owned(), |secret| secret.scrub(&text))
        };
        Ok(Said { code: self.status.code(), out: text(&self.out.bytes), err: for_people(&text(&self.err.bytes)) })
    }
}

impl Said {
    /// Why it did not succeed, for people.
    pub(super) fn why(&self) -> String {
        match self.code {
            None => format!("it was ended by a signal, perhaps for work beyond its limits; {}", self.err),
            Some(code) if self.err.is_empty() => format!("exit code {code}"),
            Some(_) => self.err.clone(),
        }
    }
}

/// The end of what git said, on one line, without what a terminal could act on and without its hints.
fn for_people(text: &str) -> String {
    let lines = text.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("hint:"));
    let line: String = lines.collect::<Vec<_>>().join("; ");
    let clean: Vec<char> = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    clean.get(clean.len().saturating_sub(MOST_SAID)..).unwrap_or_default().iter().collect()
}

/// Which part of a stream is kept.
#[derive(Clone, Copy)]
enum Keep {
    First,
    Last,
}

#[derive(Default)]
struct Kept {
    bytes: Vec<u8>,
    cut: bool,
}

/// Reads a stream to its end and keeps a part of it.
async fn kept(stream: Option<impl AsyncRead + Unpin>, keep: Keep) -> std::io::Result<Kept> {
    let mut kept = Kept::default();
    let Some(mut stream) = stream else { return Ok(kept) };
    let mut buffer = [0; 8192];
    loop {
        let read = stream.read(&mut buffer).await?;
        let part = buffer.get(..read).unwrap_or_default();
        if part.is_empty() {
            return Ok(kept);
        }
        match keep {
            Keep::First => {
                let room = MOST_OUT.saturating_sub(kept.bytes.len()).min(part.len());
                kept.bytes.extend_from_slice(part.get(..room).unwrap_or_default());
                kept.cut |= room < part.len();
            }
            Keep::Last => {
                kept.bytes.extend_from_slice(part);
                let over = kept.bytes.len().saturating_sub(MOST_ERR);
                kept.bytes.drain(..over);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stream_is_kept_in_part_and_read_to_its_end() {
        let stream = vec![b'x'; MOST_OUT + 5];
        let first = kept(Some(stream.as_slice()), Keep::First).await.expect("memory");
        assert_eq!((first.bytes.len(), first.cut), (MOST_OUT, true));
        let stream: Vec<u8> = (0..MOST_ERR + 7).map(|at| if at < 7 { b'a' } else { b'b' }).collect();
        let last = kept(Some(stream.as_slice()), Keep::Last).await.expect("memory");
        assert_eq!(last.bytes, vec![b'b'; MOST_ERR]);
    }

    #[test]
    fn what_git_says_is_one_clean_line_and_its_end() {
        assert_eq!(for_people("a\u{1b}[31m\nhint: do\r\n  fatal: b\n"), "a [31m; fatal: b");
        let long = for_people(&"ä".repeat(MOST_SAID + 9));
        assert_eq!(long.chars().count(), MOST_SAID);
    }
}

//! The launch as the keeper does it: a process that is frozen, or held back, before its first instruction.
//!
//! What the process then does to itself before it becomes the command is in [`super::launcher`].

mod spec;

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use spec::{Become, LaunchSpec, Resource, Rlimit, Session, SignalsAtStart, Stdio, User, signals_at_start};

use super::birth::{self, Birth, Hold};
use super::cgroup::RunCgroup;
use super::pidfd::PidFd;
use crate::event::LaunchFailure;
use crate::model::RunTag;

/// The hidden subcommand that `main` hands to [`super::launcher::launcher_main`].
pub const LAUNCHER: &str = "launcher";

/// Where a process waits for its release.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// Born into this frozen cgroup: [`RunCgroup::thaw`] releases it.
    Cgroup(&'a RunCgroup),
    /// No cgroup can be had: held back by a pipe until [`Child::release`], and killed by the kernel when the
    /// thread that launched it ends (`PR_SET_PDEATHSIG` means the thread: launch from one that stays).
    Held,
}

/// The steps of a launch that can fail, as numbers on the error pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "each is described by its word")]
pub enum Step {
    Clone = 1,
    Launcher,
    Spec,
    Parent,
    Session,
    Terminal,
    Stdio,
    Rlimits,
    Groups,
    Gid,
    BoundingSet,
    SecureBits,
    Uid,
    Capabilities,
    Rights,
    NoNewPrivs,
    Cwd,
    Signals,
    CloseFds,
    Exec,
    Account,
}

impl Step {
    const ALL: [Self; 21] = [
        Self::Clone,
        Self::Launcher,
        Self::Spec,
        Self::Parent,
        Self::Session,
        Self::Terminal,
        Self::Stdio,
        Self::Rlimits,
        Self::Groups,
        Self::Gid,
        Self::BoundingSet,
        Self::SecureBits,
        Self::Uid,
        Self::Capabilities,
        Self::Rights,
        Self::NoNewPrivs,
        Self::Cwd,
        Self::Signals,
        Self::CloseFds,
        Self::Exec,
        Self::Account,
    ];

    fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|step| *step as u8 == number)
    }

    /// What was being done, as a lowercase fragment.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Clone => "creating the process",
            Self::Launcher => "executing the launcher",
            Self::Spec => "reading what to launch",
            Self::Parent => "tying it to agent-loop",
            Self::Session => "making its session",
            Self::Terminal => "giving it the terminal",
            Self::Stdio => "opening its standard input and output",
            Self::Rlimits => "setting its resource limits",
            Self::Groups => "setting its groups",
            Self::Gid => "setting its group id",
            Self::BoundingSet => "emptying its capability bounding set",
            Self::SecureBits => "setting its securebits",
            Self::Uid => "setting its user id",
            Self::Capabilities => "dropping its capabilities",
            Self::Rights => "checking that its rights are gone",
            Self::NoNewPrivs => "forbidding it new privileges",
            Self::Cwd => "entering its working directory",
            Self::Signals => "setting its signals",
            Self::CloseFds => "closing its other descriptors",
            Self::Exec => "executing the command",
            Self::Account => "looking up its user",
        }
    }
}

/// A failure of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{}: {}", step.word(), io::Error::from_raw_os_error(*errno))]
pub struct StepFailed {
    /// Which step.
    pub step: Step,
    /// What the kernel said.
    pub errno: i32,
}

impl StepFailed {
    /// The code a shell would give: 127 not found, 126 not executable; `None` if it did not fail at that.
    #[must_use]
    pub fn shell_code(&self) -> Option<u8> {
        match (self.step, self.errno) {
            (Step::Exec, libc::ENOENT | libc::ENOTDIR) => Some(127),
            (Step::Exec, _) => Some(126),
            _ => None,
        }
    }
}

impl From<StepFailed> for LaunchFailure {
    fn from(failed: StepFailed) -> Self {
        Self { step: failed.step.word().to_owned(), errno: Some(failed.errno) }
    }
}

/// Why no process was made.
#[derive(Debug, Error)]
pub enum LaunchError {
    /// A cgroup that saw a kill never gets another process (I7).
    #[error("cgroup {} was killed once: it never gets another process", .0.0)]
    Spent(RunTag),
    /// A process would run before its birth is recorded (I6).
    #[error("cgroup {} is not frozen", .0.0)]
    NotFrozen(RunTag),
    /// Nothing to execute.
    #[error("there is no command")]
    NoCommand,
    /// A string that the kernel cannot take.
    #[error("{0:?} holds a zero byte, or is no name for a variable")]
    Text(OsString),
    /// A step before the birth failed.
    #[error(transparent)]
    Failed(#[from] StepFailed),
}

impl From<LaunchError> for LaunchFailure {
    fn from(error: LaunchError) -> Self {
        match error {
            LaunchError::Failed(failed) => failed.into(),
            LaunchError::Spent(_) | LaunchError::NotFrozen(_) | LaunchError::NoCommand | LaunchError::Text(_) => {
                Self { step: error.to_string(), errno: None }
            }
        }
    }
}

fn failed(error: impl Into<io::Error>) -> StepFailed {
    let error: io::Error = error.into();
    StepFailed { step: Step::Clone, errno: error.raw_os_error().unwrap_or(libc::EIO) }
}

/// A child that was born and has not been told to run.
#[derive(Debug)]
pub struct Child {
    /// Its number.
    pub pid: u32,
    /// The descriptor that `clone3` made together with it.
    pub pidfd: PidFd,
    /// What becomes of its start.
    pub start: StartPipe,
    hold: Option<OwnedFd>,
}

impl Child {
    /// Lets a child of [`Place::Held`] go on; for one in a cgroup, the thaw does that.
    ///
    /// # Errors
    /// EPIPE if it is dead.
    pub fn release(&mut self) -> io::Result<()> {
        match self.hold.take() {
            Some(hold) => File::from(hold).write_all(b"g"),
            None => Ok(()),
        }
    }

    /// Gives up the release: a child of [`Place::Held`] then ends without having run.
    #[must_use]
    pub fn abandon(self) -> (PidFd, StartPipe) {
        (self.pidfd, self.start)
    }
}

/// The pipe on which the launcher says how far it came; epoll reports it readable.
#[derive(Debug)]
pub struct StartPipe {
    read: File,
    got: Vec<u8>,
}

/// More bytes than a launcher ever says.
const MOST_SAID: usize = 4_096;

/// What became of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The command is being executed.
    Started,
    /// A step failed; the process ends by itself.
    Failed(StepFailed),
    /// It died before it came to execute the command.
    Died,
}

impl StartPipe {
    /// Asks without waiting; `None` while it is on its way.
    ///
    /// # Errors
    /// What reading reports.
    pub fn poll(&mut self) -> io::Result<Option<Start>> {
        let mut bytes = [0; 64];
        loop {
            match self.read.read(&mut bytes) {
                Ok(0) => return Ok(Some(self.end())),
                // The launcher says a few words; nobody else's are waited for.
                Ok(_) if self.got.len() > MOST_SAID => return Ok(Some(self.end())),
                Ok(count) => self.got.extend(bytes.iter().take(count)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits until it is known.
    ///
    /// # Errors
    /// What polling and reading report.
    pub fn wait(&mut self) -> io::Result<Start> {
        loop {
            if let Some(start) = self.poll()? {
                return Ok(start);
            }
            let mut fds = [nix::poll::PollFd::new(self.read.as_fd(), nix::poll::PollFlags::POLLIN)];
            match nix::poll::poll(&mut fds, nix::poll::PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// At the end: closed by execve if the launcher had announced that, else by its death.
    fn end(&self) -> Start {
        let mut start = Start::Died;
        for message in self.got.chunks_exact(8) {
            if let [b'!', step, _, _, a, b, c, d] = *message
                && let Some(step) = Step::from_number(step)
            {
                match i32::from_ne_bytes([a, b, c, d]) {
                    0 => start = Start::Started,
                    errno => return Start::Failed(StepFailed { step, errno }),
                }
            }
        }
        start
    }
}

impl AsFd for StartPipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }
}

/// What crosses to the launcher.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Wire {
    pub(super) spec: LaunchSpec,
    /// Die with this parent: only where no cgroup holds the tree.
    pub(super) die_with: Option<u32>,
}

/// One launch at a time: a child of another one would hold a copy of our pipe's write end until its own execve.
pub(super) static LAUNCHING: Mutex<()> = Mutex::new(());

/// Creates the process, which does nothing before it is released.
///
/// # Errors
/// The refusals of [`LaunchError`], and what the kernel reported; no process exists then.
pub fn launch(spec: &LaunchSpec, run: RunTag, place: Place<'_>) -> Result<Child, LaunchError> {
    check(spec)?;
    let cgroup = match place {
        Place::Cgroup(cgroup) => {
            if cgroup.own().is_spent() || cgroup.tag() != run {
                return Err(LaunchError::Spent(cgroup.tag()));
            }
            if !cgroup.is_freezing().map_err(failed)? {
                return Err(LaunchError::NotFrozen(cgroup.tag()));
            }
            Some(cgroup.own().dir())
        }
        Place::Held => None,
    };
    let wire = Wire { spec: spec.clone(), die_with: cgroup.is_none().then(std::process::id) };
    let wire = sealed(&wire).map_err(failed)?;

    let _alone = LAUNCHING.lock().unwrap_or_else(PoisonError::into_inner);
    let pipe = || nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(failed);
    let (read, errors) = pipe()?;
    nix::fcntl::fcntl(&read, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(failed)?;
    let hold = if cgroup.is_none() { Some(pipe()?) } else { None };
    let args = [c"agent-loop".to_owned(), text(LAUNCHER)?, number(&wire)?, number(&errors)?];
    let mut keep = vec![wire.as_raw_fd(), errors.as_raw_fd()];
    keep.extend(spec.stdio.iter().filter_map(|&stdio| if let Stdio::Fd(fd) = stdio { Some(fd) } else { None }));
    let birth = Birth {
        args: &args,
        keep: &keep,
        cgroup,
        hold: hold.as_ref().map(|(read, write)| Hold { read: read.as_fd(), write: write.as_fd() }),
        errors: Some(errors.as_fd()),
    };
    let (pid, pidfd) = birth::bear(&birth).map_err(failed)?;
    Ok(Child {
        pid,
        pidfd: PidFd::of_own_child(pidfd, pid, run),
        start: StartPipe { read: File::from(read), got: Vec::new() },
        hold: hold.map(|(_, write)| write),
    })
}

/// Refuses what execve could not take, here where a person still sees it.
fn check(spec: &LaunchSpec) -> Result<(), LaunchError> {
    if spec.argv.first().is_none_or(|command| command.is_empty()) {
        return Err(LaunchError::NoCommand);
    }
    let bad = |text: &&OsString| text.as_bytes().contains(&0);
    let strings = spec.argv.iter().chain(spec.env.iter().flat_map(|(name, value)| [name, value]));
    let bad_name = |name: &&OsString| name.is_empty() || name.as_bytes().contains(&b'=');
    let mut names = spec.env.iter().map(|(name, _)| name);
    match strings.into_iter().find(bad).or_else(|| names.find(bad_name)) {
        Some(text) => Err(LaunchError::Text(text.clone())),
        None => Ok(()),
    }
}

/// The text in memory of its own, since a pipe would not hold a large environment.
fn sealed(wire: &Wire) -> io::Result<OwnedFd> {
    let fd = nix::sys::memfd::memfd_create(c"agent-loop launch", nix::sys::memfd::MFdFlags::MFD_CLOEXEC)?;
    let mut file = File::from(fd);
    // In one write: a serialiser writes each token by itself.
    file.write_all(&serde_json::to_vec(wire).map_err(io::Error::other)?)?;
    file.rewind()?;
    Ok(file.into())
}

pub(super) fn text(text: &str) -> Result<CString, StepFailed> {
    CString::new(text).map_err(|_| StepFailed { step: Step::Clone, errno: libc::EINVAL })
}

pub(super) fn number(fd: &impl AsRawFd) -> Result<CString, StepFailed> {
    text(&fd.as_raw_fd().to_string())
}

//! The keeper as a process of its own: what it is asked, what it holds, what it answers.
//! Not inside: a decision about a run, a network, a file that an agent wrote. It refuses what it cannot prove.
//! The daemon talks to it through `client`; `protocol` is all that both know, `socket` how both send and receive it.
//!
//! `server` is the loop, `connection` its one client, `held` the runs and what each request does to them, `run` one of
//! them, `given` the descriptors of a request, `hearing` what fuzzing calls, `refused` the answer to most of what can be asked, `drain` the output and
//! `drainer` the thread that does so, `witness` the live set, `place` the socket and its lock.

pub mod client;
mod connection;
mod drain;
mod drainer;
mod given;
#[doc(hidden)]
pub mod hearing;
mod held;
mod place;
pub mod protocol;
mod refused;
mod run;
mod server;
mod socket;
mod witness;

pub use server::raise_open_files;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use sd_notify::NotifyState;
use thiserror::Error;

use self::drainer::Drainer;
use self::held::{Ground, Runs};
use self::place::Place;
use self::protocol::Terms;
use self::server::{Server, Signals};
use super::cgroup::{CgroupError, Home};
use super::launch::{Resource, Rlimit};
use super::reap;

/// What a keeper is told at its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where it listens: in a directory that nobody else may enter.
    pub socket: PathBuf,
    /// The cgroup below which runs are made; made where it is missing.
    pub runs: PathBuf,
    /// Where a daemon pins its maps, below a bpffs.
    pub pins: Option<PathBuf>,
    /// The accounts that runs are launched as, and no other.
    pub users: Vec<String>,
    /// Whether one of them may be root.
    pub allow_root: bool,
    /// The limit on open files that runs get; without it the one before the keeper raised its own.
    pub open_files: Option<u64>,
}

/// Why there is no keeper.
#[derive(Debug, Error)]
pub enum KeeperError {
    /// Another keeper has this place.
    #[error("a keeper is already running at {}", .0.display())]
    AlreadyRunning(PathBuf),
    /// Others could reach what must be the keeper's alone.
    #[error("refused for safety: {0}")]
    Unsafe(String),
    /// There is no place for runs.
    #[error("taking {} as the place for runs: {source}", path.display())]
    Runs {
        /// What was configured.
        path: PathBuf,
        /// What is wrong with it.
        source: CgroupError,
    },
    /// A system call failed.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Keeps runs until SIGTERM, SIGINT or SIGHUP; they go on without it, and another keeper can adopt them.
///
/// For a process that has one thread yet, which it changes for good: its signals, its limits, its orphans. One thread
/// more drains output.
///
/// # Errors
/// When it could not begin, or the loop cannot go on.
pub fn keep(options: Options) -> Result<(), KeeperError> {
    let failed = |doing: &str| {
        let doing = doing.to_owned();
        move |source: io::Error| KeeperError::Io { doing, source }
    };
    // The lock first: what follows is done by one keeper at a time.
    let place = Place::take(&options.socket)?;
    let home =
        Home::at_path(&options.runs).map_err(|source| KeeperError::Runs { path: options.runs.clone(), source })?;
    let signals = Signals::take().map_err(|errno| failed("taking signals")(errno.into()))?;
    reap::become_subreaper().map_err(failed("becoming the parent of orphans"))?;
    let raised = raise_open_files();
    let (soft, hard) = raised.map_err(|errno| failed("raising the limit of open files")(errno.into()))?;
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map_err(failed("reading the boot id"))?;
    let soft = options.open_files.map_or(soft, |files| files.min(hard));
    let files = Rlimit { resource: Resource::OpenFiles, soft, hard };
    let text = |path: &Path| path.display().to_string();
    let terms = Terms {
        runs: text(&options.runs),
        pins: options.pins.as_deref().map(text),
        users: options.users,
        allow_root: options.allow_root,
    };
    // With our signals blocked already, as the loop has them.
    let drainer = Drainer::start().map_err(failed("starting the thread that drains output"))?;
    let runs = Runs::new(Ground { home, terms, files }, drainer);
    let mut server = Server::new(place, signals, runs, boot_id.trim().to_owned());
    sd_notify::notify(&[NotifyState::Ready]).map_err(failed("telling that it is ready"))?;
    server.serve()
}

/// Says a line on stderr. Who does not read it loses it.
fn say(line: &str) {
    let _ = io::stderr().write_all(format!("agent-loop keeper: {}\n", crate::audit::redact::said(line)).as_bytes());
}

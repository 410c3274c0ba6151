//! The guard of `exec`: a small process that empties the run's cgroup should `exec` itself be SIGKILLed.
//!
//! It is started after the cgroup exists and before anything is in it, so no death of `exec` leaves anything
//! running. It is this program executed again (`guard`), not a fork: `exec` may have threads by then. It watches a
//! pidfd of `exec` and not only a pipe: a frozen child that has not executed yet holds a copy of the pipe's end.

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal};

use super::birth::{self, Birth};
use super::cgroup::{OwnCgroup, RunCgroup};
use super::launch::{LAUNCHING, number, text};
use super::launcher::{close_all_but, inherited};
use super::nest;
use super::pidfd::PidFd;
use super::signal::{self, Expected, Verified, Witnesses};
use crate::model::{RunTag, WaitStatus};

/// The hidden subcommand that `main` hands to [`guard_main`].
pub const GUARD: &str = "guard";

/// How long a guard tries to empty a cgroup before it says what is left.
const TRIES_FOR: Duration = Duration::from_secs(30);

/// What the pipe says when nothing is left to guard.
const DONE: u8 = b'd';
/// What it says when `exec` ends although something is left.
const GIVEN_UP: u8 = b'g';

/// Why a guard has to empty its cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// `exec` ended without a word.
    Killed,
    /// `exec` said that it gives up.
    GivenUp,
}

impl Cause {
    const fn words(self) -> &'static str {
        match self {
            Self::Killed => "exec was killed",
            Self::GivenUp => "exec gave up",
        }
    }
}

/// The guard as its parent sees it.
#[derive(Debug)]
pub struct Guard {
    /// Readable once the guard has died: there is none then.
    pub pidfd: PidFd,
    pipe: File,
}

impl Guard {
    /// Starts one for this still empty cgroup and waits until it is ready.
    ///
    /// # Errors
    /// When it could not be made, or died before it was ready.
    pub fn start(cgroup: &RunCgroup) -> io::Result<Self> {
        let _alone = LAUNCHING.lock().unwrap_or_else(PoisonError::into_inner);
        let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        let (ready, say_ready) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        let own = PidFd::open(std::process::id())?.ok_or(Errno::ESRCH)?;
        let name = cgroup.own().name().map_or(OsStr::new(""), |name| name.as_os_str());
        let (dir, parent) = (cgroup.own().dir(), cgroup.parent());
        let args = [
            c"agent-loop".to_owned(),
            text(GUARD).map_err(io::Error::other)?,
            number(&read).map_err(io::Error::other)?,
            number(&say_ready).map_err(io::Error::other)?,
            number(&own.as_fd()).map_err(io::Error::other)?,
            number(&dir).map_err(io::Error::other)?,
            number(&parent).map_err(io::Error::other)?,
            text(&cgroup.tag().0.to_string()).map_err(io::Error::other)?,
            text(cgroup.leaf()).map_err(io::Error::other)?,
            CString::new(name.as_bytes())?,
        ];
        let fds = [read.as_fd(), say_ready.as_fd(), own.as_fd(), dir, parent].map(|fd| fd.as_raw_fd());
        // It inherits the mask: a Ctrl-C before it has its own session must not end it.
        let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
        let born = birth::bear(&Birth { args: &args, keep: &fds, cgroup: None, hold: None, errors: None });
        before.thread_set_mask()?;
        let (pid, pidfd) = born?;
        let guard = Self { pidfd: PidFd::of_own_child(pidfd, pid, cgroup.tag()), pipe: File::from(write) };
        drop(say_ready);
        let mut byte = [0];
        match File::from(ready).read(&mut byte)? {
            1 => Ok(guard),
            _ => {
                let status = guard.pidfd.wait()?;
                Err(io::Error::other(format!("the guard ended before it was ready: {status}")))
            }
        }
    }

    /// Whether it is gone: the run is unguarded then.
    ///
    /// # Errors
    /// What polling reports.
    pub fn has_died(&self) -> io::Result<bool> {
        self.pidfd.has_exited()
    }

    /// Leaves the tree to it, which goes on killing for a while after our end and says what came of that.
    ///
    /// # Errors
    /// EPIPE if it died before.
    pub fn hand_over(mut self) -> io::Result<()> {
        self.pipe.write_all(&[GIVEN_UP])
    }

    /// Ends it once the tree is empty and removed. Dropped without this, it empties the cgroup as if we had died.
    ///
    /// It is killed, not asked: somebody may have stopped it, and its end must not wait for that.
    ///
    /// # Errors
    /// What signalling and waiting report. One that had died before is no error.
    pub fn dismiss(mut self) -> io::Result<WaitStatus> {
        // EPIPE: it died before; its status says how.
        let _ = self.pipe.write_all(&[DONE]);
        let run = self.pidfd.made_for().unwrap_or(RunTag(0));
        let witnesses = Witnesses { run, live: None, cgroup: None };
        if let Verified::Proof(proof) =
            signal::verify(&self.pidfd, Expected::OwnChild, &witnesses).map_err(io::Error::other)?
        {
            proof.send(libc::SIGKILL as u8).map_err(io::Error::other)?;
        }
        self.pidfd.wait()
    }
}

/// What the guard was given.
struct Duty {
    pipe: File,
    parent: OwnedFd,
    cgroup: OwnCgroup,
    above: OwnedFd,
    leaf: String,
}

/// The guard: never returns. `args` are those after the subcommand's name.
pub fn guard_main(args: impl IntoIterator<Item = OsString>) -> ! {
    let Some((duty, ready)) = duty(args.into_iter().collect()) else {
        eprintln!("agent-loop: guard is for agent-loop's own use");
        std::process::exit(2);
    };
    let code = match settle(&duty, ready) {
        Err(error) => {
            eprintln!("agent-loop: guard: could not settle: {error}");
            1
        }
        Ok(()) => match dismissed(&duty) {
            None => 0,
            Some(cause) => i32::from(!empty(&duty, cause)),
        },
    };
    std::process::exit(code)
}

fn duty(args: Vec<OsString>) -> Option<(Duty, OwnedFd)> {
    let [pipe, ready, parent, dir, above, id, leaf, name] = args.try_into().ok()?;
    let id = RunTag(id.to_str()?.parse().ok()?);
    let name = Some(PathBuf::from(OsString::from_vec(name.into_vec()))).filter(|name| name.is_absolute());
    let ready = inherited(&ready)?;
    let duty = Duty {
        pipe: File::from(inherited(&pipe)?),
        parent: inherited(&parent)?,
        cgroup: OwnCgroup::prove(inherited(&dir)?, id, name).ok()?,
        above: inherited(&above)?,
        leaf: leaf.into_string().ok()?,
    };
    Some((duty, ready))
}

/// Leaves the caller's session, signals, directory and descriptors, then says that it is ready.
fn settle(duty: &Duty, ready: OwnedFd) -> io::Result<()> {
    nix::unistd::setsid()?;
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGPIPE, Signal::SIGQUIT] {
        // SAFETY: no handler of ours is installed, the signal is ignored.
        unsafe { nix::sys::signal::signal(signal, SigHandler::SigIgn) }?;
    }
    SigSet::empty().thread_set_mask()?;
    std::env::set_current_dir("/")?;
    // stderr stays, for the one line.
    let null = File::options().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    drop(null);
    let above = duty.above.as_raw_fd();
    let [cgroup, events] = duty.cgroup.fds();
    close_all_but(&mut [duty.pipe.as_raw_fd(), ready.as_raw_fd(), duty.parent.as_raw_fd(), cgroup, events, above])?;
    // If nobody reads this any more, the parent's pidfd says the rest.
    let _ = File::from(ready).write_all(b"r");
    Ok(())
}

/// Waits for the word that all is done (`None`), or for a cause to empty the cgroup.
fn dismissed(duty: &Duty) -> Option<Cause> {
    loop {
        let watch = |fd: BorrowedFd<'_>| -> Option<bool> {
            let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
            poll(&mut fds, PollTimeout::ZERO).ok().map(|ready| ready > 0)
        };
        let mut fds =
            [PollFd::new(duty.pipe.as_fd(), PollFlags::POLLIN), PollFd::new(duty.parent.as_fd(), PollFlags::POLLIN)];
        let waited = poll(&mut fds, PollTimeout::NONE);
        // The pipe first: what the parent wrote before its end counts.
        if watch(duty.pipe.as_fd()) == Some(true) {
            let mut byte = [0];
            return match ((&duty.pipe).read(&mut byte), byte) {
                (Ok(1), [DONE]) => None,
                (Ok(1), [GIVEN_UP]) => Some(Cause::GivenUp),
                (Ok(_) | Err(_), _) => Some(Cause::Killed),
            };
        }
        if !matches!(waited, Err(Errno::EINTR)) {
            return Some(Cause::Killed);
        }
    }
}

/// Kills, sweeps until nothing is left, removes, and says so in one line.
fn empty(duty: &Duty, cause: Cause) -> bool {
    let words = cause.words();
    let begun = Instant::now();
    let before = duty.cgroup.procs().map_or(0, |procs| procs.pids.len());
    let mut last = signal::kill_cgroup(&duty.cgroup, duty.cgroup.id()).err().map(|refusal| refusal.to_string());
    let mut pause = Duration::from_millis(2);
    let left = loop {
        match duty.cgroup.populated() {
            Ok(false) => break false,
            // Someone else removed it: it was empty.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENOENT)) => break false,
            Ok(true) | Err(_) if begun.elapsed() > TRIES_FOR => break true,
            Ok(true) | Err(_) => {}
        }
        match signal::sweep(&duty.cgroup) {
            Ok(sweep) => last = sweep.refused.first().map(|(pid, why)| format!("pid {pid}: {why}")).or(last),
            Err(error) => last = Some(error.to_string()),
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(200));
    };
    if left {
        let pids = duty.cgroup.procs().map(|procs| procs.pids).unwrap_or_default();
        let why = last.unwrap_or_else(|| "they do not die".to_owned());
        eprintln!("agent-loop: {words}; of its processes {pids:?} could not be ended: {why}");
        return false;
    }
    let removed = nest::remove(duty.above.as_fd(), &duty.leaf, &duty.cgroup);
    let rest = removed.err().map_or(String::new(), |error| format!("; its cgroup could not be removed: {error}"));
    let processes = if before == 1 { "process was" } else { "processes were" };
    eprintln!("agent-loop: {words}; its {before} {processes} ended{rest}");
    true
}

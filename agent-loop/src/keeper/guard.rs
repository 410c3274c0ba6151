//! The guard of `exec`: a small process that empties the run's cgroup should `exec` itself be SIGKILLed.
//!
//! It is started before the cgroup is made, and is told which one it is before anything is in it: no death of `exec`
//! leaves anything running, or an empty cgroup behind. It is this program executed again (`guard`), not a fork: `exec` may have threads by then. It watches a
//! pidfd of `exec` and not only a pipe: a frozen child that has not executed yet holds a copy of the pipe's end.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal};

use super::birth::{self, Birth};
use super::cgroup::{OwnCgroup, RunCgroup, open_at};
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
/// What it says before the cgroup that was made: whether it is only to be swept, its id, the length of its name, and
/// its name.
const ENTRUSTED: u8 = b'c';

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
    answers: File,
}

impl Guard {
    /// Starts one for this still empty cgroup and waits until it is ready.
    ///
    /// # Errors
    /// When it could not be made, or died before it was ready.
    pub fn start(cgroup: &RunCgroup) -> io::Result<Self> {
        let mut guard = Self::before(cgroup.parent(), cgroup.leaf())?;
        guard.entrust(cgroup)?;
        Ok(guard)
    }

    /// Starts one for a cgroup that will be made as `leaf` in `parent`, a name that nobody else uses, and waits
    /// until it is ready. Should we die before [`Guard::entrust`], it removes that cgroup if it is empty.
    ///
    /// # Errors
    /// When it could not be made, or died before it was ready.
    pub fn before(parent: BorrowedFd<'_>, leaf: &str) -> io::Result<Self> {
        let _alone = LAUNCHING.lock().unwrap_or_else(PoisonError::into_inner);
        let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        let (answers, answer) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        let own = PidFd::open(std::process::id())?.ok_or(Errno::ESRCH)?;
        let args = [
            c"agent-loop".to_owned(),
            text(GUARD).map_err(io::Error::other)?,
            number(&read).map_err(io::Error::other)?,
            number(&answer).map_err(io::Error::other)?,
            number(&own.as_fd()).map_err(io::Error::other)?,
            number(&parent).map_err(io::Error::other)?,
            text(leaf).map_err(io::Error::other)?,
        ];
        let fds = [read.as_fd(), answer.as_fd(), own.as_fd(), parent].map(|fd| fd.as_raw_fd());
        // It inherits the mask: a Ctrl-C before it has its own session must not end it.
        let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
        let born = birth::bear(&Birth { args: &args, keep: &fds, cgroup: None, hold: None, errors: None });
        before.thread_set_mask()?;
        let (pid, pidfd) = born?;
        let pidfd = PidFd::of_own_child(pidfd, pid, RunTag(0));
        let mut guard = Self { pidfd, pipe: File::from(write), answers: File::from(answers) };
        drop(answer);
        guard.is_answered()?;
        Ok(guard)
    }

    /// Tells it which cgroup was made, and waits until it holds that: from then on it may be filled.
    ///
    /// # Errors
    /// When the guard died, or found another cgroup there.
    pub fn entrust(&mut self, cgroup: &RunCgroup) -> io::Result<()> {
        let name = cgroup.own().name().map_or(&b""[..], |name| name.as_os_str().as_bytes());
        let (id, length) = (cgroup.tag().0.to_le_bytes(), u32::try_from(name.len()).map_err(io::Error::other)?);
        let message =
            [&[ENTRUSTED, u8::from(cgroup.own().is_swept_only())][..], &id, &length.to_le_bytes(), name].concat();
        self.pipe.write_all(&message)?;
        self.is_answered()
    }

    fn is_answered(&mut self) -> io::Result<()> {
        match self.answers.read(&mut [0])? {
            1 => Ok(()),
            _ => {
                let status = self.pidfd.wait()?;
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
    answer: File,
    parent: OwnedFd,
    above: OwnedFd,
    leaf: String,
    /// The cgroup, once it was entrusted.
    cgroup: Option<OwnCgroup>,
}

/// The guard: never returns. `args` are those after the subcommand's name.
pub fn guard_main(args: impl IntoIterator<Item = OsString>) -> ! {
    let Some(mut duty) = duty(args.into_iter().collect()) else {
        eprintln!("agent-loop: guard is for agent-loop's own use");
        std::process::exit(2);
    };
    let code = match settle(&mut duty).and_then(|()| cause(&mut duty)) {
        Err(error) => {
            eprintln!("agent-loop: guard: {error}");
            1
        }
        Ok(None) => 0,
        Ok(Some(cause)) => i32::from(!empty(&duty, cause)),
    };
    std::process::exit(code)
}

fn duty(args: Vec<OsString>) -> Option<Duty> {
    let [pipe, answer, parent, above, leaf] = args.try_into().ok()?;
    Some(Duty {
        pipe: File::from(inherited(&pipe)?),
        answer: File::from(inherited(&answer)?),
        parent: inherited(&parent)?,
        above: inherited(&above)?,
        leaf: leaf.into_string().ok()?,
        cgroup: None,
    })
}

/// Leaves the caller's session, signals, directory and descriptors, then says that it is ready.
fn settle(duty: &mut Duty) -> io::Result<()> {
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
    let Duty { pipe, answer, parent, above, .. } = &*duty;
    close_all_but(&mut [pipe.as_raw_fd(), answer.as_raw_fd(), parent.as_raw_fd(), above.as_raw_fd()])?;
    // If nobody reads this any more, the parent's pidfd says the rest.
    let _ = duty.answer.write_all(b"r");
    Ok(())
}

/// Waits for the word that all is done (`None`), or for a cause to empty the cgroup; takes the cgroup meanwhile.
fn cause(duty: &mut Duty) -> io::Result<Option<Cause>> {
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
            match (duty.pipe.read(&mut byte), byte) {
                (Ok(1), [DONE]) => return Ok(None),
                (Ok(1), [GIVEN_UP]) => return Ok(Some(Cause::GivenUp)),
                (Ok(1), [ENTRUSTED]) => take(duty)?,
                (Ok(_) | Err(_), _) => return Ok(Some(Cause::Killed)),
            }
        } else if !matches!(waited, Err(Errno::EINTR)) {
            return Ok(Some(Cause::Killed));
        }
    }
}

/// Takes the cgroup that the parent has made, and says so.
fn take(duty: &mut Duty) -> io::Result<()> {
    let (mut swept_only, mut id, mut length) = ([0; 1], [0; 8], [0; 4]);
    duty.pipe.read_exact(&mut swept_only)?;
    duty.pipe.read_exact(&mut id)?;
    duty.pipe.read_exact(&mut length)?;
    let mut name = Vec::new();
    let length = u64::from(u32::from_le_bytes(length));
    Read::by_ref(&mut duty.pipe).take(length).read_to_end(&mut name)?;
    let name = Some(PathBuf::from(OsString::from_vec(name))).filter(|name| name.is_absolute());
    let dir = open_at(duty.above.as_fd(), Path::new(&duty.leaf))?;
    let cgroup = OwnCgroup::prove(dir, RunTag(u64::from_le_bytes(id)), name).map_err(io::Error::other)?;
    if swept_only != [0] {
        cgroup.sweep_only();
    }
    duty.cgroup = Some(cgroup);
    let _ = duty.answer.write_all(b"c");
    Ok(())
}

/// Kills, sweeps until nothing is left, removes, and says so in one line.
fn empty(duty: &Duty, cause: Cause) -> bool {
    let words = cause.words();
    let Some(cgroup) = &duty.cgroup else { return remove_unfilled(duty, words) };
    let begun = Instant::now();
    let before = cgroup.procs().map_or(0, |procs| procs.pids.len());
    let mut last = None;
    if let Err(refusal) = signal::kill_cgroup(cgroup, cgroup.id()) {
        last = Some(refusal.to_string());
        // Before Linux 5.14: who cannot fork is caught by the sweep.
        last = signal::freeze_cgroup(cgroup, cgroup.id()).err().map(|refusal| refusal.to_string()).or(last);
    }
    let mut pause = Duration::from_millis(2);
    let left = loop {
        match cgroup.populated() {
            Ok(false) => break false,
            // Someone else removed it: it was empty.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENOENT)) => break false,
            Ok(true) | Err(_) if begun.elapsed() > TRIES_FOR => break true,
            Ok(true) | Err(_) => {}
        }
        match signal::sweep(cgroup) {
            Ok(sweep) => last = sweep.refused.first().map(|(pid, why)| format!("pid {pid}: {why}")).or(last),
            Err(error) => last = Some(error.to_string()),
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(200));
    };
    if left {
        let pids = cgroup.procs().map(|procs| procs.pids).unwrap_or_default();
        let why = last.unwrap_or_else(|| "they do not die".to_owned());
        eprintln!("agent-loop: {words}; of its processes {pids:?} could not be ended: {why}");
        return false;
    }
    let removed = nest::remove(duty.above.as_fd(), &duty.leaf, cgroup);
    let rest = removed.err().map_or(String::new(), |error| format!("; its cgroup could not be removed: {error}"));
    let processes = if before == 1 { "process was" } else { "processes were" };
    eprintln!("agent-loop: {words}; its {before} {processes} ended{rest}");
    true
}

/// Removes a cgroup that was made and not entrusted: nobody can have been put into it by us, so that it is left
/// alone if somebody is.
fn remove_unfilled(duty: &Duty, words: &str) -> bool {
    match nix::unistd::unlinkat(&duty.above, duty.leaf.as_str(), nix::unistd::UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => {
            eprintln!("agent-loop: {words}; its 0 processes were ended");
            true
        }
        Err(errno) => {
            let error = io::Error::from(errno);
            eprintln!("agent-loop: {words}; its cgroup {} could not be removed: {error}", duty.leaf);
            false
        }
    }
}

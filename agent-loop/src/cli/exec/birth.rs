//! The main process: how it is to be born, and what is watched of it.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::getpgrp;
use tokio::io::unix::AsyncFd;

use super::Args;
use super::ground::Ground;
use crate::keeper::launch::{Become, Child, LaunchSpec, Session, SignalsAtStart, Stdio, User};
use crate::keeper::signal::{self, Delivery, Expected, Refusal, Verified};
use crate::keeper::terminal::Terminal;
use crate::kernel::poll::register;

const SIGKILL: u8 = 9;

/// The main process and what is watched of it.
pub(super) struct Main {
    pub(super) child: Child,
    pub(super) exit: AsyncFd<OwnedFd>,
    pub(super) start: Option<AsyncFd<OwnedFd>>,
    /// Its descriptor says that it is dead; `waitid` may still have no answer.
    pub(super) dead: bool,
    /// `waitid` has answered.
    pub(super) exited: bool,
}

impl Main {
    /// Watches a child's start and end.
    ///
    /// # Errors
    /// When there is no descriptor left; the child, which nobody would end otherwise, is then handed back.
    pub(super) fn watch(child: Child) -> Result<Self, (Box<Child>, io::Error)> {
        let exit = child.pidfd.as_fd().try_clone_to_owned().and_then(register);
        let start = child.start.as_fd().try_clone_to_owned().and_then(register);
        let (exit, start) = match (exit, start) {
            (Ok(exit), Ok(start)) => (exit, start),
            (Err(error), _) | (_, Err(error)) => return Err((Box::new(child), error)),
        };
        Ok(Self { child, exit, start: Some(start), dead: false, exited: false })
    }

    /// Signals it, through the descriptor of its birth.
    pub(super) fn signal(&self, ground: &Ground, signal: u8) -> Result<Delivery, Refusal> {
        signal_child(&self.child, ground, signal)
    }
}

fn signal_child(child: &Child, ground: &Ground, signal: u8) -> Result<Delivery, Refusal> {
    match signal::verify(&child.pidfd, Expected::OwnChild, &ground.witnesses())? {
        Verified::Proof(proof) => proof.send(signal),
        Verified::Gone => Ok(Delivery::Gone),
    }
}

/// How often an unwatched child that was killed is asked for before it is left to be reaped at the end.
const REAP_TRIES: u32 = 200;
const REAP_PAUSE: Duration = Duration::from_millis(5);

/// Kills a child that has not run and that cannot be watched, by the descriptor of its birth, and reaps it.
///
/// # Errors
/// The reason why it was not signalled, as a fragment.
pub(super) fn discard(child: &Child, ground: &Ground) -> Result<(), String> {
    signal_child(child, ground, SIGKILL).map_err(|refusal| format!("killing it: {refusal}"))?;
    for _ in 0..REAP_TRIES {
        match child.pidfd.try_wait() {
            Ok(None) => std::thread::sleep(REAP_PAUSE),
            Ok(Some(_)) | Err(_) => break,
        }
    }
    Ok(())
}

/// The launch that the arguments ask for; `output` is where the command then writes.
pub(super) fn spec(args: &Args, signals: &SignalsAtStart, user: Option<User>, output: Option<&OwnedFd>) -> LaunchSpec {
    let mut spec = LaunchSpec::as_caller(args.command.clone(), signals);
    if in_pipeline() {
        spec.session = Session::Callers;
    }
    if args.events.as_deref().is_some_and(|path| path.as_os_str() == "-") {
        spec.stdio[1] = Stdio::Fd(io::stderr().as_raw_fd());
    }
    if let Some(write) = output {
        spec.stdio[1] = Stdio::Fd(write.as_raw_fd());
        spec.stdio[2] = Stdio::Fd(write.as_raw_fd());
    }
    if let Some(user) = user {
        set_user(&mut spec.env, args.user.as_deref().unwrap_or_default(), &user);
        spec.no_new_privs = true;
        spec.user = Some(Become::User(user));
    }
    spec
}

/// Whether we are one command of a pipeline on a terminal: its other members are in our process group, and a pager
/// among them could not read its keys if the command had the terminal for itself.
fn in_pipeline() -> bool {
    if !Terminal::of_caller().is_of(getpgrp().as_raw().cast_unsigned()) {
        return false;
    }
    let is_pipe = |fd: BorrowedFd<'_>| {
        fstat(fd).is_ok_and(|stat| SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFIFO)
    };
    is_pipe(io::stdin().as_fd()) || is_pipe(io::stdout().as_fd()) || is_pipe(io::stderr().as_fd())
}

/// The user to become.
pub(super) fn find_user(name: &str) -> anyhow::Result<User> {
    anyhow::ensure!(
        nix::unistd::geteuid().is_root(),
        "--user needs root, to become {name}; run agent-loop as root or leave --user out"
    );
    User::find(name).with_context(|| format!("looking up the user {name}"))
}

/// The environment of another user: who it is and where its home is, the rest stays the caller's.
fn set_user(env: &mut Vec<(OsString, OsString)>, name: &str, user: &User) {
    env.retain(|(variable, _)| variable != "HOME" && variable != "USER" && variable != "LOGNAME");
    for variable in ["USER", "LOGNAME"] {
        env.push((variable.into(), name.into()));
    }
    if let Some(home) = &user.home {
        env.push(("HOME".into(), home.into()));
    }
}

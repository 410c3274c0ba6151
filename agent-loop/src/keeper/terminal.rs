//! The caller's terminal: lent to the command, handed back when the command stops, taken back at the end.
//!
//! ```text
//!          launcher                  Ctrl-Z: the kernel stops the command
//! ours ---------------> lent ------------------------------------------> suspend: the kernel stops us,
//!   ^                    |  ^                                             the shell has the terminal
//!   +--- take_back ------+  +----- lend ------ fg, SIGCONT ----------------------+ (bg: it stays the shell's)
//! ```
//! No signal is sent here: the kernel stops our group when we ask for the terminal from the background.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, getpgrp, tcgetpgrp, tcsetpgrp};

use super::pidfd::PidFd;

/// Keeps job control to [`Terminal`]: to be called before any thread is started, which inherits it.
///
/// A thread that writes lines would else stop us all on a terminal with `tostop`, and take the SIGCONT that
/// [`Terminal::suspend`] waits for. The descriptor becomes readable when we are continued.
///
/// # Errors
/// What sigprocmask and signalfd report.
pub fn listen() -> io::Result<OwnedFd> {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCONT);
    let continued = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    mask.add(Signal::SIGTTOU);
    // Whatever our caller had blocked: a stop that is asked for and a child that ended must reach us.
    mask.thread_set_mask()?;
    continued.as_fd().try_clone_to_owned()
}

/// The signal that stopped our child, told once for each stop.
///
/// # Errors
/// What waitid reports.
pub fn stopped_by(child: &PidFd) -> io::Result<Option<Signal>> {
    let status = waitid(Id::PIDFd(child.as_fd()), WaitPidFlag::WSTOPPED | WaitPidFlag::WNOHANG)?;
    Ok(if let WaitStatus::Stopped(_, signal) = status { Some(signal) } else { None })
}

/// The terminal of the caller's session, if it has one.
#[derive(Debug)]
pub struct Terminal {
    tty: Option<File>,
    /// Whether the tree has it from us, so that it is ours to take back.
    lent: bool,
}

/// What became of a try to stop together with the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suspension {
    /// We were stopped, and continued.
    Over,
    /// We cannot be stopped: nobody would continue us, or the terminal is ours anyway.
    Refused,
    /// There is no terminal.
    NoTerminal,
}

impl Terminal {
    /// Opens the controlling terminal; a launch from the foreground will lend it.
    #[must_use]
    pub fn of_caller() -> Self {
        let tty = File::options().read(true).write(true).open("/dev/tty").ok();
        let mut terminal = Self { tty, lent: false };
        terminal.lent = terminal.foreground() == Some(getpgrp());
        terminal
    }

    fn foreground(&self) -> Option<Pid> {
        tcgetpgrp(self.tty.as_ref()?).ok()
    }

    /// Whether this process group has the terminal.
    #[must_use]
    pub fn is_of(&self, group: u32) -> bool {
        self.foreground().is_some_and(|pid| pid.as_raw().cast_unsigned() == group)
    }

    /// Gives the terminal to a group of the tree, if it is ours to give; whether it was.
    pub fn lend(&mut self, group: u32) -> bool {
        let Some(tty) = &self.tty else { return false };
        if self.foreground() != Some(getpgrp()) {
            return false;
        }
        self.lent = tcsetpgrp(tty, Pid::from_raw(group.cast_signed())).is_ok();
        self.lent
    }

    /// Takes back what was lent. A job in the background has nothing to take: the terminal is its shell's.
    ///
    /// # Errors
    /// What `tcsetpgrp` reports.
    pub fn take_back(&mut self) -> io::Result<()> {
        let Some(tty) = self.tty.as_ref().filter(|_| self.lent) else { return Ok(()) };
        self.lent = false;
        let mut blocked = SigSet::empty();
        // From the background it would stop us, the very thing that is being mended.
        blocked.add(Signal::SIGTTOU);
        let before = blocked.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let done = tcsetpgrp(tty, getpgrp());
        before.thread_set_mask()?;
        Ok(done?)
    }

    /// Stops our process group as Ctrl-Z would, and returns when it is continued.
    ///
    /// The kernel stops a group that asks for the terminal from the background (SIGTTOU), save where nobody
    /// could continue it: in an orphaned group the call fails with EIO (tty_jobctrl.c, `__tty_check_change`).
    ///
    /// # Errors
    /// What sigaction and sigprocmask report.
    pub fn suspend(&mut self) -> io::Result<Suspension> {
        let Some(tty) = &self.tty else { return Ok(Suspension::NoTerminal) };
        let own = getpgrp();
        if self.foreground() == Some(own) {
            return Ok(Suspension::Refused);
        }
        // Without SA_RESTART: the call would be made again after `bg`, and stop us again.
        let wake = SigAction::new(SigHandler::Handler(nothing), SaFlags::empty(), SigSet::empty());
        // SAFETY: the handler does nothing at all.
        let disposition = unsafe { sigaction(Signal::SIGCONT, &wake) }?;
        // No other signal now: handlers that restart the call would run first, as SIGTERM's after `kill %1`.
        let mut others = SigSet::all();
        others.remove(Signal::SIGCONT);
        others.remove(Signal::SIGTTOU);
        let mask = others.thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
        let asked = tcsetpgrp(tty, own);
        mask.thread_set_mask()?;
        // SAFETY: what was there before.
        unsafe { sigaction(Signal::SIGCONT, &disposition) }?;
        self.lent = false;
        Ok(match asked {
            Err(Errno::EINTR) => Suspension::Over,
            // Our caller ignores SIGTTOU, so the terminal was ours for the asking; or the group is orphaned.
            Ok(()) | Err(_) => Suspension::Refused,
        })
    }
}

extern "C" fn nothing(_: libc::c_int) {}

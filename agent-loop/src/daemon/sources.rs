//! What wakes the daemon beside the kernel, the keeper and the control socket: signals and its timer.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::kernel::poll::register;
use crate::model::BootNs;

/// Signals and the timer.
pub(super) struct Sources {
    timer: TimerFd,
    elapsed: AsyncFd<OwnedFd>,
    terminate: Signal,
    interrupt: Signal,
    reload: Signal,
}

/// What one of them says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wake {
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGHUP.
    Reload,
    /// The timer.
    Timer,
}

impl Sources {
    /// Listens.
    ///
    /// # Errors
    /// When the kernel has no timer or descriptor left.
    pub(super) fn new() -> anyhow::Result<Self> {
        let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)
            .context("making a timer")?;
        let elapsed = timer.as_fd().try_clone_to_owned().and_then(register).context("watching the timer")?;
        let listen = |kind| signal(kind).context("listening for signals");
        Ok(Self {
            timer,
            elapsed,
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            reload: listen(SignalKind::hangup())?,
        })
    }

    /// Fires at this time; a time in the past fires at once.
    ///
    /// # Errors
    /// What setting the timer reports.
    pub(super) fn arm(&self, at: BootNs) -> io::Result<()> {
        // Zero would disarm.
        let expiration = Expiration::OneShot(TimeSpec::from_duration(Duration::from_nanos(at.0.max(1))));
        self.timer.set(expiration, TimerSetTimeFlags::TFD_TIMER_ABSTIME)?;
        Ok(())
    }

    /// Waits for the next of them. Cancel-safe.
    pub(super) async fn next(&mut self) -> Wake {
        let Self { elapsed, terminate, interrupt, reload, .. } = self;
        tokio::select! {
            biased;
            _ = terminate.recv() => Wake::Stop,
            _ = interrupt.recv() => Wake::Stop,
            ready = elapsed.readable() => {
                match ready {
                    Ok(mut guard) => guard.clear_ready(),
                    Err(_) => std::future::pending().await,
                }
                // Taken, so that the next one is news.
                let _ = nix::unistd::read(elapsed.get_ref(), &mut [0; 8]);
                Wake::Timer
            }
            _ = reload.recv() => Wake::Reload,
        }
    }
}

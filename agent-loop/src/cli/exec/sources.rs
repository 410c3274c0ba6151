//! What wakes the shell: signals, the timer, descriptors, records.

use std::future::pending;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::task::Poll;
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::ground::Ground;
use crate::keeper::launch::SignalsAtStart;
use crate::kernel::poll::register;
use crate::model::BootNs;

/// What wakes the shell, beside what belongs to the run.
pub(super) struct Sources {
    timer: TimerFd,
    pub(super) elapsed: AsyncFd<OwnedFd>,
    pub(super) child: Signal,
    pub(super) continued: AsyncFd<OwnedFd>,
    pub(super) stop: Vec<(u8, Signal)>,
}

impl Sources {
    /// Listens for the signals that ask for a stop, save those our caller had ignored (`nohup`).
    pub(super) fn new(at_start: &SignalsAtStart, continued: OwnedFd) -> anyhow::Result<Self> {
        let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)
            .context("making a timer")?;
        let mut stop = Vec::new();
        for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup(), SignalKind::quit()] {
            let number = u8::try_from(kind.as_raw_value()).unwrap_or(0);
            if !at_start.ignored.contains(&number) {
                stop.push((number, signal(kind).context("listening for signals")?));
            }
        }
        let child = signal(SignalKind::child()).context("listening for ended children")?;
        let elapsed = timer.as_fd().try_clone_to_owned().and_then(register).context("watching the timer")?;
        let continued = register(continued).context("listening for job control")?;
        Ok(Self { timer, elapsed, child, continued, stop })
    }

    pub(super) fn arm(&self, at: BootNs) -> io::Result<()> {
        // A time in the past fires at once; zero would disarm.
        let at = Duration::from_nanos(at.0.max(1));
        let expiration = Expiration::OneShot(TimeSpec::from_duration(at));
        self.timer.set(expiration, TimerSetTimeFlags::TFD_TIMER_ABSTIME)?;
        Ok(())
    }
}

/// Waits for a signal that asks for a stop; its number.
pub(super) async fn next_signal(signals: &mut [(u8, Signal)]) -> u8 {
    std::future::poll_fn(|cx| {
        for (number, signal) in signals.iter_mut() {
            if signal.poll_recv(cx).is_ready() {
                return Poll::Ready(*number);
            }
        }
        Poll::Pending
    })
    .await
}

/// Waits until there is something to read, for ever where there is nothing to watch.
pub(super) async fn readable(fd: Option<&AsyncFd<OwnedFd>>) {
    match fd {
        Some(fd) => match fd.readable().await {
            Ok(mut guard) => guard.clear_ready(),
            Err(_) => pending().await,
        },
        None => pending().await,
    }
}

/// Waits for a timer or a signal, and takes it, so that the next one is news.
pub(super) async fn taken(source: &AsyncFd<OwnedFd>) {
    readable(Some(source)).await;
    // A signalfd_siginfo is the larger of both.
    let _ = nix::unistd::read(source.get_ref(), &mut [0; 128]);
}

/// Waits for an alarm, for ever where none is set.
pub(super) async fn strikes(alarm: Option<tokio::time::Instant>) {
    match alarm {
        Some(alarm) => tokio::time::sleep_until(alarm).await,
        None => pending().await,
    }
}

/// Waits for records of the kernel.
pub(super) async fn records(ground: &mut Ground, more: bool) {
    match &mut ground.tracing {
        Some(_) if more => tokio::task::yield_now().await,
        Some(tracing) => {
            if tracing.rings.readable().await.is_err() {
                pending::<()>().await;
            }
        }
        None => pending().await,
    }
}

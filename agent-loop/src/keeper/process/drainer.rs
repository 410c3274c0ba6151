//! The thread that drains: a disk that does not answer holds up this thread, and nothing that is asked of the keeper.
//!
//! It alone reads the pipes and writes the files of the runs. The loop hands it what is to be drained, and reads how
//! that stands; it waits for the thread once, bounded, when a run is over.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::drain::Drain;
use super::protocol::OutputState;
use crate::clock;
use crate::fault::{self, Role};
use crate::model::BootNs;
use crate::run::RunName;

/// How long the end of a run waits for what it wrote last.
const LAST_WITHIN: Duration = Duration::from_secs(1);
/// The same, while the thread is known not to answer.
const LAST_WITHIN_HUNG: Duration = Duration::from_millis(10);
/// How long it does without a poll that the kernel refuses.
const POLL_AGAIN: Duration = Duration::from_millis(100);
/// A megabyte and more is the default; it holds one piece of output.
const STACK: usize = 256 << 10;

/// What the loop asks of the thread.
enum Order {
    /// Drain this for a run.
    Drain(RunName, Box<Drain>),
    /// Nobody of it lives: read the rest, say how it stands, and let it go.
    Finish(RunName, SyncSender<OutputState>),
}

/// What both sides see.
#[derive(Debug)]
struct Shared {
    told: Mutex<Told>,
    /// There are orders.
    orders: EventFd,
    /// There is news.
    news: EventFd,
}

#[derive(Debug, Default)]
struct Told {
    /// How the output of each run stands.
    states: BTreeMap<RunName, OutputState>,
    /// What is to be told to the client.
    news: Vec<OutputState>,
    /// Of which it was asked to look once more.
    looks: BTreeSet<RunName>,
}

/// The loop's end of it.
#[derive(Debug)]
pub(super) struct Drainer {
    shared: Arc<Shared>,
    orders: Option<Sender<Order>>,
    /// Told nothing, and closed once the thread has ended.
    ended: Receiver<()>,
    /// It did not answer when it was waited for last.
    hangs: bool,
}

impl Drainer {
    /// Starts the thread.
    ///
    /// # Errors
    /// When there can be none.
    pub(super) fn start() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let eventfd = || EventFd::from_flags(flags).map_err(io::Error::from);
        let shared = Arc::new(Shared { told: Mutex::default(), orders: eventfd()?, news: eventfd()? });
        let (orders, taken) = mpsc::channel();
        let thread = Thread { shared: Arc::clone(&shared), orders: taken, drains: BTreeMap::new() };
        let (ending, ended) = mpsc::channel();
        std::thread::Builder::new().name("drainer".to_owned()).stack_size(STACK).spawn(move || {
            thread.run();
            drop(ending);
        })?;
        Ok(Self { shared, orders: Some(orders), ended, hangs: false })
    }

    /// Readable once there is news.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.news.as_fd()
    }

    /// Drains this for a run from now on.
    pub(super) fn drain(&self, name: RunName, drain: Drain) {
        self.shared.told().states.insert(name, drain.state().clone());
        self.order(Order::Drain(name, Box::new(drain)));
    }

    /// How the output of a run stands.
    pub(super) fn state(&self, name: RunName) -> OutputState {
        self.shared.told().states.get(&name).cloned().unwrap_or_else(|| OutputState::none(name.to_string()))
    }

    /// Has the pipes of a run looked into once more; told as news.
    pub(super) fn look(&self, name: RunName) {
        self.shared.told().looks.insert(name);
        let _ = self.shared.orders.write(1);
    }

    /// Has the rest of a run's output read, of which nobody lives any more; how it stands then. Waited for within reason:
    /// what a disk that does not answer takes later is in the file then, and not in what is told.
    pub(super) fn finish(&mut self, name: RunName) -> OutputState {
        let (answer, last) = mpsc::sync_channel(1);
        self.order(Order::Finish(name, answer));
        let within = if self.hangs { LAST_WITHIN_HUNG } else { LAST_WITHIN };
        let state = last.recv_timeout(within);
        self.hangs = state.is_err();
        let mut told = self.shared.told();
        // Nothing older is told after the last word.
        told.news.retain(|state| state.run != name.to_string());
        let known = told.states.remove(&name);
        drop(told);
        state.unwrap_or_else(|_| OutputState {
            failed: Some("its disk does not answer; what it wrote last may be missing".to_owned()),
            ..known.unwrap_or_else(|| OutputState::none(name.to_string()))
        })
    }

    /// What is to be told since this was asked last.
    pub(super) fn news(&self) -> Vec<OutputState> {
        // The bell before what it rings for: news that comes in between rings again.
        let _ = self.shared.news.read();
        std::mem::take(&mut self.shared.told().news)
    }

    fn order(&self, order: Order) {
        if let Some(orders) = &self.orders {
            // It ends only with us.
            let _ = orders.send(order);
        }
        let _ = self.shared.orders.write(1);
    }
}

impl Drop for Drainer {
    /// What was read from a pipe is written, if that can be done in time: nobody can read it again.
    fn drop(&mut self) {
        drop(self.orders.take());
        let _ = self.shared.orders.write(1);
        let _ = self.ended.recv_timeout(LAST_WITHIN);
    }
}

impl Shared {
    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        // Nothing that is done under it can be left half done.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Thread {
    shared: Arc<Shared>,
    orders: Receiver<Order>,
    drains: BTreeMap<RunName, Drain>,
}

impl Thread {
    fn run(mut self) {
        loop {
            match self.wait() {
                Ok(ready) => {
                    for (name, index) in ready {
                        if let Some(drain) = self.drains.get_mut(&name) {
                            fault::panic_in("drainer");
                            drain.round(index, clock::boot());
                            fault::step(Role::Keeper);
                        }
                    }
                }
                // Without it every pipe would be found full in time; nothing is lost meanwhile.
                Err(_) => std::thread::sleep(POLL_AGAIN),
            }
            // After what was ready: the names of what is drained have not changed since they were polled.
            if !self.take_orders() {
                return;
            }
            self.look();
            self.tell();
        }
    }

    /// Looks once more where that was asked for: what is found empty now was written to by nobody.
    fn look(&mut self) {
        let looks = std::mem::take(&mut self.shared.told().looks);
        for name in looks {
            if let Some(drain) = self.drains.get_mut(&name) {
                drain.look(clock::boot());
            }
        }
    }

    /// Waits for pipes that have something, for orders, and for what may be told.
    fn wait(&self) -> Result<Vec<(RunName, usize)>, Errno> {
        let pipes =
            self.drains.iter().flat_map(|(&name, drain)| drain.pipes().map(move |(index, fd)| (name, index, fd)));
        let (mut callers, mut fds) = (Vec::new(), vec![PollFd::new(self.shared.orders.as_fd(), PollFlags::POLLIN)]);
        for (name, index, fd) in pipes {
            callers.push((name, index));
            fds.push(PollFd::new(fd, PollFlags::POLLIN));
        }
        let due = self.drains.values().filter_map(Drain::due).min();
        match poll(&mut fds, due.map_or(PollTimeout::NONE, until)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
        let called = callers.into_iter().zip(fds.get(1..).unwrap_or_default());
        Ok(called.filter(|(_, fd)| fd.any().unwrap_or(true)).map(|(caller, _)| caller).collect())
    }

    /// Carries out what was asked; whether the loop is still there.
    fn take_orders(&mut self) -> bool {
        let _ = self.shared.orders.read();
        loop {
            match self.orders.try_recv() {
                Ok(Order::Drain(name, drain)) => drop(self.drains.insert(name, *drain)),
                Ok(Order::Finish(name, answer)) => {
                    let Some(mut drain) = self.drains.remove(&name) else {
                        let _ = answer.send(OutputState::none(name.to_string()));
                        continue;
                    };
                    drain.finish(clock::boot());
                    // Who asked may have gone on without it.
                    let _ = answer.send(drain.state().clone());
                }
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn tell(&mut self) {
        let now = clock::boot();
        let mut told = self.shared.told();
        for (name, drain) in &mut self.drains {
            // One that is no longer asked about was given up.
            if let Some(state) = told.states.get_mut(name)
                && state != drain.state()
            {
                state.clone_from(drain.state());
            }
            told.news.extend(drain.news(now));
        }
        let rings = !told.news.is_empty();
        drop(told);
        if rings {
            let _ = self.shared.news.write(1);
        }
    }
}

/// Until then, in whole milliseconds, a minute and some at most.
fn until(at: BootNs) -> PollTimeout {
    let ms = at.0.saturating_sub(clock::boot().0).div_ceil(1_000_000);
    PollTimeout::from(u16::try_from(ms).unwrap_or(u16::MAX))
}

//! The loop of the keeper: one poll(2) over its socket, its client, its signals and what its runs are watched for.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{SockFlag, accept4};

use super::connection::{Connection, Over, turn_away};
use super::held::{Runs, Watched};
use super::place::Place;
use super::protocol::{Notice, Reply, Request, read_request};
use super::refused::Refused;
use super::socket::Datagram;
use super::{KeeperError, say};
use crate::clock;
use crate::fault::{self, Role};
use crate::keeper::reap;
use crate::model::BootNs;
use crate::run::RunName;

/// How many requests are carried out before the runs are looked after again.
const MOST_REQUESTS: usize = 16;

/// How often it is asked again for what nothing announces: a status that a tracer holds back, a descriptor for a new
/// client.
const AGAIN_NS: u64 = 1_000_000_000;

/// The signals that are read from a descriptor, and those that must not end us: a full disk or a limit on the size
/// of files is told by an error.
pub(super) struct Signals(SignalFd);

impl Signals {
    /// Blocks them. What is launched starts with none blocked.
    pub(super) fn take() -> Result<Self, Errno> {
        // Ignored, which is inherited from whoever started us, our children would be reaped without us.
        let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
        // SAFETY: the default disposition runs no code of ours.
        unsafe { sigaction(Signal::SIGCHLD, &default) }?;
        let told: SigSet = [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect();
        let mut blocked = told;
        blocked.add(Signal::SIGXFSZ);
        blocked.add(Signal::SIGPIPE);
        blocked.thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
        Ok(Self(SignalFd::with_flags(&told, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?))
    }
}

/// Who called.
#[derive(Clone, Copy, Debug)]
enum Caller {
    Signals,
    Listener,
    Client { hung_up: bool },
    Run(RunName, Watched),
    News,
}

/// The keeper at work.
pub(super) struct Server {
    place: Place,
    signals: Signals,
    runs: Runs,
    client: Option<Connection>,
    boot_id: String,
    /// Nobody could be accepted for want of something: not before it is tried again.
    crowded: bool,
    /// When it is asked again for what nothing announces.
    again_at: BootNs,
}

impl Server {
    pub(super) fn new(place: Place, signals: Signals, runs: Runs, boot_id: String) -> Self {
        Self { place, signals, runs, client: None, boot_id, crowded: false, again_at: BootNs(0) }
    }

    /// Serves until a signal ends it; the runs go on without it.
    pub(super) fn serve(&mut self) -> Result<(), KeeperError> {
        loop {
            let calls =
                self.wait().map_err(|errno| KeeperError::Io { doing: "polling".into(), source: errno.into() })?;
            let now = clock::boot();
            if now >= self.again_at {
                self.again_at = BootNs(now.0.saturating_add(AGAIN_NS));
                self.crowded = false;
                self.runs.ask_again();
            }
            // The client before the listener: one that has hung up makes room for the next.
            for call in calls {
                match call {
                    Caller::Signals if self.signalled() => return Ok(()),
                    Caller::Signals => {}
                    Caller::Client { hung_up } => self.hear(hung_up),
                    Caller::Listener => self.accept(),
                    // Told below.
                    Caller::News => {}
                    Caller::Run(name, watched) => {
                        self.runs.ready(name, watched);
                        fault::step(Role::Keeper);
                    }
                }
            }
            self.tell();
        }
    }

    /// Waits for calls, or until something is due.
    fn wait(&self) -> Result<Vec<Caller>, Errno> {
        let mut callers = vec![(Caller::Signals, self.signals.0.as_fd(), PollFlags::POLLIN)];
        if let Some(client) = &self.client {
            let mut wanted = PollFlags::empty();
            wanted.set(PollFlags::POLLIN, client.is_heard());
            wanted.set(PollFlags::POLLOUT, client.is_behind());
            callers.push((Caller::Client { hung_up: false }, client.as_fd(), wanted));
        }
        if !self.crowded {
            callers.push((Caller::Listener, self.place.listener.as_fd(), PollFlags::POLLIN));
        }
        callers.push((Caller::News, self.runs.news(), PollFlags::POLLIN));
        let watched = self.runs.watched();
        callers.extend(watched.map(|(name, what, fd)| (Caller::Run(name, what), fd, PollFlags::POLLIN)));
        let mut fds: Vec<PollFd<'_>> = callers.iter().map(|&(_, fd, wanted)| PollFd::new(fd, wanted)).collect();
        match poll(&mut fds, self.patience()) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
        let called = callers.iter().zip(&fds).filter(|(_, fd)| fd.any().unwrap_or(true));
        Ok(called.map(|(&(caller, ..), fd)| with_state(caller, fd)).collect())
    }

    /// How long nothing may happen.
    fn patience(&self) -> PollTimeout {
        if !(self.crowded || self.runs.is_held_back()) {
            return PollTimeout::NONE;
        }
        let next = self.again_at;
        let ms = next.0.saturating_sub(clock::boot().0).div_ceil(1_000_000);
        PollTimeout::from(u16::try_from(ms).unwrap_or(u16::MAX))
    }

    /// Reads what signals came; says whether one of them ends us.
    fn signalled(&mut self) -> bool {
        let mut children = false;
        // As many as can be pending, each counted once.
        for _ in 0..64 {
            match self.signals.0.read_signal() {
                Ok(Some(info)) if info.ssi_signo == libc::SIGCHLD as u32 => children = true,
                Ok(Some(info)) => {
                    self.say_goodbye(info.ssi_signo);
                    return true;
                }
                Ok(None) => break,
                Err(errno) => {
                    say(&format!("reading signals: {errno}"));
                    break;
                }
            }
        }
        if children {
            self.runs.ask_again();
            if let Err(error) = reap::reap_orphans(&self.runs.mains()) {
                say(&format!("reaping orphans: {error}"));
            }
        }
        false
    }

    fn say_goodbye(&self, signal: u32) {
        say(&format!("ended by signal {signal}, {} runs go on", self.runs.held().count()));
        for run in self.runs.held() {
            let main = run.main.map_or_else(|| "none".to_owned(), |main| main.pid.to_string());
            say(&format!("goes on: {} in cgroup {}, main process {main}", run.run, run.cgroup));
        }
    }

    fn accept(&mut self) {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = match accept4(self.place.listener.as_raw_fd(), flags) {
            // SAFETY: accept has just made it for us.
            Ok(fd) => unsafe { OwnedFd::from_raw_fd(fd) },
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNABORTED) => return,
            Err(errno) => {
                self.crowded = true;
                return say(&format!("accepting a client: {errno}"));
            }
        };
        // It may have hung up since it was looked at.
        if self.client.as_ref().is_some_and(Connection::is_hung_up) {
            self.hear(true);
        }
        if self.client.is_some() {
            return turn_away(&fd, "another client is connected");
        }
        match Connection::new(fd) {
            Ok(client) => self.client = Some(client),
            Err(why) => say(&format!("a client was turned away: {why}")),
        }
    }

    /// Carries out what the client asks, a bounded number of requests; what is left of one that hung up is dropped.
    fn hear(&mut self, hung_up: bool) {
        let Some(mut client) = self.client.take() else { return };
        match self.hear_of(&mut client, hung_up) {
            Ok(()) => self.client = Some(client),
            Err(Over(None)) => {}
            Err(Over(Some(why))) => say(&format!("the client is disconnected: {why}")),
        }
    }

    fn hear_of(&mut self, client: &mut Connection, hung_up: bool) -> Result<(), Over> {
        client.flush()?;
        for _ in 0..MOST_REQUESTS {
            if !client.is_heard() {
                break;
            }
            let Some(datagram) = client.receive()? else { break };
            self.answer(client, datagram)?;
        }
        // Nothing of it is waited for any more: its place is free.
        if hung_up { Err(Over(None)) } else { Ok(()) }
    }

    fn answer(&mut self, client: &mut Connection, datagram: Datagram) -> Result<(), Over> {
        let Datagram { bytes, fds, cut } = datagram;
        let refuse = |why: String| Refused::new(why).reply();
        let (id, request) = match read_request(&bytes) {
            Ok(read) => read,
            Err(unreadable) if unreadable.id != 0 => {
                return client.reply(unreadable.id, refuse(unreadable.why), Vec::new());
            }
            Err(unreadable) => {
                client.reply(0, refuse(unreadable.why.clone()), Vec::new())?;
                return Err(Over(Some(unreadable.why)));
            }
        };
        let (reply, fds) = if cut {
            (refuse("it was cut off: too long, or too many descriptors".to_owned()), Vec::new())
        } else if request == Request::Hello {
            client.greeted = true;
            for run in self.runs.held() {
                client.tell(Notice::Held(run))?;
            }
            let (boot_id, terms) = (self.boot_id.clone(), self.runs.terms().clone());
            (Reply::Welcome { pid: std::process::id(), boot_id, terms }, Vec::new())
        } else if client.greeted {
            fault::step(Role::Keeper);
            let answer = self.runs.answer(request, fds);
            fault::step(Role::Keeper);
            for notice in self.runs.notices() {
                client.tell(notice)?;
            }
            answer
        } else {
            (refuse("say hello first".to_owned()), Vec::new())
        };
        client.reply(id, reply, fds)
    }

    /// Tells the client what there is to tell. What nobody hears is part of what the next one is told.
    fn tell(&mut self) {
        let greeted = self.client.as_ref().is_some_and(|client| client.greeted);
        if !greeted {
            return self.runs.forget_notices();
        }
        let Some(mut client) = self.client.take() else { return };
        let told = self.runs.notices().into_iter().try_for_each(|notice| client.tell(notice));
        match told {
            Ok(()) => self.client = Some(client),
            Err(Over(why)) => say(&format!("the client is disconnected: {}", why.unwrap_or_else(|| "it left".into()))),
        }
    }
}

fn with_state(caller: Caller, fd: &PollFd<'_>) -> Caller {
    match caller {
        Caller::Client { .. } => {
            let hup = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
            Caller::Client { hung_up: fd.revents().is_none_or(|events| events.intersects(hup)) }
        }
        Caller::Signals | Caller::Listener | Caller::News | Caller::Run(..) => caller,
    }
}

/// Raises the limit on open files to what this process may have; what it was before and what it is now.
///
/// # Errors
/// What getrlimit and setrlimit report.
pub fn raise_open_files() -> Result<(u64, u64), Errno> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok((soft, hard))
}

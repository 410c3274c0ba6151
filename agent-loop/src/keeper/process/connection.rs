//! The one client: what it may still say, and what it has not yet taken.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{Shutdown, getsockopt, shutdown};
use serde::Serialize;

use super::protocol::{Envelope, LONGEST, MOST_RUNS, Notice, Reply, VERSION};
use super::refused::Refused;
use super::socket::{self, Datagram};

/// The most messages that wait for a client: all that is held, and as much news again, three times.
const MOST_WAITING: usize = 4 * MOST_RUNS;

/// With more than this waiting, nothing more is read of it: who asks has to listen.
const MOST_UNHEARD: usize = 64;

/// Why the connection is over.
#[derive(Debug)]
pub(super) struct Over(pub(super) Option<String>);

impl Over {
    fn because(doing: &str, error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EPIPE | libc::ECONNRESET) => Self(None),
            _ => Self(Some(format!("{doing}: {error}"))),
        }
    }
}

/// A connected client.
#[derive(Debug)]
pub(super) struct Connection {
    socket: OwnedFd,
    /// Whether it has said hello: then it hears notices.
    pub(super) greeted: bool,
    waiting: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
}

impl Connection {
    /// Takes a client that runs as root or as we do.
    ///
    /// # Errors
    /// A fragment that says why not.
    pub(super) fn new(socket: OwnedFd) -> Result<Self, String> {
        let peer = getsockopt(&socket, PeerCredentials).map_err(|errno| format!("asking who connects: {errno}"))?;
        if peer.uid() != 0 && peer.uid() != nix::unistd::geteuid().as_raw() {
            hang_up(&socket);
            return Err(format!("user {} may not ask", peer.uid()));
        }
        Ok(Self { socket, greeted: false, waiting: VecDeque::new() })
    }

    /// Whether the other end is closed.
    pub(super) fn is_hung_up(&self) -> bool {
        let mut fds = [PollFd::new(self.as_fd(), PollFlags::empty())];
        let polled = poll(&mut fds, PollTimeout::ZERO);
        let [fd] = fds;
        polled.is_ok() && fd.any().unwrap_or(true)
    }

    /// Whether more of it is to be read now.
    pub(super) fn is_heard(&self) -> bool {
        self.waiting.len() <= MOST_UNHEARD
    }

    /// Whether something waits to be taken.
    pub(super) fn is_behind(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The next datagram; `None` when there is none now.
    pub(super) fn receive(&self) -> Result<Option<Datagram>, Over> {
        match socket::receive(self.socket.as_fd()) {
            Ok(Some(datagram)) => Ok(Some(datagram)),
            Ok(None) => Err(Over(None)),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) => Ok(None),
            Err(error) => Err(Over::because("hearing the client", &error)),
        }
    }

    /// Answers the request with this number.
    pub(super) fn reply(&mut self, id: u64, reply: Reply, fds: Vec<OwnedFd>) -> Result<(), Over> {
        self.say(id, reply, fds)
    }

    /// Tells a notice.
    pub(super) fn tell(&mut self, notice: Notice) -> Result<(), Over> {
        self.say(0, notice, Vec::new())
    }

    fn say<T: Serialize>(&mut self, id: u64, body: T, fds: Vec<OwnedFd>) -> Result<(), Over> {
        let text = serde_json::to_vec(&Envelope { v: VERSION, id, body });
        let text = text.ok().filter(|text| text.len() <= LONGEST);
        let text = text.ok_or_else(|| Over(Some("a message is too long to be told".to_owned())))?;
        if self.waiting.len() >= MOST_WAITING {
            return Err(Over(Some("it does not take what it is told".to_owned())));
        }
        self.waiting.push_back((text, fds));
        self.flush()
    }

    /// Hands over what it takes now.
    pub(super) fn flush(&mut self) -> Result<(), Over> {
        while let Some((text, fds)) = self.waiting.front() {
            let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
            match socket::send(self.socket.as_fd(), text, &fds) {
                Ok(()) => drop(self.waiting.pop_front()),
                Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) => return Ok(()),
                Err(error) => return Err(Over::because("telling the client", &error)),
            }
        }
        Ok(())
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Connection {
    /// Not closed alone: a process that was born and is still frozen is a copy of us and holds it open.
    fn drop(&mut self) {
        hang_up(&self.socket);
    }
}

fn hang_up(socket: &OwnedFd) {
    // Where the other end has gone already, it fails and nothing is left to do.
    let _ = shutdown(socket.as_raw_fd(), Shutdown::Both);
}

/// Tells a connection that is not taken why, and closes it.
pub(super) fn turn_away(socket: &OwnedFd, why: &str) {
    let text = serde_json::to_vec(&Envelope { v: VERSION, id: 0, body: Refused::new(why).reply() });
    // Who is turned away and does not listen is told nothing.
    let _ = socket::send(socket.as_fd(), &text.unwrap_or_default(), &[]);
    hang_up(socket);
}

//! The daemon's end of the connection to the keeper.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket};
use thiserror::Error;
use tokio::io::unix::AsyncFd;

use super::protocol::{Envelope, Held, LONGEST, MOST_FDS, Notice, Reply, Request, Terms, VERSION};
use super::socket::{self, Datagram};
use crate::keeper::pidfd::PidFd;
use crate::kernel::poll;

/// How long a reply is waited for. The keeper waits for nothing but a removal, and for that a tenth of a second.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Why the keeper could not be asked, or its answer not be had.
///
/// After any of these the connection is of no more use: connect again, and be told what is held.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody listens, or the keeper hung up or refused the connection.
    #[error("the keeper is not there: {0}")]
    Lost(String),
    /// It is there and does not answer: stopped, or busy for ever. Whether a request was carried out is not known, and
    /// it may be carried out later. As long as the process lives no other keeper can take its place.
    #[error(
        "the keeper, process {pid}, lives and has not answered for {seconds} s: see whether it was stopped, \
         `kill -CONT {pid}` lets it go on",
        pid = .0.pid(), seconds = PATIENCE.as_secs()
    )]
    Hangs(Arc<PidFd>),
    /// It said what cannot be understood, or was to be told what cannot be said.
    #[error("the keeper and this agent-loop do not understand each other: {0}")]
    Protocol(String),
    /// A system call failed.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

fn io(doing: &'static str) -> impl FnOnce(io::Error) -> ClientError {
    move |source| match source.raw_os_error() {
        Some(libc::EPIPE | libc::ECONNRESET | libc::ECONNREFUSED | libc::ENOENT) => {
            ClientError::Lost(format!("{doing}: {source}"))
        }
        _ => ClientError::Io { doing, source },
    }
}

fn protocol(what: impl std::fmt::Display) -> ClientError {
    ClientError::Protocol(what.to_string())
}

/// What the keeper says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// Its number.
    pub pid: u32,
    /// The boot it runs in.
    pub boot_id: String,
    /// What it was started with.
    pub terms: Terms,
    /// How much it does of what was added within the version: the answer to [`Request::Revision`].
    pub revision: usize,
}

/// An answer and the descriptors that came with it.
#[derive(Debug)]
pub struct Answered {
    /// What the keeper answered, [`Reply::Refused`] included.
    pub reply: Reply,
    /// The descriptors beside it.
    pub fds: Vec<OwnedFd>,
}

/// One of what the keeper says.
enum Said {
    Reply(u64, Answered),
    Notice(Notice),
}

/// A connection to the keeper.
#[derive(Debug)]
pub struct Client {
    socket: AsyncFd<OwnedFd>,
    /// The keeper's pidfd: a process that is still frozen is a copy of its keeper, and holds the connection open when
    /// that is dead.
    keeper: AsyncFd<OwnedFd>,
    pidfd: Arc<PidFd>,
    /// The number of the last request.
    asked: u64,
    notices: VecDeque<Notice>,
}

impl Client {
    /// Connects, says hello and is told what the keeper holds. To be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`ClientError::Lost`] where no keeper answers or another client has the place; [`ClientError::Protocol`] where
    /// it speaks another version, or belongs to another user than root or ours.
    pub async fn connect(path: &Path) -> Result<(Self, Vec<Held>, Welcome), ClientError> {
        Self::connect_within(path, Some(PATIENCE)).await
    }

    /// As [`Client::connect`], waiting for the welcome as long as this, without a limit until the keeper's end.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn connect_within(
        path: &Path,
        patience: Option<Duration>,
    ) -> Result<(Self, Vec<Held>, Welcome), ClientError> {
        let doing = "connecting to the keeper's socket";
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let failed = |errno: Errno| io(doing)(errno.into());
        let fd = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).map_err(failed)?;
        connect(std::os::fd::AsRawFd::as_raw_fd(&fd), &UnixAddr::new(path).map_err(failed)?).map_err(failed)?;
        let peer = getsockopt(&fd, PeerCredentials).map_err(failed)?;
        if peer.uid() != 0 && peer.uid() != nix::unistd::geteuid().as_raw() {
            return Err(protocol(format!("it runs as user {}, neither root nor ours", peer.uid())));
        }
        // Before it is asked for anything: what answers as this process afterwards is this process.
        let pidfd = u32::try_from(peer.pid()).ok().map_or(Ok(None), PidFd::open).map_err(io(doing))?;
        let pidfd = Arc::new(pidfd.ok_or_else(|| ClientError::Lost("whoever listened there is dead".to_owned()))?);
        let keeper = pidfd.as_fd().try_clone_to_owned().map_err(io(doing))?;
        let mut client = Self {
            socket: poll::register(fd).map_err(io(doing))?,
            keeper: poll::register(keeper).map_err(io(doing))?,
            pidfd: Arc::clone(&pidfd),
            asked: 0,
            notices: VecDeque::new(),
        };
        let (pid, boot_id, terms) = match client.ask_within(Request::Hello, &[], patience).await?.reply {
            Reply::Welcome { pid, boot_id, terms } => (pid, boot_id, terms),
            Reply::Refused { why, .. } => return Err(protocol(why)),
            other @ (Reply::Revision { .. }
            | Reply::Prepared { .. }
            | Reply::Born { .. }
            | Reply::Adopted { .. }
            | Reply::Signalled { .. }
            | Reply::Done) => return Err(protocol(format!("{other:?} in answer to hello"))),
        };
        let revision = match client.ask_within(Request::Revision, &[], patience).await?.reply {
            Reply::Revision { number } => number,
            // One of before: it does not know the question.
            Reply::Refused { .. } => 0,
            other @ (Reply::Welcome { .. }
            | Reply::Prepared { .. }
            | Reply::Born { .. }
            | Reply::Adopted { .. }
            | Reply::Signalled { .. }
            | Reply::Done) => return Err(protocol(format!("{other:?} in answer to the question for its revision"))),
        };
        if pid != pidfd.pid() {
            return Err(protocol(format!("process {} answers as {pid}", pidfd.pid())));
        }
        let (mut held, mut others) = (Vec::new(), VecDeque::new());
        for notice in client.notices.drain(..) {
            match notice {
                Notice::Held(run) => held.push(run),
                other @ (Notice::Start { .. } | Notice::Exited { .. } | Notice::Output(_)) => others.push_back(other),
            }
        }
        client.notices = others;
        Ok((client, held, Welcome { pid, boot_id, terms, revision }))
    }

    /// Asks, and waits for the reply, 5 seconds at most. Notices that come meanwhile wait for [`Client::notice`].
    ///
    /// Not cancel-safe in this: a request whose answer was not waited for may have been carried out. Its late reply
    /// is thrown away, with its descriptors.
    ///
    /// # Errors
    /// [`ClientError::Lost`] when the keeper hung up, [`ClientError::Hangs`] when it does not answer in time. A refusal
    /// is no error.
    pub async fn ask(&mut self, request: Request, fds: &[BorrowedFd<'_>]) -> Result<Answered, ClientError> {
        self.ask_within(request, fds, Some(PATIENCE)).await
    }

    async fn ask_within(
        &mut self,
        request: Request,
        fds: &[BorrowedFd<'_>],
        patience: Option<Duration>,
    ) -> Result<Answered, ClientError> {
        if fds.len() > MOST_FDS {
            return Err(protocol(format!("{} descriptors are more than {MOST_FDS}", fds.len())));
        }
        self.asked += 1;
        let id = self.asked;
        let text = serde_json::to_vec(&Envelope { v: VERSION, id, body: request }).map_err(protocol)?;
        if text.len() > LONGEST {
            return Err(protocol(format!("a request of {} bytes is longer than {LONGEST}", text.len())));
        }
        let answer = async {
            self.send(&text, fds).await?;
            loop {
                match self.said().await? {
                    Said::Notice(notice) => self.notices.push_back(notice),
                    Said::Reply(replied, answered) if replied == id => return Ok(answered),
                    // Of a request whose asker was cancelled.
                    Said::Reply(replied, _) if (1..id).contains(&replied) => {}
                    Said::Reply(replied, answered) => {
                        return Err(protocol(format!("{:?} in answer to {replied}, asked was {id}", answered.reply)));
                    }
                }
            }
        };
        let Some(patience) = patience else { return answer.await };
        match tokio::time::timeout(patience, answer).await {
            Ok(answered) => answered,
            Err(_) => Err(self.hangs()),
        }
    }

    /// Nothing was heard of it for too long: it lives, by its own descriptor, or it is dead.
    fn hangs(&self) -> ClientError {
        match self.pidfd.has_exited() {
            Ok(false) => ClientError::Hangs(Arc::clone(&self.pidfd)),
            Ok(true) => ClientError::Lost("it is dead".to_owned()),
            Err(source) => ClientError::Io { doing: "asking whether the keeper lives", source },
        }
    }

    /// Waits for the next notice. Cancel-safe: none is lost.
    ///
    /// # Errors
    /// [`ClientError::Lost`] when the keeper hung up.
    pub async fn notice(&mut self) -> Result<Notice, ClientError> {
        loop {
            if let Some(notice) = self.notices.pop_front() {
                return Ok(notice);
            }
            match self.said().await? {
                Said::Notice(notice) => return Ok(notice),
                Said::Reply(id, _) if (1..=self.asked).contains(&id) => {}
                Said::Reply(id, answered) => {
                    return Err(protocol(format!("{:?} in answer to {id}, which was not asked", answered.reply)));
                }
            }
        }
    }

    async fn send(&self, text: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), ClientError> {
        let doing = "asking the keeper";
        loop {
            let mut ready = self.socket.writable().await.map_err(io(doing))?;
            if let Ok(sent) = ready.try_io(|socket| socket::send(socket.as_fd(), text, fds)) {
                return sent.map_err(io(doing));
            }
        }
    }

    /// The next message. Nothing is awaited after it was taken from the socket.
    async fn said(&self) -> Result<Said, ClientError> {
        let doing = "hearing the keeper";
        loop {
            let (mut ready, dead) = tokio::select! {
                biased;
                ready = self.socket.readable() => (ready.map_err(io(doing))?, false),
                dead = self.keeper.readable() => (dead.map_err(io(doing))?, true),
            };
            if dead {
                // What it said before is heard first; its end stays to be seen.
                ready.retain_ready();
                return match socket::receive(self.socket.as_fd()) {
                    Ok(Some(datagram)) => read(datagram),
                    Ok(None) | Err(_) => Err(ClientError::Lost("it is dead".to_owned())),
                };
            }
            if let Ok(received) = ready.try_io(|socket| socket::receive(socket.as_fd())) {
                let datagram = received.map_err(io(doing))?;
                return read(datagram.ok_or_else(|| ClientError::Lost("it hung up".to_owned()))?);
            }
        }
    }
}

fn read(datagram: Datagram) -> Result<Said, ClientError> {
    let Datagram { bytes, fds, cut } = datagram;
    if cut {
        return Err(protocol("a message was cut off"));
    }
    let Envelope { v, id, body } = serde_json::from_slice::<Envelope<serde_json::Value>>(&bytes).map_err(protocol)?;
    if v != VERSION {
        return Err(protocol(format!("the keeper speaks version {v}, this agent-loop {VERSION}")));
    }
    if id != 0 {
        return Ok(Said::Reply(id, Answered { reply: serde_json::from_value(body).map_err(protocol)?, fds }));
    }
    match serde_json::from_value(body.clone()) {
        Ok(notice) => Ok(Said::Notice(notice)),
        // What is refused under no number is the connection itself.
        Err(error) => match serde_json::from_value(body) {
            Ok(Reply::Refused { why, .. }) => Err(ClientError::Lost(format!("it refused the connection: {why}"))),
            _ => Err(protocol(error)),
        },
    }
}

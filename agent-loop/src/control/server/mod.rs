//! The daemon's end of the control socket: HTTP/1.1 on a Unix socket, one request for each connection.
//!
//! Inside: who may connect and write, the routes, the streams, and limits on everything a client can do.
//! Not inside: an answer; those come from the daemon's shell. Run by the daemon alone.

mod metrics;
mod patience;
mod peer;
mod place;
mod routes;
mod stream;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::response::IntoResponse as _;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::patience::Patient;
pub use self::place::BindError;
use self::place::Place;
pub(super) use self::routes::MOST_RUNS;
use self::routes::{Desk, Failure, Peer};
use super::api::{Caller, Questions};

/// Who may do what, beyond root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// The group whose members may read; without one, root and the owner alone.
    pub group: Option<u32>,
    /// The user who may read and write.
    pub owner: Option<u32>,
}

impl Access {
    /// Whether this user may start and stop runs.
    #[must_use]
    pub fn may_write(self, uid: u32) -> bool {
        uid == 0 || self.owner == Some(uid)
    }
}

/// What a client may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Clients at once.
    pub clients: usize,
    /// So many of these places are for root and the owner alone: readers cannot keep them from stopping a run.
    pub kept: usize,
    /// Bytes of a request's head; at least 8192.
    pub head_bytes: usize,
    /// Bytes of a request's body.
    pub body_bytes: usize,
    /// Time to send a request.
    pub request: Duration,
    /// Time that the daemon has for its answer.
    pub answer: Duration,
    /// Time that a client has to read on, each time that nothing more fits into its socket.
    pub stall: Duration,
    /// How often a followed file is looked at.
    pub poll: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            clients: 64,
            kept: 8,
            head_bytes: 16 << 10,
            body_bytes: 256 << 10,
            request: Duration::from_secs(10),
            answer: Duration::from_secs(10),
            stall: Duration::from_secs(30),
            poll: Duration::from_millis(200),
        }
    }
}

/// Clients beyond the limit that are told so, at once; those beyond them are only hung up on.
const TOLD: usize = 16;

/// The bound control socket.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    /// Removes the path at the end.
    _place: Place,
    access: Access,
    limits: Limits,
    peer: fn(&UnixStream) -> io::Result<u32>,
}

impl Server {
    /// Binds the socket, with mode 0660 for a group, else 0600. A path that nobody answers on is taken over.
    ///
    /// Needs a Tokio runtime with IO and time.
    ///
    /// # Errors
    /// [`BindError::AlreadyRunning`] where somebody answers; [`BindError::Unsafe`] where anybody but root could
    /// replace the socket; [`BindError::Failed`] for what the kernel refuses.
    pub async fn bind(path: &Path, access: Access) -> Result<Self, BindError> {
        let (listener, place) = place::bind(path, access).await?;
        Ok(Self { listener, _place: place, access, limits: Limits::default(), peer: peer_uid })
    }

    /// Sets other limits.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Serves until it is dropped, which ends every connection and removes the path.
    ///
    /// It blocks on no client and on no file; questions that the daemon does not take in time are answered for it.
    pub async fn serve(self, questions: Questions) {
        let desk = Desk { questions, limits: self.limits };
        let places = Arc::new(Semaphore::new(self.limits.clients.saturating_sub(self.limits.kept)));
        let kept = Arc::new(Semaphore::new(self.limits.kept));
        let told = Arc::new(Semaphore::new(TOLD));
        let mut connections = JoinSet::new();
        loop {
            let stream = tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    // Out of descriptors or memory: those who are served will give some back.
                    Err(_) => {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                },
                Some(_) = connections.join_next() => continue,
            };
            let Ok(uid) = (self.peer)(&stream) else { continue };
            let may_write = self.access.may_write(uid);
            // Only what writes is recorded with who asked for it.
            let (pid, cgroup) = if may_write { peer::process(&stream) } else { (None, None) };
            let caller = Caller { uid, pid, cgroup, may_write };
            let limits = self.limits;
            let place = Arc::clone(&places).try_acquire_owned();
            let place = place.or_else(|full| if may_write { Arc::clone(&kept).try_acquire_owned() } else { Err(full) });
            if let Ok(place) = place {
                let peer = Peer { caller, until: Instant::now() + limits.request };
                let service = TowerToHyperService::new(routes::router(desk.clone(), peer));
                connections.spawn(async move {
                    // A client that breaks off, stalls or is not speaking HTTP has been told or is gone.
                    let _ = protocol(limits).serve_connection(io(stream, limits), service).await;
                    drop(place);
                });
            } else if let Ok(place) = Arc::clone(&told).try_acquire_owned() {
                connections.spawn(async move {
                    let refuse = service_fn(|_| async { Ok::<_, Infallible>(Failure::full().into_response()) });
                    let _ = protocol(limits).serve_connection(io(stream, limits), refuse).await;
                    drop(place);
                });
            }
        }
    }
}

fn io(stream: UnixStream, limits: Limits) -> TokioIo<Patient> {
    TokioIo::new(Patient::new(stream, limits.stall))
}

fn protocol(limits: Limits) -> http1::Builder {
    let mut protocol = http1::Builder::new();
    // One request for each connection: its credentials, its place among the clients and its time are its own.
    protocol.keep_alive(false).max_buf_size(limits.head_bytes).max_headers(64);
    protocol.timer(TokioTimer::new()).header_read_timeout(limits.request);
    protocol
}

/// Who connected, by the kernel (SO_PEERCRED).
fn peer_uid(stream: &UnixStream) -> io::Result<u32> {
    stream.peer_cred().map(|cred| cred.uid())
}

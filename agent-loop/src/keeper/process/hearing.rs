//! What a keeper makes of one datagram, with nothing of it carried out: for those who send what nobody should.

use std::io;
use std::os::fd::BorrowedFd;

use super::given::{self, Given};
use super::protocol::{Request, Terms, Unreadable, read_request};
use super::socket::{self, Datagram};

/// What was heard. Every descriptor that came along is closed by then.
#[derive(Debug)]
pub struct Heard {
    /// The request.
    pub request: Result<(u64, Request), Unreadable>,
    /// How many descriptors came along.
    pub fds: usize,
    /// Whether text or descriptors were cut off: such a request is refused unread.
    pub cut: bool,
    /// Whether the descriptors are those that belong to the request.
    pub fitting: bool,
}

/// Hears one datagram as the keeper's loop does; `None` where the other end has hung up.
///
/// # Errors
/// What receiving reports.
pub fn hear(socket: BorrowedFd<'_>) -> io::Result<Option<Heard>> {
    let Some(Datagram { bytes, fds, cut }) = socket::receive(socket)? else { return Ok(None) };
    let (count, request) = (fds.len(), read_request(&bytes));
    let fitting = match &request {
        Ok((_, Request::Launch { fds: announced, .. })) => {
            // As a keeper that was started for nobody's account in particular.
            let terms = Terms { runs: String::new(), pins: None, users: vec!["nobody".to_owned()], allow_root: false };
            Given::take(fds, true, *announced).and_then(|given| given.spec(&terms)).is_ok()
        }
        Ok((_, Request::Adopt { fds: announced, .. })) => Given::take(fds, false, *announced).is_ok(),
        Ok(_) | Err(_) => given::nothing(&fds).is_ok(),
    };
    Ok(Some(Heard { request, fds: count, cut, fitting }))
}

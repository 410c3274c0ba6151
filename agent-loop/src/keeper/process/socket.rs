//! Datagrams with descriptors beside them, as both ends of the keeper's socket send and receive them.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use super::protocol::{LONGEST, MOST_FDS};

/// What one `recvmsg` brought.
#[derive(Debug)]
pub(super) struct Datagram {
    /// Its text.
    pub(super) bytes: Vec<u8>,
    /// Its descriptors, closed on execve; they are closed with the value.
    pub(super) fds: Vec<OwnedFd>,
    /// Whether text or descriptors were cut off: it was longer than [`LONGEST`], or had more than [`MOST_FDS`].
    pub(super) cut: bool,
}

/// Room for [`MOST_FDS`] descriptors, aligned as `struct cmsghdr` is.
#[repr(C, align(16))]
struct Control([u8; CONTROL]);

const CONTROL: usize = 256;
const _: () = {
    // SAFETY: arithmetic alone.
    let needed = unsafe { libc::CMSG_SPACE((MOST_FDS * size_of::<RawFd>()) as u32) };
    assert!(needed as usize <= CONTROL);
};

/// Receives one datagram without waiting; `None` where the other end has hung up.
///
/// An empty datagram cannot be told from that and counts as it.
///
/// # Errors
/// EAGAIN when there is none; ECONNRESET where the other end died with unread messages; whatever else the kernel says.
pub(super) fn receive(socket: BorrowedFd<'_>) -> io::Result<Option<Datagram>> {
    let mut bytes = vec![0; LONGEST];
    let mut control = Control([0; CONTROL]);
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: an all-zero msghdr is a valid value of this plain C struct.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = CONTROL;
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: text and control buffers outlive the call and are as long as the message says.
    let got = Errno::result(unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) })?;
    let fds = descriptors(&message);
    bytes.truncate(usize::try_from(got).unwrap_or(0));
    // More than MOST_FDS can fit into the padding of the buffer.
    let cut = message.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 || fds.len() > MOST_FDS;
    Ok((!bytes.is_empty()).then_some(Datagram { bytes, fds, cut }))
}

/// Takes over every descriptor that came with a message: what is not taken would stay open for ever.
fn descriptors(message: &libc::msghdr) -> Vec<OwnedFd> {
    let mut fds = Vec::new();
    // SAFETY: the kernel has filled the control buffer and set its length.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: null, or a header within the control buffer, which is aligned for it.
    while let Some(control) = unsafe { header.as_ref() } {
        if control.cmsg_level == libc::SOL_SOCKET && control.cmsg_type == libc::SCM_RIGHTS {
            // SAFETY: arithmetic alone.
            let head = unsafe { libc::CMSG_LEN(0) } as usize;
            // SAFETY: the header is within the buffer; its data lies behind it.
            let data = unsafe { libc::CMSG_DATA(header) };
            for index in 0..control.cmsg_len.saturating_sub(head) / size_of::<RawFd>() {
                // SAFETY: `index` is below the number of descriptors that the kernel wrote there.
                let place = unsafe { data.cast::<RawFd>().add(index) };
                // SAFETY: it points to one of them.
                let fd = unsafe { place.read_unaligned() };
                // SAFETY: the kernel has just made it for us, and nobody else owns it.
                fds.push(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
        // SAFETY: as for the first header.
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    fds
}

/// Sends one datagram without waiting, whole or not at all.
///
/// # Errors
/// EAGAIN when the other end does not take it now; EPIPE when it has hung up.
pub(super) fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &[][..] } else { &rights[..] };
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], control, flags, None)?;
    Ok(())
}

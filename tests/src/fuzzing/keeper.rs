//! A datagram to the keeper, with descriptors beside it.

use std::fs::File;
use std::io::{IoSlice, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use agent_loop::keeper::process::hearing::{Heard, hear};
use agent_loop::keeper::process::protocol::{Envelope, LONGEST, MOST_FDS, VERSION, read_request};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, setsockopt, socketpair, sockopt,
};
use nix::unistd::pipe2;

/// The most descriptors that are sent.
const MOST_SENT: usize = 40;

/// What separates the text from what its first descriptor holds.
const END: u8 = 0xff;

/// The first byte says how many descriptors come along, the second of what kinds; then the text; after [`END`] what
/// the memory file holds that is the first of them.
pub(super) fn run(bytes: &[u8]) {
    let [count, kinds, rest @ ..] = bytes else { return };
    let (text, spec) = match rest.iter().position(|&byte| byte == END) {
        Some(at) => (&rest[..at], &rest[at + 1..]),
        None => (rest, &[][..]),
    };
    if text.is_empty() {
        return;
    }
    let count = usize::from(*count) % (MOST_SENT + 1);
    let (watch, last) = pipe2(nix::fcntl::OFlag::O_CLOEXEC).expect("a pipe");
    let mut fds: Vec<OwnedFd> = Vec::new();
    while fds.len() + 1 < count {
        let fd = match (fds.len(), kinds >> (fds.len() % 8) & 1) {
            (0, kind) => memory(spec, kind == 1),
            (_, 0) => File::open("/dev/null").expect("/dev/null").into(),
            (_, _) => last.try_clone().expect("a descriptor"),
        };
        fds.push(fd);
    }
    if count > 0 {
        fds.push(last);
    } else {
        drop(last);
    }
    let Some(heard) = pass(text, fds) else { return };
    check(text, count, &heard);
    // Who passed them has closed them; who heard them too, or the pipe would still have a writer.
    let mut polled = [PollFd::new(watch.as_fd(), PollFlags::POLLIN)];
    poll(&mut polled, PollTimeout::ZERO).expect("polled");
    let events = polled[0].revents().unwrap_or(PollFlags::empty());
    assert!(events.contains(PollFlags::POLLHUP), "a descriptor was left open");
}

fn memory(bytes: &[u8], seal: bool) -> OwnedFd {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut file = File::from(memfd_create(c"spec", flags).expect("a memory file"));
    file.write_all(bytes).expect("written");
    if seal {
        let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).expect("sealed");
    }
    file.into()
}

fn pass(text: &[u8], fds: Vec<OwnedFd>) -> Option<Heard> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let (from, to) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).expect("a pair of sockets");
    setsockopt(&from, sockopt::SndBuf, &(4 * LONGEST)).expect("room");
    let raw: Vec<i32> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &[][..] } else { &rights[..] };
    // What the kernel itself does not take is not heard.
    sendmsg::<()>(from.as_raw_fd(), &[IoSlice::new(text)], control, MsgFlags::MSG_DONTWAIT, None).ok()?;
    drop(fds);
    hear(to.as_fd()).expect("heard")
}

fn check(text: &[u8], count: usize, heard: &Heard) {
    assert_eq!(heard.cut, text.len() > LONGEST || count > MOST_FDS, "{} bytes, {count} descriptors", text.len());
    assert!(heard.cut || heard.fds == count, "{} of {count} descriptors", heard.fds);
    match &heard.request {
        Ok((id, request)) => {
            assert_ne!(*id, 0);
            let again = serde_json::to_vec(&Envelope { v: VERSION, id: *id, body: request }).expect("written");
            // Written by us it may be longer than what was read.
            if again.len() <= LONGEST {
                assert_eq!(read_request(&again), Ok((*id, request.clone())));
            }
        }
        Err(unreadable) => assert!(!unreadable.why.is_empty()),
    }
}

//! Which standard streams our caller had closed.
//!
//! The Rust runtime opens /dev/null in their place before `main`, so that no file of ours can take their number and
//! get what is meant for them. That is right for the command too, but an answer written there would be lost.

use std::sync::atomic::{AtomicU8, Ordering};

/// A bit for each of the descriptors 0, 1 and 2.
static CLOSED: AtomicU8 = AtomicU8::new(0);

// SAFETY: the C library calls every function of this section once before `main`; this one needs nothing that is
// set up later, and ignores the arguments it is given.
#[unsafe(link_section = ".init_array")]
#[used]
static LOOK: extern "C" fn() = look;

extern "C" fn look() {
    for fd in 0..3u8 {
        // SAFETY: fcntl with integers.
        if unsafe { libc::fcntl(i32::from(fd), libc::F_GETFD) } < 0 {
            CLOSED.fetch_or(1 << fd, Ordering::Relaxed);
        }
    }
}

/// Whether stdout was closed when we were started: it leads to /dev/null now.
#[must_use]
pub fn stdout_was_closed() -> bool {
    CLOSED.load(Ordering::Relaxed) & 1 << 1 != 0
}

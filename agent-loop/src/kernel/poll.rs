//! Readiness of file descriptors in the event loop.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use aya::maps::{MapData, RingBuf};
use tokio::io::unix::AsyncFd;

/// A source of readiness that owns its descriptor for as long as it lives.
pub(crate) trait Owned: AsRawFd {}

impl Owned for OwnedFd {}
impl Owned for RingBuf<MapData> {}

/// Registers a descriptor with the event loop.
///
/// # Errors
/// When it cannot be polled.
pub(crate) fn register<T: Owned>(source: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: an `Owned` source holds its one descriptor open until it is dropped, and always returns it.
    unsafe { AsyncFd::register(source) }.map_err(|error| error.into_parts().1)
}

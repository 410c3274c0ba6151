//! The live set of whichever process has pinned it.

use std::io;
use std::path::Path;

use aya::maps::{Map, MapData, MapError};

use super::live::LiveSet;

/// The name of the live set among the pins.
const NAME: &str = "LIVE";

/// A live set that another process keeps.
pub type PinnedLive = LiveSet;

/// Opens the live set below this directory of a bpffs; `None` where none is pinned.
///
/// Who opens it cannot know whether the program that keeps it is still attached.
///
/// # Errors
/// When something else is pinned there, or the kernel refuses.
pub fn pinned_live(pins: &Path) -> io::Result<Option<PinnedLive>> {
    let path = pins.join(NAME);
    match MapData::from_pin(&path) {
        Ok(data) => match LiveSet::new(Map::HashMap(data)) {
            Ok(set) => Ok(Some(set)),
            Err(error) => Err(io::Error::other(error)),
        },
        Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io::Error::other(error)),
    }
}

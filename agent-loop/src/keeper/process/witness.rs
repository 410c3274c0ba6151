//! The kernel's live set as the keeper may believe it: a pinned map, without knowing who still writes to it.

use std::io;
use std::path::Path;

use crate::keeper::pidfd::PidFd;
use crate::keeper::scan::{self, Stat};
use crate::keeper::signal;
use crate::kernel::{LiveSet, pins};
use crate::model::Live;

/// The live set, pinned by a daemon.
///
/// Where the program that keeps it was detached, an entry outlives its process and a stranger may have the number
/// by now. So an entry counts only if the process that has the number now agrees with it in all that can be seen.
pub(super) struct Witness(LiveSet);

impl Witness {
    /// Opens it anew: a daemon may have pinned another one meanwhile. `None` where there is none.
    ///
    /// # Errors
    /// When it is there and cannot be opened.
    pub(super) fn open(dir: &Path) -> io::Result<Option<Self>> {
        match pins::live_set(dir) {
            Ok(set) => Ok(Some(Self(set))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl signal::LiveSet for Witness {
    fn lookup(&self, tgid: u32) -> io::Result<Option<Live>> {
        let Some(live) = self.0.lookup(tgid)? else { return Ok(None) };
        let Some(fd) = PidFd::open(tgid)? else { return Ok(None) };
        let Some(stat) = Stat::read(tgid)? else { return Ok(None) };
        let tick = scan::ticks_to_ns(1);
        let same_start = stat.start_ticks == live.key.start_boottime_ns / tick;
        let same_inode = match (fd.ino(), live.ino) {
            (Some(now), Some(then)) => now == then,
            (None, _) | (_, None) => true,
        };
        Ok((same_start && same_inode).then_some(live))
    }
}

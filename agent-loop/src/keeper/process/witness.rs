//! The kernel's live set as the keeper may believe it: a pinned map, without knowing who still writes to it.

use std::io;
use std::path::{Path, PathBuf};

use crate::keeper::pidfd::PidFd;
use crate::keeper::scan::{self, Stat};
use crate::keeper::signal;
use crate::kernel::pins;
use crate::model::Live;

/// The live set, pinned by a daemon.
///
/// It is opened for each question, which comes after the descriptor was opened: its hooks are attached then, and had the
/// recorded process died before, they would have taken it out. Opened earlier, it could be detached meanwhile: an entry
/// would outlive its process and a stranger have the number, on kernels without inodes told from it by the tick alone
/// (`agent-loop-model` shows the way). Beside that, an entry counts only if the process that has the number now agrees
/// with it in all that can be seen.
pub(super) struct Witness {
    pins: PathBuf,
}

impl Witness {
    /// The one that a daemon has pinned there, now or later. `None` where there is none.
    ///
    /// # Errors
    /// When it is there and cannot be opened.
    pub(super) fn of(pins: &Path) -> io::Result<Option<Self>> {
        match pins::live_set(pins) {
            Ok(_) => Ok(Some(Self { pins: pins.to_owned() })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl signal::LiveSet for Witness {
    fn lookup(&self, tgid: u32) -> io::Result<Option<Live>> {
        let Some(live) = pins::live_set(&self.pins)?.lookup(tgid)? else { return Ok(None) };
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

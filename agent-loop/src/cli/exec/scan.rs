//! Births and deaths without eBPF: looks at the tree now and then and tells what changed.
//!
//! What lives between two looks is missed; that is why this is the degraded mode and says so.

use std::collections::{BTreeSet, HashMap};
use std::io;

use crate::event::Event;
use crate::keeper::pidfd::PidFd;
use crate::keeper::scan::Stat;
use crate::model::{Birth, BootNs, Death, Discovery, PidfsIno, ProcessKey, RunTag, Source, WaitStatus};

/// Who was there at the last look.
#[derive(Debug, Default)]
pub(super) struct Scan {
    known: HashMap<u32, (ProcessKey, Option<PidfsIno>)>,
    ended: HashMap<u32, WaitStatus>,
}

impl Scan {
    /// Notes the main process, whose birth is known otherwise.
    pub(super) fn main(&mut self, key: ProcessKey, ino: Option<PidfsIno>) {
        self.known.insert(key.tgid, (key, ino));
    }

    /// Notes how an orphan ended that we reaped.
    pub(super) fn reaped(&mut self, pid: u32, status: WaitStatus) {
        if self.known.contains_key(&pid) {
            self.ended.insert(pid, status);
        }
    }

    /// Compares the tree as it is now with the last look.
    ///
    /// A number that is held by another process than before is a death and a birth.
    pub(super) fn look(&mut self, pids: &BTreeSet<u32>, run: RunTag, main: u32, now: BootNs) -> Vec<Event> {
        let mut events = Vec::new();
        let mut seen = HashMap::new();
        for &pid in pids {
            // A process that cannot be looked at is gone, or will be seen at the next look.
            if let Ok(Some((key, ino, forker))) = identity(pid) {
                seen.insert(pid, (key, ino));
                if self.known.get(&pid).is_none_or(|(known, _)| *known != key) {
                    let forker = seen.get(&forker).or_else(|| self.known.get(&forker)).map(|(key, _)| *key);
                    events.push(Event::Born(Birth {
                        key,
                        ino,
                        run,
                        forker,
                        parent_tgid: None,
                        uid: None,
                        at: now,
                        discovery: Discovery::Scan,
                    }));
                }
            }
        }
        let gone: Vec<_> =
            self.known.iter().filter(|(pid, known)| seen.get(pid).is_none_or(|now| now.0 != known.0)).collect();
        for (&pid, &(key, ino)) in gone {
            // The main process's death is told by its own pidfd.
            if pid == main {
                continue;
            }
            let status = self.ended.remove(&pid);
            let source = if status.is_some() { Source::Waitid } else { Source::Scan };
            events.push(Event::Died(Death { key, ino, run, forker: None, status, at: now, source }));
        }
        if let Some(main) = self.known.remove(&main) {
            seen.entry(main.0.tgid).or_insert(main);
        }
        self.known = seen;
        events
    }
}

/// Who holds a number now: read, and only believed if the descriptor opened before is still alive after.
pub(super) fn identity(pid: u32) -> io::Result<Option<(ProcessKey, Option<PidfsIno>, u32)>> {
    let Some(fd) = PidFd::open(pid)? else { return Ok(None) };
    let Some(stat) = Stat::read(pid)? else { return Ok(None) };
    if fd.has_exited()? {
        return Ok(None);
    }
    Ok(Some((stat.key(), fd.ino(), stat.ppid)))
}

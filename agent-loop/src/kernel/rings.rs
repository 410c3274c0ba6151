//! Reads the rings in rounds: execs, births and deaths, execs again, merged by the time of their hooks.

use std::future::poll_fn;
use std::io;
use std::task::Poll;

use agent_loop_common::decode::{self, Record};
use agent_loop_common::record::flag;
use agent_loop_common::record::{BirthRecord, DeathRecord, ExecHeader};
use aya::maps::{MapData, RingBuf};
use tokio::io::unix::AsyncFd;

use super::live::{forker, ino};
use super::poll::register;
use crate::event::Event;
use crate::model::{Birth, BootNs, Death, Discovery, Exec, ProcessKey, RunTag, Source, WaitStatus};

/// How many records of a ring one round reads at most, so that a storm leaves time for everything else.
const ROUND_LIMIT: usize = 4096;

/// How many bytes of records one round reads of a ring at most, the last record beyond: four thousand command lines of
/// the longest kind would take seconds. As many records of the shortest kind are no fewer bytes than this, so that it
/// also says in how many rounds a full ring is read.
pub const ROUND_BYTES: usize = 256 << 10;

/// The two rings.
pub struct Rings {
    events: AsyncFd<RingBuf<MapData>>,
    execs: AsyncFd<RingBuf<MapData>>,
}

/// What one round read.
#[derive(Debug, Default)]
pub struct Round {
    /// Births, execs and deaths in the order of their hooks.
    pub events: Vec<Event>,
    /// Whether a ring still held records when the round ended.
    pub more: bool,
    /// Records that were not of this ABI.
    pub undecodable: u64,
}

impl Rings {
    pub(super) fn new(events: aya::maps::Map, execs: aya::maps::Map) -> anyhow::Result<Self> {
        let ring = |map| -> anyhow::Result<_> { Ok(register(RingBuf::<MapData>::try_from(map)?)?) };
        Ok(Self { events: ring(events)?, execs: ring(execs)? })
    }

    /// Waits until a ring holds records.
    ///
    /// # Errors
    /// When a ring can no longer be polled.
    pub async fn readable(&mut self) -> io::Result<()> {
        poll_fn(|cx| {
            for ring in [&self.events, &self.execs] {
                match ring.poll_read_ready(cx) {
                    // Cleared now, drained afterwards: a record that comes in between wakes us again.
                    Poll::Ready(Ok(mut guard)) => {
                        guard.clear_ready();
                        return Poll::Ready(Ok(()));
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => {}
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Reads one round, without waiting.
    ///
    /// EXECS is read before and after EVENTS: an exec is then never read after the death that followed it. One that
    /// comes in between EVENTS and the second look can be read a round before its birth; the tracker holds it.
    pub fn round(&mut self) -> Round {
        let mut round = Round::default();
        let mut timed = Vec::new();
        round.more |= drain(self.execs.get_mut(), &mut timed, &mut round.undecodable);
        round.more |= drain(self.events.get_mut(), &mut timed, &mut round.undecodable);
        round.more |= drain(self.execs.get_mut(), &mut timed, &mut round.undecodable);
        // Stable: records of one instant keep the order of their ring.
        timed.sort_by_key(|(at, _)| *at);
        round.events = timed.into_iter().map(|(_, event)| event).collect();
        round
    }
}

fn drain(ring: &mut RingBuf<MapData>, into: &mut Vec<(u64, Event)>, undecodable: &mut u64) -> bool {
    let mut bytes = 0;
    for _ in 0..ROUND_LIMIT {
        if bytes >= ROUND_BYTES {
            return true;
        }
        let Some(item) = ring.next() else { return false };
        bytes += item.len();
        match decode::record(&item) {
            Ok(Record::Birth(record)) => into.push((record.boot_ns, Event::Born(birth(&record)))),
            Ok(Record::Death(record)) => into.push((record.boot_ns, Event::Died(death(&record)))),
            Ok(Record::Exec { header, filename, argv }) => {
                into.push((header.boot_ns, Event::Execed(exec(&header, filename, argv))));
            }
            Err(_) => *undecodable += 1,
        }
    }
    true
}

fn birth(record: &BirthRecord) -> Birth {
    Birth {
        key: ProcessKey::new(record.tgid, record.start_boottime_ns),
        ino: ino(record.pidfs_ino),
        run: RunTag(record.run),
        forker: forker(record.forker_tgid, record.forker_start_boottime_ns),
        parent_tgid: (record.parent_tgid != 0).then_some(record.parent_tgid),
        uid: (record.uid != u32::MAX).then_some(record.uid),
        at: BootNs(record.boot_ns),
        discovery: if record.flags & flag::AT_EXEC != 0 {
            Discovery::Exec
        } else if record.flags & flag::AT_SNAPSHOT != 0 {
            Discovery::Snapshot
        } else {
            Discovery::Fork
        },
    }
}

fn death(record: &DeathRecord) -> Death {
    Death {
        key: ProcessKey::new(record.tgid, record.start_boottime_ns),
        ino: ino(record.pidfs_ino),
        run: RunTag(record.run),
        forker: forker(record.forker_tgid, record.forker_start_boottime_ns),
        status: record.wait_status().map(WaitStatus::from_raw),
        at: BootNs(record.boot_ns),
        source: Source::Kernel,
    }
}

fn exec(header: &ExecHeader, filename: &[u8], argv: &[u8]) -> Exec {
    const INCOMPLETE: u32 = flag::ARGV_TRUNCATED | flag::ARGV_UNREAD | flag::FILENAME_TRUNCATED;
    // Nothing captured is no argument; one empty argument is a terminator alone.
    let argv = if argv.is_empty() {
        Vec::new()
    } else {
        let argv = argv.strip_suffix(b"\0").unwrap_or(argv);
        argv.split(|byte| *byte == 0).map(|argument| String::from_utf8_lossy(argument).into_owned()).collect()
    };
    Exec {
        key: ProcessKey::new(header.tgid, header.start_boottime_ns),
        run: RunTag(header.run),
        at: BootNs(header.boot_ns),
        filename: String::from_utf8_lossy(filename).into_owned(),
        argv,
        argc: header.argc,
        argv_total: header.argv_total,
        truncated: header.flags & INCOMPLETE != 0,
        cwd: None,
        file: (header.exe_ino != 0).then_some((st_dev(header.exe_dev), header.exe_ino)),
        uid: Some(header.uid),
        source: Source::Kernel,
    }
}

/// A device as `stat` tells it. The kernel's own `dev_t` has 12 bits of major above 20 bits of minor
/// (`MKDEV`, linux/kdev_t.h); user space sees the minor's upper bits above the major.
fn st_dev(kernel: u32) -> u64 {
    libc::makedev(kernel >> 20, kernel & 0xf_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No process can be made to have this at its exec: the vector was written there a moment before.
    #[test]
    fn an_argv_that_could_not_be_read_is_told_as_missing_and_not_as_empty() {
        let header = ExecHeader {
            kind: agent_loop_common::record::kind::EXEC,
            flags: flag::ARGV_UNREAD,
            boot_ns: 7,
            start_boottime_ns: 5,
            pidfs_ino: 0,
            run: 1,
            exe_ino: 0,
            exe_dev: 0,
            tgid: 42,
            old_tid: 42,
            uid: 0,
            argc: 3,
            argv_total: 20,
            argv_len: 0,
            filename_cap: 0,
        };
        let unread = exec(&header, b"/bin/x", b"");
        assert!(unread.argv.is_empty() && unread.truncated, "{unread:?}");
        assert_eq!((unread.argc, unread.argv_total), (3, 20));
        // One empty argument is an argument, and whole.
        let whole = exec(&ExecHeader { flags: 0, argc: 1, argv_total: 1, argv_len: 1, ..header }, b"/bin/x", b"\0");
        assert_eq!((whole.argv, whole.truncated, whole.argv_total), (vec![String::new()], false, 1));
    }

    #[test]
    fn a_device_is_told_as_stat_tells_it() {
        for (major, minor) in [(0, 40), (8, 1), (254, 0), (259, 7), (0, 300), (4095, 0xf_ffff)] {
            let st_dev = st_dev(major << 20 | minor);
            assert_eq!((libc::major(st_dev), libc::minor(st_dev)), (major, minor));
        }
        assert_eq!(st_dev(254 << 20), 0xfe00);
        assert_eq!(st_dev(300), 0x10_002c);
    }
}

//! The live set and the run table: what the kernel knows at this moment.

use std::io;

use agent_loop_common::map::{LiveEntry, RunEntry};
use aya::Pod;
use aya::maps::{HashMap, IterableMap as _, MapData, MapError};

use super::Counters;
use crate::model::{Birth, BootNs, Discovery, Live, PidfsIno, ProcessKey, RunTag, Totals, WaitStatus};

/// [`LiveEntry`] as aya wants it.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct LivePod(LiveEntry);

// SAFETY: repr(C), integers only, padding explicit.
unsafe impl Pod for LivePod {}

/// [`RunEntry`] as aya wants it.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct RunPod(RunEntry);

// SAFETY: repr(C), integers only, padding explicit.
unsafe impl Pod for RunPod {}

/// Who is tracked and alive: an entry is there from the fork hook to the exit hook of its process.
pub struct LiveSet(HashMap<MapData, u32, LivePod>);

impl LiveSet {
    pub(super) fn new(map: aya::maps::Map) -> Result<Self, MapError> {
        Ok(Self(HashMap::try_from(map)?))
    }

    /// The live, tracked process that holds this number now.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn lookup(&self, tgid: u32) -> io::Result<Option<Live>> {
        match self.0.get(&tgid, 0) {
            Ok(LivePod(entry)) => Ok(Some(live(tgid, &entry))),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    /// The id that the kernel gave the map.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn id(&self) -> io::Result<u32> {
        self.0.map().info().map(|info| info.id()).map_err(io::Error::other)
    }

    /// The working directory of a process, if that can be read and the process is then still this one.
    ///
    /// What was read under the number is of this process only if it is alive after: it held the number all the time.
    #[must_use]
    pub fn cwd_of(&self, key: ProcessKey) -> Option<String> {
        let cwd = std::fs::read_link(format!("/proc/{}/cwd", key.tgid)).ok()?;
        let alive = self.lookup(key.tgid).is_ok_and(|live| live.is_some_and(|live| live.key == key));
        alive.then(|| cwd.to_string_lossy().into_owned())
    }

    /// Every live, tracked process. A walk beside changes may miss or repeat an entry: callers confirm.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn all(&self) -> io::Result<Vec<Live>> {
        let mut all = Vec::new();
        for entry in self.0.iter() {
            match entry {
                Ok((tgid, LivePod(entry))) => all.push(live(tgid, &entry)),
                Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        all.sort_unstable_by_key(|live| live.key);
        all.dedup();
        Ok(all)
    }
}

fn live(tgid: u32, entry: &LiveEntry) -> Live {
    Live {
        key: ProcessKey::new(tgid, entry.start_boottime_ns),
        ino: ino(entry.pidfs_ino),
        run: RunTag(entry.run),
        forker: forker(entry.forker_tgid, entry.forker_start_boottime_ns),
    }
}

pub(super) fn ino(raw: u64) -> Option<PidfsIno> {
    (raw != 0).then_some(PidfsIno(raw))
}

pub(super) fn forker(tgid: u32, start: u64) -> Option<ProcessKey> {
    (tgid != 0).then(|| ProcessKey::new(tgid, start))
}

/// The run table: which cgroups are runs, and how their main processes ended.
pub struct RunTable {
    runs: HashMap<MapData, u64, RunPod>,
    mains: HashMap<MapData, u64, u32>,
}

/// What the kernel knows of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its main process, once it was born.
    pub main: Option<ProcessKey>,
    /// How and when its main process ended, once it did. No status is one that the kernel side could not read for
    /// certain: unknown, never success.
    pub exit: Option<(Option<WaitStatus>, BootNs)>,
}

impl RunTable {
    pub(super) fn new(runs: aya::maps::Map, mains: aya::maps::Map) -> Result<Self, MapError> {
        Ok(Self { runs: HashMap::try_from(runs)?, mains: HashMap::try_from(mains)? })
    }

    /// Makes a cgroup a run: processes born in it are tracked from now on.
    ///
    /// # Errors
    /// AlreadyExists when it is one; StorageFull when the table is full; else when it cannot be written.
    pub fn insert(&mut self, run: RunTag) -> io::Result<()> {
        const NOEXIST: u64 = 1;
        self.runs.insert(run.0, RunPod(RunEntry::default()), NOEXIST).map_err(|error| {
            let MapError::SyscallError(why) = &error else { return io::Error::other(error) };
            match why.io_error.raw_os_error() {
                Some(libc::E2BIG) => io::Error::new(
                    io::ErrorKind::StorageFull,
                    "the kernel's table of runs is full; runs that are over have to be forgotten first",
                ),
                Some(libc::EEXIST) => {
                    io::Error::new(io::ErrorKind::AlreadyExists, "this cgroup is a run in the kernel's table already")
                }
                Some(_) | None => io::Error::other(error),
            }
        })
    }

    /// What the hooks saw and lost of one run's processes, whatever else the host did; `None` where the run is not in
    /// the table. What cannot be told by run (`live_full`, `stale`, `missed`) is the host's.
    ///
    /// Exact once the run's cgroup is empty. A process that was tracked before its run was inserted, or dies after it
    /// was removed, is counted by the host's counters alone.
    ///
    /// # Errors
    /// When the table or the counters cannot be read.
    pub fn totals(&self, run: RunTag, host: &Counters) -> io::Result<Option<Totals>> {
        let RunPod(entry) = match self.runs.get(&run.0, 0) {
            Ok(entry) => entry,
            Err(MapError::KeyNotFound) => return Ok(None),
            Err(error) => return Err(io::Error::other(error)),
        };
        Ok(Some(Totals {
            seen_fork: entry.seen_fork,
            seen_exec: entry.seen_exec,
            seen_exit: entry.seen_exit,
            lost_fork: entry.lost_fork,
            lost_exec: entry.lost_exec,
            lost_exit: entry.lost_exit,
            ..host.of_no_run()?
        }))
    }

    /// What the kernel knows of a run; `None` where it is not in the table.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn get(&self, run: RunTag) -> io::Result<Option<Run>> {
        match self.runs.get(&run.0, 0) {
            Ok(RunPod(entry)) => Ok(Some(known(&entry))),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    /// Makes a cgroup a run whose main process was born before: nobody else becomes it.
    ///
    /// # Errors
    /// As [`RunTable::insert`].
    pub fn insert_born(&mut self, run: RunTag, main: ProcessKey) -> io::Result<()> {
        const NOEXIST: u64 = 1;
        // The claim first: from the insert on a birth in the cgroup would make one.
        self.mains.insert(run.0, main.tgid, 0).map_err(io::Error::other)?;
        let entry =
            RunEntry { main_tgid: main.tgid, main_start_boottime_ns: main.start_boottime_ns, ..RunEntry::default() };
        self.runs.insert(run.0, RunPod(entry), NOEXIST).map_err(io::Error::other)
    }

    /// Every run of the table: in a pinned one also those that a daemon entered and did not live to remember.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn all(&self) -> io::Result<Vec<(RunTag, Run)>> {
        let mut all = Vec::new();
        for entry in self.runs.iter() {
            let (run, RunPod(entry)) = entry.map_err(io::Error::other)?;
            all.push((RunTag(run), known(&entry)));
        }
        all.sort_unstable_by_key(|(run, _)| *run);
        all.dedup_by_key(|(run, _)| *run);
        Ok(all)
    }

    /// Forgets a run, whether its main process was born or not; one that is not in the table is forgotten already.
    ///
    /// Only when its cgroup is empty: a hook still running for one of its processes could otherwise count for the run
    /// that gets the entry next.
    ///
    /// # Errors
    /// When the table cannot be written.
    pub fn remove(&mut self, run: RunTag) -> io::Result<()> {
        gone(self.mains.remove(&run.0))?;
        gone(self.runs.remove(&run.0))
    }
}

fn known(entry: &RunEntry) -> Run {
    Run { main: entry.main(), exit: entry.exit().map(|(status, at)| (status.map(WaitStatus::from_raw), BootNs(at))) }
}

/// A removal of what may not be there: aya tells that by the kernel's ENOENT.
fn gone(removed: Result<(), MapError>) -> io::Result<()> {
    match removed {
        Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(why)) if why.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        Err(error) => Err(io::Error::other(error)),
    }
}

/// The birth that a live entry stands for.
#[must_use]
pub fn birth_of(live: &Live, at: BootNs) -> Birth {
    Birth {
        key: live.key,
        ino: live.ino,
        run: live.run,
        forker: live.forker,
        parent_tgid: None,
        uid: None,
        at,
        discovery: Discovery::Snapshot,
    }
}

impl crate::keeper::signal::LiveSet for LiveSet {
    fn lookup(&self, tgid: u32) -> io::Result<Option<Live>> {
        Self::lookup(self, tgid)
    }
}

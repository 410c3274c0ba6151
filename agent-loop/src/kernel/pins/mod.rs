//! Tracing that outlives the daemon: maps, links and the snapshot program pinned on bpffs.
//!
//! Inside: opening a pinned set, proving that it is one and still attached, replacing one that is not, removing it.
//! Not inside: reading it (`rings`, `live`, `counters`). Called by the daemon; by the keeper for the live set alone.
//!
//! While the pins are there the kernel goes on recording, whoever reads: what it told stays in the rings (the reader's
//! position is in the ring too), the status of a run's main process in the run table. A set is complete only with its
//! [`ABI`](abi::Abi), which is pinned last and removed first: whatever was cut short is found without it and replaced.
//!
//! One process at a time opens or replaces the set: who calls holds the [`Claim`].

mod abi;
mod dir;

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use abi::Abi;
pub use abi::Why;
use anyhow::{Context as _, anyhow};
use aya::maps::{Map, MapData};
use dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::bpf::{self, Access, Kind};
use super::btf::{Layout, Tracepoints};
use super::hooks::{self, Hook};
use super::load::{self, Attached, LoadError, Options, Probes, Settings, Tracing};
use super::watch::Watch;
use super::{Counters, LiveSet, Rings, RunTable, object};
use crate::model::Live;

/// Where the daemon's set is pinned.
pub const DIR: &str = "/sys/fs/bpf/agent-loop";

/// The maps of a set, by the names they have in the eBPF program and as pins.
const MAPS: [&str; 7] = [LIVE, "RUNS", "MAINS", "WATCH", "EVENTS", "EXECS", "COUNTERS"];

/// The map that a keeper reads.
const LIVE: &str = "LIVE";

/// The program that no hook calls.
const SNAPSHOT: &str = "snapshot";

/// Where the tracing came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// From a pinned set: it has recorded without a break since it was loaded.
    Adopted,
    /// It was loaded now; what happened before is not known. Its run table, live set and counters are empty.
    Fresh {
        /// What was wrong with what was pinned.
        why: Why,
    },
}

/// Opens the pinned set if it is one that these options would load, proven object by object, else replaces it.
///
/// The directory is made if it is not there (its parent has to be on bpffs). The watch rules are rewritten in place.
/// Old hooks are detached before new ones are attached. `options.log` is not for pinned programs. Needs what
/// [`load`](super::load()) needs.
///
/// # Errors
/// As [`load`](super::load()); [`LoadError::Pins`] when the directory is not root's alone, not on bpffs, or holds what is
/// no pin, with nothing touched; [`LoadError::Refused`] too when a pin cannot be opened for want of rights or
/// descriptors: a set that records is not thrown away for that.
pub fn open_or_load(dir: &Path, options: &Options) -> Result<(Tracing, Found), LoadError> {
    let object = object::embedded().ok_or(LoadError::NoObject)?;
    let dir = Dir::create(dir).map_err(|error| LoadError::Pins(error.to_string()))?;
    let settings = Settings::of(options).map_err(LoadError::Refused)?;
    let wanted = Abi::of(object, options, &settings);
    let names = names(&dir)?;
    let why = match adopt(&dir, &names, &wanted, options) {
        Ok(tracing) => return Ok((tracing, Found::Adopted)),
        Err(Unfit::Replace(why)) => why,
        Err(Unfit::Failed(error)) => return Err(LoadError::Refused(error.context("opening the pinned set"))),
    };
    let layout = Layout::of_running_kernel()?;
    let options = Options { log: false, ..options.clone() };
    let tracing = replace(&dir, object, &layout, &wanted, &options).map_err(LoadError::Refused)?;
    load::give_back_memory();
    Ok((tracing, Found::Fresh { why }))
}

/// The right to open or replace the set of one directory, which one process at a time has.
///
/// It ends with the process, and is not left to what that executes.
#[derive(Debug)]
pub struct Claim {
    _dir: Flock<OwnedFd>,
}

/// Claims the directory, which is made if it is not there; `None` while another process has it.
///
/// Two readers of the rings would each miss what the other takes, and who replaces a set blinds the other.
///
/// # Errors
/// When the directory is not root's alone, not on bpffs, or cannot be made.
pub fn claim(dir: &Path) -> io::Result<Option<Claim>> {
    match Flock::lock(Dir::create(dir)?.into_fd(), FlockArg::LockExclusiveNonblock) {
        Ok(dir) => Ok(Some(Claim { _dir: dir })),
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(errno.into()),
    }
}

/// Removes the set, and so detaches its hooks, and the directory; what is not there is removed already.
///
/// A daemon that holds the set open keeps it attached, and goes on reading it, until it lets go.
///
/// # Errors
/// When the directory is not root's alone, holds what is no pin, or cannot be changed.
pub fn remove(dir: &Path) -> io::Result<()> {
    let path = dir;
    let dir = match Dir::open(path) {
        Ok(dir) => dir,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let names = names(&dir).map_err(|error| io::Error::new(io::ErrorKind::PermissionDenied, error.to_string()))?;
    clear(&dir, &names)?;
    std::fs::remove_dir(path)
}

/// Opens the live set of the pinned set, to read only, after proving that the set's hooks are attached.
///
/// For one question: whoever asks this live set again later may ask one that has been replaced or removed meanwhile,
/// that no hook maintains any more and that holds the dead for ever. [`PinnedLiveSet`] opens it for each.
///
/// # Errors
/// NotFound when there is no complete set; PermissionDenied when the directory is not root's alone; InvalidData when
/// the set is of another version, a hook is not attached, or its live set is not the one that was pinned.
pub fn live_set(dir: &Path) -> io::Result<LiveSet> {
    let unusable = |why: &Why| {
        let kind = match why {
            Why::Nothing | Why::Incomplete(_) => io::ErrorKind::NotFound,
            Why::Extra(_) | Why::Exposed(_) | Why::Version(_) | Why::Settings(_) | Why::Forged(_) => {
                io::ErrorKind::InvalidData
            }
        };
        io::Error::new(kind, format!("the pinned live set cannot be used: {why}"))
    };
    let dir = Dir::open(dir)?;
    let abi = Abi::read(&dir)?.map_err(|why| unusable(&why))?;
    if let Some(version) = abi.foreign_version() {
        return Err(unusable(&Why::Version(version)));
    }
    match hooks(&dir, &abi) {
        Ok(links) => drop(links),
        Err(Unfit::Replace(why)) => return Err(unusable(&why)),
        Err(Unfit::Failed(error)) => return Err(io::Error::other(format!("looking for the hooks: {error:#}"))),
    }
    let forged = || unusable(&Why::Forged(LIVE.to_owned()));
    let fd = bpf::open_pin(&dir.at(LIVE), Access::Read)
        .map_err(|error| if error.kind() == io::ErrorKind::InvalidInput { forged() } else { error })?;
    if !known(&fd, Kind::Map, abi.map(LIVE))? {
        return Err(forged());
    }
    let map = MapData::from_fd(fd).and_then(Map::from_map_data).and_then(LiveSet::new);
    map.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Checks that the set that is pinned now is whole, attached, and the one that `tracing` reads.
///
/// What is read stays attached as long as it is held open, whatever becomes of its pins.
///
/// # Errors
/// As [`live_set`]; AlreadyExists when another set is pinned there.
pub fn check(dir: &Path, tracing: &Tracing) -> io::Result<()> {
    let pinned = live_set(dir)?.id()?;
    if pinned == tracing.live.id()? {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, "another set than the one that is read is pinned"))
}

/// The live set of whatever set is pinned at the moment it is asked: what a keeper proves life with (I2).
///
/// It is opened anew for each question, which comes after the pidfd was opened. The ABI is removed before a hook is
/// detached, so when it was read the hooks were attached: had the recorded process died before the pidfd was opened,
/// its exit hook would have taken it out. Where there is no set the answer is an error: no proof.
#[derive(Clone, Debug)]
pub struct PinnedLiveSet {
    dir: PathBuf,
}

impl PinnedLiveSet {
    /// Of the set that is pinned in this directory, now or later.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }
}

impl crate::keeper::signal::LiveSet for PinnedLiveSet {
    fn lookup(&self, tgid: u32) -> io::Result<Option<Live>> {
        live_set(&self.dir)?.lookup(tgid)
    }
}

/// Why a set was not adopted.
enum Unfit {
    /// It is to be replaced.
    Replace(Why),
    /// It may be good, but could not be opened.
    Failed(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Unfit {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// The names in the directory, each with whether root alone can open it; refused when something is no pin.
fn names(dir: &Dir) -> Result<Vec<(String, bool)>, LoadError> {
    let entries =
        dir.entries().map_err(|error| LoadError::Pins(format!("reading {}: {error}", dir.path().display())))?;
    let named = entries.into_iter().map(|entry| {
        let name = entry.name.to_string_lossy().into_owned();
        match entry.pin && entry.name.to_str().is_some() {
            true => Ok((name, entry.private)),
            false => Err(LoadError::Pins(format!(
                "{} holds {name:?}, which agent-loop did not put there; remove it and start again",
                dir.path().display()
            ))),
        }
    });
    named.collect()
}

/// Every name of a set with these hooks.
fn all(tracepoints: Tracepoints) -> impl Iterator<Item = &'static str> {
    let hooks = hooks::hooks(tracepoints).iter().flat_map(|hook| [hook.pin, hook.name]);
    MAPS.into_iter().chain([SNAPSHOT]).chain(hooks).chain([abi::NAME])
}

/// Opens the set if it is complete, of this version and these settings, and each pin the object that was pinned there.
fn adopt(dir: &Dir, names: &[(String, bool)], wanted: &Abi, options: &Options) -> Result<Tracing, Unfit> {
    let replace = |why| Err(Unfit::Replace(why));
    if names.is_empty() {
        return replace(Why::Nothing);
    }
    // First what it says of itself: a set of another version may well have other names.
    let abi = Abi::read(dir)?.map_err(Unfit::Replace)?;
    if let Some(why) = abi.differs(wanted) {
        return replace(why);
    }
    let forged = || Err(Unfit::Replace(Why::Forged(abi::NAME.to_owned())));
    let Some(tracepoints) = abi.tracepoints() else { return forged() };
    let Some(exit) = abi.exit_hook() else { return forged() };
    if let Some(missing) = all(tracepoints).find(|name| !names.iter().any(|(there, _)| there == name)) {
        return replace(Why::Incomplete(missing.to_owned()));
    }
    if let Some((extra, _)) = names.iter().find(|(name, _)| !all(tracepoints).any(|ours| ours == name)) {
        return replace(Why::Extra(extra.clone()));
    }
    if let Some((exposed, _)) = names.iter().find(|(_, private)| !private) {
        return replace(Why::Exposed(exposed.clone()));
    }

    let links = hooks(dir, &abi)?;
    // Those that the links run: both were compared with the same ids.
    let programs = abi.hooks(tracepoints).map(|(hook, _, id)| object(dir, hook.pin, Kind::Program, id));
    let programs = programs.collect::<Result<Vec<_>, _>>()?;
    let snapshot = object(dir, SNAPSHOT, Kind::Program, abi.snapshot)?;
    let map = |name: &'static str| -> Result<Map, Unfit> {
        let fd = object(dir, name, Kind::Map, abi.map(name))?;
        Ok(Map::from_map_data(MapData::from_fd(fd)?)?)
    };
    let mut watch = Watch::new(map("WATCH")?)?;
    watch.reset(options)?;
    Ok(Tracing {
        watch,
        rings: Rings::new(map("EVENTS")?, map("EXECS")?)?,
        live: LiveSet::new(map(LIVE)?)?,
        runs: RunTable::new(map("RUNS")?, map("MAINS")?)?,
        counters: Counters::new(map("COUNTERS")?, hooks::watched(tracepoints, programs))?,
        probes: Probes::pinned(snapshot, links, exit, tracepoints),
    })
}

/// Opens the links of the set, each proven to attach the program that was pinned to the tracepoint that is its own.
fn hooks(dir: &Dir, abi: &Abi) -> Result<Vec<OwnedFd>, Unfit> {
    let forged = |name: &str| Unfit::Replace(Why::Forged(name.to_owned()));
    let tracepoints = abi.tracepoints().ok_or_else(|| forged(abi::NAME))?;
    let links = abi.hooks(tracepoints).map(|(hook, id, program)| {
        let link = object(dir, hook.name, Kind::Link, id)?;
        match bpf::attached(link.as_fd())? {
            Some(it) if it.program == program && it.tracepoint == hook.tracepoint => Ok(link),
            Some(_) | None => Err(forged(hook.name)),
        }
    });
    links.collect()
}

/// Opens the object that was pinned under this name.
fn object(dir: &Dir, name: &str, kind: Kind, id: u32) -> Result<OwnedFd, Unfit> {
    let fd = match bpf::open_pin(&dir.at(name), Access::Full) {
        Ok(fd) => fd,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Unfit::Replace(Why::Incomplete(name.to_owned())));
        }
        Err(error) => return Err(Unfit::Failed(anyhow::Error::new(error).context(format!("opening {name}")))),
    };
    match known(&fd, kind, id)? {
        true => Ok(fd),
        false => Err(Unfit::Replace(Why::Forged(name.to_owned()))),
    }
}

/// Whether the descriptor is of this kind and this very object.
fn known(fd: &OwnedFd, kind: Kind, id: u32) -> io::Result<bool> {
    Ok(bpf::kind_of(fd.as_fd())? == Some(kind) && bpf::id_of(fd.as_fd())? == id)
}

/// Unpins what is there and pins a set loaded now.
fn replace(dir: &Dir, object: &[u8], layout: &Layout, wanted: &Abi, options: &Options) -> anyhow::Result<Tracing> {
    let there = |dir: &Dir| names(dir).context("looking for old pins");
    // The old hooks first: while two sets are attached each fork and exit would be paid for twice.
    clear(dir, &there(dir)?).context("removing the old pins")?;
    let pinned = load::attach(object, layout, options).and_then(|attached| pin(dir, attached, wanted));
    let opened = pinned.and_then(|()| match adopt(dir, &there(dir)?, wanted, options) {
        Ok(tracing) => Ok(tracing),
        Err(Unfit::Replace(why)) => Err(anyhow!("the set that was just pinned is not there: {why}")),
        Err(Unfit::Failed(error)) => Err(error.context("opening the set that was just pinned")),
    });
    if opened.is_err() {
        // Nobody reads it: it would only cost.
        let _ = there(dir).and_then(|names| Ok(clear(dir, &names)?));
    }
    opened
}

/// Pins everything of a set, and then what says that it is whole.
fn pin(dir: &Dir, attached: Attached, wanted: &Abi) -> anyhow::Result<()> {
    let mut abi = *wanted;
    for (name, id) in MAPS.into_iter().zip(&mut abi.maps) {
        let map = attached.ebpf.map(name).with_context(|| format!("finding {name}"))?;
        map.pin(dir.at(name)).with_context(|| format!("pinning {name}"))?;
        *id = pinned_id(dir, name)?;
    }
    bpf::pin(attached.snapshot.as_fd(), &dir.at(SNAPSHOT)).context("pinning the snapshot program")?;
    abi.snapshot = pinned_id(dir, SNAPSHOT)?;
    let ids = abi.links.iter_mut().zip(&mut abi.programs);
    let hooks = hooks::hooks(attached.tracepoints).iter().zip(attached.hooks);
    for ((Hook { name, pin, .. }, (program, link)), (link_id, program_id)) in hooks.zip(ids) {
        link.pin(dir.at(name)).with_context(|| format!("pinning {name}"))?;
        *link_id = pinned_id(dir, name)?;
        bpf::pin(program.as_fd(), &dir.at(pin)).with_context(|| format!("pinning {pin}"))?;
        *program_id = pinned_id(dir, pin)?;
    }
    abi.pin(dir, attached.exit, attached.tracepoints).context("pinning what says that the set is whole")
}

fn pinned_id(dir: &Dir, name: &str) -> anyhow::Result<u32> {
    let read = || bpf::id_of(bpf::open_pin(&dir.at(name), Access::Full)?.as_fd());
    read().with_context(|| format!("reading the id of {name}"))
}

/// Unpins all that is there: first what says that it is whole, then the hooks, births before deaths, then the rest.
fn clear(dir: &Dir, names: &[(String, bool)]) -> io::Result<()> {
    dir.unpin(abi::NAME)?;
    for hook in hooks::hooks(Tracepoints::Preemptible).iter().rev() {
        dir.unpin(hook.name)?;
    }
    names.iter().try_for_each(|(name, _)| dir.unpin(name))
}

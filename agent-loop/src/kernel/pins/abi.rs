//! What a pinned set says of itself: which version wrote it, how it was loaded, and which objects belong to it.

use std::fmt;
use std::io;
use std::os::fd::AsFd as _;

use agent_loop_common::ABI_VERSION;
use aya::Pod;
use aya::maps::{Array, Map, MapData, MapError};
use sha2::{Digest as _, Sha256};

use super::super::bpf::{self, Access, Kind};
use super::super::btf::{ExitHook, Tracepoints};
use super::super::hooks::{self, Hook, hooks};
use super::super::load::{Options, Settings};
use super::MAPS;
use super::dir::Dir;

/// The name of the map that holds [`Abi`].
pub(super) const NAME: &str = "ABI";

/// `agntloop`, so that a map of the right size that is something else is not taken for one of ours.
const MAGIC: u64 = u64::from_be_bytes(*b"agntloop");

/// The value of the map.
///
/// `magic` and `version` stand first in every version. The objects are told by their ids: the kernel gives none twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Abi {
    magic: u64,
    version: u32,
    exit_hook: u32,
    events_bytes: u32,
    execs_bytes: u32,
    live_entries: u32,
    run_level: u32,
    digest: [u8; 32],
    /// The ids of [`MAPS`], in their order.
    pub(super) maps: [u32; MAPS.len()],
    /// The ids of the links of [`hooks`], in their order; 0 beyond.
    pub(super) links: [u32; hooks::MOST],
    /// The ids of the programs of [`hooks`], in their order; 0 beyond.
    pub(super) programs: [u32; hooks::MOST],
    /// The id of the snapshot program.
    pub(super) snapshot: u32,
    tracepoints: u32,
    pad: u32,
}

const _: () = assert!(size_of::<Abi>() == 176);

// SAFETY: repr(C), integers only; the size asserted above leaves no padding.
unsafe impl Pod for Abi {}

/// Why a pinned set was not used but replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// There was none.
    Nothing,
    /// Something of it is missing: a start, a replacement or a removal was cut short.
    Incomplete(String),
    /// Something beside it that does not belong to it.
    Extra(String),
    /// A pin that others than root could open.
    Exposed(String),
    /// It was pinned by a version with another layout of maps and records; 0 where that cannot be read.
    Version(u32),
    /// It was loaded with other settings: which.
    Settings(&'static str),
    /// Something that is not what was pinned under this name, or does not do what it was pinned for.
    Forged(String),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing was pinned"),
            Self::Incomplete(name) => write!(f, "{name} was missing: a start or a removal was cut short"),
            Self::Extra(name) => write!(f, "{name} was beside it and does not belong to it"),
            Self::Exposed(name) => write!(f, "others than root could open {name}"),
            Self::Version(0) => write!(f, "it was of another version, this is version {ABI_VERSION}"),
            Self::Version(version) => write!(f, "it was of version {version}, this is version {ABI_VERSION}"),
            Self::Settings(which) => write!(f, "it was loaded with {which}"),
            Self::Forged(name) => write!(f, "{name} was not what had been pinned there"),
        }
    }
}

impl Abi {
    /// What a set loaded by these options has; its objects and the form of its hooks are yet unknown.
    pub(super) fn of(object: &[u8], options: &Options, settings: &Settings) -> Self {
        let mut digest = Sha256::new();
        digest.update(object);
        for (name, value) in settings.globals() {
            digest.update(name.as_bytes());
            digest.update(value.to_le_bytes());
        }
        digest.update(options.exit_hook.map_or(0, raw).to_le_bytes());
        digest.update(options.tracepoints.map_or(0, raw_tracepoints).to_le_bytes());
        Self {
            magic: MAGIC,
            version: ABI_VERSION,
            exit_hook: 0,
            events_bytes: options.events_bytes,
            execs_bytes: options.execs_bytes,
            live_entries: options.live_entries,
            run_level: settings.run_level,
            digest: digest.finalize().into(),
            maps: [0; MAPS.len()],
            links: [0; hooks::MOST],
            programs: [0; hooks::MOST],
            snapshot: 0,
            tracepoints: 0,
            pad: 0,
        }
    }

    /// Why a set that says this of itself is not one that would be loaded now; `None` if it is.
    pub(super) fn differs(&self, now: &Self) -> Option<Why> {
        if self.version != now.version {
            return Some(Why::Version(self.version));
        }
        let settings = [
            (self.events_bytes == now.events_bytes, "another size of the ring of births and deaths"),
            (self.execs_bytes == now.execs_bytes, "another size of the ring of execs"),
            (self.live_entries == now.live_entries, "another size of the live set"),
            (self.run_level == now.run_level, "run cgroups at another depth"),
            (self.digest == now.digest, "another eBPF program, or other globals of it"),
        ];
        settings.into_iter().find_map(|(same, which)| (!same).then_some(Why::Settings(which)))
    }

    /// The id of the map of this name; 0, which no object has, where there is none.
    pub(super) fn map(&self, name: &str) -> u32 {
        MAPS.into_iter().zip(self.maps).find_map(|(map, id)| (map == name).then_some(id)).unwrap_or(0)
    }

    /// The version of a set that is not of this one.
    pub(super) fn foreign_version(&self) -> Option<u32> {
        (self.version != ABI_VERSION).then_some(self.version)
    }

    /// Which exit rule is attached; `None` for one that this version does not know.
    pub(super) fn exit_hook(&self) -> Option<ExitHook> {
        [ExitHook::GroupDead, ExitHook::Latch].into_iter().find(|hook| raw(*hook) == self.exit_hook)
    }

    /// Whether its hooks have copies; `None` for a form that this version does not know.
    pub(super) fn tracepoints(&self) -> Option<Tracepoints> {
        let known = [Tracepoints::Whole, Tracepoints::Preemptible];
        known.into_iter().find(|tracepoints| raw_tracepoints(*tracepoints) == self.tracepoints)
    }

    /// The hooks that such a set has, in the order in which they are attached, each with the ids of its link and its
    /// program.
    pub(super) fn hooks(&self, tracepoints: Tracepoints) -> impl Iterator<Item = (&'static Hook, u32, u32)> {
        let ids = self.links.into_iter().zip(self.programs);
        hooks(tracepoints).iter().zip(ids).map(|(hook, (link, program))| (hook, link, program))
    }

    /// Reads what the pinned set says of itself.
    ///
    /// # Errors
    /// When it cannot be opened; the inner error is why it cannot be trusted.
    pub(super) fn read(dir: &Dir) -> io::Result<Result<Self, Why>> {
        let forged = Ok(Err(Why::Forged(NAME.to_owned())));
        let fd = match bpf::open_pin(&dir.at(NAME), Access::Read) {
            Ok(fd) => fd,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Err(Why::Incomplete(NAME.to_owned())));
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return forged,
            Err(error) => return Err(error),
        };
        if bpf::kind_of(fd.as_fd())? != Some(Kind::Map) {
            return forged;
        }
        let map = MapData::from_fd(fd).and_then(Map::from_map_data).map_err(io::Error::other)?;
        let array = match Array::<MapData, Self>::try_from(map) {
            Ok(array) => array,
            Err(MapError::InvalidValueSize { .. }) => return Ok(Err(Why::Version(0))),
            Err(_) => return forged,
        };
        match array.get(&0, 0) {
            Ok(abi) if abi.magic == MAGIC => Ok(Ok(abi)),
            Ok(_) | Err(MapError::OutOfBounds { .. }) => forged,
            Err(error) => Err(io::Error::other(error)),
        }
    }

    /// Pins it, complete from its first moment on.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn pin(mut self, dir: &Dir, exit: ExitHook, tracepoints: Tracepoints) -> anyhow::Result<()> {
        self.exit_hook = raw(exit);
        self.tracepoints = raw_tracepoints(tracepoints);
        let mut array = Array::<MapData, Self>::create(1, 0)?;
        array.set(0, self, 0)?;
        array.pin(dir.at(NAME))?;
        Ok(())
    }
}

const fn raw(exit: ExitHook) -> u32 {
    match exit {
        ExitHook::GroupDead => 1,
        ExitHook::Latch => 2,
    }
}

const fn raw_tracepoints(tracepoints: Tracepoints) -> u32 {
    match tracepoints {
        Tracepoints::Whole => 1,
        Tracepoints::Preemptible => 2,
    }
}

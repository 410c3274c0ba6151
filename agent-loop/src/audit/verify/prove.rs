//! Makes bundles: finds lines, and the hashes that lead from each to the signed root.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

use memchr::memmem;
use serde::Deserialize;
use tlog_tiles::{HASH_SIZE, Tile, TileHashReader, TileReader, check_record, prove_record, record_hash};

use super::bundle::{Bundle, FORMAT, Record};
use super::{Options, Report, checkpoints};
use crate::audit::log::layout::{self, LONGEST_LINE, Segment};

/// What is to be proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// These lines, by number.
    Lines(BTreeSet<u64>),
    /// All lines of this run that are signed.
    Run(String),
}

/// A bundle that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// The file.
    pub bytes: Vec<u8>,
    /// How many lines it proves.
    pub records: usize,
    /// How many lines of the run no checkpoint covers yet: they are left out.
    pub unsigned: u64,
}

/// Why no bundle was made.
#[derive(Debug, thiserror::Error)]
pub enum ProveError {
    /// Something could not be read.
    #[error("reading {}: {source}", path.display())]
    Read {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no checkpoint that the key of the log signed.
    #[error(
        "the newest checkpoint is not there or not signed by the key of the log: `agent-loop audit verify` says more"
    )]
    NotSigned,
    /// A line is not there.
    #[error("line {0} is not there: it was removed, or is not written yet")]
    NotThere(u64),
    /// A line is there, and nothing signs it yet.
    #[error("line {seq} is not signed yet: the newest checkpoint covers {size} lines")]
    NotYet {
        /// Which.
        seq: u64,
        /// How many are signed.
        size: u64,
    },
    /// No signed line is of this run.
    #[error("no signed line is of the run {0}; give the whole id")]
    NoRun(String),
    /// The log was changed.
    #[error("line {seq} is not the one that was signed, or its hashes are not: {what}")]
    Changed {
        /// Which.
        seq: u64,
        /// How that was found.
        what: String,
    },
}

#[derive(Deserialize)]
struct OfRun {
    run: Option<String>,
}

/// Makes a bundle of lines of the log in this directory.
///
/// # Errors
/// [`ProveError`]: a line that the newest checkpoint does not prove is in no bundle.
pub fn prove(audit: &Path, wanted: &Wanted) -> Result<Made, ProveError> {
    let checkpoints = checkpoints::read(audit, &Options::default(), &mut Report::default()).map_err(failed(audit))?;
    let (stamp, key) = checkpoints.signed_newest().ok_or(ProveError::NotSigned)?;
    let path = audit.join(layout::CHECKPOINT);
    let checkpoint = fs::read_to_string(&path).map_err(failed(&path))?;
    let (lines, unsigned) = find(audit, wanted, stamp.size)?;
    let tiles = Tiles { audit, read: RefCell::default() };
    let hashes = TileHashReader::new(stamp.size, stamp.root, &tiles);
    let mut records = Vec::with_capacity(lines.len());
    for (seq, line) in lines {
        let changed = |what: String| ProveError::Changed { seq, what };
        let proof = prove_record(stamp.size, seq, &hashes).map_err(|error| changed(error.to_string()))?;
        check_record(&proof, stamp.size, stamp.root, seq, record_hash(&line))
            .map_err(|error| changed(error.to_string()))?;
        let line = String::from_utf8(line).map_err(|error| changed(error.to_string()))?;
        let proof = proof.iter().map(|hash| data_encoding::BASE64.encode(&hash.0)).collect();
        records.push(Record { seq, line, proof });
    }
    let run = match wanted {
        Wanted::Run(run) if records.is_empty() => return Err(ProveError::NoRun(run.clone())),
        Wanted::Run(run) => Some(run.clone()),
        Wanted::Lines(_) => None,
    };
    let count = records.len();
    let bundle = Bundle { format: FORMAT.to_owned(), run, key: key.to_owned(), checkpoint, records };
    Ok(Made { bytes: bundle.to_bytes(), records: count, unsigned })
}

/// The lines, and how many of the run are not signed.
fn find(audit: &Path, wanted: &Wanted, size: u64) -> Result<(BTreeMap<u64, Vec<u8>>, u64), ProveError> {
    let segments = layout::segments(audit).map_err(failed(audit))?;
    let (mut found, mut unsigned) = (BTreeMap::new(), 0);
    for (number, segment) in segments.iter().enumerate() {
        let end = segments.get(number + 1).map_or(u64::MAX, |next| next.first);
        match wanted {
            Wanted::Lines(lines) => {
                if lines.range(segment.first..end).next().is_some() {
                    let mut take = |seq, line: &[u8]| {
                        if lines.contains(&seq) {
                            found.insert(seq, line.to_vec());
                        }
                    };
                    each_line(segment, &mut take).map_err(failed(&segment.path))?;
                }
            }
            Wanted::Run(run) => {
                let named = memmem::Finder::new(run);
                let mut take = |seq, line: &[u8]| {
                    let is_of = || serde_json::from_slice(line).is_ok_and(|it: OfRun| it.run.as_ref() == Some(run));
                    if named.find(line).is_none() || !is_of() {
                    } else if seq < size {
                        found.insert(seq, line.to_vec());
                    } else {
                        unsigned += 1;
                    }
                };
                each_line(segment, &mut take).map_err(failed(&segment.path))?;
            }
        }
    }
    if let Wanted::Lines(lines) = wanted
        && let Some(seq) = lines.iter().copied().find(|seq| *seq >= size || !found.contains_key(seq))
    {
        return Err(if found.contains_key(&seq) {
            ProveError::NotYet { seq, size }
        } else {
            ProveError::NotThere(seq)
        });
    }
    Ok((found, unsigned))
}

/// The error of what could not be read.
fn failed(path: &Path) -> impl FnOnce(io::Error) -> ProveError {
    let path = path.to_owned();
    |source| ProveError::Read { path, source }
}

/// Calls with every whole line of a segment and its number.
fn each_line(segment: &Segment, take: &mut impl FnMut(u64, &[u8])) -> io::Result<()> {
    let (file, packed) = layout::open(segment, 0)?;
    let mut from: Box<dyn BufRead> = if packed {
        Box::new(BufReader::new(zstd::Decoder::new(file)?))
    } else {
        Box::new(BufReader::with_capacity(1 << 20, file))
    };
    let (mut line, mut seq) = (Vec::new(), segment.first);
    loop {
        line.clear();
        let length = from.by_ref().take(LONGEST_LINE as u64).read_until(b'\n', &mut line)?;
        let Some(whole) = line.strip_suffix(b"\n") else {
            let too_long =
                || io::Error::new(io::ErrorKind::InvalidData, format!("line {seq} is longer than any may be"));
            return if length < LONGEST_LINE { Ok(()) } else { Err(too_long()) };
        };
        take(seq, whole);
        seq += 1;
    }
}

/// The tiles of a log on the disk, each read once. What they hold is checked by [`TileHashReader`].
struct Tiles<'a> {
    audit: &'a Path,
    read: RefCell<BTreeMap<(u8, u64), Vec<u8>>>,
}

impl TileReader for Tiles<'_> {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[Tile]) -> Result<Vec<Vec<u8>>, tlog_tiles::Error> {
        let mut read = self.read.borrow_mut();
        let mut tile = |tile: &Tile| {
            let at = (tile.level(), tile.level_index());
            if let Some(bytes) = read.get(&at) {
                return Ok(bytes.clone());
            }
            let width = tile.width() as usize;
            let name = layout::tile(at.0, at.1, width);
            let bytes = fs::read(self.audit.join(&name)).ok().filter(|bytes| bytes.len() == width * HASH_SIZE);
            let bytes = bytes.ok_or_else(|| {
                tlog_tiles::Error::InvalidInput(format!("{} is not there or not whole", name.display()))
            })?;
            read.insert(at, bytes.clone());
            Ok(bytes)
        };
        tiles.iter().map(&mut tile).collect()
    }

    fn save_tiles(&self, _: &[Tile], _: &[Vec<u8>]) {}
}

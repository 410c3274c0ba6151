//! Opens a log to go on with it: what a crash left is put aside and declared, what somebody changed is refused.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tlog_tiles::{HASH_SIZE, Hash, record_hash};

use super::disk::put_file;
use super::front::Place;
use super::key::Key;
use super::layout::{self, Segment};
use super::note;
use super::tree::{TileId, Tree, WIDTH};
use super::{Disk as _, Files};
use crate::clock;
use crate::store::{Lock, LogDir, StateDir, StoreError};

/// Why a log cannot be gone on with. Every message says what to do next.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its place is in use, or not safe.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Reading or writing failed.
    #[error("{doing}: {why}")]
    Failed {
        /// What was being done.
        doing: &'static str,
        /// What went wrong.
        why: String,
    },
    /// Its private key is not there, or is none.
    #[error("{} holds no key of an audit log: bring it back, or move the log away to begin a new one", .0.display())]
    NotAKey(PathBuf),
    /// It is not as it was left.
    #[error(
        "the audit log in {} is not as agent-loop left it: {what}; it is kept as it is: `agent-loop audit verify {0}` \
         says more; to begin a new one move it away: `mv {0} {0}.kept`",
        dir.display()
    )]
    Tampered {
        /// Where.
        dir: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Another version wrote it.
    #[error("the audit log in {} has the format {format:?}, which this version does not write; move it away", dir.display())]
    OtherFormat {
        /// Where.
        dir: PathBuf,
        /// Its format.
        format: String,
    },
}

impl OpenError {
    pub(super) fn failed(doing: &'static str, error: io::Error) -> Self {
        Self::Failed { doing, why: error.to_string() }
    }
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// How many lines stand in it; none in a new one.
    pub lines: u64,
    /// What a crash left after the last whole line.
    pub torn: Option<Torn>,
}

/// What a crash left after the last whole line: moved aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torn {
    /// How many bytes.
    pub bytes: u64,
    /// Their SHA-256 in hexadecimal digits.
    pub sha256: String,
    /// Where they are now.
    pub path: PathBuf,
}

/// A log that is ready to be gone on with.
pub(super) struct Found {
    pub(super) files: Files,
    pub(super) tree: Tree,
    pub(super) key: Key,
    pub(super) lock: Lock,
    /// The first line of the open segment, and its bytes.
    pub(super) first: u64,
    pub(super) offset: u64,
    /// Tiles that are not full and lie there.
    pub(super) edge: Vec<PathBuf>,
    pub(super) signed: u64,
    /// Whether a new segment has to begin: another boot, another version, or another shape of its lines.
    pub(super) begin: bool,
    pub(super) opened: Opened,
}

pub(super) fn open(place: &Place, boot_id: &str) -> Result<Found, OpenError> {
    let keys = StateDir::open(&place.keys)?;
    let lock = keys.lock()?;
    let audit = LogDir::open(&place.audit)?.path().to_owned();
    let failed = |doing| move |error| OpenError::failed(doing, error);
    for dir in [layout::SEGMENTS, layout::TILES, layout::CHECKPOINTS, layout::KEYS] {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(audit.join(dir));
        made.map_err(failed("making the directories of the audit log"))?;
    }
    remove_halves(&audit).map_err(failed("removing what a compression left"))?;
    let segments = layout::segments(&audit).map_err(failed("listing the segments of the audit log"))?;
    let log = Log { audit, boot_id };
    match segments.last() {
        None => log.begun(&keys, lock),
        Some(last) => log.again(&keys, lock, &segments, last),
    }
}

/// Takes away what a compression did not finish: the plain segment is still there.
fn remove_halves(audit: &Path) -> io::Result<()> {
    for entry in fs::read_dir(audit.join(layout::SEGMENTS))? {
        let path = entry?.path();
        let is_half = path.extension().is_some_and(|end| end == "new");
        let is_doubled = path.extension().is_some_and(|end| end == "zst") && path.with_extension("").exists();
        if is_half || is_doubled {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// How many lines a log begins with by itself: the head of its segment, its key.
pub(super) const OWN_LINES: usize = 2;

struct Log<'a> {
    audit: PathBuf,
    boot_id: &'a str,
}

impl Log<'_> {
    fn tampered(&self, what: impl Into<String>) -> OpenError {
        OpenError::Tampered { dir: self.audit.clone(), what: what.into() }
    }

    /// A new log.
    fn begun(&self, keys: &StateDir, lock: Lock) -> Result<Found, OpenError> {
        if self.audit.join(layout::CHECKPOINT).exists() {
            return Err(self.tampered("its segments are gone, and its checkpoint is there"));
        }
        let key = Key::open(keys, 1, true)?;
        let public = format!("{}\nfrom 0\n", key.verifier());
        put_file(&self.audit.join(layout::key(1)), public.as_bytes())
            .map_err(|error| OpenError::failed("writing the public key of the audit log", error))?;
        let files =
            Files::open(&self.audit, None).map_err(|error| OpenError::failed("opening the audit log", error))?;
        Ok(Found {
            files,
            tree: Tree::default(),
            key,
            lock,
            first: 0,
            offset: 0,
            edge: Vec::new(),
            signed: 0,
            begin: true,
            opened: Opened::default(),
        })
    }

    /// One that is there.
    fn again(&self, keys: &StateDir, lock: Lock, segments: &[Segment], last: &Segment) -> Result<Found, OpenError> {
        let failed = |doing| move |error| OpenError::failed(doing, error);
        if last.packed {
            return Err(self.tampered("its open segment is gone"));
        }
        let key = Key::open(keys, 1, false)?;
        let signed = self.checkpoint(&key)?;
        if signed.is_none() && self.is_unfinished(last)? {
            fs::remove_file(&last.path).map_err(failed("removing what an unfinished start left"))?;
            return self.begun(keys, lock);
        }
        let (size, root) = signed.as_ref().map_or((0, None), |stamp| (stamp.size, Some(stamp.root)));
        let (mut tree, from) = self.restored(segments, size)?;
        let mut checked = root.is_none() || tree.size() == size && root == Some(tree.root());
        let mut torn = Vec::new();
        let mut offset = 0;
        for segment in segments.iter().skip(from) {
            if segment.first != tree.size() {
                return Err(self.tampered(format!(
                    "line {} should follow, and the next segment begins with {}",
                    tree.size(),
                    segment.first
                )));
            }
            let mut bytes = read(segment).map_err(failed("reading a segment of the audit log"))?;
            let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            torn = bytes.split_off(end);
            if segment.first == last.first {
                offset = end as u64;
            } else if !torn.is_empty() {
                return Err(self.tampered(format!("the closed segment of line {} has no end", segment.first)));
            }
            for line in bytes.split_inclusive(|byte| *byte == b'\n') {
                let line = line.strip_suffix(b"\n").unwrap_or(line);
                let mut tiles = Vec::new();
                tree.push(record_hash(line), &mut |id, hashes| tiles.push((id, hashes.to_vec())));
                for (id, hashes) in tiles {
                    self.put_tile(id, &hashes).map_err(failed("writing hashes of the audit log"))?;
                }
                if tree.size() == size {
                    checked = root == Some(tree.root());
                }
            }
        }
        if tree.size() < size {
            return Err(self.tampered(format!("{size} lines were signed, {} are there", tree.size())));
        }
        if !checked {
            return Err(self.tampered(format!("the {size} lines that were signed are not these")));
        }
        if signed.is_none() {
            return Err(self.tampered("its checkpoint is gone"));
        }
        // One that lies there is not put again until it is wider: after a power cut it may be empty.
        for (id, hashes) in tree.partial() {
            if self.audit.join(layout::tile(id.level, id.index, hashes.len())).exists() {
                self.put_tile(id, hashes).map_err(failed("writing hashes of the audit log"))?;
            }
        }
        let torn =
            self.put_aside(last, offset, &torn).map_err(failed("putting the torn end of the audit log aside"))?;
        let files = Files::open(&self.audit, Some(last.first)).map_err(failed("opening the audit log"))?;
        for closed in segments.iter().filter(|segment| !segment.packed && segment.first != last.first) {
            Files::open(&self.audit, None).map_err(failed("opening the audit log"))?.pack(closed.first);
        }
        Ok(Found {
            begin: self.is_of_another(last)?,
            files,
            edge: self.edge(&tree),
            opened: Opened { lines: tree.size(), torn },
            tree,
            key,
            lock,
            first: last.first,
            offset,
            signed: size,
        })
    }

    /// Whether a log was begun here and its first checkpoint never signed: nobody was told that it is there.
    fn is_unfinished(&self, last: &Segment) -> Result<bool, OpenError> {
        let failed = |error| OpenError::failed("looking at the start of the audit log", error);
        let bytes = read(last).map_err(failed)?;
        let kept = fs::read_dir(self.audit.join(layout::CHECKPOINTS)).map_err(failed)?;
        let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
        Ok(last.first == 0 && lines <= OWN_LINES && kept.count() == 0)
    }

    /// The newest checkpoint, verified by our own key.
    fn checkpoint(&self, key: &Key) -> Result<Option<note::Stamp>, OpenError> {
        let bytes = match fs::read(self.audit.join(layout::CHECKPOINT)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(OpenError::failed("reading the checkpoint of the audit log", error)),
        };
        let read = note::read(&bytes).map_err(|error| self.tampered(format!("its checkpoint: {error}")))?;
        let stamp = read.verify(key.verifier()).map_err(|error| self.tampered(format!("its checkpoint: {error}")))?;
        Ok(Some(stamp.clone()))
    }

    /// The tree up to the segment that the newest checkpoint ends in, and which segment that is.
    fn restored(&self, segments: &[Segment], size: u64) -> Result<(Tree, usize), OpenError> {
        let from = segments.partition_point(|segment| segment.first <= size).saturating_sub(1);
        let first = segments.get(from).map_or(0, |segment| segment.first);
        if let Some(tree) = Tree::restore(first, |id, width| self.tile(id, width)) {
            return Ok((tree, from));
        }
        // Hashes can be made again from the lines, where those are all there.
        match segments.first() {
            Some(segment) if segment.first == 0 => Ok((Tree::default(), 0)),
            Some(_) | None => Err(self.tampered("its hashes are gone, and so are the lines that they were of")),
        }
    }

    /// The hashes of a tile: of the full one, or of the narrowest that is wide enough.
    fn tile(&self, id: TileId, width: usize) -> Option<Vec<Hash>> {
        // After a power cut one that was not durable yet has its name, and not its bytes.
        let whole = |width: usize| {
            let bytes = fs::read(self.audit.join(layout::tile(id.level, id.index, width))).ok()?;
            (bytes.len() == width * HASH_SIZE).then_some(bytes)
        };
        let bytes = (width..=WIDTH).find_map(whole)?;
        Some(bytes.chunks_exact(HASH_SIZE).map(|chunk| Hash(chunk.try_into().unwrap_or_default())).collect())
    }

    /// Puts a tile that is not there as it should be: a crash may come before it is durable.
    fn put_tile(&self, id: TileId, hashes: &[Hash]) -> io::Result<()> {
        let path = self.audit.join(layout::tile(id.level, id.index, hashes.len()));
        let bytes: Vec<u8> = hashes.iter().flat_map(|hash| hash.0).collect();
        if fs::read(&path).is_ok_and(|there| there == bytes) {
            return Ok(());
        }
        put_file(&path, &bytes)
    }

    /// The tiles at the right edge that lie there, of whatever width.
    fn edge(&self, tree: &Tree) -> Vec<PathBuf> {
        let mut edge = Vec::new();
        for (id, _) in tree.partial() {
            let one = layout::tile(id.level, id.index, 1);
            let Some(dir) = one.parent() else { continue };
            let entries = fs::read_dir(self.audit.join(dir)).into_iter().flatten().filter_map(Result::ok);
            edge.extend(entries.map(|entry| dir.join(entry.file_name())));
        }
        edge
    }

    /// Moves the bytes after the last whole line aside, and ends the segment before them.
    fn put_aside(&self, last: &Segment, offset: u64, torn: &[u8]) -> io::Result<Option<Torn>> {
        let file = File::options().read(true).write(true).custom_flags(libc::O_NOFOLLOW).open(&last.path)?;
        if torn.is_empty() {
            // What was read may not be durable yet.
            file.sync_data()?;
            return Ok(None);
        }
        let name = format!("{:012}-{}", last.first, clock::both().real_ns / 1_000_000_000);
        let path = self.audit.join(layout::TORN).join(name);
        put_file(&path, torn)?;
        file.set_len(offset)?;
        file.sync_all()?;
        let sha256 = data_encoding::HEXLOWER.encode(&Sha256::digest(torn));
        Ok(Some(Torn { bytes: torn.len() as u64, sha256, path }))
    }

    /// Whether the open segment was begun in another boot, by another version, or with lines of another shape.
    fn is_of_another(&self, last: &Segment) -> Result<bool, OpenError> {
        #[derive(serde::Deserialize)]
        struct Head {
            boot_id: String,
            segment: Part,
        }
        #[derive(serde::Deserialize)]
        struct Part {
            format: String,
            version: String,
            schema_sha256: Option<String>,
        }
        let bytes = read(last).map_err(|error| OpenError::failed("reading a segment of the audit log", error))?;
        let Some(line) = bytes.split(|byte| *byte == b'\n').next().filter(|line| !line.is_empty()) else {
            return Ok(true);
        };
        let head: Head = serde_json::from_slice(line)
            .map_err(|error| self.tampered(format!("line {} is no head of a segment: {error}", last.first)))?;
        if head.segment.format != layout::FORMAT {
            return Err(OpenError::OtherFormat { dir: self.audit.clone(), format: head.segment.format });
        }
        let is_ours = head.segment.version == env!("CARGO_PKG_VERSION")
            && head.segment.schema_sha256.as_deref() == Some(crate::audit::schema::sha256());
        Ok(head.boot_id != self.boot_id || !is_ours)
    }
}

/// The whole of a segment.
fn read(segment: &Segment) -> io::Result<Vec<u8>> {
    let file = File::options().read(true).custom_flags(libc::O_NOFOLLOW).open(&segment.path)?;
    let mut bytes = Vec::new();
    if segment.packed {
        zstd::Decoder::new(file)?.read_to_end(&mut bytes)?;
    } else {
        (&file).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

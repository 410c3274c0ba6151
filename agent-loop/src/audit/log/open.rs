//! Opens a log to go on with it: what a crash left is put aside and declared, what somebody changed is refused.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use tlog_tiles::{Hash, record_hash};

use super::Files;
use super::disk::put_file;
use super::key::Key;
use super::layout::{self, Segment};
use super::mend::{self, Mended, Tiles};
use super::note;
use super::settings::Place;
use super::torn::{self, Torn};
use super::tree::Tree;
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
    /// What a crash left after the last whole line; more than one where others followed before it was declared.
    pub torn: Vec<Torn>,
    /// Files of hashes that the newest checkpoint needs and that were not as they should be: made again, and told in the
    /// head of the segment that begins for it.
    pub mended: u64,
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
    /// Closed segments that are not compressed yet.
    pub(super) pack: Vec<u64>,
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
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
    }
    Ok(())
}

/// How many lines a log begins with by itself: the head of its segment, its key.
pub(super) const OWN_LINES: usize = 2;

/// What fails where tiles are put.
const HASHES: &str = "writing hashes of the audit log";

/// The lines that are gone over at an opening, and what becomes of them.
struct Replay<'a> {
    tree: Tree,
    tiles: Tiles<'a>,
    /// What the newest checkpoint signs.
    size: u64,
    root: Option<Hash>,
    /// Whether the tree had that root at that size.
    checked: bool,
}

impl Replay<'_> {
    /// Takes whole lines.
    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let mut done = Ok(());
            let tiles = &mut self.tiles;
            self.tree.push(record_hash(line.strip_suffix(b"\n").unwrap_or(line)), &mut |id, hashes| {
                if done.is_ok() {
                    done = tiles.put(id, hashes);
                }
            });
            done?;
            self.compare()?;
        }
        Ok(())
    }

    /// At the size that was signed: has the root to be the one that was signed, and the edge to lie there.
    fn compare(&mut self) -> io::Result<()> {
        if self.tree.size() == self.size && self.root.is_none_or(|root| root == self.tree.root()) {
            self.checked = true;
            self.tiles.put_edge(&self.tree)?;
        }
        Ok(())
    }
}

/// Where the lines of a segment end that are whole. What no checkpoint covers may be of any content after a power cut,
/// line ends among it: there a line has to be a record with its number too.
fn sound(bytes: &[u8], first: u64, signed: u64) -> usize {
    let mut end = 0;
    for (seq, line) in (first..).zip(bytes.split_inclusive(|byte| *byte == b'\n')) {
        let Some(text) = line.strip_suffix(b"\n") else { break };
        if seq >= signed && !is_record(text, seq) {
            break;
        }
        end += line.len();
    }
    end
}

/// Whether it is a line with this number, as far as a verifier of lines that nobody signed asks.
fn is_record(line: &[u8], seq: u64) -> bool {
    #[derive(serde::Deserialize)]
    struct Numbered {
        seq: u64,
        #[serde(rename = "kind")]
        _kind: String,
    }
    let is_object = line.starts_with(b"{") && line.ends_with(b"}") && line.len() < layout::LONGEST_LINE;
    let text = std::str::from_utf8(line).ok().filter(|_| is_object);
    text.and_then(|text| serde_json::from_str::<Numbered>(text).ok()).is_some_and(|it| it.seq == seq)
}

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
            pack: Vec::new(),
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
        let (tree, from) = self.restored(segments, size)?;
        let mut replay = Replay { tree, tiles: Tiles::new(&self.audit, last.first, size), size, root, checked: false };
        replay.compare().map_err(failed(HASHES))?;
        let mut torn = Vec::new();
        let mut offset = 0;
        for segment in segments.iter().skip(from) {
            if segment.first != replay.tree.size() {
                return Err(self.tampered(format!(
                    "line {} should follow, and the next segment begins with {}",
                    replay.tree.size(),
                    segment.first
                )));
            }
            let mut bytes = read(segment).map_err(failed("reading a segment of the audit log"))?;
            let end = sound(&bytes, segment.first, size);
            torn = bytes.split_off(end);
            if segment.first == last.first {
                offset = end as u64;
            } else if !torn.is_empty() {
                return Err(self.tampered(format!("the closed segment of line {} has no end", segment.first)));
            }
            replay.take(&bytes).map_err(failed(HASHES))?;
        }
        let Replay { tree, tiles, checked, .. } = replay;
        if tree.size() < size {
            return Err(self.tampered(format!("{size} lines were signed, {} are there", tree.size())));
        }
        if !checked {
            return Err(self.tampered(format!("the {size} lines that were signed are not these")));
        }
        if signed.is_none() {
            return Err(self.tampered("its checkpoint is gone"));
        }
        // What lies there already is not put again until it is wider.
        let Mended { edge, count: mended } = tiles.finish(&tree).map_err(failed(HASHES))?;
        let torn =
            self.put_aside(last, offset, &torn).map_err(failed("putting the torn end of the audit log aside"))?;
        let files = Files::open(&self.audit, Some(last.first)).map_err(failed("opening the audit log"))?;
        // Of one that was begun and has no line yet there is nothing to go on with: it is begun again.
        let begun = if offset > 0 { Some(last) } else { segments.iter().rev().nth(1) };
        let begun = begun.ok_or_else(|| self.tampered("its only segment is empty"))?;
        // One that is gone on with is packed when the next begins.
        let closed = segments.iter().filter(|segment| !segment.packed && segment.first < begun.first);
        let pack = closed.map(|segment| segment.first).collect();
        Ok(Found {
            // What was made again is told in the head of a segment.
            begin: mended > 0 || self.is_of_another(last)?,
            files,
            edge,
            opened: Opened { lines: tree.size(), torn, mended },
            tree,
            key,
            lock,
            first: begun.first,
            offset,
            pack,
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
        if let Some(tree) = Tree::restore(first, |id, width| mend::read(&self.audit, id, width)) {
            return Ok((tree, from));
        }
        // Hashes can be made again from the lines, where those are all there.
        match segments.first() {
            Some(segment) if segment.first == 0 => Ok((Tree::default(), 0)),
            Some(_) | None => Err(self.tampered("its hashes are gone, and so are the lines that they were of")),
        }
    }

    /// Moves the bytes after the last whole line aside, and ends the segment before them. All that is to be declared: what
    /// a crash kept the opening before from declaring, too.
    fn put_aside(&self, last: &Segment, offset: u64, bytes: &[u8]) -> io::Result<Vec<Torn>> {
        let file = File::options().read(true).write(true).custom_flags(libc::O_NOFOLLOW).open(&last.path)?;
        let mut undeclared = torn::undeclared(&self.audit)?;
        if bytes.is_empty() {
            // What was read may not be durable yet.
            file.sync_data()?;
            return Ok(undeclared);
        }
        // A crash may have come before they were taken out of the segment.
        let sha256 = torn::sha256(bytes);
        if undeclared.iter().all(|known| known.sha256 != sha256) {
            undeclared.push(Torn::put(&self.audit, last.first, bytes)?);
        }
        file.set_len(offset)?;
        file.sync_all()?;
        Ok(undeclared)
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

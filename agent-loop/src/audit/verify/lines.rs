//! The lines of a log, one after the other: their form, their numbers, their hashes, what they declare.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io;
use std::path::Path;
use std::rc::Rc;

use memchr::memchr;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tlog_tiles::{HASH_SIZE, Hash};

use super::Report;
use super::account::{self, Accounts};
use super::checkpoints::Checkpoints;
use super::tiles::Tiles;
use crate::audit::log::layout::{self, Counted, LONGEST_LINE, Segment};
use crate::audit::log::tree::{TileId, Tree, WIDTH};

/// How much is read at once, bytes: small enough to be near the processor when it is hashed, longer than any line.
const CHUNK: usize = 256 << 10;

/// What stands before a line where it is hashed (RFC 6962, section 2.1).
const LEAF: u8 = 0;

/// What the reading found.
pub(super) struct Read {
    /// The root at each size that somebody signed.
    pub(super) roots: BTreeMap<u64, Hash>,
    /// How many lines there are.
    pub(super) end: u64,
    pub(super) tiles: Tiles,
}

#[derive(Deserialize)]
struct Head {
    seq: u64,
    kind: String,
    boot_id: Option<String>,
    segment: Option<SegmentPart>,
    gap: Option<serde_json::Value>,
    retention: Option<Retention>,
    key: Option<KeyPart>,
}

#[derive(Deserialize)]
struct SegmentPart {
    format: String,
    first_seq: u64,
    previous: Option<u64>,
    log: String,
    mended: Option<u64>,
}

#[derive(Deserialize)]
struct Retention {
    first_seq: u64,
    lines: u64,
}

#[derive(Deserialize)]
struct KeyPart {
    epoch: u32,
    verifier: String,
    from: u64,
}

pub(super) fn read(
    audit: &Path,
    checkpoints: &Checkpoints,
    account: bool,
    report: &mut Report,
    progress: &mut dyn FnMut(u64),
) -> io::Result<Read> {
    let segments = layout::segments(audit)?;
    let mut reading = Reading {
        audit,
        newest: checkpoints.newest(),
        sizes: checkpoints.sizes().into_iter().rev().collect(),
        tree: Tree::default(),
        roots: BTreeMap::new(),
        tiles: Tiles::default(),
        recent: VecDeque::with_capacity(WIDTH),
        accounts: account.then(Accounts::default),
        holes: Vec::new(),
        retentions: BTreeMap::new(),
        first: 0,
        boot: None,
        file: Path::new("").into(),
        before: Before::Nothing,
        report,
        progress,
        disk: Rc::default(),
    };
    reading.root();
    if segments.is_empty() {
        reading.report.damaged(&audit.join(layout::SEGMENTS), Some(0), None, "there is no segment".to_owned());
    }
    for (number, segment) in segments.iter().enumerate() {
        reading.segment(segment, number + 1 == segments.len())?;
    }
    reading.finish()
}

/// What is before a segment.
#[derive(Clone, Copy)]
enum Before {
    Nothing,
    /// The segment with this first line.
    Segment(u64),
    /// One that a retention took away.
    Removed,
}

struct Reading<'a> {
    audit: &'a Path,
    newest: u64,
    /// Sizes that somebody signed and that are still to come, from the largest.
    sizes: Vec<u64>,
    tree: Tree,
    roots: BTreeMap<u64, Hash>,
    tiles: Tiles,
    /// Where the lines of the tile that is not full yet are.
    recent: VecDeque<(u64, Rc<Path>)>,
    accounts: Option<Accounts>,
    /// Lines that are not there: from, to.
    holes: Vec<(u64, u64)>,
    /// Lines that a retention says to have removed: from, how many.
    retentions: BTreeMap<u64, u64>,
    /// The first line of the segment that is read, the boot that it is of, and its file.
    first: u64,
    boot: Option<String>,
    file: Rc<Path>,
    before: Before,
    report: &'a mut Report,
    progress: &'a mut dyn FnMut(u64),
    /// Bytes that were read from the disk since that was told last.
    disk: Rc<Cell<u64>>,
}

impl Reading<'_> {
    fn segment(&mut self, segment: &Segment, is_last: bool) -> io::Result<()> {
        let expected = self.tree.size();
        if segment.first < expected {
            let what = format!("it begins with line {}, and {expected} should follow", segment.first);
            self.report.damaged(&segment.path, Some(segment.first), Some(0), what);
            return Ok(());
        }
        if segment.first > expected && !self.skip(segment.first)? {
            let what = format!("lines {expected} to {} are not there", segment.first - 1);
            self.report.damaged(&segment.path, Some(expected), None, what);
            return Ok(());
        }
        if is_last && segment.packed {
            let what = "the last segment is compressed: the open one after it is not there".to_owned();
            self.report.damaged(&segment.path, Some(segment.first), None, what);
        }
        if segment.first > expected {
            self.before = Before::Removed;
        }
        (self.first, self.boot) = (segment.first, None);
        self.file = segment.path.as_path().into();
        let (file, packed) = layout::open(segment, 0)?;
        let file = Counted::new(file, Rc::clone(&self.disk));
        let left = if packed {
            match zstd::Decoder::new(file) {
                Ok(decoder) => self.stream(decoder, segment),
                Err(error) => Err(error),
            }
        } else {
            self.stream(file, segment)
        };
        self.before = Before::Segment(segment.first);
        match left {
            Ok(0) => {}
            Ok(left) if is_last => self.report.torn = left,
            Ok(_) => {
                let what = "its last line has no end".to_owned();
                self.report.damaged(&segment.path, Some(self.tree.size()), None, what);
            }
            Err(error) if packed => {
                let what = format!("it cannot be decompressed: {error}");
                self.report.damaged(&segment.path, Some(self.tree.size()), None, what);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Reads the lines of a segment; how many bytes are left after the last whole one.
    fn stream(&mut self, mut from: impl io::Read, segment: &Segment) -> io::Result<u64> {
        // Before each line is a byte that is no longer needed, or never was: the leaf's prefix goes there, and a leaf is
        // hashed in one piece.
        let mut buffer = vec![0; CHUNK];
        let (mut filled, mut offset) = (1, 0_u64);
        loop {
            let count = from.read(buffer.get_mut(filled..).unwrap_or_default())?;
            if count == 0 {
                return Ok(filled as u64 - 1);
            }
            filled += count;
            let mut begin = 1;
            while let Some(length) = memchr(b'\n', buffer.get(begin..filled).unwrap_or_default()) {
                if let Some(leaf) = buffer.get_mut(begin - 1..begin + length) {
                    self.line(leaf, offset, segment);
                }
                begin += length + 1;
                offset += length as u64 + 1;
            }
            (self.progress)(self.disk.take());
            buffer.copy_within(begin..filled, 1);
            filled -= begin - 1;
            if filled > LONGEST_LINE {
                let seq = self.tree.size();
                self.report.damaged(
                    &segment.path,
                    Some(seq),
                    Some(offset),
                    "a line is longer than any may be".to_owned(),
                );
                return Ok(0);
            }
        }
    }

    /// Takes a line, with a byte before it that it may change.
    fn line(&mut self, leaf: &mut [u8], offset: u64, segment: &Segment) {
        let seq = self.tree.size();
        let Some((prefix, line)) = leaf.split_first_mut() else { return };
        *prefix = LEAF;
        self.report.bytes += line.len() as u64 + 1;
        if let Err(what) = self.look(line, seq) {
            self.report.damaged(&segment.path, Some(seq), Some(offset), what);
        }
        self.recent.push_back((offset, Rc::clone(&self.file)));
        self.push(Hash(Sha256::digest(leaf).into()));
    }

    fn push(&mut self, leaf: Hash) {
        let Self { audit, tree, tiles, recent, newest, .. } = self;
        // Tiles are put before the checkpoint that covers them, and not before that.
        let signed = tree.size() < *newest;
        tree.push(leaf, &mut |id, hashes| {
            if signed {
                tiles.compare(audit, id, hashes, recent);
            }
            if id.level == 0 {
                recent.clear();
            }
        });
        self.root();
    }

    /// Keeps the root where somebody signed this size; compares the right edge where that is the newest.
    fn root(&mut self) {
        let size = self.tree.size();
        if self.sizes.pop_if(|next| *next == size).is_some() {
            self.roots.insert(size, self.tree.root());
        }
        if size == self.newest {
            for (id, hashes) in self.tree.partial() {
                self.tiles.compare(self.audit, id, hashes, &self.recent);
            }
        }
    }

    /// Checks the form of a line, and takes what it declares.
    fn look(&mut self, line: &[u8], seq: u64) -> Result<(), String> {
        if line.len() >= LONGEST_LINE {
            return Err("it is longer than a line may be".to_owned());
        }
        if std::str::from_utf8(line).is_err() || !line.starts_with(b"{") || !line.ends_with(b"}") {
            return Err("it is no JSON object in UTF-8".to_owned());
        }
        let is_first = seq == self.first;
        let kind = kind(line, seq);
        let concerns = kind.is_none_or(|kind| matches!(kind, b"log.segment" | b"gap" | b"retention" | b"key"));
        if kind.is_some_and(|kind| kind != b"anchor") {
            self.report.of_others = seq + 1;
        }
        // What no checkpoint covers is read in full: nothing else vouches for its form.
        if concerns || is_first || seq >= self.newest {
            let head: Head = serde_json::from_slice(line).map_err(|error| format!("it is no record: {error}"))?;
            if head.seq != seq {
                return Err(format!("it says to be line {}", head.seq));
            }
            if kind.is_none() && head.kind != "anchor" {
                self.report.of_others = seq + 1;
            }
            self.declares(&head, is_first, seq)?;
        }
        if let Some(accounts) = &mut self.accounts
            && kind.is_none_or(account::counts)
        {
            accounts.take(line).map_err(|error| format!("it cannot be counted: {error}"))?;
        }
        Ok(())
    }

    fn declares(&mut self, head: &Head, is_first: bool, seq: u64) -> Result<(), String> {
        if is_first != (head.kind == "log.segment") {
            return Err("a segment begins with its head, and with nothing else".to_owned());
        }
        if is_first {
            self.boot.clone_from(&head.boot_id);
        } else if head.boot_id.is_some() && head.boot_id != self.boot {
            return Err("it is of another boot than its segment, and every boot begins one".to_owned());
        }
        if let Some(segment) = &head.segment {
            if segment.format != layout::FORMAT {
                return Err(format!("its format is {:?}, which this version does not know", segment.format));
            }
            if segment.first_seq != seq {
                return Err(format!("its segment says to begin with line {}", segment.first_seq));
            }
            let fits = match self.before {
                Before::Nothing => segment.previous.is_none(),
                Before::Segment(first) => segment.previous == Some(first),
                Before::Removed => true,
            };
            if !fits {
                return Err("the segment before it is another one than it says".to_owned());
            }
            self.report.log.get_or_insert_with(|| segment.log.clone());
            if let Some(files) = segment.mended {
                self.report.unchecked.push(format!(
                    "{files} files of hashes as they were before line {seq}: that start made them again, as after a power cut"
                ));
            }
        }
        if head.kind == "gap" {
            let gap = head.gap.as_ref().map_or_else(String::new, ToString::to_string);
            self.report.gaps.push(format!("line {seq}: {gap}"));
        }
        if let Some(retention) = &head.retention {
            self.retentions.insert(retention.first_seq, retention.lines);
        }
        if let Some(KeyPart { epoch, verifier, from }) = &head.key {
            let text = fs::read_to_string(self.audit.join(layout::key(*epoch))).unwrap_or_default();
            if text != format!("{verifier}\nfrom {from}\n") {
                return Err(format!("it names another key of epoch {epoch} than the file does"));
            }
        }
        Ok(())
    }

    /// Goes over lines that were removed, by their hashes; whether those are there.
    fn skip(&mut self, to: u64) -> io::Result<bool> {
        let from = self.tree.size();
        let mut hashes: Vec<Hash> = Vec::new();
        for index in from / 256..to.div_ceil(256) {
            let begin = index * 256;
            let width = usize::try_from((to - begin).min(256)).unwrap_or(WIDTH);
            let Some(tile) = self.tile(TileId { level: 0, index }, width)? else { return Ok(false) };
            let skip = usize::try_from(from.saturating_sub(begin)).unwrap_or(0);
            hashes.extend(tile.get(skip..width).unwrap_or_default());
        }
        self.holes.push((from, to));
        self.report.removed += to - from;
        self.report.of_others = to;
        let removed: Rc<Path> = Path::new("(removed)").into();
        for hash in hashes {
            self.recent.push_back((0, Rc::clone(&removed)));
            self.push(hash);
        }
        Ok(true)
    }

    fn tile(&self, id: TileId, width: usize) -> io::Result<Option<Vec<Hash>>> {
        for width in width..=WIDTH {
            match fs::read(self.audit.join(layout::tile(id.level, id.index, width))) {
                Ok(bytes) => {
                    let hash = |chunk: &[u8]| Hash(chunk.try_into().unwrap_or_default());
                    return Ok(Some(bytes.chunks_exact(HASH_SIZE).map(hash).collect()));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn finish(self) -> io::Result<Read> {
        let Self { tree, roots, tiles, accounts, holes, retentions, report, .. } = self;
        report.lines = tree.size();
        for (from, to) in holes {
            let mut at = from;
            while at < to
                && let Some(lines) = retentions.get(&at).filter(|lines| **lines > 0)
            {
                at = at.saturating_add(*lines);
            }
            if at < to {
                let what = format!("lines {at} to {} are not there, and no record says that they were removed", to - 1);
                report.damaged(Path::new(layout::SEGMENTS), Some(at), None, what);
            } else {
                report.unchecked.push(format!("the text of lines {from} to {}, which a retention removed", to - 1));
            }
        }
        match accounts {
            Some(accounts) => {
                let (wrong, drawn, without) = accounts.judge();
                (report.sums, report.runs) = (Some(wrong), drawn);
                if !without.is_empty() {
                    report.unchecked.push(format!("runs without a sum: {}", without.join(", ")));
                }
            }
            None => report.unchecked.push("the sum of the kernel's records: `--account` draws it".to_owned()),
        }
        Ok(Read { roots, end: tree.size(), tiles })
    }
}

/// The kind of a line that is written as we write it: its number, then its kind. `None` for any other.
pub(super) fn kind(line: &[u8], seq: u64) -> Option<&[u8]> {
    let rest = line.strip_prefix(b"{\"seq\":")?;
    let digits = memchr(b',', rest)?;
    let (number, rest) = rest.split_at_checked(digits)?;
    let mut read = 0_u64;
    for digit in number {
        read = read.checked_mul(10)?.checked_add(u64::from(digit.checked_sub(b'0').filter(|it| *it < 10)?))?;
    }
    if read != seq || number.is_empty() || number.len() > 1 && number.starts_with(b"0") {
        return None;
    }
    let rest = rest.strip_prefix(b",\"kind\":\"")?;
    let kind = rest.split_at_checked(memchr(b'"', rest)?)?.0;
    (!kind.contains(&b'\\')).then_some(kind)
}

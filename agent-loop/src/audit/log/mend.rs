//! The tiles of a log at its opening: read, and made again where a power cut took them.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tlog_tiles::{HASH_SIZE, Hash};

use super::disk::{put_file, settle};
use super::layout;
use super::tree::{TileId, Tree, WIDTH};

/// The tiles that an opening goes over.
pub(super) struct Tiles<'a> {
    audit: &'a Path,
    /// The first line of the open segment.
    first: u64,
    /// How many lines the newest checkpoint covers: their tiles were put before it.
    signed: u64,
    /// Whole ones that hold other hashes. They tell which line was changed, so they stay until it is known that none was.
    other: Vec<(TileId, PathBuf, Vec<u8>)>,
    /// Those at the right edge, with their width.
    edges: BTreeSet<(TileId, usize)>,
    mended: u64,
}

/// What an opening found of tiles.
pub(super) struct Mended {
    /// What lies in the places of those at the right edge, as it was signed and as it is: it goes once another is signed.
    pub(super) edge: Vec<PathBuf>,
    /// How many that were signed were made again.
    pub(super) count: u64,
}

impl<'a> Tiles<'a> {
    pub(super) const fn new(audit: &'a Path, first: u64, signed: u64) -> Self {
        Self { audit, first, signed, other: Vec::new(), edges: BTreeSet::new(), mended: 0 }
    }

    /// Has a tile lie there as it should.
    pub(super) fn put(&mut self, id: TileId, hashes: &[Hash]) -> io::Result<()> {
        let name = layout::tile(id.level, id.index, hashes.len());
        let path = self.audit.join(&name);
        let bytes = bytes(hashes);
        let there = fs::read(&path).unwrap_or_default();
        let is_full = hashes.len() == WIDTH;
        if there == bytes {
            // Who wrote it may have died before it was durable. A full one can be made again by the lines.
            if !is_full || id.is_edge_of(self.first) {
                settle(self.audit, &[name])?;
            }
        } else {
            if id.lines(hashes.len()).is_some_and(|lines| lines <= self.signed) {
                self.mended += 1;
            }
            if there.len() == bytes.len() {
                self.other.push((id, path, bytes));
                return Ok(());
            }
            put_file(&path, &bytes)?;
        }
        self.clear(id, &path)
    }

    /// Takes away what is left of a full tile's narrower ones, but where the newest checkpoint needs one: a removal need
    /// not have been durable.
    fn clear(&self, id: TileId, path: &Path) -> io::Result<()> {
        if id.is_edge_of(self.signed) || path.parent().is_some_and(|dir| dir.extension().is_some()) {
            return Ok(());
        }
        match fs::remove_dir_all(path.with_extension("p")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Has the tiles at the right edge lie there.
    pub(super) fn put_edge(&mut self, tree: &Tree) -> io::Result<()> {
        tree.partial().try_for_each(
            |(id, hashes)| {
                if self.edges.insert((id, hashes.len())) { self.put(id, hashes) } else { Ok(()) }
            },
        )
    }

    /// Puts the edge of the whole log, and what was held back: the lines are those that were signed.
    pub(super) fn finish(mut self, tree: &Tree) -> io::Result<Mended> {
        self.put_edge(tree)?;
        for (id, path, bytes) in &self.other {
            put_file(path, bytes)?;
            self.clear(*id, path)?;
        }
        Ok(Mended { edge: self.edge(), count: self.mended })
    }

    fn edge(&self) -> Vec<PathBuf> {
        let mut edge = Vec::new();
        for id in self.edges.iter().map(|(id, _)| id).collect::<BTreeSet<_>>() {
            let one = layout::tile(id.level, id.index, 1);
            let Some(dir) = one.parent() else { continue };
            let entries = fs::read_dir(self.audit.join(dir)).into_iter().flatten().filter_map(Result::ok);
            edge.extend(entries.map(|entry| dir.join(entry.file_name())));
        }
        edge
    }
}

/// The hashes of a tile: of the narrowest that is wide enough, and whole.
pub(super) fn read(audit: &Path, id: TileId, width: usize) -> Option<Vec<Hash>> {
    // After a power cut one that was not durable yet has its name, and not its bytes.
    let whole = |width: usize| {
        let bytes = fs::read(audit.join(layout::tile(id.level, id.index, width))).ok()?;
        (bytes.len() == width * HASH_SIZE).then_some(bytes)
    };
    let bytes = (width..=WIDTH).find_map(whole)?;
    Some(bytes.chunks_exact(HASH_SIZE).map(|chunk| Hash(chunk.try_into().unwrap_or_default())).collect())
}

/// The bytes of a tile.
pub(super) fn bytes(hashes: &[Hash]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| hash.0).collect()
}

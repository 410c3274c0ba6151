//! The Merkle tree over all lines (RFC 6962, section 2.1), kept as the right edge of its tiles.

use sha2::compress256;
use sha2::digest::consts::U64;
use sha2::digest::generic_array::GenericArray;
use tlog_tiles::{EMPTY_HASH, Hash, node_hash};

/// How many hashes a full tile holds.
pub const WIDTH: usize = 256;

/// A tile: its level and its index there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TileId {
    /// 0 holds the hashes of lines, each level above those of 256 times as many.
    pub level: u8,
    /// From the left.
    pub index: u64,
}

impl TileId {
    /// Whether it is one of those at the right edge of a tree of this size that are not full there: a tree of that size
    /// cannot be restored without it.
    #[must_use]
    pub fn is_edge_of(self, size: u64) -> bool {
        let hashes = size.checked_shr(8 * u32::from(self.level)).unwrap_or(0);
        !hashes.is_multiple_of(256) && hashes / 256 == self.index
    }

    /// How many lines a tree has whose last ones are those of this tile, so many hashes wide; `None` beyond all numbers.
    #[must_use]
    pub fn lines(self, width: usize) -> Option<u64> {
        let hashes = self.index.checked_mul(256)?.checked_add(u64::try_from(width).ok()?)?;
        hashes.checked_mul(256_u64.checked_pow(u32::from(self.level))?)
    }
}

/// A tree that grows: of each level the hashes of the tile that is not full yet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tree {
    size: u64,
    levels: Vec<Vec<Hash>>,
}

impl Tree {
    /// A tree of this size from its tiles; `None` where one that it needs is not there, or is too short.
    pub fn restore(size: u64, mut read: impl FnMut(TileId, usize) -> Option<Vec<Hash>>) -> Option<Self> {
        let mut levels = Vec::new();
        let mut level = 0_u8;
        let mut hashes = size;
        while hashes > 0 {
            let width = usize::try_from(hashes % 256).ok()?;
            let mut tile = match width {
                0 => Vec::new(),
                width => read(TileId { level, index: hashes / 256 }, width)?,
            };
            if tile.len() < width {
                return None;
            }
            tile.truncate(width);
            levels.push(tile);
            hashes /= 256;
            level = level.checked_add(1)?;
        }
        Some(Self { size, levels })
    }

    /// How many lines it covers.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Adds the hash of a line; each tile that becomes full is handed out.
    pub fn push(&mut self, leaf: Hash, full: &mut impl FnMut(TileId, &[Hash])) {
        self.size += 1;
        let mut hash = leaf;
        let mut hashes = self.size;
        let mut level = 0_u8;
        loop {
            let index = usize::from(level);
            if self.levels.len() == index {
                self.levels.push(Vec::with_capacity(WIDTH));
            }
            let Some(tile) = self.levels.get_mut(index) else { return };
            tile.push(hash);
            if tile.len() < WIDTH {
                return;
            }
            full(TileId { level, index: hashes / 256 - 1 }, tile);
            hash = perfect(tile);
            tile.clear();
            hashes /= 256;
            level += 1;
        }
    }

    /// The tiles of the right edge that are not full.
    pub fn partial(&self) -> impl Iterator<Item = (TileId, &[Hash])> {
        let mut hashes = self.size;
        self.levels.iter().enumerate().filter_map(move |(level, tile)| {
            let index = hashes / 256;
            hashes /= 256;
            let level = u8::try_from(level).unwrap_or(u8::MAX);
            (!tile.is_empty()).then_some((TileId { level, index }, tile.as_slice()))
        })
    }

    /// Its root.
    #[must_use]
    pub fn root(&self) -> Hash {
        // Perfect subtrees from the smallest, which is rightmost, to the largest.
        let mut root: Option<Hash> = None;
        for tile in &self.levels {
            let mut end = tile.len();
            while end > 0 {
                let width = 1 << end.trailing_zeros();
                let left = perfect(tile.get(end - width..end).unwrap_or_default());
                root = Some(root.map_or(left, |right| node_hash(left, right)));
                end -= width;
            }
        }
        root.unwrap_or(EMPTY_HASH)
    }
}

/// The root over a power of two of hashes.
fn perfect(hashes: &[Hash]) -> Hash {
    Node::new().perfect(hashes)
}

/// The state that SHA-256 begins with (FIPS 180-4, section 5.3.3).
const BEGIN: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// The two blocks of a node: there is one for each line, 65 bytes are always padded alike, and so is what stands here
/// between one and the next.
struct Node([GenericArray<u8, U64>; 2]);

impl Node {
    fn new() -> Self {
        let mut blocks = [GenericArray::default(); 2];
        let [first, second] = &mut blocks;
        first[0] = 1;
        second[1] = 0x80;
        second[62..].copy_from_slice(&(65 * 8_u16).to_be_bytes());
        Self(blocks)
    }

    /// As `node_hash`, in two thirds of its time.
    fn hash(&mut self, left: Hash, right: Hash) -> Hash {
        let [first, second] = &mut self.0;
        first[1..33].copy_from_slice(&left.0);
        first[33..].copy_from_slice(&right.0[..31]);
        second[0] = right.0[31];
        let mut state = BEGIN;
        compress256(&mut state, &self.0);
        let mut hash = Hash([0; 32]);
        for (bytes, word) in hash.0.chunks_exact_mut(4).zip(state) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
        hash
    }

    fn perfect(&mut self, hashes: &[Hash]) -> Hash {
        match hashes {
            [] => EMPTY_HASH,
            [one] => *one,
            [left, right] => self.hash(*left, *right),
            _ => {
                let (left, right) = hashes.split_at(hashes.len() / 2);
                let (left, right) = (self.perfect(left), self.perfect(right));
                self.hash(left, right)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ct_merkle::mem_backed_tree::MemoryBackedTree;
    use sha2_11::Sha256;
    use tlog_tiles::record_hash;

    use super::*;

    #[test]
    fn the_root_is_that_of_another_implementation_at_every_size() {
        let mut oracle = MemoryBackedTree::<Sha256, Vec<u8>>::new();
        let mut tree = Tree::default();
        assert_eq!(tree.root().0.as_slice(), oracle.root().as_bytes().as_slice());
        for line in 0..1_500_u32 {
            oracle.push(line.to_le_bytes().to_vec());
            tree.push(record_hash(&line.to_le_bytes()), &mut |_, _| {});
            assert_eq!(tree.root().0.as_slice(), oracle.root().as_bytes().as_slice(), "after {line}");
        }
    }

    #[test]
    fn a_tree_is_restored_from_its_tiles_at_every_size() {
        let mut tiles: BTreeMap<TileId, Vec<Hash>> = BTreeMap::new();
        let mut tree = Tree::default();
        // Past 256 * 256, so that three levels are in use.
        for line in 0..66_000_u32 {
            tree.push(record_hash(&line.to_le_bytes()), &mut |id, tile| drop(tiles.insert(id, tile.to_vec())));
            if line > 65_000 || line % 77 == 0 {
                let partial: BTreeMap<TileId, Vec<Hash>> =
                    tree.partial().map(|(id, tile)| (id, tile.to_vec())).collect();
                let read = |id, _| partial.get(&id).or_else(|| tiles.get(&id)).cloned();
                assert_eq!(Tree::restore(tree.size(), read).as_ref(), Some(&tree), "at {line}");
                assert!(partial.keys().all(|id| id.is_edge_of(tree.size())), "at {line}");
                assert!(!tiles.keys().any(|id| id.is_edge_of(tree.size())), "at {line}");
                let lines = partial.iter().filter_map(|(id, tile)| id.lines(tile.len())).max();
                assert!(lines.is_none_or(|lines| lines <= tree.size()), "at {line}");
            }
        }
        assert_eq!(Tree::restore(66_000, |_, _| None), None);
        assert_eq!(Tree::restore(66_000, |_, _| Some(vec![EMPTY_HASH])), None, "too short");
    }
}

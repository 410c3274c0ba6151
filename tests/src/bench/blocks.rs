//! What the hashing of a log costs by itself: the bound of whoever verifies it.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::usage;

/// A block of SHA-256, bytes.
const BLOCK: u64 = 64;
/// What the padding takes at least: a bit and the length (FIPS 180-4, section 5.1.1).
const PADDING: u64 = 9;
/// Blocks of a node of the tree, of which there is one for each line: a prefix and two hashes.
const OF_A_NODE: u64 = 2;

/// Hashes as many blocks as the leaves and nodes of this segment have, from memory that is near the processor.
pub(super) fn measure(segment: &Path) -> anyhow::Result<Value> {
    let mut lines = BufReader::with_capacity(1 << 20, File::open(segment)?);
    let (mut line, mut blocks, mut bytes) = (Vec::new(), 0, 0);
    loop {
        line.clear();
        let read = lines.read_until(b'\n', &mut line)? as u64;
        if read == 0 {
            break;
        }
        bytes += read;
        // The prefix of a leaf is as long as the line end that is not hashed.
        blocks += (read + PADDING).div_ceil(BLOCK) + OF_A_NODE;
    }
    let near = vec![7; 64 << 10];
    let mut left = usize::try_from(blocks * BLOCK)?;
    let mut hash = Sha256::new();
    let (began, cpu) = (Instant::now(), usage::so_far()?);
    while left > 0 {
        let part = near.get(..left.min(near.len())).unwrap_or_default();
        hash.update(part);
        left -= part.len();
    }
    let hash = data_encoding::HEXLOWER.encode(&hash.finalize());
    let (seconds, cpu) = (began.elapsed().as_secs_f64(), usage::so_far()? - cpu);
    Ok(json!({ "bytes": bytes, "blocks": blocks, "seconds": seconds, "cpu_seconds": cpu, "hash": hash }))
}

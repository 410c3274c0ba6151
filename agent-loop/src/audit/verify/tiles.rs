//! The hashes on the disk, held against those of the lines.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use tlog_tiles::{HASH_SIZE, Hash};

use super::Report;
use crate::audit::log::layout;
use crate::audit::log::tree::{TileId, WIDTH};

/// The hashes on the disk that are not those of the lines.
#[derive(Default)]
pub(super) struct Tiles {
    /// The first line whose hash is another: where it is.
    line: Option<(u64, u64, Rc<Path>)>,
    /// Tiles that differ.
    wrong: Vec<PathBuf>,
    missing: Vec<PathBuf>,
}

impl Tiles {
    pub(super) fn compare(&mut self, audit: &Path, id: TileId, hashes: &[Hash], recent: &VecDeque<(u64, Rc<Path>)>) {
        let name = layout::tile(id.level, id.index, hashes.len());
        let mut bytes = [0; WIDTH * HASH_SIZE + 1];
        let wanted = hashes.len() * HASH_SIZE;
        let Ok(length) = read(&audit.join(&name), &mut bytes, wanted) else {
            self.missing.push(name);
            return;
        };
        let bytes = bytes.get(..length).unwrap_or_default();
        let mut there = bytes.chunks(HASH_SIZE);
        let differs = hashes.iter().position(|hash| there.next() != Some(&hash.0[..]));
        if differs.is_none() && bytes.len() == wanted {
            return;
        }
        if let Some((at, (offset, file))) = differs.and_then(|at| Some((at, recent.get(at)?)))
            && id.level == 0
            && self.line.is_none()
        {
            self.line = Some((id.index * 256 + at as u64, *offset, Rc::clone(file)));
        }
        self.wrong.push(name);
    }

    /// Says what differs: the line, where a signature says so too, else the file of hashes.
    pub(super) fn judge(self, audit: &Path, report: &mut Report) {
        let lines_differ = report.damage.iter().any(|damage| damage.what.contains("lines are not those that it signs"));
        if let Some((seq, offset, file)) = self.line.filter(|_| lines_differ) {
            report.damaged(&file, Some(seq), Some(offset), "it is not the line that was hashed".to_owned());
        } else {
            for name in self.wrong {
                report.damaged(&audit.join(name), None, None, "its hashes are not those of the lines".to_owned());
            }
        }
        for name in self.missing {
            report.damaged(&audit.join(name), None, None, "hashes are not there".to_owned());
        }
        // Lines that are known first, by their numbers; then what is known less exactly.
        report.damage.sort_by_key(|damage| (damage.offset.is_none(), damage.seq.unwrap_or(u64::MAX)));
    }
}

/// Reads a file up to the byte after those that are wanted; how many are there. There are as many tiles as 256th lines: it
/// asks the kernel for as little as it can.
fn read(path: &Path, bytes: &mut [u8], wanted: usize) -> io::Result<usize> {
    let mut file = File::open(path)?;
    let room = bytes.get_mut(..=wanted).unwrap_or_default();
    let mut length = 0;
    // One that has what is wanted and no more was asked for more: that was its end.
    while length < wanted {
        match file.read(room.get_mut(length..).unwrap_or_default())? {
            0 => break,
            count => length += count,
        }
    }
    Ok(length)
}

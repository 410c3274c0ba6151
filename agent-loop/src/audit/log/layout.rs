//! The names of the files of a log.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// The format of the files; readers refuse another one.
pub const FORMAT: &str = "agent-loop.audit/1";

/// The longest line, with its line end, bytes.
pub const LONGEST_LINE: usize = 61_440;

/// The directory of segments.
pub const SEGMENTS: &str = "seg";
/// The directory of hashes.
pub const TILES: &str = "tile";
/// The newest checkpoint.
pub const CHECKPOINT: &str = "checkpoint";
/// The directory of the checkpoints that are kept.
pub const CHECKPOINTS: &str = "checkpoints";
/// The directory of public keys.
pub const KEYS: &str = "keys";
/// The directory of what crashes left after the last whole line.
pub const TORN: &str = "torn";
/// Ends the name of a mark beside one of them: no line that declares it is durable yet.
pub const UNDECLARED: &str = "undeclared";
/// Room that is given up when the disk is full.
pub const RESERVE: &str = "reserve";

/// A segment as it lies there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The number of its first line.
    pub first: u64,
    /// Whether it is compressed.
    pub packed: bool,
    /// Where.
    pub path: PathBuf,
}

/// The name of a segment that is not compressed.
#[must_use]
pub fn segment(first: u64) -> String {
    format!("{first:012}.jsonl")
}

/// The two names that a closed segment may have below the log, plain and compressed: which of them changes at any time.
#[must_use]
pub fn names(first: u64) -> [PathBuf; 2] {
    let plain = Path::new(SEGMENTS).join(segment(first));
    let packed = plain.with_extension("jsonl.zst");
    [plain, packed]
}

/// Reads the name of a segment: its first line, and whether it is compressed.
#[must_use]
pub fn read_segment(name: &str) -> Option<(u64, bool)> {
    let (digits, packed) = match name.strip_suffix(".jsonl") {
        Some(digits) => (digits, false),
        None => (name.strip_suffix(".jsonl.zst")?, true),
    };
    let fits = digits.len() >= 12 && digits.bytes().all(|byte| byte.is_ascii_digit());
    let first = digits.parse().ok().filter(|_| fits)?;
    // What reads but is not written like this would be a second name of the same.
    (digits == format!("{first:012}")).then_some((first, packed))
}

/// The segments of a log, in order. Where one is there both plain and compressed, the plain one counts: its compression
/// was not finished.
///
/// # Errors
/// When the directory cannot be listed.
pub fn segments(audit: &Path) -> io::Result<Vec<Segment>> {
    let mut found: Vec<Segment> = Vec::new();
    for entry in std::fs::read_dir(audit.join(SEGMENTS))? {
        let entry = entry?;
        if let Some((first, packed)) = entry.file_name().to_str().and_then(read_segment) {
            found.push(Segment { first, packed, path: entry.path() });
        }
    }
    found.sort_by_key(|segment| (segment.first, segment.packed));
    found.dedup_by_key(|segment| segment.first);
    Ok(found)
}

/// Opens a segment for reading, with these flags beside; whether it is compressed. One that was plain when the directory
/// was listed may be compressed by now, and has its other name then.
///
/// # Errors
/// When it is there by neither name, or cannot be opened.
pub fn open(segment: &Segment, flags: i32) -> io::Result<(File, bool)> {
    let open = |path: &Path| File::options().read(true).custom_flags(flags).open(path);
    match open(&segment.path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !segment.packed => {
            Ok((open(&segment.path.with_extension("jsonl.zst"))?, true))
        }
        file => Ok((file?, segment.packed)),
    }
}

/// A file that counts what is read of it.
pub struct Counted {
    file: File,
    read: Rc<Cell<u64>>,
}

impl Counted {
    /// Counts into `read`, in bytes as they are on the disk.
    #[must_use]
    pub const fn new(file: File, read: Rc<Cell<u64>>) -> Self {
        Self { file, read }
    }
}

impl io::Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.read.set(self.read.get() + count as u64);
        Ok(count)
    }
}

/// The bytes that segments take on the disk.
#[must_use]
pub fn bytes(segments: &[Segment]) -> u64 {
    // One that is compressed meanwhile is smaller than it was: who counts on comes to the end sooner.
    segments.iter().filter_map(|segment| std::fs::metadata(&segment.path).ok()).map(|it| it.len()).sum()
}

/// The name of a tile: its level, its index there, and how many hashes it holds, 256 for a full one (C2SP tlog-tiles).
#[must_use]
pub fn tile(level: u8, index: u64, width: usize) -> PathBuf {
    let mut groups = vec![format!("{:03}", index % 1_000)];
    let mut rest = index / 1_000;
    while rest > 0 {
        groups.push(format!("x{:03}", rest % 1_000));
        rest /= 1_000;
    }
    groups.reverse();
    let mut path = Path::new(TILES).join(level.to_string());
    path.extend(groups);
    if width < super::tree::WIDTH {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        path.set_file_name(format!("{name}.p"));
        path.push(width.to_string());
    }
    path
}

/// The name of a checkpoint that is kept.
#[must_use]
pub fn kept(size: u64) -> PathBuf {
    Path::new(CHECKPOINTS).join(size.to_string())
}

/// The name of the public key of an epoch.
#[must_use]
pub fn key(epoch: u32) -> PathBuf {
    Path::new(KEYS).join(format!("epoch-{epoch}.pub"))
}

/// The directory of a log, named itself or by the directory that holds it.
#[must_use]
pub fn find(dir: &Path) -> Option<PathBuf> {
    [dir.to_owned(), dir.join("audit")].into_iter().find(|dir| dir.join(SEGMENTS).is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_reads_only_as_it_is_written() {
        for first in [0, 1, 999_999_999_999, 1_000_000_000_000, u64::MAX] {
            assert_eq!(read_segment(&segment(first)), Some((first, false)));
            assert_eq!(read_segment(&format!("{}.zst", segment(first))), Some((first, true)));
        }
        for wrong in [
            "",
            "0.jsonl",
            "00000000000a.jsonl",
            "+00000000001.jsonl",
            "0000000000001.jsonl",
            "000000000001.json",
            "000000000001.jsonl.gz",
            "000000000001.jsonl.tmp",
        ] {
            assert_eq!(read_segment(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_segment_that_was_compressed_meanwhile_is_opened_by_its_other_name() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(dir.path().join(SEGMENTS)).expect("made");
        let [plain, packed] = names(7).map(|name| dir.path().join(name));
        std::fs::write(&plain, "x").expect("written");
        let listed = segments(dir.path()).expect("listed").remove(0);
        assert!(!open(&listed, 0).expect("plain").1);
        std::fs::rename(&plain, &packed).expect("compressed");
        assert!(open(&listed, 0).expect("by its other name").1);
        std::fs::remove_file(&packed).expect("removed");
        assert!(open(&listed, 0).is_err());
    }

    #[test]
    fn tiles_are_named_as_the_standard_names_them() {
        // The examples of C2SP tlog-tiles.
        assert_eq!(tile(0, 1_234_067, 256), Path::new("tile/0/x001/x234/067"));
        assert_eq!(tile(1, 0, 8), Path::new("tile/1/000.p/8"));
        assert_eq!(tile(0, 273, 112), Path::new("tile/0/273.p/112"));
    }
}

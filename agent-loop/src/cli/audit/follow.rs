//! Follows a log that is being written: only what is new is read.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use crate::audit::log::layout::{self, Segment};

/// A place in a log, or in a file of lines.
pub(super) struct Follower {
    /// The directory of the log; none where a file is followed.
    audit: Option<PathBuf>,
    at: Segment,
    offset: u64,
}

impl Follower {
    /// From the beginning of the newest segment, or of the file.
    ///
    /// # Errors
    /// When there is neither.
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        let Some(audit) = layout::find(path) else {
            File::open(path)?;
            let at = Segment { first: 0, packed: false, path: path.to_owned() };
            return Ok(Self { audit: None, at, offset: 0 });
        };
        let last = layout::segments(&audit)?.pop().ok_or_else(|| io::Error::other("it has no segment"))?;
        Ok(Self { audit: Some(audit), at: last, offset: 0 })
    }

    /// Hands out the whole lines that were written since.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(super) fn look(&mut self, take: &mut impl FnMut(&[u8])) -> io::Result<()> {
        loop {
            // Listed before it is read: what a closed segment holds is complete then.
            let next = match &self.audit {
                Some(audit) => layout::segments(audit)?.into_iter().find(|segment| segment.first > self.at.first),
                None => None,
            };
            self.read(take)?;
            match next {
                Some(next) => (self.at, self.offset) = (next, 0),
                None => return Ok(()),
            }
        }
    }

    fn read(&mut self, take: &mut impl FnMut(&[u8])) -> io::Result<()> {
        let mut from = match File::open(&self.at.path) {
            Ok(mut file) => {
                file.seek(SeekFrom::Start(self.offset))?;
                BufReader::new(Box::new(file) as Box<dyn io::Read>)
            }
            // It was closed and compressed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut decoder = zstd::Decoder::new(File::open(self.at.path.with_extension("jsonl.zst"))?)?;
                io::copy(&mut decoder.by_ref().take(self.offset), &mut io::sink())?;
                BufReader::new(Box::new(decoder) as Box<dyn io::Read>)
            }
            Err(error) => return Err(error),
        };
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = from.read_until(b'\n', &mut line)?;
            if !line.ends_with(b"\n") {
                // The end, or a line that is not whole yet.
                return Ok(());
            }
            self.offset += read as u64;
            take(line.strip_suffix(b"\n").unwrap_or(&line));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn seen(follower: &mut Follower) -> Vec<String> {
        let mut lines = Vec::new();
        follower.look(&mut |line| lines.push(String::from_utf8_lossy(line).into_owned())).expect("a log");
        lines
    }

    #[test]
    fn a_log_is_followed_over_its_segments_and_a_compressed_one() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("seg")).expect("a directory");
        let first = dir.path().join("seg/000000000000.jsonl");
        fs::write(&first, "a\nb\nc").expect("written");
        let mut follower = Follower::new(dir.path()).expect("a log");
        assert_eq!(seen(&mut follower), ["a", "b"], "c is not whole");
        assert!(seen(&mut follower).is_empty());
        fs::write(&first, "a\nb\ncd\n").expect("written");
        assert_eq!(seen(&mut follower), ["cd"]);
        let packed = zstd::encode_all(&b"a\nb\ncd\ne\n"[..], 1).expect("zstd");
        fs::write(dir.path().join("seg/000000000000.jsonl.zst"), packed).expect("written");
        fs::remove_file(&first).expect("removed");
        fs::write(dir.path().join("seg/000000000004.jsonl"), "f\n").expect("written");
        assert_eq!(seen(&mut follower), ["e", "f"]);
    }
}

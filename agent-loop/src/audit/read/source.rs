//! Where lines come from: a log with its segments, or one file.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::audit::log::layout::{self, Counted, Segment};

/// The longest line that is looked at, bytes; events files of older versions had longer ones than a log has.
const LONGEST: u64 = 4 << 20;

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("reading {}: {error}", path.display())]
pub struct ReadError {
    /// Which file.
    pub path: PathBuf,
    /// What went wrong.
    pub error: io::Error,
}

/// The lines of a log, in order.
pub struct Source {
    files: std::vec::IntoIter<Segment>,
    open: Option<(PathBuf, BufReader<Box<dyn Read>>)>,
    line: Vec<u8>,
    read: Rc<Cell<u64>>,
    bytes: u64,
}

impl Source {
    /// A log by its directory, or by the one that holds it; or a file of lines.
    ///
    /// # Errors
    /// When it is neither.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        let failed = |error| ReadError { path: path.to_owned(), error };
        let files = match layout::find(path) {
            Some(audit) => layout::segments(&audit).map_err(failed)?,
            None if path.is_dir() => {
                let error = io::Error::other("it is no audit log: neither it nor `audit` in it holds `seg`");
                return Err(failed(error));
            }
            None => {
                let packed = path.extension().is_some_and(|end| end == "zst");
                vec![Segment { first: 0, packed, path: path.to_owned() }]
            }
        };
        let bytes = layout::bytes(&files);
        Ok(Self { files: files.into_iter(), open: None, line: Vec::new(), read: Rc::default(), bytes })
    }

    /// How far it has come: bytes read, and in all, as they are on the disk.
    #[must_use]
    pub fn progress(&self) -> (u64, u64) {
        (self.read.get(), self.bytes)
    }

    /// The next whole line, without its line end; a torn end is none.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn next_line(&mut self) -> Result<Option<&[u8]>, ReadError> {
        loop {
            let Some((path, from)) = &mut self.open else {
                let Some(segment) = self.files.next() else { return Ok(None) };
                let from = open(&segment, Rc::clone(&self.read))
                    .map_err(|error| ReadError { path: segment.path.clone(), error })?;
                self.open = Some((segment.path, from));
                continue;
            };
            self.line.clear();
            let read = from.by_ref().take(LONGEST).read_until(b'\n', &mut self.line);
            if let Err(error) = read {
                return Err(ReadError { path: path.clone(), error });
            }
            if self.line.pop_if(|last| *last == b'\n').is_some() {
                return Ok(Some(&self.line));
            }
            // The end of the file, torn or not; what is too long for a line ends it too.
            self.open = None;
        }
    }
}

fn open(segment: &Segment, read: Rc<Cell<u64>>) -> io::Result<BufReader<Box<dyn Read>>> {
    let (file, packed) = layout::open(segment, 0)?;
    let file = Counted::new(file, read);
    let from: Box<dyn Read> = if packed { Box::new(zstd::Decoder::new(file)?) } else { Box::new(file) };
    Ok(BufReader::with_capacity(1 << 20, from))
}

//! What `waitid` said of a process: the truth that reported deaths are compared with.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

/// How a process ended; exactly one of `code` and `signal` is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Status {
    /// Its exit code, where it exited.
    pub code: Option<i32>,
    /// The signal that ended it, where one did.
    pub signal: Option<i32>,
    /// Whether the kernel dumped core.
    pub core: bool,
}

impl Status {
    /// It exited by itself.
    #[must_use]
    pub const fn exited(code: i32) -> Self {
        Self { code: Some(code), signal: None, core: false }
    }

    /// A signal ended it.
    #[must_use]
    pub const fn signaled(signal: i32, core: bool) -> Self {
        Self { code: None, signal: Some(signal), core }
    }
}

/// One process an adversary made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Life {
    /// Its number.
    pub pid: i32,
    /// Who forked it.
    pub parent: i32,
    /// What it was made for.
    pub role: String,
    /// Nothing of it existed before this time, in ns of CLOCK_BOOTTIME.
    pub after_ns: u64,
    /// It existed by this time.
    pub before_ns: u64,
    /// What waitid said; `None` where its parent did not wait for it.
    pub status: Option<Status>,
}

/// An oracle file: JSON lines, appended to by any number of processes.
#[derive(Debug)]
pub struct Oracle(Option<File>);

impl Oracle {
    /// Opens the file for appending; without one, lines are dropped.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: Option<&Path>) -> io::Result<Self> {
        let open = |path| OpenOptions::new().create(true).append(true).open(path);
        Ok(Self(path.map(open).transpose()?))
    }

    /// Writes these lives, whole lines at a time.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, lives: &[Life]) -> io::Result<()> {
        let Some(mut file) = self.0.as_ref() else { return Ok(()) };
        for chunk in lives.chunks(512) {
            let mut text = Vec::new();
            for life in chunk {
                serde_json::to_writer(&mut text, life)?;
                text.push(b'\n');
            }
            file.write_all(&text)?;
        }
        Ok(())
    }
}

/// Reads an oracle file.
///
/// # Errors
/// When a line is no [`Life`].
pub fn read(path: &Path) -> io::Result<Vec<Life>> {
    let text = fs::read_to_string(path)?;
    text.lines().map(|line| serde_json::from_str(line).map_err(io::Error::from)).collect()
}

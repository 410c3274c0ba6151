//! What crashes left after the last whole line: kept aside, with a mark beside it until a line that declares it is durable.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::disk::put_file;
use super::layout;
use crate::clock;

/// What a crash left after the last whole line: moved aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torn {
    /// How many bytes.
    pub bytes: u64,
    /// Their SHA-256 in hexadecimal digits.
    pub sha256: String,
    /// Where they are now.
    pub path: PathBuf,
}

impl Torn {
    /// Puts them aside, durably; they were after the last whole line of the segment of this name.
    pub(super) fn put(audit: &Path, first: u64, bytes: &[u8]) -> io::Result<Self> {
        // Two crashes within a second are two files.
        let name = format!("{first:012}-{}", clock::both().real_ns);
        let path = audit.join(layout::TORN).join(name);
        let sha256 = sha256(bytes);
        let torn = Self { bytes: bytes.len() as u64, sha256, path };
        put_file(&torn.path, bytes)?;
        put_file(&audit.join(torn.mark()), format!("{} {}\n", torn.bytes, torn.sha256).as_bytes())?;
        Ok(torn)
    }

    /// The name of its mark, in the log. The mark says what was lost, so that the bytes need not be there to be declared.
    pub(super) fn mark(&self) -> PathBuf {
        let name = self.path.file_name().unwrap_or_default();
        Path::new(layout::TORN).join(name).with_added_extension(layout::UNDECLARED)
    }
}

/// The hash of such bytes.
pub(super) fn sha256(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(bytes))
}

/// What was moved aside and is not declared yet, the oldest first.
///
/// # Errors
/// When the marks cannot be read, or one is none.
pub fn undeclared(audit: &Path) -> io::Result<Vec<Torn>> {
    let entries = match fs::read_dir(audit.join(layout::TORN)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut undeclared = Vec::new();
    for entry in entries {
        let mark = entry?.path();
        if mark.extension().is_none_or(|end| end != layout::UNDECLARED) {
            continue;
        }
        let text = fs::read_to_string(&mark)?;
        let known = text.trim_end().split_once(' ').and_then(|(bytes, sha256)| Some((bytes.parse().ok()?, sha256)));
        let (bytes, sha256) = known.ok_or_else(|| {
            let why = format!("{} does not say what was lost: remove it", mark.display());
            io::Error::new(io::ErrorKind::InvalidData, why)
        })?;
        undeclared.push(Torn { bytes, sha256: sha256.to_owned(), path: mark.with_extension("") });
    }
    undeclared.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(undeclared)
}

//! Files that are written once, in a directory that another host or another medium keeps.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::{Anchor, Handed, Receipt};
use crate::audit::log::note;

/// The longest checkpoint that is read, bytes.
pub(super) const LONGEST: u64 = 16 << 10;

/// Puts each checkpoint into a file of its own: `DIR/<SHA-256 of the origin>/<size>.checkpoint`.
#[derive(Clone, Debug)]
pub struct Files {
    dir: PathBuf,
}

impl Files {
    /// In this directory, which must be there: one that is not may be a mount that is missing.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }
}

/// The name of the directory of a log's checkpoints.
fn directory(origin: &str) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(origin))
}

impl Anchor for Files {
    fn name(&self) -> &'static str {
        "files"
    }

    fn publish(&self, checkpoint: &Handed) -> io::Result<Receipt> {
        let dir = self.dir.join(directory(&checkpoint.origin));
        match fs::DirBuilder::new().mode(0o755).create(&dir) {
            Ok(()) => File::open(&self.dir)?.sync_all()?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        let path = dir.join(format!("{}.checkpoint", checkpoint.size));
        // O_EXCL: nothing that is there is ever opened for writing, nor is a link followed.
        match File::options().write(true).create_new(true).mode(0o644).open(&path) {
            Ok(mut file) => {
                let written = file.write_all(&checkpoint.text).and_then(|()| file.sync_all());
                if let Err(error) = written {
                    // Half of it would be in the way of the next try.
                    let _ = fs::remove_file(&path);
                    return Err(error);
                }
                File::open(&dir)?.sync_all()?;
                Ok(Receipt(path.display().to_string()))
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => there(&path, checkpoint),
            Err(error) => Err(error),
        }
    }
}

/// What is there already is as good if it says the same.
fn there(path: &Path, checkpoint: &Handed) -> io::Result<Receipt> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LONGEST).read_to_end(&mut bytes)?;
    let same = note::read(&bytes).is_ok_and(|read| {
        let root = data_encoding::BASE64.encode(&read.stamp.root.0);
        (read.origin, read.stamp.size, root) == (checkpoint.origin.clone(), checkpoint.size, checkpoint.root.clone())
    });
    if same {
        return Ok(Receipt(format!("{} was there", path.display())));
    }
    let why = format!("{} is there and says something else: was the log rolled back?", path.display());
    Err(io::Error::new(io::ErrorKind::AlreadyExists, why))
}

#[cfg(test)]
mod tests {
    use super::super::tests::handed;
    use super::*;

    #[test]
    fn a_checkpoint_is_kept_once_and_never_written_over() {
        let dir = tempfile::tempdir().expect("a directory");
        let files = Files::new(dir.path());
        let one = handed(7, 3);
        let receipt = files.publish(&one).expect("kept");
        let path = dir.path().join(directory(&one.origin)).join("7.checkpoint");
        assert_eq!(
            (receipt.0.as_str(), fs::read(&path).expect("a file")),
            (path.to_str().expect("text"), one.text.clone())
        );
        assert!(files.publish(&one).expect("it says the same").0.ends_with("was there"));
        let other = files.publish(&handed(7, 4)).expect_err("another root of the same size");
        assert!(other.to_string().contains("rolled back"), "{other}");
        assert_eq!(fs::read(&path).expect("a file"), one.text, "what is there stays");
        files.publish(&handed(8, 5)).expect("kept beside it");
    }

    #[test]
    fn a_directory_that_is_missing_is_not_made() {
        let dir = tempfile::tempdir().expect("a directory");
        let missing = dir.path().join("mount");
        assert!(Files::new(&missing).publish(&handed(1, 1)).is_err() && !missing.exists());
    }
}

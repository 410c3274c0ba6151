//! What the writing thread does to files: a trait, so that tests can let each of it fail.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::statvfs::statvfs;

use super::layout;

/// The files of a log that is open for writing.
pub trait Disk: Send {
    /// Writes bytes of the open segment at this offset; what stood there is replaced.
    ///
    /// # Errors
    /// Whatever the disk says; any part may have been written.
    fn write(&mut self, bytes: &[u8], at: u64) -> io::Result<()>;

    /// Makes the open segment durable (`fdatasync`).
    ///
    /// # Errors
    /// Whatever the disk says; then nothing is known of what was written since the last success.
    fn sync(&mut self) -> io::Result<()>;

    /// Begins a segment; no line of it may be there.
    ///
    /// # Errors
    /// Whatever the disk says.
    fn begin(&mut self, first: u64) -> io::Result<()>;

    /// Puts a small file in place of what was there, whole or not at all; `durable` waits for the disk.
    ///
    /// # Errors
    /// Whatever the disk says.
    fn put(&mut self, name: &Path, bytes: &[u8], durable: bool) -> io::Result<()>;

    /// Makes files durable that were put and not waited for; one that is not there is none.
    ///
    /// # Errors
    /// Whatever the disk says.
    fn settle(&mut self, names: &[PathBuf]) -> io::Result<()>;

    /// Removes a file; one that is not there is none.
    ///
    /// # Errors
    /// Whatever the disk says.
    fn remove(&mut self, name: &Path) -> io::Result<()>;

    /// Makes everything that was put durable (`syncfs`).
    ///
    /// # Errors
    /// Whatever the disk says.
    fn sync_all(&mut self) -> io::Result<()>;

    /// Makes room that can be given up later.
    ///
    /// # Errors
    /// Where there is not that much.
    fn reserve(&mut self, bytes: u64) -> io::Result<()>;

    /// Bytes that are free for us, and how many the disk has.
    fn free(&self) -> Option<(u64, u64)>;

    /// Compresses a closed segment, beside everything else.
    fn pack(&mut self, first: u64);
}

/// The files of a log in a directory.
#[derive(Debug)]
pub struct Files {
    audit: PathBuf,
    segment: Option<File>,
}

impl Files {
    /// A log in this directory, to go on with the segment of this name.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(audit: &Path, first: Option<u64>) -> io::Result<Self> {
        let segment = first
            .map(|first| {
                let path = audit.join(layout::SEGMENTS).join(layout::segment(first));
                File::options().write(true).custom_flags(libc::O_NOFOLLOW).open(path)
            })
            .transpose()?;
        Ok(Self { audit: audit.to_owned(), segment })
    }

    fn segment(&self) -> io::Result<&File> {
        self.segment.as_ref().ok_or_else(|| io::Error::other("no segment is open"))
    }
}

impl Disk for Files {
    fn write(&mut self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.segment()?.write_all_at(bytes, at)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.segment()?.sync_data()
    }

    fn begin(&mut self, first: u64) -> io::Result<()> {
        let dir = self.audit.join(layout::SEGMENTS);
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(dir.join(layout::segment(first)))?;
        // A power cut may have left its name alone.
        if file.metadata()?.len() > 0 {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        File::open(&dir)?.sync_all()?;
        self.segment = Some(file);
        Ok(())
    }

    fn put(&mut self, name: &Path, bytes: &[u8], durable: bool) -> io::Result<()> {
        put(&self.audit.join(name), bytes, durable)
    }

    fn settle(&mut self, names: &[PathBuf]) -> io::Result<()> {
        settle(&self.audit, names)
    }

    fn remove(&mut self, name: &Path) -> io::Result<()> {
        let path = self.audit.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        if let Some(dir) = path.parent().filter(|dir| dir.extension().is_some_and(|end| end == "p")) {
            // The directory of a tile that is full now; while others are in it, it stays.
            let _ = fs::remove_dir(dir);
        }
        Ok(())
    }

    fn sync_all(&mut self) -> io::Result<()> {
        let dir = File::open(&self.audit)?;
        nix::unistd::syncfs(&dir).map_err(io::Error::from)
    }

    fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        let path = self.audit.join(layout::RESERVE);
        let file = File::options().write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        let bytes = i64::try_from(bytes).map_err(io::Error::other)?;
        let made = fallocate(&file, FallocateFlags::empty(), 0, bytes).map_err(io::Error::from);
        if made.is_err() {
            // Half a reserve would be in the way.
            let _ = fs::remove_file(&path);
        }
        made
    }

    fn free(&self) -> Option<(u64, u64)> {
        let stat = statvfs(&self.audit).ok()?;
        let bytes = |blocks: u64| blocks.checked_mul(stat.fragment_size());
        Some((bytes(stat.blocks_available())?, bytes(stat.blocks())?))
    }

    fn pack(&mut self, first: u64) {
        let plain = self.audit.join(layout::SEGMENTS).join(layout::segment(first));
        // One that cannot be compressed stays plain, which is as good; the next start tries again.
        let _ = std::thread::Builder::new().name("packer".to_owned()).spawn(move || drop(pack(&plain)));
    }
}

/// Puts a file durably in place of what was there.
pub(super) fn put_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    put(path, bytes, true)
}

/// Makes files of a log durable, with the directories that name them; one that is not there is none.
pub(super) fn settle(audit: &Path, names: &[PathBuf]) -> io::Result<()> {
    let mut dirs = BTreeSet::new();
    for name in names {
        match File::open(audit.join(name)) {
            Ok(file) => file.sync_all()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        }
        dirs.extend(name.ancestors().skip(1));
    }
    dirs.into_iter().try_for_each(|dir| File::open(audit.join(dir))?.sync_all())
}

/// Makes a directory and those above it, each of them durable.
fn make(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let above = dir.parent().ok_or_else(|| io::Error::other("a directory has one above it"))?;
    make(above)?;
    fs::create_dir(dir)?;
    File::open(above)?.sync_all()
}

/// Puts a file in place of what was there, by another name first.
fn put(path: &Path, bytes: &[u8], durable: bool) -> io::Result<()> {
    let dir = path.parent().ok_or_else(|| io::Error::other("a file has a directory"))?;
    if durable {
        make(dir)?
    } else {
        fs::create_dir_all(dir)?
    }
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let beside = dir.join(format!(".{name}.new"));
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&beside)?;
    file.write_all(bytes)?;
    if durable {
        file.sync_all()?;
    }
    fs::rename(&beside, path)?;
    if durable {
        File::open(dir)?.sync_all()?;
    }
    Ok(())
}

/// Compresses a closed segment beside itself, then takes the plain one away.
fn pack(plain: &Path) -> io::Result<()> {
    pack_then(plain, || ())
}

/// As [`pack`]; `meanwhile` happens before the compressed one has its name.
pub(super) fn pack_then(plain: &Path, meanwhile: impl FnOnce()) -> io::Result<()> {
    let packed = plain.with_extension("jsonl.zst");
    let beside = plain.with_extension("jsonl.zst.new");
    let dir = plain.parent().ok_or_else(|| io::Error::other("a segment has a directory"))?;
    let from = File::options().read(true).custom_flags(libc::O_NOFOLLOW).open(plain)?;
    let to = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&beside)?;
    let mut encoder = zstd::Encoder::new(to, 3)?;
    encoder.include_checksum(true)?;
    encoder.set_pledged_src_size(Some(from.metadata()?.len()))?;
    io::copy(&mut &from, &mut encoder)?;
    encoder.finish()?.sync_all()?;
    meanwhile();
    fs::rename(&beside, &packed)?;
    File::open(dir)?.sync_all()?;
    match fs::remove_file(plain) {
        // It was removed meanwhile, by both of its names: it must not come back by one.
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::remove_file(&packed).or_else(gone)?,
        done => done?,
    }
    File::open(dir)?.sync_all()
}

/// What is not there is removed.
fn gone(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

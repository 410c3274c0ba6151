//! A disk that falls ill: a file system that hands everything on to a directory, and from when it is told so answers
//! every write, every sync and every change of a name with EIO, until it is well again.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, SessionACL, TimeOrNow, WriteFlags,
};
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::stat::{Mode, SFlag, mknod};
use nix::sys::statvfs::fstatvfs;

/// The disk, mounted; `/dev/fuse` must be there ([`crate::deaf_fs::without_fuse`]).
pub struct IllDisk {
    ill: Arc<AtomicBool>,
    refused: Arc<AtomicU64>,
    slow: Arc<AtomicU64>,
    _session: BackgroundSession,
}

impl IllDisk {
    /// Mounts it on `at`, with what is in `behind`. It is well.
    ///
    /// # Panics
    /// When that fails.
    #[must_use]
    pub fn mount(behind: &Path, at: &Path) -> Self {
        let (ill, refused) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let slow = Arc::new(AtomicU64::new(0));
        let root = node(behind).expect("a directory");
        let disk = Disk {
            nodes: Mutex::new(HashMap::from([(INodeNo::ROOT.0, root)])),
            files: Mutex::new(HashMap::new()),
            next: AtomicU64::new(1),
            ill: Arc::clone(&ill),
            refused: Arc::clone(&refused),
            slow: Arc::clone(&slow),
        };
        let mut config = Config::default();
        config.mount_options =
            vec![MountOption::DefaultPermissions, MountOption::FSName("agent-loop-tests-disk".to_owned())];
        config.acl = SessionACL::All;
        let session = fuser::spawn_mount(disk, at, &config).expect("a mount");
        Self { ill, refused, slow, _session: session }
    }

    /// From now on every change is answered with EIO, or none any more.
    pub fn fall_ill(&self, ill: bool) {
        self.ill.store(ill, Ordering::SeqCst);
    }

    /// From now on each fsync takes this long.
    pub fn be_slow(&self, by: Duration) {
        self.slow.store(u64::try_from(by.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// How many changes it has answered with EIO.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::SeqCst)
    }
}

struct Disk {
    /// What was ever looked up, held so that no number is used again.
    nodes: Mutex<HashMap<u64, File>>,
    files: Mutex<HashMap<u64, Arc<File>>>,
    next: AtomicU64,
    ill: Arc<AtomicBool>,
    refused: Arc<AtomicU64>,
    /// Milliseconds of an fsync.
    slow: Arc<AtomicU64>,
}

/// Nothing is kept by the kernel: it asks each time.
const ASK: Duration = Duration::ZERO;

fn node(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_NOFOLLOW).open(path)
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn attributes(ino: u64, it: &Metadata) -> FileAttr {
    let time = |s: i64, ns: i64| {
        let since = Duration::new(u64::try_from(s).unwrap_or(0), u32::try_from(ns).unwrap_or(0));
        UNIX_EPOCH + since
    };
    let kind = if it.is_dir() {
        FileType::Directory
    } else if it.file_type().is_fifo() {
        FileType::NamedPipe
    } else if it.file_type().is_symlink() {
        FileType::Symlink
    } else {
        FileType::RegularFile
    };
    FileAttr {
        ino: INodeNo(ino),
        size: it.size(),
        blocks: it.blocks(),
        atime: time(it.atime(), it.atime_nsec()),
        mtime: time(it.mtime(), it.mtime_nsec()),
        ctime: time(it.ctime(), it.ctime_nsec()),
        crtime: UNIX_EPOCH,
        kind,
        perm: u16::try_from(it.mode() & 0o7777).unwrap_or(0),
        nlink: u32::try_from(it.nlink()).unwrap_or(1),
        uid: it.uid(),
        gid: it.gid(),
        rdev: 0,
        flags: 0,
        blksize: 4096,
    }
}

impl Disk {
    /// Refuses a change while it is ill.
    fn change(&self) -> io::Result<()> {
        if self.ill.load(Ordering::SeqCst) {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        Ok(())
    }

    fn path(&self, ino: INodeNo) -> io::Result<PathBuf> {
        let nodes = locked(&self.nodes);
        let node = nodes.get(&ino.0).ok_or_else(|| io::Error::from_raw_os_error(libc::ESTALE))?;
        Ok(PathBuf::from(format!("/proc/self/fd/{}", node.as_raw_fd())))
    }

    fn child(&self, parent: INodeNo, name: &OsStr) -> io::Result<PathBuf> {
        Ok(self.path(parent)?.join(name))
    }

    fn look(&self, path: &Path) -> io::Result<FileAttr> {
        let found = node(path)?;
        let about = found.metadata()?;
        locked(&self.nodes).entry(about.ino()).or_insert(found);
        Ok(attributes(about.ino(), &about))
    }

    fn about(&self, ino: INodeNo) -> io::Result<FileAttr> {
        let nodes = locked(&self.nodes);
        let node = nodes.get(&ino.0).ok_or_else(|| io::Error::from_raw_os_error(libc::ESTALE))?;
        Ok(attributes(ino.0, &node.metadata()?))
    }

    fn keep(&self, file: File) -> FileHandle {
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        locked(&self.files).insert(number, Arc::new(file));
        FileHandle(number)
    }

    fn file(&self, handle: FileHandle) -> io::Result<Arc<File>> {
        let files = locked(&self.files);
        files.get(&handle.0).cloned().ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))
    }
}

fn options(flags: i32) -> OpenOptions {
    let mut options = OpenOptions::new();
    let how = flags & libc::O_ACCMODE;
    options.read(how != libc::O_WRONLY).write(how != libc::O_RDONLY);
    options
}

/// Answers with what there is, or with the error.
macro_rules! answer {
    ($reply:expr, $result:expr, |$ok:pat_param| $then:expr) => {
        match $result {
            Ok($ok) => $then,
            Err(error) => $reply.error(Errno::from(error)),
        }
    };
}

impl Filesystem for Disk {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.child(parent, name).and_then(|path| self.look(&path));
        answer!(reply, found, |attr| reply.entry(&ASK, &attr, Generation(0)));
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        answer!(reply, self.about(ino), |attr| reply.attr(&ASK, &attr));
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let changed = self.change().and_then(|()| {
            let path = self.path(ino)?;
            if let Some(mode) = mode {
                fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode & 0o7777))?;
            }
            if uid.is_some() || gid.is_some() {
                std::os::unix::fs::chown(&path, uid, gid)?;
            }
            if let Some(size) = size {
                OpenOptions::new().write(true).open(&path)?.set_len(size)?;
            }
            self.about(ino)
        });
        answer!(reply, changed, |attr| reply.attr(&ASK, &attr));
    }

    fn mknod(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, _: u32, reply: ReplyEntry) {
        let made = self.change().and_then(|()| {
            let path = self.child(parent, name)?;
            let kind = SFlag::from_bits_truncate(mode & libc::S_IFMT);
            mknod(&path, kind, Mode::from_bits_truncate(mode & 0o7777), 0)?;
            self.look(&path)
        });
        answer!(reply, made, |attr| reply.entry(&ASK, &attr, Generation(0)));
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, reply: ReplyEntry) {
        let made = self.change().and_then(|()| {
            let path = self.child(parent, name)?;
            DirBuilder::new().mode(mode).create(&path)?;
            self.look(&path)
        });
        answer!(reply, made, |attr| reply.entry(&ASK, &attr, Generation(0)));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let gone = self.change().and_then(|()| fs::remove_file(self.child(parent, name)?));
        answer!(reply, gone, |()| reply.ok());
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let gone = self.change().and_then(|()| fs::remove_dir(self.child(parent, name)?));
        answer!(reply, gone, |()| reply.ok());
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        to: INodeNo,
        new: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let renamed = self.change().and_then(|()| {
            if !flags.is_empty() {
                return Err(io::Error::from_raw_os_error(libc::EINVAL));
            }
            fs::rename(self.child(parent, name)?, self.child(to, new)?)
        });
        answer!(reply, renamed, |()| reply.ok());
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let opened = self.path(ino).and_then(|path| options(flags.0).open(path));
        // Each write comes to us, none is kept back by the kernel.
        answer!(reply, opened, |file| reply.opened(self.keep(file), FopenFlags::FOPEN_DIRECT_IO));
    }

    fn create(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, flags: i32, reply: ReplyCreate) {
        let made = self.change().and_then(|()| {
            let path = self.child(parent, name)?;
            let file = options(flags).write(true).create(true).mode(mode & 0o7777).open(&path)?;
            Ok((self.look(&path)?, file))
        });
        answer!(reply, made, |(attr, file)| {
            reply.created(&ASK, &attr, Generation(0), self.keep(file), FopenFlags::FOPEN_DIRECT_IO);
        });
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut bytes = vec![0; size as usize];
        let read = self.file(handle).and_then(|file| file.read_at(&mut bytes, offset));
        answer!(reply, read, |length| reply.data(&bytes[..length]));
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = self.change().and_then(|()| self.file(handle)?.write_all_at(data, offset));
        answer!(reply, written, |()| reply.written(u32::try_from(data.len()).expect("FUSE writes less")));
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        locked(&self.files).remove(&handle.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        std::thread::sleep(Duration::from_millis(self.slow.load(Ordering::SeqCst)));
        answer!(reply, self.change(), |()| reply.ok());
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        answer!(reply, self.change(), |()| reply.ok());
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let all = self.path(ino).and_then(|path| {
            fs::read_dir(path)?
                .map(|entry| entry.and_then(|entry| Ok((entry.file_name(), entry.metadata()?))))
                .collect::<io::Result<Vec<_>>>()
        });
        answer!(reply, all, |mut all| {
            all.sort_by(|a, b| a.0.cmp(&b.0));
            for (at, (name, about)) in (1..).zip(all).skip(usize::try_from(offset).unwrap_or(usize::MAX)) {
                if reply.add(INodeNo(about.ino()), at, attributes(about.ino(), &about).kind, name) {
                    break;
                }
            }
            reply.ok();
        });
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let made = self.change().and_then(|()| {
            let mode = FallocateFlags::from_bits_truncate(mode);
            Ok(fallocate(&*self.file(handle)?, mode, offset.cast_signed(), length.cast_signed())?)
        });
        answer!(reply, made, |()| reply.ok());
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let about = locked(&self.nodes).get(&INodeNo::ROOT.0).map(|root| fstatvfs(root).map_err(io::Error::from));
        let about = about.unwrap_or_else(|| Err(io::Error::from_raw_os_error(libc::ESTALE)));
        answer!(reply, about, |it| {
            let size = u32::try_from(it.fragment_size()).expect("a block");
            reply.statfs(
                it.blocks(),
                it.blocks_free(),
                it.blocks_available(),
                it.files(),
                it.files_free(),
                size,
                255,
                size,
            );
        });
    }
}

//! A file system that takes the wish to open its file and does not answer: who asks waits where not even SIGKILL
//! reaches it (`fuse_request` in user space, state D), until it is let go.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, Generation, INodeNo, MountOption,
    OpenFlags, ReplyAttr, ReplyEntry, ReplyOpen, Request, SessionACL,
};

/// The name of its file.
const FILE: &str = "deaf";
/// The number of its file.
const INODE: INodeNo = INodeNo(2);
const LONG: Duration = Duration::from_secs(3_600);

/// Why there is none on this host, if so.
#[must_use]
pub fn without_fuse() -> Option<&'static str> {
    let kinds = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let there = Path::new("/dev/fuse").exists() && kinds.lines().any(|line| line.ends_with("\tfuse"));
    (!there).then_some("FUSE is not there")
}

/// The file system, mounted; once this is dropped nobody waits any more.
pub struct DeafFs {
    dir: PathBuf,
    waiting: Arc<Mutex<Vec<ReplyOpen>>>,
    _session: BackgroundSession,
}

impl DeafFs {
    /// Mounts it on a directory, for all users.
    ///
    /// # Panics
    /// When that fails.
    #[must_use]
    pub fn mount(dir: &Path) -> Self {
        let waiting = Arc::new(Mutex::new(Vec::new()));
        let mut config = Config::default();
        config.mount_options = vec![MountOption::RO, MountOption::FSName("agent-loop-tests".to_owned())];
        config.acl = SessionACL::All;
        let session = fuser::spawn_mount(Deaf { waiting: Arc::clone(&waiting) }, dir, &config).expect("a mount");
        Self { dir: dir.to_owned(), waiting, _session: session }
    }

    /// The file that nobody comes to open.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.dir.join(FILE)
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Lets all go that wait: they are told of an error.
    pub fn let_go(&self) {
        // A reply that is dropped says EIO.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Drop for DeafFs {
    fn drop(&mut self) {
        self.let_go();
    }
}

struct Deaf {
    waiting: Arc<Mutex<Vec<ReplyOpen>>>,
}

const fn attributes(ino: INodeNo, kind: FileType, perm: u16) -> FileAttr {
    FileAttr {
        ino,
        size: 1,
        blocks: 1,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        flags: 0,
        blksize: 512,
    }
}

const ROOT: FileAttr = attributes(INodeNo::ROOT, FileType::Directory, 0o755);
const ONLY: FileAttr = attributes(INODE, FileType::RegularFile, 0o644);

impl Filesystem for Deaf {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == FILE {
            reply.entry(&LONG, &ONLY, Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&LONG, if ino == INODE { &ONLY } else { &ROOT });
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(reply);
    }
}

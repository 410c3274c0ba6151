//! Maps of a loaded program, reached past the library: to put into them what only a lost event could, and to forge
//! pins. And a bpffs of a test's own.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use agent_loop_common::map::LiveEntry;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

const MAP_CREATE: i32 = 0;
const MAP_LOOKUP_ELEM: i32 = 1;
const MAP_UPDATE_ELEM: i32 = 2;
const MAP_GET_NEXT_KEY: i32 = 4;
const OBJ_PIN: i32 = 6;
const OBJ_GET: i32 = 7;
const MAP_GET_NEXT_ID: i32 = 12;
const MAP_GET_FD_BY_ID: i32 = 14;
const OBJ_GET_INFO_BY_FD: i32 = 15;

/// A live set.
#[derive(Debug)]
pub struct LiveMap(OwnedFd);

impl LiveMap {
    /// The one with room for this many processes: a test gives its own an unusual size.
    ///
    /// # Errors
    /// NotFound when no loaded program has it.
    pub fn of_size(entries: u32) -> io::Result<Self> {
        let mut id = 0;
        while let Ok(next) = next_id(id) {
            id = next;
            // A map may go between the two calls.
            let Ok(fd) = by_id(id) else { continue };
            if describe(&fd)? == ("LIVE".to_owned(), entries) {
                return Ok(Self(fd));
            }
        }
        Err(io::Error::new(io::ErrorKind::NotFound, "no such live set"))
    }

    /// Puts an entry there, over any other.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn put(&self, tgid: u32, entry: &LiveEntry) -> io::Result<()> {
        let attr = [
            u64::from(self.0.as_raw_fd().cast_unsigned()),
            (&raw const tgid).expose_provenance() as u64,
            std::ptr::from_ref(entry).expose_provenance() as u64,
            0,
        ];
        bpf(MAP_UPDATE_ELEM, &attr).map(drop)
    }
}

/// How many live sets of this size there are.
///
/// # Errors
/// What the kernel says.
pub fn live_sets_of_size(entries: u32) -> io::Result<usize> {
    let (mut id, mut found) = (0, 0);
    while let Ok(next) = next_id(id) {
        id = next;
        let Ok(fd) = by_id(id) else { continue };
        found += usize::from(describe(&fd)? == ("LIVE".to_owned(), entries));
    }
    Ok(found)
}

/// Pins a new map there, of this type (`enum bpf_map_type`) and these sizes.
///
/// # Errors
/// What the kernel says.
pub fn pin_map(path: &Path, kind: u32, key: u32, value: u32, entries: u32) -> io::Result<()> {
    let words = [kind, key, value, entries, 0, 0];
    let attr: Vec<u64> = words.chunks(2).map(|pair| u64::from(pair[0]) | u64::from(pair[1]) << 32).collect();
    let fd = bpf(MAP_CREATE, &attr)?;
    // SAFETY: just opened, owned by nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    pin(&fd, path)
}

/// Pins what is pinned at `from` at `to` too.
///
/// # Errors
/// What the kernel says.
pub fn pin_again(from: &Path, to: &Path) -> io::Result<()> {
    pin(&open(from)?, to)
}

/// Changes the value that the pinned array map has at 0; `value` has to have its size.
///
/// # Errors
/// What the kernel says.
pub fn change(path: &Path, value: &mut [u8], change: impl FnOnce(&mut [u8])) -> io::Result<()> {
    let fd = open(path)?;
    let key = 0_u32;
    let fd_word = u64::from(fd.as_raw_fd().cast_unsigned());
    let key = (&raw const key).expose_provenance() as u64;
    bpf(MAP_LOOKUP_ELEM, &[fd_word, key, value.as_mut_ptr().expose_provenance() as u64, 0])?;
    change(value);
    bpf(MAP_UPDATE_ELEM, &[fd_word, key, value.as_ptr().expose_provenance() as u64, 0]).map(drop)
}

/// The keys, of this size, that the pinned map has.
///
/// # Errors
/// What the kernel says.
pub fn keys(path: &Path, size: usize) -> io::Result<Vec<Vec<u8>>> {
    let fd = open(path)?;
    let fd = u64::from(fd.as_raw_fd().cast_unsigned());
    let (mut keys, mut last): (Vec<Vec<u8>>, u64) = (Vec::new(), 0);
    loop {
        let mut next = vec![0_u8; size];
        match bpf(MAP_GET_NEXT_KEY, &[fd, last, next.as_mut_ptr().expose_provenance() as u64, 0]) {
            Ok(_) => keys.push(next),
            Err(err) if err.raw_os_error() == Some(libc::ENOENT) => return Ok(keys),
            Err(err) => return Err(err),
        }
        last = keys.last().map_or(0, |key| key.as_ptr().expose_provenance() as u64);
    }
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let fd = bpf(OBJ_GET, &[path.as_ptr().expose_provenance() as u64, 0])?;
    // SAFETY: just opened, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn pin(fd: &OwnedFd, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let fd = u64::from(fd.as_raw_fd().cast_unsigned());
    bpf(OBJ_PIN, &[path.as_ptr().expose_provenance() as u64, fd]).map(drop)
}

/// A bpffs of this thread's own, and of what it starts from now on: it goes with them, whatever becomes of the test.
#[derive(Debug)]
pub struct BpfFs {
    at: TempDir,
}

impl BpfFs {
    /// Mounts one, in a mount namespace of this thread's own.
    ///
    /// # Panics
    /// When root may not.
    #[must_use]
    pub fn mount() -> Self {
        let none = None::<&str>;
        unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("private mounts");
        let at = TempDir::new().expect("a scratch directory");
        let path = at.path().canonicalize().expect("it is there");
        mount(Some("bpf"), &path, Some("bpf"), MsFlags::empty(), none).expect("a bpffs");
        Self { at }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.at.path().canonicalize().expect("it is there")
    }
}

/// Has this thread, and what it starts from now on, read that as the id of the boot; it goes with the thread.
///
/// # Panics
/// When root may not.
pub fn pretend_boot(id: &Path) {
    let none = None::<&str>;
    let at = "/proc/sys/kernel/random/boot_id";
    // What another test pretended on this thread: its file is gone by now, and nothing can be mounted on that.
    let _ = umount2(at, MntFlags::MNT_DETACH);
    mount(Some(id), at, none, MsFlags::MS_BIND, none).expect("a bind mount");
}

impl Drop for BpfFs {
    fn drop(&mut self) {
        let _ = umount2(self.at.path(), MntFlags::MNT_DETACH);
    }
}

fn next_id(id: u32) -> io::Result<u32> {
    let mut attr = [u64::from(id), 0];
    // SAFETY: the kernel reads and writes the attribute within the size it is told.
    check(unsafe { libc::syscall(libc::SYS_bpf, MAP_GET_NEXT_ID, attr.as_mut_ptr(), size_of_val(&attr)) })?;
    // The second of the attribute's 32-bit words.
    let [[_, next], _] = attr.map(|word| [(word & 0xffff_ffff) as u32, (word >> 32) as u32]);
    Ok(next)
}

fn by_id(id: u32) -> io::Result<OwnedFd> {
    let fd = bpf(MAP_GET_FD_BY_ID, &[u64::from(id), 0])?;
    // SAFETY: just opened, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Its name and size, from `struct bpf_map_info`.
fn describe(map: &OwnedFd) -> io::Result<(String, u32)> {
    let mut info = [0u32; 20];
    let fd = u64::from(map.as_raw_fd().cast_unsigned());
    let length = (size_of_val(&info) as u64) << 32;
    bpf(OBJ_GET_INFO_BY_FD, &[fd | length, info.as_mut_ptr().expose_provenance() as u64])?;
    let name: Vec<u8> = info[6..10].iter().flat_map(|word| word.to_ne_bytes()).take_while(|byte| *byte != 0).collect();
    Ok((String::from_utf8_lossy(&name).into_owned(), info[4]))
}

fn bpf(command: i32, attr: &[u64]) -> io::Result<i32> {
    // SAFETY: the attribute has the size that is told; the addresses in it are the callers', alive during the call.
    check(unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_ptr(), size_of_val(attr)) })
}

fn check(ret: libc::c_long) -> io::Result<i32> {
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(i32::try_from(ret).unwrap_or(-1)) }
}

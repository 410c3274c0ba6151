//! Maps of a loaded program, reached past the library: to put into them what only a lost event could.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use agent_loop_common::map::LiveEntry;

const MAP_CREATE: i32 = 0;
const MAP_UPDATE_ELEM: i32 = 2;
const OBJ_PIN: i32 = 6;
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

    /// A new one that no program keeps.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn create() -> io::Result<Self> {
        const HASH: u64 = 1;
        let value = size_of::<LiveEntry>() as u64;
        let fd = bpf(MAP_CREATE, &[HASH | 4 << 32, value | 64 << 32, 0])?;
        // SAFETY: just made, owned by nobody else.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Pins it on a bpffs.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn pin(&self, at: &Path) -> io::Result<()> {
        let path = CString::new(at.as_os_str().as_bytes())?;
        let address = path.as_ptr().expose_provenance() as u64;
        bpf(OBJ_PIN, &[address, u64::from(self.0.as_raw_fd().cast_unsigned())]).map(drop)
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

//! The few commands of bpf(2) that aya has no way for: what an object is, whatever its descriptor came from.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// What a descriptor of bpf(2) is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A map.
    Map,
    /// A program.
    Program,
    /// A link: an attached program.
    Link,
}

/// How a pinned object is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// For everything.
    Full,
    /// A map, to be read only.
    Read,
}

/// Opens what is pinned there.
///
/// # Errors
/// What the kernel says; InvalidInput for a link that is to be read only.
pub(super) fn open_pin(path: &Path, access: Access) -> io::Result<OwnedFd> {
    const BPF_OBJ_GET: libc::c_int = 7;
    const BPF_F_RDONLY: u32 = 1 << 3;
    let path = CString::new(path.as_os_str().as_bytes())?;
    let file_flags = match access {
        Access::Full => 0,
        Access::Read => BPF_F_RDONLY,
    };
    let mut attr = PinAttr { pathname: path.as_ptr() as u64, bpf_fd: 0, file_flags };
    descriptor(call(BPF_OBJ_GET, &mut attr)?)
}

/// Pins an object there.
///
/// # Errors
/// What the kernel says; AlreadyExists where something is.
pub(super) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    const BPF_OBJ_PIN: libc::c_int = 6;
    let path = CString::new(path.as_os_str().as_bytes())?;
    let bpf_fd = object.as_raw_fd().cast_unsigned();
    call(BPF_OBJ_PIN, &mut PinAttr { pathname: path.as_ptr() as u64, bpf_fd, file_flags: 0 }).map(drop)
}

/// Opens an iterator program for one walk: what is read is what it writes.
///
/// CAP_BPF and CAP_PERFMON are enough, for a pinned program too: a library that first looks at the type information
/// which the program was loaded with (BPF_BTF_GET_FD_BY_ID) needs CAP_SYS_ADMIN.
///
/// # Errors
/// What the kernel says.
pub(super) fn walk(iterator: BorrowedFd<'_>) -> io::Result<File> {
    const BPF_LINK_CREATE: libc::c_int = 28;
    const BPF_ITER_CREATE: libc::c_int = 33;
    const BPF_TRACE_ITER: u32 = 28;
    /// linux/bpf.h, `union bpf_attr`, as far as it is set: link_create.
    #[repr(C)]
    struct LinkAttr {
        prog_fd: u32,
        target_fd: u32,
        attach_type: u32,
        flags: u32,
    }
    /// linux/bpf.h, `union bpf_attr`: iter_create.
    #[repr(C)]
    struct IterAttr {
        link_fd: u32,
        flags: u32,
    }
    let prog_fd = iterator.as_raw_fd().cast_unsigned();
    let mut attr = LinkAttr { prog_fd, target_fd: 0, attach_type: BPF_TRACE_ITER, flags: 0 };
    let link = descriptor(call(BPF_LINK_CREATE, &mut attr)?)?;
    let link_fd = link.as_raw_fd().cast_unsigned();
    Ok(descriptor(call(BPF_ITER_CREATE, &mut IterAttr { link_fd, flags: 0 })?)?.into())
}

/// What the descriptor is of, by the one line of its fdinfo that only this kind has; `None` for any other file.
///
/// Asked before [`info`]: the command answers for every kind, each in a layout of its own.
///
/// # Errors
/// When /proc cannot be read.
pub(super) fn kind_of(fd: BorrowedFd<'_>) -> io::Result<Option<Kind>> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))?;
    Ok(text.lines().find_map(|line| match line.split_once(':')?.0 {
        "map_type" => Some(Kind::Map),
        "prog_type" => Some(Kind::Program),
        "link_type" => Some(Kind::Link),
        _ => None,
    }))
}

/// The id of an object: the second word of each kind's information. Ids count up and begin again only after two
/// thousand million, so an object with a recorded id is the recorded object.
///
/// # Errors
/// What the kernel says.
pub(super) fn id_of(fd: BorrowedFd<'_>) -> io::Result<u32> {
    let info = info(fd, [0; INFO_BYTES])?;
    Ok(word(&info, 4))
}

/// What a link attaches, and where.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Attached {
    /// The id of the program.
    pub(super) program: u32,
    /// The raw tracepoint that it is attached to.
    pub(super) tracepoint: String,
}

/// Where a link is attached; `None` unless it is to a raw tracepoint.
///
/// # Errors
/// What the kernel says.
pub(super) fn attached(link: BorrowedFd<'_>) -> io::Result<Option<Attached>> {
    const BPF_LINK_TYPE_RAW_TRACEPOINT: u32 = 1;
    // Offsets in `struct bpf_link_info`, fixed by the user-space ABI (linux/bpf.h): type, id, prog_id, and for a raw
    // tracepoint where to put its name, and the room there.
    const PROG_ID: usize = 8;
    const TP_NAME: usize = 16;
    const TP_NAME_LEN: usize = 24;
    let mut name = [0_u8; 128];
    let first = info(link, [0; INFO_BYTES])?;
    if word(&first, 0) != BPF_LINK_TYPE_RAW_TRACEPOINT {
        return Ok(None);
    }
    let mut asked = [0; INFO_BYTES];
    put(&mut asked, TP_NAME, &(name.as_mut_ptr() as u64).to_ne_bytes());
    put(&mut asked, TP_NAME_LEN, &u32::try_from(name.len()).unwrap_or(0).to_ne_bytes());
    let info = info(link, asked)?;
    let tracepoint = name.split(|byte| *byte == 0).next().unwrap_or_default();
    let tracepoint = OsStr::from_bytes(tracepoint).to_string_lossy().into_owned();
    Ok(Some(Attached { program: word(&info, PROG_ID), tracepoint }))
}

/// How often the kernel skipped a run of this program (`bpf_prog_info.recursion_misses`, Linux 5.12 and
/// later; 0 before).
///
/// # Errors
/// What the kernel says.
pub(super) fn recursion_misses(program: BorrowedFd<'_>) -> io::Result<u64> {
    /// The offset of the field in `struct bpf_prog_info`, fixed by the user-space ABI (linux/bpf.h).
    const OFFSET: usize = 208;
    let info = info(program, [0; INFO_BYTES])?;
    Ok(info.get(OFFSET..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u64::from_ne_bytes(*bytes)))
}

/// Room for the information of any kind; the kernel fills what it knows.
const INFO_BYTES: usize = 256;

fn info(fd: BorrowedFd<'_>, mut info: [u8; INFO_BYTES]) -> io::Result<[u8; INFO_BYTES]> {
    const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
    #[repr(C)]
    struct Attr {
        fd: u32,
        len: u32,
        info: u64,
    }
    let fd = fd.as_raw_fd().cast_unsigned();
    let len = u32::try_from(info.len()).unwrap_or(0);
    call(BPF_OBJ_GET_INFO_BY_FD, &mut Attr { fd, len, info: info.as_mut_ptr() as u64 })?;
    Ok(info)
}

/// What the kernel is told of a pin: linux/bpf.h, `union bpf_attr`, "BPF_OBJ_* commands".
#[repr(C)]
struct PinAttr {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

fn word(info: &[u8], at: usize) -> u32 {
    info.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}

fn put(info: &mut [u8], at: usize, bytes: &[u8]) {
    for (to, from) in info.iter_mut().skip(at).zip(bytes) {
        *to = *from;
    }
}

fn call<T>(command: libc::c_int, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the attribute has the size that is told; the addresses in it are the callers', alive during the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn descriptor(raw: libc::c_long) -> io::Result<OwnedFd> {
    let raw = i32::try_from(raw).map_err(io::Error::other)?;
    // SAFETY: just opened by the kernel, owned by nobody else; it sets CLOEXEC.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

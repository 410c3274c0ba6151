//! The journal of systemd: its native protocol, and whether it is what stderr goes to.
//!
//! Source: <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>, systemd.exec(5) for `JOURNAL_STREAM`.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

/// Where it takes entries.
pub const SOCKET: &str = "/run/systemd/journal/socket";

/// An entry: `NAME=VALUE`, or for a value of several lines the name, its length and itself.
#[must_use]
pub fn entry(fields: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.extend_from_slice(name.as_bytes());
        if value.contains(&b'\n') {
            bytes.push(b'\n');
            bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
        } else {
            bytes.push(b'=');
        }
        bytes.extend_from_slice(value);
        bytes.push(b'\n');
    }
    bytes
}

/// Sends an entry; a journal that takes none is waited for so long.
///
/// # Errors
/// When there is no journal, or it takes nothing.
pub fn send(socket: &Path, entry: &[u8], patience: Duration) -> io::Result<()> {
    let from = UnixDatagram::unbound()?;
    from.set_write_timeout(Some(patience))?;
    from.send_to(entry, socket).map(drop)
}

/// Whether a file of this device and inode is the stream that `JOURNAL_STREAM` names: systemd sets it, and who is
/// started by a service inherits it, whatever its own stderr is.
#[must_use]
pub fn is_stream(named: Option<&str>, device: u64, inode: u64) -> bool {
    let of = |named: &str| -> Option<(u64, u64)> {
        let (device, inode) = named.split_once(':')?;
        Some((device.parse().ok()?, inode.parse().ok()?))
    };
    named.and_then(of) == Some((device, inode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_several_lines_comes_with_its_length() {
        let bytes = entry(&[("MESSAGE", b"one"), ("TEXT", b"a\nb=c\n")]);
        assert_eq!(bytes, b"MESSAGE=one\nTEXT\n\x06\0\0\0\0\0\0\0a\nb=c\n\n");
    }

    #[test]
    fn only_the_very_stream_that_is_named_is_the_journal() {
        assert!(is_stream(Some("8:4711"), 8, 4711));
        for named in [None, Some(""), Some("8"), Some("8:4712"), Some("9:4711"), Some("8:x"), Some("8:4711:1")] {
            assert!(!is_stream(named, 8, 4711), "{named:?}");
        }
    }
}

//! Turns the bytes of a ring into records; every length is checked before it is used.

use crate::record::{BirthRecord, DeathRecord, ExecHeader, SnapshotRecord, kind};

/// A record, borrowed from the bytes it came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// A process was born.
    Birth(BirthRecord),
    /// A process died.
    Death(DeathRecord),
    /// A process executed a file.
    Exec {
        /// The fixed part.
        header: ExecHeader,
        /// The path as called, without its terminator.
        filename: &'a [u8],
        /// The captured argument vector, NUL between arguments.
        argv: &'a [u8],
    },
}

/// Bytes that are not a record of this ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// Shorter than the record its kind announces.
    Short {
        /// The bytes needed.
        need: usize,
        /// The bytes there.
        got: usize,
    },
    /// A kind this version does not know.
    UnknownKind(u32),
    /// Lengths inside an exec record that reach past its end.
    Overlong,
}

impl core::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Short { need, got } => write!(f, "record of {got} bytes where {need} are needed"),
            Self::UnknownKind(kind) => write!(f, "record of unknown kind {kind}"),
            Self::Overlong => f.write_str("exec record whose lengths reach past its end"),
        }
    }
}

impl core::error::Error for DecodeError {}

/// Types that may be read from any bytes: plain integers, no padding, every bit pattern valid.
///
/// # Safety
/// The type must be `repr(C)`, without implicit padding, and valid for every bit pattern.
unsafe trait Plain: Copy {}

// SAFETY: repr(C), integers only, padding explicit.
unsafe impl Plain for BirthRecord {}
// SAFETY: repr(C), integers only, padding explicit.
unsafe impl Plain for DeathRecord {}
// SAFETY: repr(C), integers only, padding explicit.
unsafe impl Plain for ExecHeader {}
// SAFETY: repr(C), integers only, padding explicit.
unsafe impl Plain for SnapshotRecord {}

fn read<T: Plain>(bytes: &[u8]) -> Result<T, DecodeError> {
    let need = size_of::<T>();
    if bytes.len() < need {
        return Err(DecodeError::Short { need, got: bytes.len() });
    }
    // SAFETY: at least size_of::<T>() bytes are there, T is Plain, and the read needs no alignment.
    Ok(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

/// Decodes one record of a ring.
///
/// # Errors
/// When the bytes are too short, of an unknown kind, or name lengths past their end.
pub fn record(bytes: &[u8]) -> Result<Record<'_>, DecodeError> {
    let Some(first) = bytes.first_chunk::<4>() else {
        return Err(DecodeError::Short { need: 4, got: bytes.len() });
    };
    match u32::from_ne_bytes(*first) {
        kind::BIRTH => read(bytes).map(Record::Birth),
        kind::DEATH => read(bytes).map(Record::Death),
        kind::EXEC => {
            let header: ExecHeader = read(bytes)?;
            let rest = bytes.get(size_of::<ExecHeader>()..).unwrap_or_default();
            let filename = rest.get(..header.filename_cap as usize).ok_or(DecodeError::Overlong)?;
            let argv = rest
                .get(header.filename_cap as usize..)
                .and_then(|argv| argv.get(..header.argv_len as usize))
                .ok_or(DecodeError::Overlong)?;
            let end = filename.iter().position(|byte| *byte == 0).unwrap_or(filename.len());
            Ok(Record::Exec { header, filename: filename.get(..end).unwrap_or_default(), argv })
        }
        other => Err(DecodeError::UnknownKind(other)),
    }
}

/// Decodes the records of one read from the snapshot; a partial one at the end is an error.
pub fn snapshot(bytes: &[u8]) -> impl Iterator<Item = Result<SnapshotRecord, DecodeError>> + '_ {
    bytes.chunks(size_of::<SnapshotRecord>()).map(read)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::{EXEC_LARGE, EXEC_SMALL};

    /// Whether `part` lies within `whole`: a slice that was cut elsewhere would read past the end.
    fn within(part: &[u8], whole: &[u8]) -> bool {
        let (part, whole) = (part.as_ptr_range(), whole.as_ptr_range());
        part.start >= whole.start && part.end <= whole.end
    }

    fn check(bytes: &[u8]) {
        match record(bytes) {
            Ok(Record::Birth(_)) => assert!(bytes.len() >= size_of::<BirthRecord>()),
            Ok(Record::Death(_)) => assert!(bytes.len() >= size_of::<DeathRecord>()),
            Ok(Record::Exec { header, filename, argv }) => {
                assert!(bytes.len() >= size_of::<ExecHeader>());
                assert!(within(filename, bytes) && within(argv, bytes));
                assert_eq!(argv.len(), header.argv_len as usize);
                assert!(filename.len() <= header.filename_cap as usize && !filename.contains(&0));
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }

    /// An exec record of these lengths and this body.
    fn exec(filename_cap: u32, argv_len: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; size_of::<ExecHeader>()];
        bytes[..4].copy_from_slice(&kind::EXEC.to_ne_bytes());
        let at = core::mem::offset_of!(ExecHeader, argv_len);
        bytes[at..at + 4].copy_from_slice(&argv_len.to_ne_bytes());
        let at = core::mem::offset_of!(ExecHeader, filename_cap);
        bytes[at..at + 4].copy_from_slice(&filename_cap.to_ne_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    proptest! {
        #[test]
        fn no_bytes_are_read_past_their_end(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            check(&bytes);
        }

        #[test]
        fn no_bytes_of_a_known_kind_are_read_past_their_end(
            kind in 0_u32..5,
            tail in proptest::collection::vec(any::<u8>(), 0..EXEC_SMALL),
        ) {
            let bytes = [&kind.to_ne_bytes()[..], &tail].concat();
            check(&bytes);
            // A slice with an end of its own, not inside a larger allocation, at every alignment.
            for cut in 0..8.min(bytes.len()) {
                check(&bytes[cut..].to_vec().into_boxed_slice());
            }
        }

        #[test]
        fn lengths_inside_an_exec_never_reach_past_it(
            filename_cap in prop_oneof![0_u32..700, any::<u32>(), Just(u32::MAX)],
            argv_len in prop_oneof![0_u32..700, any::<u32>(), Just(u32::MAX)],
            body in proptest::collection::vec(any::<u8>(), 0..EXEC_SMALL),
        ) {
            let bytes = exec(filename_cap, argv_len, &body);
            check(&bytes);
            let fits = u64::from(filename_cap) + u64::from(argv_len) <= body.len() as u64;
            prop_assert_eq!(record(&bytes).is_ok(), fits);
        }

        #[test]
        fn a_snapshot_is_read_whole_and_a_torn_end_is_an_error(
            bytes in proptest::collection::vec(any::<u8>(), 0..400),
        ) {
            let whole = bytes.len() / size_of::<SnapshotRecord>();
            let torn = usize::from(!bytes.len().is_multiple_of(size_of::<SnapshotRecord>()));
            let read: Vec<_> = snapshot(&bytes).collect();
            prop_assert_eq!(read.len(), whole + torn);
            prop_assert!(read.iter().take(whole).all(Result::is_ok));
            prop_assert!(read.iter().skip(whole).all(Result::is_err));
        }
    }

    #[test]
    fn an_exec_record_is_taken_apart() {
        let mut body = vec![0; 128];
        body[..9].copy_from_slice(b"/bin/true");
        body.extend_from_slice(b"true\0-x\0");
        body.resize(EXEC_LARGE, 0xaa);
        match record(&exec(128, 8, &body)) {
            Ok(Record::Exec { filename, argv, .. }) => {
                assert_eq!((filename, argv), (&b"/bin/true"[..], &b"true\0-x\0"[..]))
            }
            other => panic!("{other:?}"),
        }
    }
}

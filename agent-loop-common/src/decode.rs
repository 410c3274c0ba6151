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

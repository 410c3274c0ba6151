//! Checkpoints: the size and root of a log at a time, signed (C2SP tlog-checkpoint and signed-note).

use signed_note::{Note, NoteError, Signer, StandardSigner, StandardVerifier, VerifierError, VerifierList};
use tlog_tiles::{Checkpoint, Hash};

/// A size and root of a log, and when they were signed.
#[derive(Clone, Debug, PartialEq)]
pub struct Stamp {
    /// How many lines it covers.
    pub size: u64,
    /// The root over them.
    pub root: Hash,
    /// When, by the wall clock: RFC 3339 in UTC.
    pub time: String,
    /// In which boot.
    pub boot_id: String,
    /// When, by CLOCK_BOOTTIME, nanoseconds.
    pub boot_ns: u64,
}

/// Why a text is not a checkpoint of a log.
#[derive(Debug, thiserror::Error)]
pub enum NotACheckpoint {
    /// It is not a signed note.
    #[error("it is not a signed note: {0}")]
    NotANote(NoteError),
    /// The note is not a checkpoint.
    #[error("the note is not a checkpoint of a log of agent-loop")]
    NotOfALog,
    /// Nobody of those who may has signed it.
    #[error("it is not signed by the key of the log: {0}")]
    NotSigned(NoteError),
    /// The key is none.
    #[error("the key is not a verifier key: {0}")]
    NotAKey(VerifierError),
}

/// A checkpoint as it was read: not verified yet.
#[derive(Debug)]
pub struct Unverified {
    /// Which log it says to be of.
    pub origin: String,
    /// What it says.
    pub stamp: Stamp,
    note: Note,
}

/// Signs a checkpoint.
///
/// # Errors
/// When the origin is not one, or signing fails.
pub fn sign(signer: &StandardSigner, stamp: &Stamp) -> Result<Vec<u8>, String> {
    let extension = format!("time {}\nboot {} {}\n", stamp.time, stamp.boot_id, stamp.boot_ns);
    let checkpoint =
        Checkpoint::new(signer.name(), stamp.size, stamp.root, &extension).map_err(|error| error.to_string())?;
    let mut note = Note::new(&checkpoint.to_bytes(), &[]).map_err(|error| error.to_string())?;
    note.add_sigs(&[signer]).map_err(|error| error.to_string())?;
    Ok(note.to_bytes())
}

/// Reads a checkpoint.
///
/// # Errors
/// [`NotACheckpoint::NotANote`], [`NotACheckpoint::NotOfALog`].
pub fn read(bytes: &[u8]) -> Result<Unverified, NotACheckpoint> {
    let note = Note::from_bytes(bytes).map_err(NotACheckpoint::NotANote)?;
    // What is read loosely here is signed: nobody but the log's own key has a say in it.
    let checkpoint = Checkpoint::from_reader(&mut note.text(), false).map_err(|_| NotACheckpoint::NotOfALog)?;
    let stamp = || {
        let mut lines = checkpoint.extension().lines();
        let time = lines.next()?.strip_prefix("time ")?;
        let (boot_id, boot_ns) = lines.next()?.strip_prefix("boot ")?.split_once(' ')?;
        lines.next().is_none().then_some(())?;
        Some(Stamp {
            size: checkpoint.size(),
            root: *checkpoint.hash(),
            time: time.to_owned(),
            boot_id: boot_id.to_owned(),
            boot_ns: boot_ns.parse().ok()?,
        })
    };
    let stamp = stamp().ok_or(NotACheckpoint::NotOfALog)?;
    Ok(Unverified { origin: checkpoint.origin().to_owned(), stamp, note })
}

impl Unverified {
    /// What it says, if this key signed it. The name of the key is the origin of the log.
    ///
    /// # Errors
    /// [`NotACheckpoint::NotAKey`], [`NotACheckpoint::NotSigned`].
    pub fn verify(&self, key: &str) -> Result<&Stamp, NotACheckpoint> {
        let verifier = StandardVerifier::new(key).map_err(NotACheckpoint::NotAKey)?;
        if signed_note::Verifier::name(&verifier) != self.origin {
            return Err(NotACheckpoint::NotSigned(NoteError::UnverifiedNote));
        }
        self.note.verify(&VerifierList::new(vec![Box::new(verifier)])).map_err(NotACheckpoint::NotSigned)?;
        Ok(&self.stamp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::log::Key;

    fn stamp() -> Stamp {
        Stamp {
            size: 7,
            root: Hash([3; 32]),
            time: "2026-11-22T14:00:00.000000001Z".to_owned(),
            boot_id: "7c1e0a52-0000-4000-8000-000000000001".to_owned(),
            boot_ns: 99,
        }
    }

    #[test]
    fn a_checkpoint_reads_back_and_verifies_with_its_key_alone() {
        let (key, other) = (Key::generate(), Key::generate());
        let bytes = sign(key.signer(), &stamp()).expect("signed");
        let read = read(&bytes).expect("a checkpoint");
        assert_eq!(read.verify(key.verifier()).expect("its key"), &stamp());
        assert!(matches!(read.verify(other.verifier()), Err(NotACheckpoint::NotSigned(_))));
        assert!(matches!(read.verify("nonsense"), Err(NotACheckpoint::NotAKey(_))));
    }

    #[test]
    fn every_changed_byte_of_a_checkpoint_is_found() {
        let key = Key::generate();
        let bytes = sign(key.signer(), &stamp()).expect("signed");
        for at in 0..bytes.len() {
            for change in [1, 0x20, 0x80] {
                let mut changed = bytes.clone();
                changed[at] ^= change;
                let judged = read(&changed).map(|it| it.verify(key.verifier()).cloned());
                assert!(!matches!(judged, Ok(Ok(_))), "byte {at} changed by {change}");
            }
        }
    }
}

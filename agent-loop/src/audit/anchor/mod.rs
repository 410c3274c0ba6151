//! Anchors: places outside of the log that keep its checkpoints, so that who has its key cannot rewrite what they cover.
//!
//! Inside: the back ends, the thread that hands checkpoints out, the reading of what was kept. Not inside: the records
//! of it (`log`, `record`), the verdict (`verify`). Called by `log` and `verify`.

mod files;
mod found;
mod journal;
mod plan;
mod thread;

use std::fmt;
use std::io;

pub use files::Files;
pub use found::{Found, Hoard, read};
pub use journal::Journal;
pub(crate) use thread::{Anchoring, Outcome, Slot};

/// A checkpoint as it is handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handed {
    /// Which log it is of.
    pub origin: String,
    /// How many lines it covers.
    pub size: u64,
    /// The root over them, base 64.
    pub root: String,
    /// The signed note.
    pub text: Vec<u8>,
}

/// What the other side said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt(pub String);

/// A place that keeps checkpoints.
pub trait Anchor: fmt::Debug + Send + Sync {
    /// What records call it.
    fn name(&self) -> &'static str;

    /// Hands a checkpoint over; may take as long as the other side does.
    ///
    /// # Errors
    /// When it is not known to be kept.
    fn publish(&self, checkpoint: &Handed) -> io::Result<Receipt>;
}

#[cfg(test)]
mod tests {
    use tlog_tiles::Hash;

    use super::*;
    use crate::audit::log::Key;
    use crate::audit::log::note::{self, Stamp};

    /// A checkpoint of this size over a root of this byte.
    pub(super) fn handed(size: u64, root: u8) -> Handed {
        use std::sync::LazyLock;
        static KEY: LazyLock<Key> = LazyLock::new(Key::generate);
        let stamp = Stamp {
            size,
            root: Hash([root; 32]),
            time: "2026-11-22T14:00:00Z".to_owned(),
            boot_id: "boot".to_owned(),
            boot_ns: 1,
        };
        let text = note::sign(KEY.signer(), &stamp).expect("signed");
        let root = data_encoding::BASE64.encode(&stamp.root.0);
        Handed { origin: KEY.origin().to_owned(), size, root, text }
    }
}

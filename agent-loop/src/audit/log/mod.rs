//! The audit log as it is written: numbered lines in segments, a Merkle tree over them, signed checkpoints.
//!
//! Inside: the front end that numbers lines and never blocks, the thread that writes them, opening after a crash, keys.
//! Not inside: what a line says (`record`), reading and judging a log (`read`, `verify`). Called by the shells.
//! The files, and what an auditor may find in them, are described in `docs/audit-format.md`.

mod disk;
mod front;
mod key;
pub mod layout;
mod mend;
pub mod note;
mod open;
mod plan;
mod retention;
mod settings;
mod thread;
mod torn;
pub mod tree;

#[cfg(test)]
mod tests;

pub use disk::{Disk, Files};
pub use front::{AuditLog, Progress};
pub use key::{Key, tag_key};
pub use open::{OpenError, Opened};
pub use retention::{Keep, Leaving, Retention};
pub use settings::{Place, Settings};
pub use torn::{Torn, undeclared};

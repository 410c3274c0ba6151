//! Judges a log as it lies there: every line, hash and signature, and the sum of the kernel's records.
//!
//! Inside: the reading of a log that trusts nothing in it, the verdict, proofs of single lines. Not inside: writing; what
//! people do with records (`read`). Called by `cli`. The rules are those of `docs/audit-format.md`.

mod account;
mod bundle;
mod checkpoints;
mod lines;
mod prove;
#[cfg(test)]
mod tests;
mod tiles;
mod verdict;

use std::path::{Path, PathBuf};

pub use bundle::{NotProven, Proven, check as check_bundle};
pub use prove::{Made, ProveError, Wanted, prove};
pub use verdict::{Damage, Report, Verdict};

/// What to judge by.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The public key that the log must be signed by, as a verifier key; without it the one in the log is taken.
    pub pubkey: Option<String>,
    /// Files with checkpoints that were handed out of the log.
    pub anchors: Vec<PathBuf>,
    /// Directories of what anchors kept, of this log and of others.
    pub hoards: Vec<PathBuf>,
    /// Whether the sum of the kernel's records is drawn.
    pub account: bool,
}

/// Judges the log in this directory.
///
/// `progress` is told how many bytes of lines were read.
///
/// # Errors
/// When it cannot be read at all; damage to the log is a verdict.
pub fn verify(audit: &Path, options: &Options, progress: &mut dyn FnMut(u64)) -> std::io::Result<Report> {
    let mut report = Report::default();
    let checkpoints = checkpoints::read(audit, options, &mut report)?;
    let read = lines::read(audit, &checkpoints, options.account, &mut report, progress)?;
    report.torn += super::log::undeclared(audit)?.iter().map(|it| it.bytes).sum::<u64>();
    checkpoints.judge(&read, &mut report);
    read.tiles.judge(audit, &mut report);
    Ok(report)
}

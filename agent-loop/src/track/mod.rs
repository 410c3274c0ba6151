//! Turns the kernel's records into facts and knows which processes live. [pure]
//! Inside: the registry, the tracker, loss and its repair. Not inside: rings, maps, what a run decides.
//! Called by `supervise` alone.

mod loss;
mod registry;
mod repair;
mod restore;
mod tracker;

pub use loss::{Accounts, Tally};
pub(crate) use registry::NAME_CHARS;
pub use registry::{Entry, Life, Registry};
pub use restore::{Restored, Survivor};
pub use tracker::Tracker;

#[cfg(test)]
#[expect(clippy::wildcard_enum_match_arm, reason = "a test picks the fact it is about")]
#[expect(clippy::unwrap_used, reason = "numbers of a test fit")]
mod tests;

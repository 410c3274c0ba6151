//! Turns the kernel's records into facts and knows which processes live. [pure]
//! Inside: the registry, the tracker, loss and its repair. Not inside: rings, maps, what a run decides.
//! Called by `supervise` alone.

mod loss;
mod registry;
mod repair;
mod tracker;

pub use loss::{Accounts, Tally};
pub use registry::{Entry, Life, Registry};
pub use tracker::Tracker;

#[cfg(test)]
mod property;
#[cfg(test)]
pub(crate) mod shadow;
#[cfg(test)]
mod tests;

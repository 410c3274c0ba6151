//! The record of what happened: the shape of its lines, and how facts become lines.
//!
//! Inside: wire types and their conversion. Not inside: where the lines go. Called by the shells (`cli`).

mod record;
mod replay;

pub use record::{Clock, Counts, Host, Line, ProcId, Recorder, Stats};
pub use replay::{ReplayError, Replayed};

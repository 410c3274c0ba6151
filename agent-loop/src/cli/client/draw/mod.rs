//! What a person reads of the daemon's answers: views in, text out. [pure]
//!
//! Inside: tables, trees and sentences, cut to the width of the page; nothing an agent chose reaches the terminal
//! as a code. Not inside: a question, the clock.

mod event;
mod facts;
mod queue;
mod table;
#[cfg(test)]
mod tests;
pub(super) mod text;
mod tree;

pub(in crate::cli) use event::event;
pub(super) use facts::{ending, killing, run, status, why};
pub(in crate::cli) use queue::tick;
pub(super) use queue::{queue, story};
pub(super) use table::table;
pub(super) use text::Colour;
#[cfg(test)]
pub(super) use text::short;
pub(in crate::cli) use text::visible;
pub(super) use tree::tree;

/// What the text is drawn on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Page {
    /// Columns.
    pub(in crate::cli) width: usize,
    /// Whether colours are seen.
    pub(in crate::cli) colour: bool,
}

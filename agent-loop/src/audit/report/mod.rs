//! The report: a log as one page for a person, with a picture of its runs.
//!
//! Inside: from lines to a model (`build`), from the model to a page that needs no script, no network and no trust in
//! the log's text (`page`, `draw`, `escape`). Not inside: proofs; what was not checked is said. Called by `cli/audit`.
//! Pure: the same lines make the same bytes.

mod build;
mod draw;
mod escape;
mod look;
mod model;
mod page;
mod scale;
#[cfg(test)]
mod tests;
mod words;

pub use build::{Builder, Selection};
pub use model::{Report, Verification};
pub use page::html;

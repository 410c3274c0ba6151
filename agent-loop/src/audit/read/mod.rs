//! Reads the records of a log, or of a file of events, for people and for other formats.
//!
//! Inside: the lines in their order, what of a record matters to everybody, which records are meant. Not inside: whether
//! they are true (`verify`). Tolerant of kinds and fields that are not known; a newer major of the shape is refused.

mod filter;
mod record;
mod source;

pub use filter::Filter;
pub use record::{Exec, Exit, Gap, Host, NotARecord, Proc, Record, Retention, Segment, Stats, To};
pub use source::{ReadError, Source};

//! The record of what happened: the shape of its lines, and how facts become lines.
//!
//! Inside: wire types and their conversion. Not inside: where the lines go. Called by the shells (`cli`).

pub mod anchor;
pub mod export;
pub mod log;
mod past;
pub mod read;
mod record;
pub mod redact;
mod replay;
pub mod report;
pub mod schema;
pub mod verify;

pub use past::lines_of;
pub use record::{
    Area, CiBody, Class, Clock, Counts, Host, Line, OwnLines, ProcId, Recorder, SCHEMA, SegmentHead, Stats, TaskBody,
    TaskKind, TaskLine, WriteBody,
};
pub use replay::{ReplayError, Replayed, end_asked, output_unheard};

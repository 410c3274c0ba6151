//! The kernel's side of the story: loads the eBPF program and hands out what it tells.
//!
//! Inside: BTF offsets, load and attach, pins, rings, live set, run table, counters, snapshot, its trial, what this host can do.
//! Not inside: any decision. Called by the shells (`cli`) and by `keeper` through its `LiveSet` trait.

mod bpf;
mod btf;
mod counters;
mod hooks;
pub mod host;
mod live;
mod load;
mod log;
pub mod object;
pub mod pins;
pub(crate) mod poll;
mod rings;
mod snapshot;
pub mod trial;
mod watch;

pub use btf::{ExitHook, Layout, LayoutError, Tracepoints};
pub use counters::Counters;
pub use live::{LiveSet, Run, RunTable, birth_of};
pub use load::{LoadError, Options, Probes, RunsBy, Tracing, load};
pub use rings::{ROUND_BYTES, Rings, Round};

//! agent-loop runs coding agents on a Linux host and never loses sight of a process.
//!
//! Decisions are pure (`model`, `event`, `track`, `supervise`, `work`), effects live at the edge
//! (`kernel`, `keeper`, `cli`). See `ARCHITECTURE.md`.

pub mod agent;
pub mod audit;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod daemon;
pub mod error;
pub mod event;
mod fatal;
pub mod fault;
pub mod forge;
pub mod git;
pub mod issues;
pub mod journal;
pub mod keeper;
pub mod kernel;
pub mod model;
pub mod run;
pub mod say;
pub mod store;
pub mod supervise;
pub mod track;
pub mod work;

//! From issue to verified merge: `agent-loop serve` against a GitHub that remembers, with agents of a script.

#![allow(clippy::unwrap_used, reason = "what is not as expected fails the test")]

mod life;
mod world;

//! From issue to verified merge: `agent-loop serve` against a GitHub that remembers, with agents of a script.

mod crashes;
mod faults;
mod hosts;
mod import;
mod life;
mod lives;
mod people;
mod probe;
mod real;
mod secrets;
mod steer;
mod stories;
mod token;

//! The keeper as a process: `agent-loop keeper`, asked by a test that plays the daemon.

mod adopt;
mod bench;
mod hostile;
mod output;
mod place;
mod run;

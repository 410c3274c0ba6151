//! The hands: births into a frozen cgroup, signals that cannot hit a stranger, reaping, and the guard.
//! Not inside: a decision (`supervise`), a look at eBPF (`kernel`; its live set comes in as a trait), a log.
//! Called by the shell alone; `signal` is the only module of the whole program that sends one.

mod birth;
pub mod cgroup;
pub mod guard;
pub mod hold;
pub mod launch;
pub mod launcher;
mod mounts;
mod nest;
pub mod pidfd;
pub mod probe;
pub mod process;
pub mod reap;
pub mod root;
pub mod scan;
pub mod signal;
pub mod streams;
pub mod terminal;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod tree;

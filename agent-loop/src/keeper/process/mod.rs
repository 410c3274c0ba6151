//! The keeper as a process of its own: what it is asked, what it holds, what it answers.
//! Not inside: a decision about a run, a network, a file that an agent wrote. It refuses what it cannot prove.
//! The daemon talks to it through `client`; `protocol` is all that both know, `socket` how both send and receive it.

pub mod client;
pub mod protocol;
mod socket;

//! The control socket: what people and programs ask the daemon, and what it answers.
//! Inside: HTTP and JSON on a Unix socket, the checks of who asks, the client of the command line.
//! Not inside: a decision about a run, a signal. A question reaches the daemon's shell as an [`api::Ask`].

pub mod api;
pub mod client;
pub mod feed;
pub mod server;

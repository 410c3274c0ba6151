//! The signal protocol as a model that is explored exhaustively: whatever happens between any two steps, in any order.
//!
//! It stays close to `agent-loop/src/keeper/`. What each transition stands for:
//!
//! | in the model | in the code |
//! |---|---|
//! | [`check::Step`], one for each thing that is read | `signal::verify` and `signal::known` read by read, `pidfd::PidFd`, `process::witness`, `pins::live_set`, `OwnCgroup::holds` |
//! | [`Act::AskAdopt`] | `Request::Adopt`, `held::Runs::adopt` and `proven`, `RunCgroup::open`, `OwnCgroup::prove` |
//! | [`Act::AskSignal`], [`Act::AskMember`] | `Request::Signal` and `SignalMember`, `held::Runs::signal`, `signal::open_and_send` |
//! | [`Act::AskKill`] | `Request::Kill`, `signal::kill_cgroup`, which is one act of the kernel |
//! | [`Act::Notice`] | `run::Run::exit`: the descriptor of the main process is readable |
//! | [`Act::StartDaemon`] | `daemon::stock`, `supervise::fleet::plan`: what is remembered, and its boot |
//! | [`Act::Exit`], [`Act::Reap`], [`Act::Fork`] | the kernel, with the hooks of `agent-loop-ebpf/src/probes/` |
//!
//! Left out: what only refuses (kernel threads, pid 0 and 1, the numbers of signals), nested cgroups, `Descendant` (the
//! degraded mode of `exec`), launching. A record that is forged names a living stranger exactly. Whoever can make
//! cgroups under our root (root alone) may do so, and put strangers in.
//!
//! The clock of /proc stands still where ours is explored: then all starts look alike there, which is the worst case.
//!
//! What must hold is judged by what only the model knows, who a process is:
//! a signal hits nobody but who was meant, of this run; "sent" is told only while the meant one still has its number, so
//! that no proof outlives its process unnoticed; "gone" only of who is gone; and the keeper holds nobody else as the main
//! process.

#![forbid(unsafe_code)]

pub mod check;
mod explore;
mod print;
mod protocol;
mod state;
mod tell;
mod world;

pub use explore::{Found, Outcome, counterexample, explore};
pub use print::{HOSTS, OTHERS, WITHOUT, print};
pub use protocol::{Guards, Host, Protocol};
pub use state::{Act, Bad, SignalModel, State};

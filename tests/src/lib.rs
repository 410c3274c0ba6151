//! What the tests share: adversaries, forced PID recycling, and a harness around the built `agent-loop`.
//!
//! - [`adversary`]: the small programs that try to escape, each bounded in time and number
//! - [`recycle`]: a stranger is put on a dead process's number at a chosen moment
//! - [`faults`]: daemons and keepers that end at every step
//! - [`fuzzing`]: what reads bytes of others, called with any bytes
//! - [`harness`]: runs `agent-loop exec`, reads its events, checks what is left
//! - [`traced`]: the eBPF program loaded by the test itself, and a cgroup that it is told of
//! - [`bpf`]: maps of a loaded program, reached past the library
//! - [`stand_in`]: the service that `claude` talks to, by a script
//! - [`bench`]: what `cargo xtask bench` measures with
//! - [`fake_github`]: a GitHub that remembers, checked against GitHub's own description, with the faults of the real one
//! - [`fake_daemon`]: the real control socket with a script behind it
//! - [`remembering`]: a process that saves runs until it is killed
//! - [`issue_demo`]: one issue from its label to its merge, told to a person
//! - [`logging`]: a process that writes an audit log until it is killed
//! - [`oracle`]: what `waitid` said, written by the adversaries
//! - [`deaf_fs`]: a file system that keeps who opens a file of it in state D
//! - [`ill_disk`]: a file system that answers what changes it with EIO, from when it is told so
//! - [`sys`]: the system calls, and all `unsafe` of this crate

pub mod adversary;
pub mod bench;
pub mod bpf;
pub mod browser;
pub mod deaf_fs;
pub mod fake_daemon;
pub mod fake_github;
pub mod faults;
pub mod fuzzing;
pub mod harness;
mod http;
pub mod ill_disk;
pub mod issue_demo;
pub mod logging;
pub mod night;
pub mod oracle;
pub mod recycle;
pub mod remembering;
pub mod stand_in;
pub mod sys;
pub mod traced;

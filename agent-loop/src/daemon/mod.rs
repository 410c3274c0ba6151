//! The daemon: turns what happens into events of the fleet, and performs what the fleet answers.
//! Inside: its sources, its start, the keeper as it sees it, the logs of its runs, its answers to people.
//! Not inside: a decision about a run (`supervise`), a signal (`keeper`). Started by `cli`, and by tests.

mod answers;
mod keeper;
mod perform;
mod run_log;
mod shell;
mod sources;
mod spec;
mod stock;
mod tree;

use std::path::PathBuf;
use std::time::Duration;

pub use shell::{Stopped, run};

use crate::run::Limits;
use crate::supervise::Leftovers;

/// Everything a daemon is told at its start.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Durable state: `/var/lib/agent-loop`.
    pub state_dir: PathBuf,
    /// Event logs and output: `/var/log/agent-loop`.
    pub log_dir: PathBuf,
    /// The sockets: `/run/agent-loop`.
    pub runtime_dir: PathBuf,
    /// The pinned kernel side: `/sys/fs/bpf/agent-loop`.
    pub pins: PathBuf,
    /// The cgroup below which runs are made, an absolute path in the file system.
    pub cgroup_root: PathBuf,
    /// How the keeper comes to be there.
    pub keeper: KeeperMode,
    /// The program that is started as keeper: this one.
    pub program: PathBuf,
    /// Sizes of the kernel's rings in bytes: births and deaths, execs.
    pub rings: (u32, u32),
    /// Names of programs that are observed wherever they run.
    pub watch: Vec<String>,
    /// What a reload changes.
    pub rules: Rules,
}

/// How the keeper comes to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeeperMode {
    /// The daemon starts one where none answers; it outlives the daemon.
    Start,
    /// Somebody else does, a unit for one; the daemon waits for it.
    Expect,
}

/// What a reload changes, for runs that are submitted from then on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// How many runs may be launched and not over at once.
    pub max_agents: u32,
    /// Who agents run as; without it none is started.
    pub user: Option<String>,
    /// Whether that may be root.
    pub allow_root: bool,
    /// Names of variables of the daemon's own environment that agents get.
    pub env: Vec<String>,
    /// What a run may take where it does not say.
    pub limits: Limits,
    /// How long each polite step of a stop is given where a run does not say.
    pub grace: Duration,
    /// What becomes of processes that outlive the command where a run does not say.
    pub leftovers: Leftovers,
}

//! The daemon: turns what happens into events of the fleet, and performs what the fleet answers.
//! Inside: its sources, its start, the keeper as it sees it, the logs of its runs, its answers to people.
//! Not inside: a decision about a run (`supervise`), a signal (`keeper`). Started by `cli`, and by tests.

mod answers;
mod begin;
mod discard;
mod feed;
mod go_on;
mod keeper;
mod look_up;
mod notices;
mod perform;
mod records;
mod remember;
mod run_log;
mod secret;
mod shell;
mod sources;
mod spec;
mod stock;
mod tree;
mod upkeep;
mod views;
mod within;

use std::path::PathBuf;

use anyhow::Context as _;

pub use shell::{Started, start};
pub(crate) use spec::agent_environment;
pub use within::Desk;

use crate::config::Config;
use crate::keeper::process::raise_open_files;

/// Everything a daemon is told at its start.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The configuration.
    pub config: Config,
    /// The cgroup below which runs are made, an absolute path in the file system.
    pub cgroup_root: PathBuf,
    /// Its depth as the kernel counts, the root of the hierarchy being 0; `None` in a cgroup namespace, which hides it.
    pub root_level: Option<u32>,
    /// The program that is started as keeper: this one.
    pub program: PathBuf,
    /// The limit on open files that agents get: ours is raised.
    pub open_files: u64,
    /// The file that a keeper which is started says things to, instead of our standard error: it outlives us, and whoever
    /// waits for the end of our output would wait for it.
    pub keeper_log: Option<PathBuf>,
}

impl Setup {
    /// Finds where runs belong on this host.
    ///
    /// # Errors
    /// When no hierarchy of version 2 is mounted, or the configured root is outside of it.
    pub fn new(config: Config) -> anyhow::Result<Self> {
        let (cgroup_root, root_level) = crate::keeper::root::find(config.host.cgroup_root.as_deref())?;
        let program = std::env::current_exe().context("finding this program")?;
        // Of each run some are held open.
        let (open_files, _) = raise_open_files().context("raising the limit of open files")?;
        Ok(Self { config, cgroup_root, root_level, program, open_files, keeper_log: None })
    }
}

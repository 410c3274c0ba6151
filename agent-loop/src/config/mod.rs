//! The configuration: what an operator wrote, parsed into domain types once, at the edge.
//!
//! Inside: the types, reading a file, what differs between two. Not inside: acting on it. Called by the shells in
//! `cli` and the daemon.

mod file;
mod load;
mod repo;
mod table;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use load::{ConfigError, PLACE};
pub use repo::{AgentKind, Checks, Claims, Command, Merge, Repo};
pub use table::Entry;

use crate::audit::redact::{Policy, UserName, UserPattern};
use crate::audit::{anchor, log};
use crate::run;
use crate::supervise::Leftovers;
use crate::work::Budgets;

/// Everything that can be configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `[host]`: where things are, and who may ask.
    pub host: Host,
    /// `[kernel]`: how the kernel is watched.
    pub kernel: Kernel,
    /// `[agent]`: who the agents are.
    pub agent: Agent,
    /// `[limits]`: what a run may take where its request says nothing.
    pub limits: Limits,
    /// `[audit]`: what the records of this host hold back, and how they are kept.
    pub audit: Audit,
    /// `[ci]`: what is green.
    pub ci: Checks,
    /// `[merge]`: what is merged, and how.
    pub merge: Merge,
    /// `[claim]`: how hosts share a repository.
    pub claim: Claims,
    /// `[budgets]`: how often things may fail.
    pub budgets: Budgets,
    /// `[[repo]]`: whose issues are taken.
    pub repos: Vec<Repo>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            host: Host::default(),
            kernel: Kernel::default(),
            agent: Agent::default(),
            limits: Limits::default(),
            audit: Audit::default(),
            ci: Checks::default(),
            merge: Merge::default(),
            claim: Claims::default(),
            budgets: repo::budgets(),
            repos: Vec::new(),
        }
    }
}

/// `[host]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Durable state, closed to all others. Default `/var/lib/agent-loop`.
    pub state_dir: PathBuf,
    /// The audit log and the output of runs. Default `/var/log/agent-loop`.
    pub log_dir: PathBuf,
    /// The control socket and the keeper's. Default `/run/agent-loop`.
    pub runtime_dir: PathBuf,
    /// Where the clones are that agents work in. Default `/srv/agent-loop`.
    pub work_dir: PathBuf,
    /// The program that agent-loop and the agents' steps use as git. Default `/usr/bin/git`.
    pub git: PathBuf,
    /// Where the eBPF program is pinned, so that it outlives a restart. Default `/sys/fs/bpf/agent-loop`.
    pub pins: PathBuf,
    /// The cgroup that the runs' cgroups are made in; without it `agent-loop` below the cgroup2 mount.
    pub cgroup_root: Option<PathBuf>,
    /// How many runs may be alive at once; more wait. Default 4, at most 1024.
    pub max_agents: u32,
    /// The group that may read over the control socket; without it root and the owner alone.
    pub socket_group: Option<String>,
    /// The user who may also start and kill runs over the control socket; without it root alone.
    pub owner: Option<String>,
    /// Where the keeper comes from. Default `start`.
    pub keeper: Keeper,
}

/// Where the keeper comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keeper {
    /// The daemon starts it where none answers: `start`.
    #[default]
    Start,
    /// Something else starts it, a unit of systemd: `expect`.
    Expect,
}

/// `[kernel]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Bytes of the ring of births and deaths: a power of two, at least 4096. Default 4 MiB.
    pub ring_bytes: u32,
    /// Bytes of the ring of execs: a power of two, at least 4096. Default 4 MiB.
    pub execs_ring_bytes: u32,
    /// How many processes can be tracked at once. Default 65536.
    pub live_entries: u32,
    /// Names of programs that are observed, never signalled, wherever they run. Default `claude`.
    pub watch: Vec<String>,
}

/// `[agent]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Who the agents run as; without it no run is started.
    pub user: Option<String>,
    /// Whether that may be root. Default `false`.
    pub allow_root: bool,
    /// Names of the daemon's environment variables that agents get. Default PATH, LANG, TERM, TZ; HOME, USER, LOGNAME
    /// and SHELL are set from the user database.
    pub env: Vec<String>,
    /// What is run for an issue.
    pub command: Command,
}

/// `[limits]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// What a run may take; `None` is no limit, which is the default of each.
    pub run: run::Limits,
    /// How long each polite step of a stop is given. Default 10 s.
    pub grace: Duration,
    /// What becomes of processes that outlive a run's command. Default `kill`.
    pub leftovers: Leftovers,
}

/// `[audit]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audit {
    /// Names of flags, variables and fields whose values are secret, beside those that everybody knows.
    pub redact_names: Vec<String>,
    /// Regular expressions of secrets: the first group is the secret, or all that matches.
    pub redact_patterns: Vec<String>,
    /// A segment ends at this size, bytes. Default 64 MiB.
    pub segment_bytes: u64,
    /// A segment ends at this age. Default a day.
    pub segment_age: Duration,
    /// Closed segments beyond this size of all, bytes, are removed, the oldest first; `None`, the default, keeps all.
    pub keep_bytes: Option<u64>,
    /// Closed segments older than this are removed; `None`, the default, keeps all.
    pub keep_age: Option<Duration>,
    /// What becomes of launches while the disk is nearly full. Default `stop-launching`.
    pub on_full: OnFull,
    /// Where checkpoints are dropped as files: what another host or medium keeps.
    pub anchor_dir: Option<PathBuf>,
    /// Whether checkpoints are told to the journal. Default `false`.
    pub anchor_journal: bool,
    /// How often. Default 10 minutes.
    pub anchor_every: Duration,
}

/// What becomes of launches while the disk of the log has less room than the mark. A launch whose intent cannot be made
/// durable is refused by either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFull {
    /// None is made: `stop-launching`.
    #[default]
    StopLaunching,
    /// They go on as long as their intents become durable: `launch`.
    Launch,
}

impl Audit {
    /// The policy that these settings and the built-in rules make. What was read from a file is good; else it is left out.
    #[must_use]
    pub fn policy(&self) -> Arc<Policy> {
        if self.redact_names.is_empty() && self.redact_patterns.is_empty() {
            return Policy::built_in();
        }
        let names = self.redact_names.iter().filter_map(|name| UserName::parse(name).ok()).collect();
        let patterns = self.redact_patterns.iter().filter_map(|text| UserPattern::parse(text).ok()).collect();
        Arc::new(Policy::new(names, patterns))
    }

    /// How the log is kept by these settings.
    #[must_use]
    pub fn log(&self) -> log::Settings {
        let files = self.anchor_dir.as_deref().map(|dir| Arc::new(anchor::Files::new(dir)) as Arc<dyn anchor::Anchor>);
        let journal = || Arc::new(anchor::Journal::new(Path::new(crate::journal::SOCKET))) as Arc<dyn anchor::Anchor>;
        log::Settings {
            segment_bytes: self.segment_bytes,
            segment_age: self.segment_age,
            keep: log::Keep { bytes: self.keep_bytes, age: self.keep_age },
            anchors: files.into_iter().chain(self.anchor_journal.then(journal)).collect(),
            anchor_every: self.anchor_every,
            ..log::Settings::default()
        }
    }
}

impl Default for Audit {
    fn default() -> Self {
        Self {
            redact_names: Vec::new(),
            redact_patterns: Vec::new(),
            segment_bytes: 64 << 20,
            segment_age: Duration::from_secs(24 * 3_600),
            keep_bytes: None,
            keep_age: None,
            on_full: OnFull::StopLaunching,
            anchor_dir: None,
            anchor_journal: false,
            anchor_every: Duration::from_secs(600),
        }
    }
}

impl Default for Host {
    fn default() -> Self {
        Self {
            state_dir: "/var/lib/agent-loop".into(),
            log_dir: "/var/log/agent-loop".into(),
            runtime_dir: "/run/agent-loop".into(),
            work_dir: "/srv/agent-loop".into(),
            git: "/usr/bin/git".into(),
            pins: "/sys/fs/bpf/agent-loop".into(),
            cgroup_root: None,
            max_agents: 4,
            socket_group: None,
            owner: None,
            keeper: Keeper::Start,
        }
    }
}

impl Default for Kernel {
    fn default() -> Self {
        Self { ring_bytes: 4 << 20, execs_ring_bytes: 4 << 20, live_entries: 65_536, watch: vec!["claude".to_owned()] }
    }
}

impl Default for Agent {
    fn default() -> Self {
        Self {
            user: None,
            allow_root: false,
            env: ["PATH", "LANG", "TERM", "TZ"].map(str::to_owned).to_vec(),
            command: Command::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { run: run::Limits::default(), grace: Duration::from_secs(10), leftovers: Leftovers::Kill }
    }
}

impl Config {
    /// Reads the configuration of a file that nobody but root (or us) can write.
    ///
    /// # Errors
    /// Names the file, and where it can the line and the key, and says what to write.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::parse(&load::text(path)?, &path.display().to_string())
    }

    /// Reads the configuration of a text; `name` is what errors call it.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str, name: &str) -> Result<Self, ConfigError> {
        file::parse(text, name)
    }

    /// Checks that the users and groups it names are on this host, and that agents are not root by another name.
    ///
    /// # Errors
    /// Names the key, and says what to write; `name` is what the error calls the file.
    pub fn check_names(&self, name: &str) -> Result<(), ConfigError> {
        load::check_names(self, name)
    }

    /// What `other` would change, one sentence each; it says which changes need a restart.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Vec<String> {
        table::difference(self, other)
    }

    /// This configuration with those settings of `other` that a reload takes up; the others need a restart.
    #[must_use]
    pub fn reloaded(&self, other: &Self) -> Self {
        let host = Host { max_agents: other.host.max_agents, ..self.host.clone() };
        let agent = Agent { command: self.agent.command.clone(), ..other.agent.clone() };
        let limits = other.limits.clone();
        Self { host, agent, limits, ..self.clone() }
    }

    /// Every setting with its key, in the order of the example file.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        table::entries(self)
    }

    /// Every setting of each repository.
    #[must_use]
    pub fn repo_entries(&self) -> Vec<Vec<Entry>> {
        self.repos.iter().map(table::repo_entries).collect()
    }
}

//! The tools we are compared with: found or installed, and each tried before it is measured.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::tool::{self, Running};
use crate::{place, progress, setup};

/// How long a tool is given to attach: none of them says when it has.
const SETTLE: Duration = Duration::from_millis(2_500);

/// A tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// libbpf-tools: a line for each exit.
    Exitsnoop,
    /// libbpf-tools: a line for each exec.
    Execsnoop,
    /// The process connector of netlink.
    Forkstat,
    /// A script of one line on the exit tracepoint.
    Bpftrace,
}

impl Peer {
    const ALL: [Self; 4] = [Self::Exitsnoop, Self::Execsnoop, Self::Forkstat, Self::Bpftrace];

    /// Its name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Exitsnoop => "exitsnoop",
            Self::Execsnoop => "execsnoop",
            Self::Forkstat => "forkstat",
            Self::Bpftrace => "bpftrace",
        }
    }

    const fn package(self) -> &'static str {
        match self {
            Self::Exitsnoop | Self::Execsnoop => "libbpf-tools",
            Self::Forkstat => "forkstat",
            Self::Bpftrace => "bpftrace",
        }
    }

    /// How it is started to tell of every death, or exec.
    const fn args(self) -> &'static [&'static str] {
        match self {
            Self::Exitsnoop | Self::Execsnoop => &[],
            Self::Forkstat => &["-e", "exit"],
            Self::Bpftrace => &["-e", "tracepoint:sched:sched_process_exit /pid == tid/ { printf(\"%d\\n\", pid); }"],
        }
    }

    /// The number of the process that a line of its output says has died.
    pub(crate) fn death(self, line: &str) -> Option<u32> {
        let mut fields = line.split_whitespace();
        match self {
            // The name comes first and may hold spaces: age and code end the line, before them the three numbers.
            Self::Exitsnoop => {
                let fields: Vec<&str> = fields.collect();
                let age = fields.iter().rposition(|it| it.contains('.') && it.parse::<f64>().is_ok())?;
                fields.get(age.checked_sub(3)?)?.parse().ok()
            }
            Self::Forkstat => (fields.nth(1)? == "exit").then(|| fields.next())??.parse().ok(),
            Self::Bpftrace => fields.next()?.parse().ok(),
            Self::Execsnoop => None,
        }
    }

    fn is_here(self) -> bool {
        place::which(self.name()).is_some()
    }

    /// The command, in a mount namespace of its own where the tracepoints' files are mounted: the host is left alone.
    fn command(self) -> Command {
        const MOUNT: &str = "mount -t tracefs none /sys/kernel/tracing 2>/dev/null; \
                             mount -t debugfs none /sys/kernel/debug 2>/dev/null; exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", MOUNT, "sh", self.name()]).args(self.args());
        command
    }

    /// Starts it with its output in a file, and gives it time to attach.
    pub(crate) fn start(self, out: &Path) -> Result<Running> {
        let mut running = self.launch(out)?;
        thread::sleep(SETTLE);
        anyhow::ensure!(running.lives(), "{} ended at once", self.name());
        Ok(running)
    }

    fn launch(self, out: &Path) -> Result<Running> {
        let file = || File::create(out).with_context(|| format!("creating {}", out.display()));
        let errors = File::create(out.with_extension("err")).context("creating a scratch file")?;
        Running::start(self.command().stdout(file()?).stderr(errors))
    }
}

/// Which tools run here.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    found: Vec<Peer>,
    versions: Value,
}

impl Peers {
    /// Installs what is missing, and tries each.
    pub(crate) fn find() -> Result<Self> {
        let missing: Vec<Peer> = Peer::ALL.into_iter().filter(|peer| !peer.is_here()).collect();
        if !missing.is_empty() {
            let mut names: Vec<&str> = missing.iter().map(|peer| peer.package()).collect();
            names.dedup();
            progress::say(&format!("installing the tools to compare with: {}", names.join(", ")));
            // One that cannot be had leaves its rows empty.
            for name in names {
                if let Err(error) = setup::install(&[name]) {
                    eprintln!("warning: {name}: {error:#}");
                }
            }
        }
        let mut peers = Self { found: Vec::new(), versions: json!({}) };
        for peer in Peer::ALL {
            let state = if peer.is_here() { peers.attempt(peer)? } else { "not installed".to_owned() };
            progress::note(&format!("{}: {state}", peer.name()));
            peers.versions[peer.name()] = json!(state);
        }
        Ok(peers)
    }

    /// Whether it can be measured.
    pub(crate) fn has(&self, peer: Peer) -> bool {
        self.found.contains(&peer)
    }

    /// Each tool's version, or why it does not run.
    pub(crate) fn versions(&self) -> Value {
        self.versions.clone()
    }

    fn attempt(&mut self, peer: Peer) -> Result<String> {
        let dir = place::scratch().join("bench");
        std::fs::create_dir_all(&dir).context("creating a scratch directory")?;
        let out = dir.join(format!("try-{}", peer.name()));
        let mut running = peer.launch(&out)?;
        thread::sleep(SETTLE);
        if running.lives() {
            self.found.push(peer);
            return Ok(version(peer));
        }
        let errors = std::fs::read_to_string(out.with_extension("err")).unwrap_or_default();
        let last = errors.lines().last().unwrap_or("it says nothing").to_owned();
        Ok(format!("{} does not run on this kernel: {last}", version(peer)))
    }
}

fn version(peer: Peer) -> String {
    tool::said("dpkg-query", &["--show", "--showformat", "${Package} ${Version}", peer.package()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_death_is_read_from_real_lines() {
        let line = "tmux: server     16446   16442   16446   2.00    signal 2 (Interrupt)";
        assert_eq!(Peer::Exitsnoop.death(line), Some(16446));
        assert_eq!(Peer::Exitsnoop.death("exe              16445   16442   16445   2.01    0"), Some(16445));
        assert_eq!(Peer::Exitsnoop.death("PCOMM            PID     PPID    TID     AGE(s)  EXIT_CODE"), None);
        let line = "18:16:05 exit  18309      0   0.000s <unknown>";
        assert_eq!(Peer::Forkstat.death(line), Some(18309));
        assert_eq!(Peer::Forkstat.death("Time     Event   PID Info   Duration Process"), None);
        assert_eq!(Peer::Bpftrace.death("16507"), Some(16507));
        assert_eq!(Peer::Bpftrace.death("Attaching 1 probe..."), None);
    }
}

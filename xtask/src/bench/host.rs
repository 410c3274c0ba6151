//! A daemon with directories, a cgroup and a bpffs of its own.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::Bench;
use super::tool::Running;

/// Directories, a cgroup and a bpffs of our own; all of it ends with this value.
pub(super) struct Host {
    program: PathBuf,
    helper: PathBuf,
    pub(super) dir: PathBuf,
    runs: PathBuf,
}

impl Host {
    /// With room for so many agents at once.
    pub(super) fn make(bench: &Bench, name: &str, agents: usize) -> Result<Self> {
        let dir = bench.fresh(name)?;
        let mountinfo = fs::read_to_string("/proc/self/mountinfo").context("reading /proc/self/mountinfo")?;
        let cgroup2 = mountinfo.lines().find(|line| line.contains(" - cgroup2 ")).context("no cgroup v2 is mounted")?;
        let mount = cgroup2.split(' ').nth(4).context("an unknown mountinfo")?;
        let runs = Path::new(mount).join(format!("agent-loop-bench-{}", std::process::id()));
        let bpf = dir.join("bpf");
        fs::create_dir(&bpf).context("making a directory")?;
        if !Command::new("mount").args(["-t", "bpf", "bpf"]).arg(&bpf).status().context("starting mount")?.success() {
            bail!("a bpffs could not be mounted");
        }
        let text = format!(
            "[host]\nstate_dir = {:?}\nlog_dir = {:?}\nruntime_dir = {:?}\ncgroup_root = {runs:?}\npins = {:?}\n\
             max_agents = {agents}\n[agent]\nuser = \"nobody\"\n",
            dir.join("state"),
            dir.join("log"),
            dir.join("run"),
            bpf.join("agent-loop"),
        );
        let config = dir.join("config.toml");
        fs::write(&config, text).context("writing a configuration")?;
        fs::set_permissions(&config, fs::Permissions::from_mode(0o600)).context("closing the configuration")?;
        Ok(Self { program: bench.program("agent-loop"), helper: bench.program("bench"), dir, runs })
    }

    /// Starts a daemon and waits until it is ready.
    pub(super) fn serve(&self) -> Result<Running> {
        let log = self.dir.join("serve.log");
        let mut command = Command::new(&self.program);
        command.args(["serve", "--config"]).arg(self.dir.join("config.toml"));
        command.stderr(File::create(&log).context("creating a scratch file")?);
        let mut daemon = Running::start(&mut command)?;
        loop {
            let told = fs::read_to_string(&log).unwrap_or_default();
            if told.contains("agent-loop: ready") {
                return Ok(daemon);
            }
            if !daemon.lives() {
                bail!("the daemon ended: {told}");
            }
            thread::sleep(Duration::from_micros(200));
        }
    }

    /// What a command says that asks the daemon.
    pub(super) fn ask(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.program);
        command.args(args).env("AGENT_LOOP_SOCKET", self.dir.join("run/socket"));
        let output = command.output().context("asking the daemon")?;
        if !output.status.success() {
            bail!("{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Submits a run; its id.
    pub(super) fn start(&self, command: &[&str]) -> Result<String> {
        self.ask(&[&["start", "--cwd", "/", "--"], command].concat())
    }

    /// The number of its keeper.
    pub(super) fn keeper(&self) -> Result<u32> {
        let status: Value = serde_json::from_str(&self.ask(&["status", "--json"])?)?;
        let pid = status["keeper"]["pid"].as_u64().context("there is no keeper")?;
        Ok(u32::try_from(pid)?)
    }

    /// The runs that are running.
    pub(super) fn running(&self) -> Result<Vec<String>> {
        let runs: Value = serde_json::from_str(&self.ask(&["ps", "--json"])?)?;
        let runs = runs["runs"].as_array().map_or(&[][..], Vec::as_slice);
        let running = runs.iter().filter(|run| run["state"] == "running");
        Ok(running.filter_map(|run| Some(run["run"].as_str()?.to_owned())).collect())
    }

    /// Waits until so many runs are running.
    pub(super) fn await_running(&self, agents: usize) -> Result<()> {
        for _ in 0..2_000 {
            if self.running()?.len() == agents {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(10));
        }
        bail!("the agents do not all run");
    }

    /// Ends a process of ours as from a terminal.
    pub(super) fn interrupt(&self, pid: u32) -> Result<()> {
        let status = Command::new(&self.helper).args(["signal", "interrupt", &pid.to_string()]).status();
        if status.context("starting bench")?.success() { Ok(()) } else { bail!("process {pid} cannot be ended") }
    }

    /// The lines of a run's log.
    pub(super) fn events(&self, id: &str) -> Vec<Value> {
        // The open segment and those that are closed and not compressed yet: a bench writes little.
        let segments = fs::read_dir(self.dir.join("log/audit/seg")).into_iter().flatten().filter_map(Result::ok);
        let mut paths: Vec<_> = segments.map(|entry| entry.path()).collect();
        paths.sort();
        let text: String = paths.iter().filter_map(|path| fs::read_to_string(path).ok()).collect();
        let of = text.lines().filter(|line| line.contains(id));
        of.filter_map(|line| serde_json::from_str(line).ok()).filter(|line: &Value| line["run"] == id).collect()
    }

    /// Waits for a line of this kind in a run's log.
    pub(super) fn event(&self, id: &str, kind: &str) -> Result<Value> {
        for _ in 0..5_000 {
            if let Some(line) = self.events(id).into_iter().find(|line| line["kind"] == kind) {
                return Ok(line);
            }
            thread::sleep(Duration::from_millis(2));
        }
        bail!("no {kind} is told of {id}");
    }

    /// Milliseconds from a run's intent to its command's own execve, by the kernel's times in its log.
    pub(super) fn launched_in(&self, id: &str) -> Result<f64> {
        let at = |kind| self.event(id, kind).and_then(|line| line["boot_ns"].as_f64().context("a line without a time"));
        Ok((at("proc.exec")? - at("run.intent")?) / 1e6)
    }
}

impl Drop for Host {
    /// The agents, then the keeper, which has nothing left to hold.
    fn drop(&mut self) {
        let keeper = self.serve().and_then(|_daemon| {
            let runs: Value = serde_json::from_str(&self.ask(&["ps", "--json"])?)?;
            for run in runs["runs"].as_array().into_iter().flatten().filter_map(|run| run["run"].as_str()) {
                self.ask(&["kill", run, "--reason", "the bench is over"])?;
            }
            self.await_running(0)?;
            self.keeper()
        });
        if let Ok(keeper) = keeper {
            let _ = self.interrupt(keeper);
        }
        for _ in 0..500 {
            for entry in fs::read_dir(&self.runs).into_iter().flatten().filter_map(Result::ok) {
                let _ = fs::remove_dir(entry.path());
            }
            if fs::remove_dir(&self.runs).is_ok() || !self.runs.exists() {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        let _ = Command::new("umount").arg("--lazy").arg(self.dir.join("bpf")).status();
    }
}

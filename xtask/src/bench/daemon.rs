//! The daemon: from a submission to the command, from a crash to the next daemon, and what both processes take at rest.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::Bench;
use super::spread::Spread;
use super::table::Table;
use super::tool::{self, Running};
use crate::progress;

/// Runs in one round.
const RUNS: usize = 10;
/// Agents that a new daemon takes up.
const AGENTS: usize = 50;
/// For how long it is looked whether anybody wakes up at rest.
const REST: Duration = Duration::from_secs(10);

/// Measures each in turn.
pub(super) fn measure(bench: &Bench) -> Result<(Table, Value)> {
    let host = Host::make(bench)?;
    let (mut launch, mut none, mut many) = (Spread::empty(), Spread::empty(), Spread::empty());
    let mut daemon = host.serve()?;
    for round in 0..bench.rounds {
        progress::note(&format!("round {} of {}", round + 1, bench.rounds));
        for _ in 0..RUNS {
            let id = host.start(&["true"])?;
            launch.push(host.launched_in(&id)?);
        }
        drop(daemon);
        let began = Instant::now();
        daemon = host.serve()?;
        none.push(began.elapsed().as_secs_f64() * 1e3);
    }
    let rest = at_rest(&host, &daemon)?;
    for _ in 0..AGENTS {
        host.start(&["sleep", "600"])?;
    }
    host.await_running(AGENTS)?;
    for _ in 0..bench.rounds {
        drop(daemon);
        let began = Instant::now();
        daemon = host.serve()?;
        many.push(began.elapsed().as_secs_f64() * 1e3);
        host.await_running(AGENTS)?;
    }
    let busy = at_rest(&host, &daemon)?;

    let mut table = Table::new("the daemon", &["what", "ms"]);
    table.row(["from the durable submission to the command's own execve".to_owned(), launch.show(1)]);
    table.row(["from the start of the next daemon to its readiness, no agents".to_owned(), none.show(1)]);
    table.row([format!("the same with {AGENTS} agents to go on with"), many.show(1)]);
    table.note(format!("at rest, no agents: {rest}"));
    table.note(format!("at rest, {AGENTS} agents: {busy}"));
    table.note("the daemon was ended by SIGKILL each time; its keeper lived");
    let figures = json!({
        "launch_ms": launch.json(), "restart_ms": none.json(), "restart_with_agents_ms": many.json(),
        "rest": rest, "rest_with_agents": busy,
    });
    drop(daemon);
    Ok((table, figures))
}

/// What daemon and keeper take while nothing happens.
fn at_rest(host: &Host, daemon: &Running) -> Result<String> {
    let both = [("daemon", daemon.pid()), ("keeper", host.keeper()?)];
    let before = both.map(|(_, pid)| switches(pid));
    thread::sleep(REST);
    let mut told = Vec::new();
    for ((name, pid), before) in both.into_iter().zip(before) {
        let kib = |field| tool::memory(pid, field).unwrap_or(0);
        let woken = switches(pid) - before;
        let (anon, all) = (kib("RssAnon"), kib("VmRSS"));
        told.push(format!("{name} {anon} KiB anonymous, {all} KiB in all, {woken} wake-ups in {REST:?}"));
    }
    Ok(told.join("; "))
}

fn switches(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let lines = status.lines().filter(|line| line.contains("ctxt_switches"));
    lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum()
}

/// Directories, a cgroup and a bpffs of our own; all of it ends with this value.
struct Host {
    program: PathBuf,
    helper: PathBuf,
    dir: PathBuf,
    runs: PathBuf,
}

impl Host {
    fn make(bench: &Bench) -> Result<Self> {
        let dir = bench.fresh("daemon")?;
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
             max_agents = {AGENTS}\n[agent]\nuser = \"nobody\"\n",
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
    fn serve(&self) -> Result<Running> {
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

    fn ask(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.program);
        command.args(args).env("AGENT_LOOP_SOCKET", self.dir.join("run/socket"));
        let output = command.output().context("asking the daemon")?;
        if !output.status.success() {
            bail!("{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    fn start(&self, command: &[&str]) -> Result<String> {
        self.ask(&[&["start", "--cwd", "/", "--"], command].concat())
    }

    fn keeper(&self) -> Result<u32> {
        let status: Value = serde_json::from_str(&self.ask(&["status", "--json"])?)?;
        let pid = status["keeper"]["pid"].as_u64().context("there is no keeper")?;
        Ok(u32::try_from(pid)?)
    }

    fn await_running(&self, agents: usize) -> Result<()> {
        for _ in 0..2_000 {
            let runs: Value = serde_json::from_str(&self.ask(&["ps", "--json"])?)?;
            let runs = runs["runs"].as_array().map_or(&[][..], Vec::as_slice);
            if runs.iter().filter(|run| run["state"] == "running").count() == agents {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(10));
        }
        bail!("the agents do not all run");
    }

    /// Milliseconds from a run's intent to its command's own execve, by the kernel's times in its log.
    fn launched_in(&self, id: &str) -> Result<f64> {
        let path = self.dir.join("log/runs").join(id).join("events.jsonl");
        for _ in 0..2_000 {
            let text = fs::read_to_string(&path).unwrap_or_default();
            let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let (mut intent, mut exec) = (None, None);
            for line in lines {
                match line["kind"].as_str() {
                    Some("run.intent") => intent = line["boot_ns"].as_f64(),
                    Some("proc.exec") => exec = exec.or(line["boot_ns"].as_f64()),
                    Some(_) | None => {}
                }
            }
            if let (Some(intent), Some(exec)) = (intent, exec) {
                return Ok((exec - intent) / 1e6);
            }
            thread::sleep(Duration::from_millis(2));
        }
        bail!("the run {id} was never launched");
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
            let _ = Command::new(&self.helper).args(["signal", "interrupt", &keeper.to_string()]).status();
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

//! `agent-loop serve` and its keeper as a test runs them: on a host of the test's own.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::cgroup::{self, Cell};
use super::{PATIENCE, agent_loop, eventually};
use crate::bpf::{self, BpfFs};
use crate::sys;

/// Directories, a cgroup and pins in which daemons and keepers come and go; all of it ends with this value.
#[derive(Debug)]
pub struct Host {
    /// What everything is started in: nothing outlives it.
    cell: Cell,
    dir: TempDir,
    pins: PathBuf,
    /// A bpffs of this thread's own: daemons are started from the thread that made the host.
    _bpf: BpfFs,
    env: Vec<(OsString, OsString)>,
    /// What daemons are started by.
    by: Vec<OsString>,
    /// How often it was started again.
    boots: u32,
}

impl Host {
    /// A host whose agents run as `nobody`.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("agent-loop-tests-").tempdir().expect("a scratch directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("our directory");
        let bpf = BpfFs::mount();
        let host = Self {
            cell: Cell::new(),
            dir,
            pins: bpf.path().join("agent-loop"),
            _bpf: bpf,
            env: Vec::new(),
            by: Vec::new(),
            boots: 0,
        };
        // Where agents leave what a test looks at.
        fs::create_dir(host.path("agents")).expect("a directory");
        fs::set_permissions(host.path("agents"), fs::Permissions::from_mode(0o777)).expect("our directory");
        host.configure("", "user = \"nobody\"\n", "");
        host
    }

    /// A host whose runs can have limits of memory, tasks and processors, or why there is none here.
    ///
    /// # Errors
    /// What the machine lacks.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn with_controllers() -> Result<Self, &'static str> {
        let host = Self::new();
        let given = host.cell.give_controllers();
        given.then_some(host).ok_or("needs cgroups with controllers of memory, tasks and processors")
    }

    /// Writes the configuration: what is added to `[host]`, to `[agent]`, and what follows.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn configure(&self, host: &str, agent: &str, more: &str) {
        let text = format!(
            "[host]\nstate_dir = {:?}\nlog_dir = {:?}\nruntime_dir = {:?}\ncgroup_root = {:?}\npins = {:?}\n{host}\n\
             [agent]\n{agent}\n{more}",
            self.path("state"),
            self.path("log"),
            self.path("run"),
            self.runs(),
            self.pins,
        );
        fs::write(self.path("config.toml"), text).expect("a scratch file");
        fs::set_permissions(self.path("config.toml"), fs::Permissions::from_mode(0o600)).expect("our file");
    }

    /// Sets a variable for daemons, and the keepers they start, from now on.
    pub fn set_env(&mut self, name: impl Into<OsString>, value: impl Into<OsString>) {
        let name = name.into();
        self.env.retain(|(known, _)| *known != name);
        self.env.push((name, value.into()));
    }

    /// Has daemons started by this program and its arguments, which executes them, from now on.
    pub fn run_by<S: Into<OsString>>(&mut self, words: impl IntoIterator<Item = S>) {
        self.by = words.into_iter().map(Into::into).collect();
    }

    /// Takes a variable away again.
    pub fn unset_env(&mut self, name: &str) {
        self.env.retain(|(known, _)| known != name);
    }

    /// A path in its directory.
    #[must_use]
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The cgroup below which runs are made.
    #[must_use]
    pub fn runs(&self) -> PathBuf {
        self.cell.path().join("runs")
    }

    /// Where the kernel side is pinned.
    #[must_use]
    pub fn pins(&self) -> &Path {
        &self.pins
    }

    /// Starts a daemon, without waiting for it.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn serve(&self) -> Daemon {
        let number = fs::read_dir(self.dir.path()).expect("our directory").count();
        let log = self.path(format!("serve-{number}.log"));
        let agent_loop = agent_loop().as_os_str().to_owned();
        let mut words = self.by.iter().chain([&agent_loop]);
        let mut command = Command::new(words.next().expect("at least one word"));
        command.args(words).args(["serve", "--config"]).arg(self.path("config.toml")).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(File::create(&log).expect("a scratch file"));
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        sys::before_exec(&mut command, || {
            sys::default_signals();
            Ok(())
        });
        let child = self.cell.hold(&mut command).spawn().expect("starting the daemon");
        Daemon { child, log, ended: None }
    }

    /// Starts a daemon and waits until it answers.
    ///
    /// # Panics
    /// When it ends instead.
    #[must_use]
    pub fn serving(&self) -> Daemon {
        let mut daemon = self.serve();
        daemon.ready();
        daemon
    }

    /// Runs a command of `agent-loop` that asks the daemon.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn ask<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        let mut command = Command::new(agent_loop());
        command.args(args).env("AGENT_LOOP_SOCKET", self.path("run/socket")).env("NO_COLOR", "1").stdin(Stdio::null());
        self.cell.hold(&mut command).output().expect("asking the daemon")
    }

    /// As [`Host::ask`], with `--json`: what it prints.
    ///
    /// # Panics
    /// When it fails.
    pub fn asked<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Value {
        let args: Vec<OsString> = args.into_iter().map(|arg| arg.as_ref().to_owned()).collect();
        let output = self.ask(args.iter().map(OsString::as_os_str).chain([OsStr::new("--json")]));
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// Has the host go down with all that runs on it, at once, and come up again: another boot, in which nothing is left but
    /// what is on its disk. What had not been handed to the disk yet is there all the same.
    ///
    /// # Panics
    /// When something stays.
    pub fn reboot(&mut self, mut daemon: Daemon) {
        // The cell itself is not killed: Linux then also kills what is cloned from it into a cgroup that is made later.
        let pids = self.processes().into_iter();
        let held: Vec<OwnedFd> = pids.filter_map(|pid| sys::pidfd_open(pid.cast_signed()).ok()).collect();
        daemon.kill();
        for pidfd in held {
            // One that has ended meanwhile is gone as well.
            let _ = sys::pidfd_signal(pidfd.as_fd(), libc::SIGKILL);
        }
        cgroup::kill(&self.runs());
        eventually("the end of everything on the test's host", || {
            remove_below(&self.runs());
            (!self.runs().exists() || fs::remove_dir(self.runs()).is_ok()).then_some(())
        });
        self.cell.assert_empty();
        for gone in [self.pins.clone(), self.path("run")] {
            match fs::remove_dir_all(&gone) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{}: {error}", gone.display()),
                Ok(()) | Err(_) => {}
            }
        }
        self.boots += 1;
        let id = self.path("boot_id");
        // Written in place: the file itself is what is mounted.
        fs::write(&id, format!("b0070000-0000-4000-8000-{:012x}\n", self.boots)).expect("a scratch file");
        if self.boots == 1 {
            bpf::pretend_boot(&id);
        }
    }

    /// Submits a run; its id.
    ///
    /// # Panics
    /// When it is refused.
    pub fn start<S: AsRef<OsStr>>(&self, options: &[&str], command: impl IntoIterator<Item = S>) -> String {
        let args: Vec<OsString> =
            ["start", "--cwd", "/"].iter().chain(options).map(OsString::from).chain([OsString::from("--")]).collect();
        let command = command.into_iter().map(|word| word.as_ref().to_owned());
        let output = self.ask(args.into_iter().chain(command));
        assert!(output.status.success(), "starting a run: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// A run as the daemon sees it.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn run(&self, id: &str) -> Value {
        self.asked(["status", id])
    }

    /// Waits until a run is in this state.
    ///
    /// # Panics
    /// When it does not come to it.
    pub fn in_state(&self, id: &str, state: &str) -> Value {
        let mut seen = Value::Null;
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually(&format!("run {id} to be {state}"), || {
                seen = self.run(id);
                (seen["state"] == state).then_some(())
            });
        }));
        assert!(done.is_ok(), "it is {seen:#}");
        seen
    }

    /// Waits until a run is over and nothing of it is left.
    ///
    /// # Panics
    /// When it is not.
    pub fn ended(&self, id: &str) -> Value {
        let run = self.in_state(id, "ended");
        eventually(&format!("the cgroup of {id} to be removed"), || {
            (!self.runs().join(format!("run-{id}")).exists()).then_some(())
        });
        run
    }

    /// The lines of a run's event log.
    ///
    /// # Panics
    /// When one is not JSON.
    #[must_use]
    pub fn events(&self, id: &str) -> Vec<Value> {
        let run: agent_loop::run::RunId = id.parse().expect("a run");
        let past = agent_loop::audit::lines_of(&self.path("log/audit"), &[run]).expect("a log");
        let text = String::from_utf8(past.into_values().flatten().collect()).expect("text");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// What a run wrote.
    #[must_use]
    pub fn output(&self, id: &str) -> String {
        fs::read_to_string(self.path("log/runs").join(id).join("stdout")).unwrap_or_default()
    }

    /// The processes of the host that belong to no run: daemons, keepers, and who asks them.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        let procs = fs::read_to_string(self.cell.path().join("cgroup.procs")).unwrap_or_default();
        procs.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
    }

    /// The keeper that the daemon is connected to.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn keeper(&self) -> u32 {
        self.has_keeper().expect("a keeper")
    }

    /// The keeper that the daemon is connected to, if it is to any.
    #[must_use]
    pub fn has_keeper(&self) -> Option<u32> {
        self.asked(["status"])["keeper"]["pid"].as_u64()?.try_into().ok()
    }

    /// Ends the keeper as a crash would. It is ours: it lives in our cgroup.
    ///
    /// # Panics
    /// When there is none.
    pub fn kill_keeper(&self) {
        self.keeper_process().kill();
    }

    /// The keeper that the daemon is connected to, held by a descriptor.
    ///
    /// # Panics
    /// When there is none, or it is none of this host's.
    #[must_use]
    pub fn keeper_process(&self) -> KeeperProcess {
        let pid = self.keeper();
        let pidfd = sys::pidfd_open(pid.cast_signed()).expect("a pidfd");
        let here = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let name = self.cell.path().file_name().expect("a name").to_string_lossy().into_owned();
        assert!(here.contains(&name), "process {pid} is no keeper of this test: {here}");
        KeeperProcess { pid, pidfd }
    }

    /// What the daemon says is missing.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn degraded(&self) -> Vec<String> {
        let status = self.asked(["status"]);
        let lines = status["degraded"].as_array().cloned().unwrap_or_default();
        lines.iter().filter_map(|line| line.as_str()).map(str::to_owned).collect()
    }

    /// Why the daemon has no keeper, if it has none.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn keeper_missing(&self) -> Option<String> {
        self.asked(["status"])["keeper"]["missing"].as_str().map(str::to_owned)
    }

    /// Waits until nothing lives in the cgroup of a run, which may be gone.
    ///
    /// # Panics
    /// When something does.
    pub fn emptied(&self, id: &str) {
        let events = self.runs().join(format!("run-{id}/cgroup.events"));
        eventually(&format!("an empty cgroup of {id}"), || {
            fs::read_to_string(&events).map_or(true, |text| text.contains("populated 0")).then_some(())
        });
    }
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        cgroup::kill(self.cell.path());
        eventually("the end of everything on the test's host", || {
            remove_below(&self.runs());
            (!self.runs().exists() || fs::remove_dir(self.runs()).is_ok()).then_some(())
        });
    }
}

/// A keeper of a host.
#[derive(Debug)]
pub struct KeeperProcess {
    /// Its number.
    pub pid: u32,
    pidfd: OwnedFd,
}

impl KeeperProcess {
    /// Signals it.
    ///
    /// # Panics
    /// When it has ended.
    pub fn signal(&self, signal: i32) {
        sys::pidfd_signal(self.pidfd.as_fd(), signal).expect("it lives");
    }

    /// Stops it as SIGSTOP does, and waits until it is.
    ///
    /// # Panics
    /// When it has ended.
    pub fn stop(&self) {
        self.signal(libc::SIGSTOP);
        eventually("a keeper that is stopped", || {
            let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).expect("it lives");
            stat.contains(") T ").then_some(())
        });
    }

    /// Ends it as a crash would.
    ///
    /// # Panics
    /// When it does not end.
    pub fn kill(&self) {
        self.signal(libc::SIGKILL);
        assert!(sys::pidfd_ended(self.pidfd.as_fd(), PATIENCE), "the keeper does not end");
    }

    /// Whether it lives.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !sys::pidfd_ended(self.pidfd.as_fd(), std::time::Duration::ZERO)
    }
}

/// Removes the empty cgroups below, from the bottom up.
fn remove_below(dir: &Path) {
    let entries = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_below(&entry.path());
        let _ = fs::remove_dir(entry.path());
    }
}

/// A daemon that was started.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Daemon {
    /// Waits until it answers.
    ///
    /// # Panics
    /// When it ends instead.
    pub fn ready(&mut self) {
        assert!(self.ready_or_ended(), "the daemon ended: {:?}\n{}", self.ended, self.log());
    }

    /// Waits until it answers or has ended; whether it answers.
    ///
    /// # Panics
    /// When it does neither.
    pub fn ready_or_ended(&mut self) -> bool {
        eventually("the daemon to be ready", || {
            if self.log().contains("agent-loop: ready") {
                return Some(true);
            }
            self.ended().then_some(false)
        })
    }

    /// Whether it has ended.
    pub fn ended(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("our child");
        }
        self.ended.is_some()
    }

    /// Its number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it told.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Ends it as a crash would.
    ///
    /// # Panics
    /// When it is not our child any more.
    pub fn kill(&mut self) {
        if !self.ended() {
            self.child.kill().expect("our child");
            self.ended = Some(self.child.wait().expect("our child"));
        }
    }

    /// Asks it to stop, and waits for its end.
    ///
    /// # Panics
    /// When it does not end.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(libc::SIGTERM);
        self.wait()
    }

    /// Signals it.
    ///
    /// # Panics
    /// When it has ended.
    pub fn signal(&self, signal: i32) {
        let pidfd = sys::pidfd_open(self.child.id().cast_signed()).expect("our child");
        sys::pidfd_signal(pidfd.as_fd(), signal).expect("our child");
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end.
    pub fn wait(&mut self) -> ExitStatus {
        eventually("the daemon's end", || self.ended().then_some(()));
        self.ended.expect("it has ended")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

//! `agent-loop exec` as a test runs it.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tempfile::TempDir;

use super::{Event, Outcome, PATIENCE, adversary, agent_loop, eventually, host};
use crate::sys;

/// A command line of `agent-loop exec`, with a scratch directory of its own.
#[derive(Debug)]
pub struct Exec {
    command: Command,
    scratch: TempDir,
    events: Option<PathBuf>,
    alone: bool,
}

/// Tests that need the host's full rate run alone in their program.
static GATE: RwLock<()> = RwLock::new(());

#[derive(Debug)]
#[expect(dead_code, reason = "held, never read")]
enum Gate {
    Shared(RwLockReadGuard<'static, ()>),
    Alone(RwLockWriteGuard<'static, ()>),
}

impl Default for Exec {
    fn default() -> Self {
        Self::new()
    }
}

impl Exec {
    /// `agent-loop exec --events FILE`, standard streams from and to files.
    #[must_use]
    pub fn new() -> Self {
        Self::without_events().with_events()
    }

    /// Adds `--events FILE`.
    #[must_use]
    pub fn with_events(mut self) -> Self {
        let path = self.path("events.jsonl");
        self = self.arg("--events").arg(&path);
        self.events = Some(path);
        self
    }

    /// `agent-loop exec` without `--events`.
    #[must_use]
    pub fn without_events() -> Self {
        Self::started_by(Command::new(agent_loop()))
    }

    /// `exec` of the program that ends this command line: a copy of `agent-loop`, or one in other surroundings.
    ///
    /// # Panics
    /// When there is no room for a scratch directory.
    #[must_use]
    pub fn started_by(mut command: Command) -> Self {
        let scratch = tempfile::Builder::new().prefix("agent-loop-tests-").tempdir().expect("a scratch directory");
        // Whatever this test was started with: what a job in the background ignores would be respected.
        sys::before_exec(&mut command, || {
            sys::default_signals();
            Ok(())
        });
        command.arg("exec").stdin(Stdio::null());
        let file = |name: &str| File::create(scratch.path().join(name)).expect("a scratch file");
        command.stdout(file("stdout")).stderr(file("stderr"));
        Self { command, scratch, events: None, alone: false }
    }

    /// A path in the scratch directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// `--limit`.
    #[must_use]
    pub fn limit(self, limit: &str) -> Self {
        self.arg("--limit").arg(limit)
    }

    /// `--grace`.
    #[must_use]
    pub fn grace(self, grace: &str) -> Self {
        self.arg("--grace").arg(grace)
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    /// Changes how it is started: streams, directory, what happens between fork and exec.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Command) -> &mut Command) -> Self {
        change(&mut self.command);
        self
    }

    /// Lets no other test of this program run meanwhile.
    #[must_use]
    pub fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// The command to supervise; the last thing that is added.
    #[must_use]
    pub fn cmd<I: IntoIterator<Item: AsRef<OsStr>>>(mut self, args: I) -> Self {
        self.command.arg("--").args(args);
        self
    }

    /// An adversary to supervise; `--oracle`, `--ready` with names of the scratch directory.
    #[must_use]
    pub fn adversary<I: IntoIterator<Item: AsRef<OsStr>>>(self, args: I) -> Self {
        let mut command: Vec<OsString> = vec![adversary().into()];
        command.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        command.extend([OsString::from("--oracle"), self.path("oracle").into()]);
        command.extend([OsString::from("--ready"), self.path("ready").into()]);
        self.cmd(command)
    }

    /// Starts `shell` in its place, and returns the line that makes it start this.
    ///
    /// # Panics
    /// When an argument is not UTF-8.
    #[must_use]
    pub fn typed_into(mut self, shell: Command) -> (Self, String) {
        let command = std::mem::replace(&mut self.command, shell);
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let quoted = words.map(|word| format!("'{}'", word.to_str().expect("UTF-8").replace('\'', "'\\''")));
        (self, quoted.collect::<Vec<_>>().join(" "))
    }

    /// Starts it.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(mut self) -> Running {
        let gate = if self.alone {
            Gate::Alone(GATE.write().unwrap_or_else(PoisonError::into_inner))
        } else {
            Gate::Shared(GATE.read().unwrap_or_else(PoisonError::into_inner))
        };
        let pins = host::pins();
        let child = self.command.spawn().expect("agent-loop can be started");
        let pidfd = sys::pidfd_open(child.id().cast_signed()).expect("an unreaped child has a pidfd");
        Running { child, pidfd, scratch: Some(self.scratch), events: self.events, pins, done: false, _gate: gate }
    }

    /// Starts it and waits for its end.
    #[must_use]
    pub fn run(self) -> Outcome {
        self.start().finish()
    }
}

/// An `agent-loop exec` under way; dropped, it is killed with all that its events name.
#[derive(Debug)]
pub struct Running {
    child: Child,
    pidfd: OwnedFd,
    scratch: Option<TempDir>,
    events: Option<PathBuf>,
    pins: std::collections::BTreeSet<String>,
    done: bool,
    _gate: Gate,
}

impl Running {
    /// The number of `exec` itself.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Whether it has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        sys::pidfd_ended(std::os::fd::AsFd::as_fd(&self.pidfd), std::time::Duration::ZERO)
    }

    /// A path in the scratch directory.
    ///
    /// # Panics
    /// Never: the directory is there until the end.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.scratch.as_ref().expect("it has not ended").path().join(name)
    }

    /// Writes to the standard input, which [`Exec::with`] made a pipe, and closes it.
    ///
    /// # Panics
    /// When it is no pipe.
    pub fn feed(&mut self, text: &str) {
        let mut stdin = self.child.stdin.take().expect("the standard input is a pipe");
        stdin.write_all(text.as_bytes()).expect("somebody reads it");
    }

    /// Signals `exec` itself.
    ///
    /// # Panics
    /// When it is gone.
    pub fn signal(&self, signal: i32) {
        sys::pidfd_signal(&self.pidfd, signal).expect("exec lives");
    }

    /// Waits until a file exists and has content.
    pub fn wait_file(&self, name: &str) {
        let path = self.path(name);
        self.wait_until(name, || fs::metadata(&path).is_ok_and(|meta| meta.len() > 0).then_some(()));
    }

    /// Waits for an event.
    pub fn wait_event(&self, what: &str, fits: impl Fn(&Event) -> bool) -> Event {
        self.wait_until(what, || self.events().into_iter().find(|event| fits(event)))
    }

    /// Waits until everything an adversary builds is there.
    pub fn wait_ready(&self) {
        self.wait_file("ready");
    }

    fn wait_until<T>(&self, what: &str, mut fact: impl FnMut() -> Option<T>) -> T {
        eventually(what, || {
            let found = fact();
            let gone = sys::pidfd_ended(std::os::fd::AsFd::as_fd(&self.pidfd), std::time::Duration::ZERO);
            assert!(found.is_some() || !gone || fact().is_some(), "exec ended before {what}:\n{}", self.text("stderr"));
            found
        })
    }

    /// The whole lines written so far.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.events.as_deref().map_or_else(Vec::new, |path| read_events(path, false))
    }

    fn text(&self, name: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.path(name)).unwrap_or_default()).into_owned()
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// When it does not end within [`PATIENCE`] and the longest limit of an adversary.
    #[must_use]
    pub fn finish(mut self) -> Outcome {
        let ended = sys::pidfd_ended(std::os::fd::AsFd::as_fd(&self.pidfd), 2 * PATIENCE);
        assert!(ended, "exec did not end:\n{}", self.text("stderr"));
        let status = self.child.wait().expect("our child");
        self.done = true;
        let events = self.events.take().map_or_else(Vec::new, |path| read_events(&path, status.signal().is_none()));
        Outcome {
            code: status.code().unwrap_or_else(|| -status.signal().unwrap_or(0)),
            stdout: self.text("stdout"),
            stderr: self.text("stderr"),
            events,
            pins: std::mem::take(&mut self.pins),
            scratch: self.scratch.take().expect("it ends once"),
        }
    }
}

impl Drop for Running {
    /// The watchdog: ends what this test started, by pidfd, and nothing else.
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let _ = sys::pidfd_signal(&self.pidfd, libc::SIGKILL);
        let _ = self.child.wait();
        for event in self.events().iter().filter(|event| event.is_birth()) {
            if let Some(pidfd) = event.proc.as_ref().and_then(host::alive) {
                let _ = sys::pidfd_signal(&pidfd, libc::SIGKILL);
            }
        }
    }
}

/// Reads an events file; `whole` says that it has been closed, so that half a line is an error.
fn read_events(path: &Path, whole: bool) -> Vec<Event> {
    let text = fs::read(path).unwrap_or_default();
    let end = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    assert!(!whole || end == text.len(), "half a line ends {}", path.display());
    let text = std::str::from_utf8(&text[..end]).expect("events are UTF-8");
    text.lines().map(|line| Event::read(line).unwrap_or_else(|err| panic!("{err}"))).collect()
}

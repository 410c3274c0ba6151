//! What is told of a run, to whom: records to `--events`, lines to stderr, the command's output to its file.

use std::fmt::Display;
use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::mpsc::UnboundedSender;
use ulid::Ulid;

use super::Args;
use super::ground::Ground;
use super::human::Human;
use super::pump::Pump;
use super::sink::{Sink, SinkFailed};
use crate::audit::log::{AuditLog, Place, Settings};
use crate::audit::{Clock, Host, Line, Recorder, SCHEMA, Stats};
use crate::clock;
use crate::error;
use crate::event::{Fact, Summary};
use crate::model::{ProofKind, Totals};
use crate::store::StateDir;
use crate::track::Accounts;

/// Where lines and output go; opened before anything is started.
pub(super) struct Destinations {
    events: Option<Sink>,
    human: Option<Sink>,
    pump: Option<Pump>,
    log: Option<AuditLog>,
}

/// How long the launch waits for its own records to be durable: without them nothing is launched.
const LAUNCH_WITHIN: Duration = Duration::from_secs(10);

/// How long a stop waits for its intents to be durable: then it goes on without (I19).
const STOP_WITHIN: Duration = Duration::from_millis(250);

impl Destinations {
    /// Opens what the arguments name.
    ///
    /// # Errors
    /// When a file cannot be opened.
    pub(super) fn open(args: &Args, boot_id: &str, failed: &UnboundedSender<SinkFailed>) -> anyhow::Result<Self> {
        Ok(Self {
            log: args.state_dir.as_deref().map(|dir| open_log(dir, boot_id)).transpose()?,
            events: args.events.as_deref().map(|path| Sink::events(path, failed.clone())).transpose()?,
            human: if args.quiet { None } else { Sink::human(failed.clone()).ok() },
            pump: args.output.as_deref().map(|path| Pump::start(path, failed.clone())).transpose()?,
        })
    }
}

/// Opens the audit log in a directory of state, which is made where it is not there.
fn open_log(dir: &Path, boot_id: &str) -> anyhow::Result<AuditLog> {
    let dir = std::path::absolute(dir).context("finding the directory of --state-dir")?;
    let state = StateDir::open(&dir).context("opening the directory of --state-dir")?;
    // A single command needs no room of its own on a disk that is nearly full.
    let settings = Settings { reserve: 0, low_water: 0, ..Settings::default() };
    let (log, _) = AuditLog::open(&Place::below(state.path()), settings, boot_id).context("opening the audit log")?;
    Ok(log)
}

/// The id of this boot.
///
/// # Errors
/// When it cannot be read.
pub(super) fn boot_id() -> anyhow::Result<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").context("reading the boot id")?;
    Ok(text.trim().to_owned())
}

/// The teller of one run.
pub(super) struct Report {
    to: Destinations,
    recorder: Recorder,
    human: Human,
    degraded: bool,
    failed: bool,
    /// The number of the next line where there is no audit log, which numbers them else.
    next: u64,
    /// Whether it was told that the audit log cannot be written.
    behind: bool,
}

impl Report {
    /// Tells of the run of `args` on this ground, in this boot.
    pub(super) fn new(args: &Args, id: Ulid, boot_id: String, ground: &Ground, to: Destinations) -> Self {
        let argv: Vec<String> = args.command.iter().map(|argument| argument.to_string_lossy().into_owned()).collect();
        let user = args.user.clone().or_else(own_name).unwrap_or_default();
        let mut recorder = Recorder::new(boot_id, id.to_string(), argv.clone(), user);
        if let Some(cgroup) = &ground.cgroup {
            recorder.set_cgroup(cgroup.tag().0, cgroup.path().display().to_string());
        }
        let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        recorder.set_clock(ground.clock_ahead);
        let human = Human::new(&argv, colour, clock::boot(), ground.clock_ahead);
        Self { to, recorder, human, degraded: !ground.degraded.is_empty(), failed: false, next: 0, behind: false }
    }

    /// Whether anybody wants records.
    pub(super) const fn wants_records(&self) -> bool {
        self.to.events.is_some() || self.to.log.is_some()
    }

    /// The pipe of the command's output, where it goes to a file.
    pub(super) const fn pump(&mut self) -> Option<&mut Pump> {
        self.to.pump.as_mut()
    }

    /// Tells what this host offers and what is done without.
    pub(super) fn host(&mut self, ground: &Ground) {
        let kernel = nix::sys::utsname::uname()
            .map_or_else(|_| String::new(), |name| name.release().to_string_lossy().into_owned());
        let host = Host {
            version: env!("CARGO_PKG_VERSION"),
            schema: SCHEMA,
            kernel,
            backend: if ground.tracing.is_some() { "ebpf" } else { "pidfd" },
            degraded: ground.degraded.clone(),
        };
        let line = self.recorder.host(host, clock::both());
        self.write(line);
        let text = self.human.degraded(&ground.degraded);
        if self.to.human.is_some() {
            self.say(&text);
        } else {
            // Less than was asked for is a failure of a kind: it is said even where the rest is not.
            self.insist(&text);
        }
    }

    /// Tells a fact; `proof` is what a signal that is intended will need.
    pub(super) fn fact(&mut self, fact: &Fact, proof: Option<ProofKind>, now: Clock) {
        if self.wants_records()
            && let Some(line) = self.recorder.fact(fact, now)
        {
            let line = match proof {
                Some(proof) => Recorder::with_proof(line, proof),
                None => line,
            };
            self.write(line);
        }
        if self.to.human.is_some()
            && let Some(text) = self.human.fact(fact, now.boot)
        {
            self.say(&text);
        }
    }

    /// Tells of something that failed and that the run goes on without, or ends by.
    pub(super) fn trouble(&mut self, doing: &str, error: &dyn Display) {
        self.say(&format!("agent-loop: {doing}: {error}\n"));
    }

    /// Takes a failure to write; whether the run has to end by it.
    pub(super) fn cannot_write(&mut self, failure: &SinkFailed) -> bool {
        if failure.is_human {
            // Nobody reads: the run goes on, as the command would.
            self.to.human = None;
            return false;
        }
        self.failed = true;
        let text = format!("agent-loop: writing {}: {}; stopping the tree\n", failure.what, failure.error);
        self.say(&text);
        true
    }

    /// Tells the sum of the kernel's records.
    pub(super) fn stats(&mut self, totals: &Totals, accounts: &Accounts) {
        let line = self.recorder.stats(Stats::new(totals, accounts), clock::both());
        self.write(line);
    }

    /// Records that the command is about to be launched, durably; without that nothing is launched (I19).
    ///
    /// # Errors
    /// When it cannot be made durable.
    pub(super) fn intent(&mut self) -> anyhow::Result<()> {
        let line = self.recorder.intent(clock::both());
        self.write(line);
        self.born_durable()
    }

    /// Waits until all that was told is durable, before the command runs its first instruction (I6).
    ///
    /// # Errors
    /// When that does not come about.
    pub(super) fn born_durable(&mut self) -> anyhow::Result<()> {
        let Some(log) = &mut self.to.log else { return Ok(()) };
        let durable = log.durable(LAUNCH_WITHIN);
        let why = log.progress().failing.unwrap_or_else(|| "the disk does not answer".to_owned());
        anyhow::ensure!(durable, "the audit log cannot be written: {why}; without it nothing is launched");
        Ok(())
    }

    /// Waits a moment until the intents of a stop are durable; the stop never waits for long (I19).
    pub(super) fn stop_durable(&mut self) {
        let Some(log) = &mut self.to.log else { return };
        if !log.durable(STOP_WITHIN) && !self.behind {
            self.behind = true;
            let why = log.progress().failing.unwrap_or_else(|| "the disk does not answer".to_owned());
            self.trouble("writing the audit log; the stop goes on without", &why);
        }
    }

    /// Hands what was told to its writers.
    pub(super) fn flush(&mut self) {
        if let Some(log) = &mut self.to.log {
            log.flush();
        }
        for sink in [&mut self.to.events, &mut self.to.human].into_iter().flatten() {
            sink.flush();
        }
    }

    /// Tells the end, and waits until all is written, within reason; the exit code that is then right.
    pub(super) async fn end(mut self, summary: &Summary, code: u8) -> u8 {
        let text = self.human.summary(summary, self.degraded);
        self.say(&text);
        let pumped = match self.to.pump.take() {
            Some(pump) => pump.close().await,
            None => true,
        };
        let written = match self.to.events.take() {
            Some(sink) => sink.close().await,
            None => true,
        };
        let logged = self.to.log.take().is_none_or(|mut log| {
            let (next, refused) = (log.next(), log.refused());
            let progress = log.close();
            let complete = refused == 0 && progress.durable >= next;
            if !complete {
                let lost = next - progress.durable.min(next) + refused;
                let why = progress.failing.unwrap_or_else(|| "the disk does not answer".to_owned());
                self.trouble("the audit log is not complete", &format!("{lost} lines are not on the disk: {why}"));
            }
            complete
        });
        if (!pumped || !written) && !self.failed {
            self.say("agent-loop: not all events and output could be written in time\n");
        }
        let told = match self.to.human.take() {
            Some(sink) => sink.close().await,
            None => false,
        };
        let code = if pumped && written && logged && !self.failed { code } else { error::INTERNAL };
        if !told && (error::LIMIT..=error::NOT_FOUND).contains(&code) {
            // Quiet is for what went well. Where stderr is stuck, this is lost too.
            self.insist(&text);
        }
        code
    }

    /// Writes to stderr without ever waiting for its reader.
    fn insist(&self, text: &str) {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        use std::io::Write as _;
        use std::os::fd::AsFd as _;
        let stderr = io::stderr();
        let mut ready = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
        if poll(&mut ready, PollTimeout::ZERO).is_ok_and(|ready| ready > 0) {
            let _ = stderr.lock().write_all(text.as_bytes());
        }
    }

    fn write(&mut self, line: Line) {
        let Destinations { events, log, .. } = &mut self.to;
        match (log, events) {
            (Some(log), events) => {
                let written = log.append(line);
                if let (Some(sink), Some((_, text))) = (events, written) {
                    sink.buffer().extend_from_slice(text.as_bytes());
                    sink.buffer().push(b'\n');
                }
            }
            (None, Some(sink)) => {
                line.numbered(self.next).write(sink.buffer());
                self.next += 1;
                sink.buffer().push(b'\n');
            }
            (None, None) => {}
        }
    }

    fn say(&mut self, text: &str) {
        if let Some(sink) = &mut self.to.human {
            sink.buffer().extend_from_slice(text.as_bytes());
        }
    }
}

fn own_name() -> Option<String> {
    nix::unistd::User::from_uid(nix::unistd::geteuid()).ok()?.map(|user| user.name)
}

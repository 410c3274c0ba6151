//! What is told of a run, to whom: records to `--events`, lines to stderr, the command's output to its file.

use std::fmt::Display;
use std::io::{self, IsTerminal as _};

use anyhow::Context as _;
use tokio::sync::mpsc::UnboundedSender;
use ulid::Ulid;

use super::Args;
use super::ground::Ground;
use super::human::Human;
use super::pump::Pump;
use super::sink::{Sink, SinkFailed};
use crate::audit::{Clock, Host, Line, Recorder, Stats};
use crate::clock;
use crate::error;
use crate::event::{Fact, Summary};
use crate::model::{ProofKind, Totals};
use crate::track::Accounts;

/// Where lines and output go; opened before anything is started.
pub(super) struct Destinations {
    events: Option<Sink>,
    human: Option<Sink>,
    pump: Option<Pump>,
}

impl Destinations {
    /// Opens what the arguments name.
    ///
    /// # Errors
    /// When a file cannot be opened.
    pub(super) fn open(args: &Args, failed: &UnboundedSender<SinkFailed>) -> anyhow::Result<Self> {
        Ok(Self {
            events: args.events.as_deref().map(|path| Sink::events(path, failed.clone())).transpose()?,
            human: if args.quiet { None } else { Sink::human(failed.clone()).ok() },
            pump: args.output.as_deref().map(|path| Pump::start(path, failed.clone())).transpose()?,
        })
    }
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
        Self { to, recorder, human, degraded: !ground.degraded.is_empty(), failed: false }
    }

    /// Whether anybody wants records.
    pub(super) const fn wants_records(&self) -> bool {
        self.to.events.is_some()
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
            schema: "1.0",
            kernel,
            backend: if ground.tracing.is_some() { "ebpf" } else { "pidfd" },
            degraded: ground.degraded.clone(),
        };
        let line = self.recorder.host(host, clock::both());
        self.write(&line);
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
        if self.to.events.is_some()
            && let Some(line) = self.recorder.fact(fact, now)
        {
            let line = match proof {
                Some(proof) => Recorder::with_proof(line, proof),
                None => line,
            };
            self.write(&line);
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
        self.write(&line);
    }

    /// Hands what was told to its writers.
    pub(super) fn flush(&mut self) {
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
        if (!pumped || !written) && !self.failed {
            self.say("agent-loop: not all events and output could be written in time\n");
        }
        let told = match self.to.human.take() {
            Some(sink) => sink.close().await,
            None => false,
        };
        let code = if pumped && written && !self.failed { code } else { error::INTERNAL };
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

    fn write(&mut self, line: &Line) {
        let Some(sink) = &mut self.to.events else { return };
        let buffer = sink.buffer();
        match serde_json::to_writer(&mut *buffer, line) {
            Ok(()) => buffer.push(b'\n'),
            Err(error) => self.trouble("writing a record", &error),
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

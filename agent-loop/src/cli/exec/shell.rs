//! The shell of `exec`: turns what happens into events, and performs the actions the core answers with.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::future::pending;
use std::io::{self, IsTerminal as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::signal::Signal as Number;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use ulid::Ulid;

use super::ground::Ground;
use super::human::Human;
use super::pump::Pump;
use super::scan::{Scan, identity};
use super::sink::{Sink, SinkFailed};
use super::{Args, Backend};
use crate::audit::{Host, Recorder, Stats};
use crate::clock;
use crate::error;
use crate::event::{
    Action, Event, Fact, LaunchFailure, Launched, Member, Outcome, Phase, SignalResult, Signalled, Summary, Tree,
};
use crate::keeper::launch::{self, Child, LaunchSpec, Place, SignalsAtStart, Start, Stdio, User};
use crate::keeper::signal::{self as keeper_signal, Delivery, Expected, Refusal, Verified, Witnesses};
use crate::keeper::terminal::{self, Suspension, Terminal};
use crate::keeper::{reap, scan};
use crate::kernel::poll::register;
use crate::model::{BootNs, Live, PidfsIno, ProcessKey, ProofKind, StopReason, Totals};
use crate::supervise::{Core, Settings};

/// How often the tree is looked at without eBPF.
const SCAN_EVERY: Duration = Duration::from_millis(200);

/// How many rounds an answer waits for at most: a ring of the largest size, read over and over in a storm.
const DRAIN_ROUNDS: usize = 64;

/// How long the end waits for orphans that are dead but not yet to be reaped.
const REAP_LIMIT: Duration = Duration::from_secs(1);

/// How many members of a tree are described: more would make a look at a large tree slow.
const DESCRIBE: usize = 32;

/// Supervises the command to its end and returns the exit code.
pub(super) async fn run(args: Args) -> anyhow::Result<u8> {
    let signals = launch::signals_at_start();
    let user = match args.user.as_deref().map(find_user).transpose() {
        Ok(user) => user,
        Err(error) => {
            eprintln!("agent-loop: {error:#}");
            return Ok(error::USAGE);
        }
    };
    // Before any thread.
    let continued = terminal::listen().context("listening for job control")?;
    let (failed, failures) = unbounded_channel();
    let events = args.events.as_deref().map(|path| Sink::events(path, failed.clone())).transpose()?;
    let human = if args.quiet { None } else { Sink::human(failed.clone()).ok() };
    let pump = args.output.as_deref().map(|path| Pump::start(path, failed.clone())).transpose()?;
    // Before the birth: a signal that comes from now on is an event, not our end.
    let sources = Sources::new(&signals, continued)?;
    reap::become_subreaper().context("becoming the reaper of the tree's orphans")?;

    let id = Ulid::new();
    let ground = Ground::prepare(&args, id)?;
    let out = Output { events, human, pump };
    let mut shell = Shell::new(&args, id, ground, out)?;
    shell.announce(args.backend);
    shell.launch(&args, &signals, user);
    let summary = shell.supervise(sources, failures).await;
    shell.end(summary).await
}

fn find_user(name: &str) -> anyhow::Result<User> {
    anyhow::ensure!(
        nix::unistd::geteuid().is_root(),
        "--user needs root, to become {name}; run agent-loop as root or leave --user out"
    );
    User::find(name).with_context(|| format!("looking up the user {name}"))
}

/// Where lines and output go.
struct Output {
    events: Option<Sink>,
    human: Option<Sink>,
    pump: Option<Pump>,
}

/// What wakes the shell, beside what belongs to the run.
struct Sources {
    timer: TimerFd,
    elapsed: AsyncFd<OwnedFd>,
    child: Signal,
    continued: AsyncFd<OwnedFd>,
    stop: Vec<(u8, Signal)>,
}

impl Sources {
    /// Listens for the signals that ask for a stop, save those our caller had ignored (`nohup`).
    fn new(at_start: &SignalsAtStart, continued: OwnedFd) -> anyhow::Result<Self> {
        let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)
            .context("making a timer")?;
        let mut stop = Vec::new();
        for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup(), SignalKind::quit()] {
            let number = u8::try_from(kind.as_raw_value()).unwrap_or(0);
            if !at_start.ignored.contains(&number) {
                stop.push((number, signal(kind).context("listening for signals")?));
            }
        }
        let child = signal(SignalKind::child()).context("listening for ended children")?;
        let elapsed = timer.as_fd().try_clone_to_owned().and_then(register).context("watching the timer")?;
        let continued = register(continued).context("listening for job control")?;
        Ok(Self { timer, elapsed, child, continued, stop })
    }

    fn arm(&self, at: BootNs) -> io::Result<()> {
        // A time in the past fires at once; zero would disarm.
        let at = Duration::from_nanos(at.0.max(1));
        let expiration = Expiration::OneShot(TimeSpec::from_duration(at));
        self.timer.set(expiration, TimerSetTimeFlags::TFD_TIMER_ABSTIME)?;
        Ok(())
    }
}

/// The main process and what is watched of it.
struct Main {
    child: Child,
    exit: AsyncFd<OwnedFd>,
    start: Option<AsyncFd<OwnedFd>>,
    exited: bool,
}

struct Shell {
    core: Core,
    ground: Ground,
    main: Option<Main>,
    terminal: Terminal,
    scan: Scan,
    events: Option<Sink>,
    human_sink: Option<Sink>,
    pump: Option<Pump>,
    recorder: Recorder,
    human: Human,
    queue: VecDeque<Event>,
    wake: Option<BootNs>,
    totals: Totals,
    launch_code: Option<u8>,
    write_failed: bool,
    stop_asked: bool,
    stopping: bool,
    more: bool,
}

impl Shell {
    fn new(args: &Args, id: Ulid, ground: Ground, out: Output) -> anyhow::Result<Self> {
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").context("reading the boot id")?;
        let argv: Vec<String> = args.command.iter().map(|argument| argument.to_string_lossy().into_owned()).collect();
        let user = args.user.clone().or_else(own_name).unwrap_or_default();
        let mut recorder = Recorder::new(boot_id.trim().to_owned(), id.to_string(), argv.clone(), user);
        if let Some(cgroup) = &ground.cgroup {
            recorder.set_cgroup(cgroup.tag().0, cgroup.path().display().to_string());
        }
        let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Ok(Self {
            core: Core::new(Settings {
                limit: args.limit,
                grace: args.grace,
                leftovers: args.leftovers.into(),
                give_up: args.give_up,
                ..Settings::default()
            }),
            ground,
            main: None,
            terminal: Terminal::of_caller(),
            scan: Scan::default(),
            events: out.events,
            human_sink: out.human,
            pump: out.pump,
            recorder,
            human: Human::new(&argv, colour, clock::boot()),
            queue: VecDeque::new(),
            wake: None,
            totals: Totals::default(),
            launch_code: None,
            write_failed: false,
            stop_asked: false,
            stopping: false,
            more: false,
        })
    }

    /// Tells what this host offers and what is done without.
    fn announce(&mut self, backend: Backend) {
        let kernel = nix::sys::utsname::uname()
            .map_or_else(|_| String::new(), |name| name.release().to_string_lossy().into_owned());
        let host = Host {
            version: env!("CARGO_PKG_VERSION"),
            schema: "1.0",
            kernel,
            backend: if self.ground.tracing.is_some() { "ebpf" } else { "pidfd" },
            degraded: self.ground.degraded.clone(),
        };
        let line = self.recorder.host(host, clock::both());
        self.write(&line);
        if backend != Backend::Pidfd || !self.ground.degraded.is_empty() {
            let text = self.human.degraded(&self.ground.degraded);
            self.say(&text);
        }
    }

    /// Bears the main process, frozen, and queues what became of it.
    fn launch(&mut self, args: &Args, signals: &SignalsAtStart, user: Option<User>) {
        let event = match self.try_launch(args, signals, user) {
            Ok(launched) => Event::Launched(launched),
            Err(failure) => Event::LaunchFailed(failure),
        };
        self.queue.push_back(event);
        if let Some(pump) = &mut self.pump {
            pump.launched();
        }
    }

    fn try_launch(
        &mut self,
        args: &Args,
        signals: &SignalsAtStart,
        user: Option<User>,
    ) -> Result<Launched, LaunchFailure> {
        let mut spec = LaunchSpec::as_caller(args.command.clone(), signals);
        if args.events.as_deref().is_some_and(|path| path.as_os_str() == "-") {
            spec.stdio[1] = Stdio::Fd(io::stderr().as_raw_fd());
        }
        if let Some(write) = self.pump.as_ref().and_then(Pump::write) {
            spec.stdio[1] = Stdio::Fd(write.as_raw_fd());
            spec.stdio[2] = Stdio::Fd(write.as_raw_fd());
        }
        if let Some(user) = user {
            set_user(&mut spec.env, args.user.as_deref().unwrap_or_default(), &user);
            spec.no_new_privs = true;
            spec.user = Some(user);
        }
        let place = self.ground.cgroup.as_ref().map_or(Place::Held, Place::Cgroup);
        let child = launch::launch(&spec, self.ground.tag, place)?;
        self.watch_main(child).map_err(|error| failure("watching the new process", &error))
    }

    fn watch_main(&mut self, child: Child) -> io::Result<Launched> {
        let exit = register(child.pidfd.as_fd().try_clone_to_owned()?)?;
        let start = register(child.start.as_fd().try_clone_to_owned()?)?;
        let (pid, ino) = (child.pid, child.pidfd.ino());
        self.main = Some(Main { child, exit, start: Some(start), exited: false });
        let key = match &self.ground.tracing {
            // The fork hook ran before clone3 returned: the birth is in the live set, or eBPF does not work.
            Some(tracing) => {
                tracing
                    .live
                    .lookup(pid)?
                    .filter(|live| live.run == self.ground.tag)
                    .ok_or_else(|| io::Error::other("the kernel's live set does not hold the new process"))?
                    .key
            }
            None => identity(pid)?.ok_or_else(|| io::Error::other("the new process is gone"))?.0,
        };
        self.scan.main(key, ino);
        let at = BootNs(key.start_boottime_ns);
        Ok(Launched { key, ino, run: self.ground.tag, at, traced: self.ground.tracing.is_some() })
    }

    /// The loop: one source wakes, its events go through the core, its actions are performed.
    async fn supervise(&mut self, mut sources: Sources, mut failures: UnboundedReceiver<SinkFailed>) -> Summary {
        let mut scan_tick = tokio::time::interval(SCAN_EVERY);
        scan_tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            if let Some(summary) = self.settle(&sources) {
                return summary;
            }
            tokio::select! {
                biased;
                (number, ()) = next_signal(&mut sources.stop) => self.asked_to_stop(number),
                Some(failure) = failures.recv() => self.cannot_write(&failure),
                () = taken(&sources.elapsed) => self.queue.push_back(Event::Woke),
                () = readable(self.main.as_ref().filter(|main| !main.exited).map(|main| &main.exit)) => self.main_exited(),
                () = readable(self.main.as_ref().and_then(|main| main.start.as_ref())) => self.main_started(),
                _ = sources.child.recv() => {
                    self.children_ended();
                    self.main_stopped();
                }
                () = taken(&sources.continued) => self.continued(),
                () = records(&mut self.ground, self.more) => self.round(),
                _ = scan_tick.tick(), if self.ground.tracing.is_none() => self.look(),
            }
        }
    }

    /// Hands every queued event to the core and performs what it answers.
    fn settle(&mut self, sources: &Sources) -> Option<Summary> {
        while let Some(event) = self.queue.pop_front() {
            let actions = self.core.handle(clock::boot(), event);
            for action in actions {
                if let Action::Finish(summary) = action {
                    return Some(summary);
                }
                self.perform(action);
            }
        }
        if let Some(at) = self.wake.take()
            && let Err(error) = sources.arm(at)
        {
            // Without a timer no deadline would be kept: the tree is stopped now.
            tracing::error!(%error, "setting the timer");
            self.queue.push_back(Event::StopRequested(StopReason::Internal));
        }
        self.flush();
        None
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Log(fact) => self.log(fact),
            Action::Thaw => self.thaw(),
            Action::WakeAt(at) => self.wake = Some(at),
            Action::ReadCounters => self.read_counters(),
            Action::ReadLiveSet => self.read_live_set(),
            Action::Signal { key, ino, signal } => {
                let result = self.signal_known(key, ino, signal);
                let signalled = Signalled { pid: key.tgid, key: Some(key), signal, result: outcome(result) };
                self.queue.push_back(Event::Signalled(signalled));
            }
            Action::SignalMember { pid, signal } => {
                let expected = match &self.ground.cgroup {
                    Some(_) => Expected::Member { pid },
                    None => Expected::Descendant { pid },
                };
                // For the record: who it is was known before the signal, or is not known.
                let key = self.core.tracker().registry().by_tgid(pid).map(|entry| entry.key);
                let result = keeper_signal::open_and_send(expected, &self.witnesses(), signal);
                let signalled = Signalled { pid, key, signal, result: outcome(result) };
                self.queue.push_back(Event::Signalled(signalled));
            }
            Action::KillCgroup => {
                let result = match &self.ground.cgroup {
                    Some(cgroup) => {
                        keeper_signal::kill_cgroup(cgroup.own(), cgroup.tag()).map_err(|why| why.to_string())
                    }
                    None => Err("the run has no cgroup".to_owned()),
                };
                self.queue.push_back(Event::CgroupKilled(result));
            }
            Action::InspectTree => {
                let tree = self.inspect().unwrap_or_else(|error| Tree::Unknown(error.to_string()));
                self.queue.push_back(Event::Tree(tree));
            }
            // Taken by the loop.
            Action::Finish(_) => {}
        }
    }

    fn witnesses(&self) -> Witnesses<'_> {
        Witnesses {
            run: self.ground.tag,
            live: self.ground.tracing.as_ref().map(|tracing| &tracing.live as &dyn keeper_signal::LiveSet),
            cgroup: self.ground.cgroup.as_ref().map(|cgroup| cgroup.own()),
        }
    }

    fn signal_known(&self, key: ProcessKey, ino: Option<PidfsIno>, signal: u8) -> Result<Delivery, Refusal> {
        let witnesses = self.witnesses();
        match &self.main {
            Some(main) if main.child.pid == key.tgid && !main.exited => {
                match keeper_signal::verify(&main.child.pidfd, Expected::OwnChild, &witnesses)? {
                    Verified::Proof(proof) => proof.send(signal),
                    Verified::Gone => Ok(Delivery::Gone),
                }
            }
            _ if self.ground.cgroup.is_none() => {
                keeper_signal::open_and_send(Expected::Descendant { pid: key.tgid }, &witnesses, signal)
            }
            Some(_) | None => keeper_signal::open_and_send(Expected::Known { key, ino }, &witnesses, signal),
        }
    }

    fn thaw(&mut self) {
        let thawed = match (&self.ground.cgroup, &mut self.main) {
            (Some(cgroup), _) => cgroup.thaw(),
            (None, Some(main)) => main.child.release(),
            (None, None) => Ok(()),
        };
        if let Err(error) = thawed {
            tracing::error!(%error, "letting the command run");
            self.queue.push_back(Event::StopRequested(StopReason::Internal));
        }
    }

    fn read_counters(&mut self) {
        self.drain_all();
        if let Some(tracing) = &self.ground.tracing {
            match tracing.counters.read() {
                Ok(totals) => self.totals = totals,
                // The last totals stand: a loss is then found later, never missed.
                Err(error) => tracing::error!(%error, "reading the kernel's counters"),
            }
        }
        self.queue.push_back(Event::Counted(self.totals));
    }

    fn read_live_set(&mut self) {
        // What is in the set was recorded before it was read: the records come first.
        self.drain_all();
        match self.live() {
            Ok(live) => self.queue.push_back(Event::LiveSet(live)),
            // No answer is no proof: the run does not end on it.
            Err(error) => tracing::error!(%error, "reading the live set"),
        }
    }

    /// The live, tracked processes of the run.
    fn live(&self) -> io::Result<Vec<Live>> {
        let Some(tracing) = &self.ground.tracing else { return Ok(Vec::new()) };
        let mut live = tracing.live.all()?;
        live.retain(|live| live.run == self.ground.tag);
        Ok(live)
    }

    /// What is left of the tree now.
    fn inspect(&self) -> io::Result<Tree> {
        let Some(cgroup) = &self.ground.cgroup else {
            let left = self.descendants()?;
            return Ok(if left.is_empty() {
                Tree::Empty { proven: false }
            } else {
                Tree::Populated(describe(&left, &[]))
            });
        };
        let populated = cgroup.own().populated()?;
        let live = self.live()?;
        if !populated && live.is_empty() {
            return Ok(Tree::Empty { proven: true });
        }
        let pids = if populated { cgroup.own().procs()?.pids } else { BTreeSet::new() };
        if pids.is_empty() && live.is_empty() {
            // Populated by what has no number here, or by what is just leaving.
            return Ok(if cgroup.own().populated()? {
                Tree::Unknown("the cgroup is populated by processes that cannot be listed".to_owned())
            } else {
                Tree::Empty { proven: true }
            });
        }
        Ok(Tree::Populated(describe(&pids, &live)))
    }

    /// The living processes that descend from us, the guard excepted: the tree where there is no cgroup.
    fn descendants(&self) -> io::Result<BTreeSet<u32>> {
        let (mut pids, _complete) = scan::descendants(std::process::id())?;
        if let Some(guard) = &self.ground.guard {
            pids.remove(&guard.pidfd.pid());
        }
        pids.retain(|&pid| !matches!(scan::Stat::read(pid), Ok(None)) && !is_zombie(pid));
        Ok(pids)
    }

    /// Reads one round of the rings and says so.
    fn round(&mut self) {
        self.drain();
        self.queue.push_back(Event::RoundEnded);
    }

    /// Reads all that was written until now, however much it is.
    fn drain_all(&mut self) {
        for _ in 0..DRAIN_ROUNDS {
            self.drain();
            if !self.more {
                return;
            }
        }
    }

    fn drain(&mut self) {
        let Some(tracing) = &mut self.ground.tracing else { return };
        let round = tracing.rings.round();
        self.more = round.more;
        for event in round.events {
            self.queue.push_back(enrich(event, tracing, self.events.is_some()));
        }
    }

    /// The main process is dead: its records first, then the authority on its status.
    fn main_exited(&mut self) {
        if self.ground.tracing.is_some() {
            self.round();
        } else {
            // Whom it left behind is known before its end is told.
            self.look();
        }
        let Some(main) = &mut self.main else { return };
        match main.child.pidfd.try_wait() {
            Ok(None) => {}
            Ok(status) => {
                main.exited = true;
                self.queue.push_back(Event::MainExited(status));
            }
            Err(error) => {
                tracing::error!(%error, "waiting for the command");
                main.exited = true;
                self.queue.push_back(Event::MainExited(None));
            }
        }
    }

    fn main_started(&mut self) {
        let Some(main) = &mut self.main else { return };
        let event = match main.child.start.poll() {
            Ok(None) => return,
            Ok(Some(Start::Started)) => Event::Started,
            Ok(Some(Start::Failed(failed))) => {
                self.launch_code = failed.shell_code();
                Event::LaunchFailed(failed.into())
            }
            // Its status will say what ended it.
            Ok(Some(Start::Died)) => {
                main.start = None;
                return;
            }
            Err(error) => Event::LaunchFailed(failure("asking the launcher", &error)),
        };
        main.start = None;
        self.queue.push_back(event);
    }

    /// Reaps orphans of the tree that fell to us, each after its record was read.
    fn children_ended(&mut self) {
        let ours: BTreeSet<u32> = self
            .main
            .iter()
            .map(|main| main.child.pid)
            .chain(self.ground.guard.iter().map(|guard| guard.pidfd.pid()))
            .collect();
        match reap::zombies(&ours) {
            Ok(zombies) if zombies.is_empty() => {}
            Ok(zombies) => {
                self.round();
                for pid in zombies {
                    if let Ok(Some(reaped)) = reap::reap(pid) {
                        self.scan.reaped(reaped.pid, reaped.status);
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "looking for orphans"),
        }
    }

    /// The command was stopped, by Ctrl-Z for one: we stop with it, so that the caller's shell has the terminal.
    ///
    /// All of us is stopped then; a limit that passed meanwhile strikes when we are continued.
    fn main_stopped(&mut self) {
        let Some(main) = self.main.as_ref().filter(|main| !main.exited) else { return };
        let Ok(Some(signal)) = terminal::stopped_by(&main.child.pidfd) else { return };
        // A stop of the tree is not put off: what is stopped now ends with its last step.
        if self.stop_asked || self.stopping {
            return;
        }
        let group = main.child.pid;
        // SIGSTOP may come from anybody. It is a matter of the terminal where it keeps the foreground from all.
        let by_keys = matches!(signal, Number::SIGTSTP | Number::SIGTTIN | Number::SIGTTOU);
        if !by_keys && !self.terminal.is_of(group) {
            return;
        }
        let go_on = match self.terminal.suspend() {
            Ok(Suspension::Over) => {
                self.terminal.lend(group);
                true
            }
            // Nobody would ever continue us. The command goes on, unless it would only be stopped again.
            Ok(Suspension::Refused) => self.terminal.lend(group) || signal == Number::SIGTSTP,
            Ok(Suspension::NoTerminal) => false,
            Err(error) => {
                tracing::warn!(%error, "stopping together with the command");
                true
            }
        };
        if go_on {
            self.continue_group(group);
        }
    }

    /// We were continued outside of [`Shell::main_stopped`], by `fg` of a job in the background for one.
    fn continued(&mut self) {
        let Some(main) = self.main.as_ref().filter(|main| !main.exited) else { return };
        let group = main.child.pid;
        if self.terminal.lend(group) {
            self.continue_group(group);
        }
    }

    /// Continues the command's own process group as a shell does, each member by proof.
    fn continue_group(&mut self, group: u32) {
        let continue_signal = Number::SIGCONT as u8;
        let tree = match &self.ground.cgroup {
            Some(cgroup) => cgroup.own().procs().map(|procs| procs.pids),
            None => self.descendants(),
        };
        let mut members = tree.unwrap_or_default();
        members.insert(group);
        let of_group =
            |pid: u32| scan::Stat::read(pid).ok().flatten().is_some_and(|stat| stat.pgrp.cast_unsigned() == group);
        for pid in members.into_iter().filter(|&pid| of_group(pid)) {
            let result = match &self.main {
                Some(main) if main.child.pid == pid => {
                    match keeper_signal::verify(&main.child.pidfd, Expected::OwnChild, &self.witnesses()) {
                        Ok(Verified::Proof(proof)) => proof.send(continue_signal),
                        Ok(Verified::Gone) => Ok(Delivery::Gone),
                        Err(refusal) => Err(refusal),
                    }
                }
                _ if self.ground.cgroup.is_some() => {
                    keeper_signal::open_and_send(Expected::Member { pid }, &self.witnesses(), continue_signal)
                }
                _ => keeper_signal::open_and_send(Expected::Descendant { pid }, &self.witnesses(), continue_signal),
            };
            let key = self.core.tracker().registry().by_tgid(pid).map(|entry| entry.key);
            self.log(Fact::SignalResult(Signalled { pid, key, signal: continue_signal, result: outcome(result) }));
        }
    }

    /// Reaps the last orphans of an empty tree: each is a zombie, or about to be one.
    async fn reap_the_rest(&mut self, summary: &Summary) {
        if matches!(summary.outcome, Outcome::NotEmpty { .. }) {
            return;
        }
        let guard: BTreeSet<u32> = self.ground.guard.iter().map(|guard| guard.pidfd.pid()).collect();
        let began = clock::boot();
        while began.until(clock::boot()) < REAP_LIMIT {
            let _ = reap::reap_orphans(&guard);
            match scan::children(std::process::id()) {
                Ok(children) if children.is_subset(&guard) => return,
                Ok(_) => tokio::time::sleep(Duration::from_millis(1)).await,
                Err(_) => return,
            }
        }
    }

    /// One look at the tree, where no eBPF tells what happens in it.
    fn look(&mut self) {
        let Some(main) = &self.main else { return };
        let pids = match &self.ground.cgroup {
            Some(cgroup) => cgroup.own().procs().map(|procs| procs.pids),
            None => self.descendants(),
        };
        match pids {
            Ok(pids) => {
                let events = self.scan.look(&pids, self.ground.tag, main.child.pid, clock::boot());
                self.queue.extend(events);
                self.queue.push_back(Event::RoundEnded);
            }
            Err(error) => tracing::warn!(%error, "looking at the tree"),
        }
    }

    fn asked_to_stop(&mut self, number: u8) {
        self.queue.push_back(if self.stop_asked {
            Event::Impatient
        } else {
            Event::StopRequested(StopReason::Operator { signal: number })
        });
        self.stop_asked = true;
    }

    fn cannot_write(&mut self, failure: &SinkFailed) {
        if failure.what.contains("stderr") {
            // Nobody reads: the run goes on, as the command would.
            self.human_sink = None;
            return;
        }
        self.write_failed = true;
        let text = format!("agent-loop: writing {}: {}; stopping the tree\n", failure.what, failure.error);
        self.say(&text);
        self.queue.push_back(Event::StopRequested(StopReason::OutputFailed));
    }

    fn log(&mut self, fact: Fact) {
        let now = clock::both();
        self.stopping |= matches!(fact, Fact::Phase(Phase::Stopping { .. }));
        let proof = match &fact {
            Fact::SignalIntent { cgroup: true, .. } => Some(ProofKind::OwnCgroup),
            Fact::SignalIntent { pid, .. } if self.main.as_ref().is_some_and(|main| main.child.pid == *pid) => {
                Some(ProofKind::OwnChild)
            }
            Fact::SignalIntent { .. } if self.ground.cgroup.is_none() => Some(ProofKind::Descendant),
            Fact::SignalIntent { key: None, .. } => Some(ProofKind::OwnCgroup),
            Fact::SignalIntent { key: Some(key), .. } => {
                let known = self.core.tracker().registry().get(key).and_then(|entry| entry.ino);
                Some(if known.is_some() { ProofKind::PidfsIno } else { ProofKind::LiveSet })
            }
            Fact::RunBorn(_)
            | Fact::Fork { .. }
            | Fact::Exec(_)
            | Fact::Exit { .. }
            | Fact::Gap(_)
            | Fact::SignalResult(_)
            | Fact::Phase(_)
            | Fact::RunKilled { .. }
            | Fact::RunExit(_) => None,
        };
        if self.events.is_some()
            && let Some(line) = self.recorder.fact(&fact, now)
        {
            let line = match proof {
                Some(proof) => Recorder::with_proof(line, proof),
                None => line,
            };
            self.write(&line);
        }
        if self.human_sink.is_some()
            && let Some(text) = self.human.fact(&fact, now.boot)
        {
            self.say(&text);
        }
    }

    fn write(&mut self, line: &crate::audit::Line) {
        let Some(sink) = &mut self.events else { return };
        let buffer = sink.buffer();
        match serde_json::to_writer(&mut *buffer, line) {
            Ok(()) => buffer.push(b'\n'),
            Err(error) => tracing::error!(%error, "writing a record"),
        }
    }

    fn say(&mut self, text: &str) {
        if let Some(sink) = &mut self.human_sink {
            sink.buffer().extend_from_slice(text.as_bytes());
        }
    }

    fn flush(&mut self) {
        for sink in [&mut self.events, &mut self.human_sink].into_iter().flatten() {
            sink.flush();
        }
    }

    /// Draws the sum, removes the cgroup, gives the terminal back, and waits for what is still being written.
    async fn end(mut self, summary: Summary) -> anyhow::Result<u8> {
        let mut code = error::of_run(&summary, self.launch_code);
        let _ = self.terminal.take_back();
        self.reap_the_rest(&summary).await;
        if let Some(tracing) = &self.ground.tracing
            && let Ok(totals) = tracing.counters.read()
        {
            let stats = Stats::new(&totals, self.core.tracker().accounts());
            let line = self.recorder.stats(stats, clock::both());
            self.write(&line);
        }
        let text = self.human.summary(&summary, !self.ground.degraded.is_empty());
        let quiet = self.human_sink.is_none();
        self.say(&text);
        if self.ground.cgroup.is_some() && !matches!(summary.outcome, Outcome::NotEmpty { .. }) {
            let ground = std::mem::replace(&mut self.ground, Ground::none());
            if let Err(error) = ground.clear() {
                self.say(&format!("agent-loop: {error:#}\n"));
                code = error::INTERNAL;
            }
        }
        let pumped = match self.pump.take() {
            Some(pump) => pump.close().await,
            None => true,
        };
        let written = match self.events.take() {
            Some(sink) => sink.close().await,
            None => true,
        };
        if (!pumped || !written) && !self.write_failed {
            self.say("agent-loop: not all events and output could be written in time\n");
        }
        if let Some(sink) = self.human_sink.take() {
            sink.close().await;
        }
        if quiet && (error::LIMIT..=error::NOT_FOUND).contains(&code) {
            eprint!("{text}");
        }
        Ok(if pumped && written && !self.write_failed { code } else { error::INTERNAL })
    }
}

/// Adds what only a look at the live process can tell: its working directory.
fn enrich(event: Event, tracing: &crate::kernel::Tracing, wanted: bool) -> Event {
    let Event::Execed(mut exec) = event else { return event };
    if wanted && let Ok(cwd) = std::fs::read_link(format!("/proc/{}/cwd", exec.key.tgid)) {
        // What was read is of this process only if it is alive after: it held the number all the time then.
        if tracing.live.lookup(exec.key.tgid).is_ok_and(|live| live.is_some_and(|live| live.key == exec.key)) {
            exec.cwd = Some(cwd.to_string_lossy().into_owned());
        }
    }
    Event::Execed(exec)
}

fn describe(pids: &BTreeSet<u32>, live: &[Live]) -> Vec<Member> {
    let outside = live.iter().map(|live| live.key.tgid).filter(|pid| !pids.contains(pid));
    pids.iter()
        .copied()
        .chain(outside)
        .enumerate()
        .map(|(index, pid)| {
            let key = live.iter().find(|live| live.key.tgid == pid).map(|live| live.key);
            if index < DESCRIBE {
                scan::member(pid, key)
            } else {
                Member { pid, key, state: None, wchan: None, comm: None }
            }
        })
        .collect()
}

fn is_zombie(pid: u32) -> bool {
    scan::Stat::read(pid).ok().flatten().is_some_and(|stat| stat.state == 'Z')
}

fn outcome(result: Result<Delivery, Refusal>) -> SignalResult {
    match result {
        Ok(Delivery::Sent(proof)) => SignalResult::Sent(proof),
        Ok(Delivery::Gone) => SignalResult::Gone,
        Err(refusal) => SignalResult::Refused(refusal.to_string()),
    }
}

fn failure(step: &str, error: &io::Error) -> LaunchFailure {
    LaunchFailure { step: format!("{step}: {error}"), errno: None }
}

/// The environment of another user: who it is and where its home is, the rest stays the caller's.
fn set_user(env: &mut Vec<(OsString, OsString)>, name: &str, user: &User) {
    env.retain(|(variable, _)| variable != "HOME" && variable != "USER" && variable != "LOGNAME");
    for variable in ["USER", "LOGNAME"] {
        env.push((variable.into(), name.into()));
    }
    if let Some(home) = &user.home {
        env.push(("HOME".into(), home.into()));
    }
}

fn own_name() -> Option<String> {
    nix::unistd::User::from_uid(nix::unistd::geteuid()).ok()?.map(|user| user.name)
}

async fn next_signal(signals: &mut [(u8, Signal)]) -> (u8, ()) {
    std::future::poll_fn(|cx| {
        for (number, signal) in signals.iter_mut() {
            if signal.poll_recv(cx).is_ready() {
                return std::task::Poll::Ready((*number, ()));
            }
        }
        std::task::Poll::Pending
    })
    .await
}

async fn readable(fd: Option<&AsyncFd<OwnedFd>>) {
    match fd {
        Some(fd) => match fd.readable().await {
            Ok(mut guard) => guard.clear_ready(),
            Err(_) => pending().await,
        },
        None => pending().await,
    }
}

/// Waits for a timer or a signal, and takes it, so that the next one is news.
async fn taken(source: &AsyncFd<OwnedFd>) {
    readable(Some(source)).await;
    // A signalfd_siginfo is the larger of both.
    let _ = nix::unistd::read(source.get_ref(), &mut [0; 128]);
}

async fn records(ground: &mut Ground, more: bool) {
    match &mut ground.tracing {
        Some(_) if more => tokio::task::yield_now().await,
        Some(tracing) => {
            if tracing.rings.readable().await.is_err() {
                pending::<()>().await;
            }
        }
        None => pending().await,
    }
}

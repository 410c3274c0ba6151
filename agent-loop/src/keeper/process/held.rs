//! The runs that the keeper holds, and what each request does to them.
//!
//! A request is a claim. What it names is looked up among what this process has made or proven itself; what comes
//! of it is an act of `launch` or `signal`, or a refusal.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use super::drain::{Drain, Stream};
use super::drainer::Drainer;
use super::given::{self, Given};
use super::protocol::{
    ADDED, CgroupLimits, Held, MOST_RUNS, Missing, Notice, Process, Reply, Request, StartState, Terms,
};
use super::refused::Refused;
use super::run::{Main, Run};
use super::witness::Witness;
use crate::keeper::cgroup::{Home, Limits, RunCgroup};
use crate::keeper::launch::{Place, Resource, Rlimit, launch};
use crate::keeper::pidfd::PidFd;
use crate::keeper::signal::{Delivery, Expected, Verified, open_and_send, verify};
use crate::model::{PidfsIno, ProcessKey, ProofKind, RunTag};
use crate::run::RunName;

/// A reply and the descriptors beside it.
pub(super) type Answer = (Reply, Vec<OwnedFd>);

/// What a run's descriptor is watched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Watched {
    /// The end of the main process.
    Main,
    /// What became of its start.
    Start,
}

/// What does not change while a keeper lives.
#[derive(Debug)]
pub(super) struct Ground {
    /// The cgroup below which runs are made.
    pub(super) home: Home,
    /// What it was started with.
    pub(super) terms: Terms,
    /// The limit on open files that a run gets, where its specification names none: the one before ours was raised.
    pub(super) files: Rlimit,
}

/// All runs that are held.
#[derive(Debug)]
pub(super) struct Runs {
    ground: Ground,
    drainer: Drainer,
    held: BTreeMap<RunName, Run>,
    notices: Vec<Notice>,
}

impl Runs {
    pub(super) fn new(ground: Ground, drainer: Drainer) -> Self {
        Self { ground, drainer, held: BTreeMap::new(), notices: Vec::new() }
    }

    /// What it was started with.
    pub(super) fn terms(&self) -> &Terms {
        &self.ground.terms
    }

    /// Carries out a request that is not [`Request::Hello`], or refuses it. Descriptors that are not kept are closed.
    pub(super) fn answer(&mut self, request: Request, fds: Vec<OwnedFd>) -> Answer {
        self.carry_out(request, fds).unwrap_or_else(|refused| (refused.reply(), Vec::new()))
    }

    fn carry_out(&mut self, request: Request, fds: Vec<OwnedFd>) -> Result<Answer, Refused> {
        let plain = |reply| Ok((reply, Vec::new()));
        match request {
            Request::Hello => Err(Refused::new("hello is answered by the connection")),
            Request::Revision => {
                given::nothing(&fds)?;
                plain(Reply::Revision { number: ADDED.len() })
            }
            Request::Prepare { run, limits } => {
                given::nothing(&fds)?;
                plain(self.prepare(name(&run)?, limits)?)
            }
            Request::Launch { run, fds: announced, output_bytes } => {
                let given = Given::take(fds, true, announced)?;
                let (reply, pidfd) = self.launch(name(&run)?, given, output_bytes)?;
                Ok((reply, vec![pidfd]))
            }
            Request::Thaw { run } => {
                given::nothing(&fds)?;
                plain(self.run(&run)?.thaw()?)
            }
            Request::Adopt { run, cgroup, main, fds: announced, output_bytes } => {
                if announced.stdin || announced.writers {
                    return Err(Refused::new("nothing is launched by an adoption: only drains belong to it"));
                }
                let given = Given::take(fds, false, announced)?;
                plain(self.adopt(name(&run)?, RunTag(cgroup), main, given, output_bytes)?)
            }
            Request::Drain { run, fds: announced, output_bytes } => {
                if announced.stdin || announced.writers || !announced.drains {
                    return Err(Refused::new("only drains belong to it"));
                }
                let given = Given::take(fds, false, announced)?;
                let name = name(&run)?;
                let run = self.held.get_mut(&name).ok_or_else(|| not_held(name))?;
                if run.drained {
                    return Err(Refused::new("its output is being read already"));
                }
                drain(&self.drainer, run, given.drains, output_bytes);
                plain(Reply::Done)
            }
            Request::Look { run } => {
                given::nothing(&fds)?;
                let run = self.run(&run)?;
                if !run.drained {
                    return Err(Refused::new("nobody reads its output"));
                }
                let name = run.name;
                self.drainer.look(name);
                plain(Reply::Done)
            }
            Request::Signal { run, to, signal } => {
                given::nothing(&fds)?;
                plain(self.signal(&run, to, signal)?)
            }
            Request::SignalMember { run, pid, signal } => {
                given::nothing(&fds)?;
                let run = self.run(&run)?;
                plain(signalled(open_and_send(Expected::Member { pid }, &run.witnesses(None), signal)?))
            }
            Request::Kill { run } => {
                given::nothing(&fds)?;
                plain(self.run(&run)?.kill()?)
            }
            Request::Freeze { run } => {
                given::nothing(&fds)?;
                let run = self.run(&run)?;
                run.cgroup.freeze().map_err(|error| Refused::because("freezing", error))?;
                run.thawed = false;
                plain(Reply::Done)
            }
            Request::Remove { run } => {
                given::nothing(&fds)?;
                plain(self.remove(&run)?)
            }
        }
    }

    fn run(&mut self, text: &str) -> Result<&mut Run, Refused> {
        let name = name(text)?;
        self.held.get_mut(&name).ok_or_else(|| not_held(name))
    }

    fn room_for(&self, name: RunName) -> Result<(), Refused> {
        if self.held.contains_key(&name) {
            return Err(Refused::new(format!("{name} is held already")));
        }
        if self.held.len() >= MOST_RUNS {
            return Err(Refused::new(format!("{MOST_RUNS} runs are held, which is the most")));
        }
        Ok(())
    }

    fn prepare(&mut self, name: RunName, limits: CgroupLimits) -> Result<Reply, Refused> {
        self.room_for(name)?;
        let cgroup = match RunCgroup::create(&self.ground.home, &name.to_string()) {
            // The place was taken away, and perhaps made anew: systemd does so with a unit that begins again. Nobody is
            // left in what is gone.
            Err(error) if error.is_gone() => {
                self.ground.home = Home::at_path(Path::new(&self.ground.terms.runs))?;
                RunCgroup::create(&self.ground.home, &name.to_string())?
            }
            created => created?,
        };
        if let Err(error) = cgroup.freeze() {
            // It is ours and empty; the failure to freeze it is what is told.
            let _ = cgroup.remove();
            return Err(Refused::because("freezing the new cgroup", error));
        }
        let missing = cgroup.limit(&Limits {
            memory_max: limits.memory_bytes,
            pids_max: limits.tasks,
            cpu_percent: limits.cpu_percent,
        });
        let reply = Reply::Prepared {
            cgroup: cgroup.tag().0,
            level: cgroup.level(),
            path: cgroup.path().display().to_string(),
            missing: missing.into_iter().map(|it| Missing { file: it.file.to_owned(), why: it.why }).collect(),
        };
        self.held.insert(name, Run::new(name, cgroup));
        Ok(reply)
    }

    fn launch(&mut self, name: RunName, given: Given, output_bytes: Option<u64>) -> Result<(Reply, OwnedFd), Refused> {
        let ground = &self.ground;
        let run = self.held.get_mut(&name).ok_or_else(|| not_held(name))?;
        if run.main.is_some() || run.killed {
            return Err(Refused::new(format!("{name} was launched or killed already: an attempt is launched once")));
        }
        let mut spec = given.spec(&ground.terms)?;
        if !spec.rlimits.iter().any(|limit| limit.resource == Resource::OpenFiles) {
            spec.rlimits.push(ground.files);
        }
        let child = launch(&spec, run.cgroup.tag(), Place::Cgroup(&run.cgroup))?;
        let told = Process { pid: child.pid, start_ns: 0, ino: child.pidfd.ino().map(|ino| ino.0) };
        let copy = child.pidfd.as_fd().try_clone_to_owned();
        // Held before anything else can fail: it has to be waited for.
        run.main = Some(Main { pidfd: child.pidfd, told, child: true, held_back: false });
        run.start_pipe = Some(child.start);
        drain(&self.drainer, run, given.drains, output_bytes);
        match copy {
            Ok(pidfd) => Ok((Reply::Born { pid: told.pid, ino: told.ino }, pidfd)),
            Err(error) => {
                run.give_up();
                Err(Refused::because("copying the descriptor of the new process, which was killed", error))
            }
        }
    }

    fn adopt(
        &mut self,
        name: RunName,
        tag: RunTag,
        main: Option<Process>,
        given: Given,
        output_bytes: Option<u64>,
    ) -> Result<Reply, Refused> {
        self.room_for(name)?;
        let cgroup = RunCgroup::open(&self.ground.home, &name.to_string(), tag)?;
        let frozen = cgroup.is_freezing().map_err(|error| Refused::because("asking whether it is frozen", error))?;
        let mut run = Run::new(name, cgroup);
        run.thawed = !frozen;
        run.start = StartState::Unknown;
        drain(&self.drainer, &mut run, given.drains, output_bytes);
        if let Some(claimed) = main {
            run.main = self.proven(&run, claimed);
        }
        let main_alive = run.main.is_some();
        self.held.insert(name, run);
        Ok(Reply::Adopted { main_alive })
    }

    /// The process that is claimed to be the main one, if it is proven to be that and of this run.
    fn proven(&self, run: &Run, claimed: Process) -> Option<Main> {
        let fd = match PidFd::open(claimed.pid) {
            Ok(fd) => fd?,
            Err(error) => {
                super::say(&format!("{}: opening its main process {}: {error}", run.name, claimed.pid));
                return None;
            }
        };
        let live = self.live();
        let kind = match verify(&fd, known(claimed), &run.witnesses(live.as_ref())) {
            Ok(Verified::Proof(proof)) => proof.kind(),
            Ok(Verified::Gone) => return None,
            Err(refusal) => {
                super::say(&format!("{}: its main process is not held: {refusal}", run.name));
                return None;
            }
        };
        // What is told of it later is what was proven.
        let start_ns = if kind == ProofKind::LiveSet { claimed.start_ns } else { 0 };
        let told = Process { start_ns, ino: fd.ino().map(|ino| ino.0), ..claimed };
        Some(Main { pidfd: fd, told, child: false, held_back: false })
    }

    fn signal(&mut self, run: &str, to: Process, signal: u8) -> Result<Reply, Refused> {
        let live = self.live();
        let run = self.run(run)?;
        let witnesses = run.witnesses(live.as_ref());
        if let Some(main) = run.main.as_ref().filter(|main| main.child && run.exited.is_none())
            && main.told.pid == to.pid
            && (to.ino.is_none() || to.ino == main.told.ino)
        {
            return Ok(signalled(match verify(&main.pidfd, Expected::OwnChild, &witnesses)? {
                Verified::Proof(proof) => proof.send(signal)?,
                Verified::Gone => Delivery::Gone,
            }));
        }
        Ok(signalled(open_and_send(known(to), &witnesses, signal)?))
    }

    fn remove(&mut self, text: &str) -> Result<Reply, Refused> {
        let run = self.run(text)?;
        // Held back by a tracer it is dead all the same, and is reaped as any other orphan once that lets go.
        let waits = |main: &Main| main.child && !main.held_back;
        if run.main.as_ref().is_some_and(waits) && run.exited.is_none() {
            return Err(Refused::new("its main process has not been reaped"));
        }
        match run.cgroup.own().populated() {
            Ok(false) => {}
            Ok(true) => return Err(Refused::new("its cgroup is not empty")),
            // Somebody else has removed it, which it could only be when it was empty.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENOENT)) => {}
            Err(error) => return Err(Refused::because("asking whether its cgroup is empty", error)),
        }
        run.cgroup.remove().map_err(|error| Refused::because("removing its cgroup", error))?;
        let name = run.name;
        let drained = run.drained;
        self.held.remove(&name);
        if drained {
            self.notices.push(Notice::Output(self.drainer.finish(name)));
        }
        Ok(Reply::Done)
    }

    /// The live set, where a daemon has pinned one; without it there is one proof less.
    fn live(&self) -> Option<Witness> {
        let pins = Path::new(self.ground.terms.pins.as_deref()?);
        Witness::of(pins).unwrap_or_else(|error| {
            super::say(&format!("opening the live set below {}: {error}", pins.display()));
            None
        })
    }

    /// What is held, each run once.
    pub(super) fn held(&self) -> impl Iterator<Item = Held> {
        self.held.values().map(|run| run.held(self.drainer.state(run.name)))
    }

    /// What has to be told since it was asked last.
    pub(super) fn notices(&mut self) -> Vec<Notice> {
        self.notices.extend(self.drainer.news().into_iter().map(Notice::Output));
        std::mem::take(&mut self.notices)
    }

    /// Throws away what nobody hears; it is part of what is held.
    pub(super) fn forget_notices(&mut self) {
        drop(self.drainer.news());
        self.notices.clear();
    }

    /// Readable once there is news of output.
    pub(super) fn news(&self) -> BorrowedFd<'_> {
        self.drainer.as_fd()
    }

    /// Whether a status is held back, and has to be asked for again without being called.
    pub(super) fn is_held_back(&self) -> bool {
        self.held.values().any(|run| run.main.as_ref().is_some_and(|main| main.held_back))
    }

    /// What to poll for reading.
    pub(super) fn watched(&self) -> impl Iterator<Item = (RunName, Watched, BorrowedFd<'_>)> {
        self.held.iter().flat_map(|(&name, run)| {
            let main = run.main.as_ref().filter(|main| run.exited.is_none() && !main.held_back);
            let main = main.map(|main| (name, Watched::Main, main.pidfd.as_fd()));
            let start = run.start_pipe.as_ref().map(|pipe| (name, Watched::Start, pipe.as_fd()));
            main.into_iter().chain(start)
        })
    }

    /// Looks at what was reported readable. Nothing in it waits, should the report have been for another run that had
    /// the same name.
    pub(super) fn ready(&mut self, name: RunName, watched: Watched) {
        let Some(run) = self.held.get_mut(&name) else { return };
        match watched {
            Watched::Main => self.notices.extend(run.ended()),
            Watched::Start => self.notices.extend(run.started()),
        }
    }

    /// Asks again for what is held back.
    pub(super) fn ask_again(&mut self) {
        for run in self.held.values_mut() {
            if run.main.as_ref().is_some_and(|main| main.held_back) {
                self.notices.extend(run.ended());
            }
        }
    }

    /// The main processes that are still to be waited for by their own descriptors.
    pub(super) fn mains(&self) -> BTreeSet<u32> {
        let waiting = self.held.values().filter(|run| run.exited.is_none());
        waiting.filter_map(|run| run.main.as_ref()).filter(|main| main.child).map(|main| main.told.pid).collect()
    }
}

/// Has what was given for the output of a run drained.
fn drain(drainer: &Drainer, run: &mut Run, streams: [Option<Stream>; 2], budget: Option<u64>) {
    if streams.iter().any(Option::is_some) {
        run.drained = true;
        drainer.drain(run.name, Drain::new(run.name.to_string(), streams, budget));
    }
}

fn name(text: &str) -> Result<RunName, Refused> {
    text.parse().map_err(|error: crate::run::NotARunName| Refused::new(error.to_string()))
}

fn not_held(name: RunName) -> Refused {
    Refused::new(format!("{name} is not held: prepare or adopt it first"))
}

fn known(process: Process) -> Expected {
    Expected::Known { key: ProcessKey::new(process.pid, process.start_ns), ino: process.ino.map(PidfsIno) }
}

fn signalled(delivery: Delivery) -> Reply {
    Reply::Signalled {
        proof: match delivery {
            Delivery::Sent(kind) => Some(kind.word().to_owned()),
            Delivery::Gone => None,
        },
    }
}

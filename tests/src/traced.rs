//! The eBPF program loaded by the test itself through the library, and a cgroup that it is told of.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use agent_loop::event::Event;
use agent_loop::keeper::cgroup::{Home, RunCgroup};
use agent_loop::kernel::pins::{self, Found};
use agent_loop::kernel::{self, LoadError, Options, RunsBy, Tracing};
use agent_loop::model::{Birth, Death, Discovery, Exec, ProcessKey, RunTag, WaitStatus};
use tempfile::TempDir;

use crate::harness::{adversary, cgroup, eventually, host};
use crate::oracle::{self, Life, Status};
use crate::sys::{self, Cloned, Stub};

/// The loaded program and everything it has told so far.
pub struct Traced {
    /// The library's handles.
    pub tracing: Tracing,
    /// What was read, in order.
    pub events: Vec<Event>,
    _runtime: tokio::runtime::Runtime,
}

impl Traced {
    /// Loads and attaches it.
    ///
    /// # Panics
    /// When the kernel refuses.
    #[must_use]
    pub fn load(options: &Options) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
        let tracing = {
            let _inside = runtime.enter();
            kernel::load(options).expect("the eBPF program loads")
        };
        Self { tracing, events: Vec::new(), _runtime: runtime }
    }

    /// Opens the set that is pinned there, or loads and pins one.
    ///
    /// # Errors
    /// As [`pins::open_or_load`].
    ///
    /// # Panics
    /// When there is no runtime.
    pub fn pinned(dir: &Path, options: &Options) -> Result<(Self, Found), LoadError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
        let (tracing, found) = {
            let _inside = runtime.enter();
            pins::open_or_load(dir, options)?
        };
        Ok((Self { tracing, events: Vec::new(), _runtime: runtime }, found))
    }

    /// Loads it with this cgroup as a run.
    ///
    /// # Panics
    /// When the kernel refuses.
    #[must_use]
    pub fn of_run(run: &Run, options: Options) -> Self {
        let mut traced = Self::load(&Options { runs: run.by(), ..options });
        traced.tracing.runs.insert(run.tag()).expect("a run");
        traced
    }

    /// Reads everything that the rings hold.
    ///
    /// # Panics
    /// When a record cannot be decoded.
    pub fn drain(&mut self) -> &mut Self {
        loop {
            let round = self.tracing.rings.round();
            assert_eq!(round.undecodable, 0);
            self.events.extend(round.events);
            if !round.more {
                return self;
            }
        }
    }

    /// The births that were read.
    pub fn births(&self) -> impl Iterator<Item = &Birth> {
        self.events.iter().filter_map(|event| if let Event::Born(birth) = event { Some(birth) } else { None })
    }

    /// The deaths that were read.
    pub fn deaths(&self) -> impl Iterator<Item = &Death> {
        self.events.iter().filter_map(|event| if let Event::Died(death) = event { Some(death) } else { None })
    }

    /// The execs that were read.
    pub fn execs(&self) -> impl Iterator<Item = &Exec> {
        self.events.iter().filter_map(|event| if let Event::Execed(exec) = event { Some(exec) } else { None })
    }

    /// How many births came by this way.
    #[must_use]
    pub fn discovered(&self, by: Discovery) -> usize {
        self.births().filter(|birth| birth.discovery == by).count()
    }

    /// The one birth of this life.
    ///
    /// # Panics
    /// When there is not exactly one.
    #[must_use]
    pub fn birth_of(&self, life: &Life) -> &Birth {
        let span = life.after_ns..=life.before_ns;
        let pid = life.pid.cast_unsigned();
        let found: Vec<_> =
            self.births().filter(|it| it.key.tgid == pid && span.contains(&it.key.start_boottime_ns)).collect();
        assert_eq!(found.len(), 1, "births of {life:?}: {found:?}");
        found[0]
    }

    /// The one death of this process.
    ///
    /// # Panics
    /// When there is not exactly one.
    #[must_use]
    pub fn death_of(&self, key: ProcessKey) -> &Death {
        let found: Vec<_> = self.deaths().filter(|death| death.key == key).collect();
        assert_eq!(found.len(), 1, "deaths of {key:?}: {found:?}");
        found[0]
    }

    /// Asserts that each of these lives has one birth and one death, with the status that waitid gave.
    ///
    /// # Panics
    /// When one has not.
    pub fn assert_lives(&self, lives: &[Life]) {
        assert!(!lives.is_empty());
        let mut births: HashMap<u32, Vec<ProcessKey>> = HashMap::new();
        for birth in self.births() {
            births.entry(birth.key.tgid).or_default().push(birth.key);
        }
        let mut deaths: HashMap<ProcessKey, Vec<&Death>> = HashMap::new();
        for death in self.deaths() {
            deaths.entry(death.key).or_default().push(death);
        }
        for life in lives {
            let span = life.after_ns..=life.before_ns;
            let mut born = births.get(&life.pid.cast_unsigned()).cloned().unwrap_or_default();
            born.retain(|key| span.contains(&key.start_boottime_ns));
            assert_eq!(born.len(), 1, "births of {life:?}: {born:?}");
            let died: Vec<_> = deaths.get(&born[0]).into_iter().flatten().map(|death| death.status).collect();
            assert_eq!(died.len(), 1, "deaths of {life:?}: {died:?}");
            let told = died[0].map(status);
            assert!(host::agrees(told.as_ref(), life.status.as_ref()), "{life:?}: {told:?}");
        }
    }

    /// Asserts that every process that was told has one birth and one death, and that nobody is live.
    ///
    /// # Panics
    /// When it is not so.
    pub fn assert_all_ended(&self) {
        let keys = |of: Vec<ProcessKey>| {
            let mut sorted = of;
            sorted.sort_unstable();
            sorted
        };
        let births = keys(self.births().map(|birth| birth.key).collect());
        let deaths = keys(self.deaths().map(|death| death.key).collect());
        for pair in births.windows(2) {
            assert_ne!(pair[0], pair[1], "two births");
        }
        for pair in deaths.windows(2) {
            assert_ne!(pair[0], pair[1], "two deaths");
        }
        assert_eq!(births, deaths, "births and deaths");
        assert_eq!(self.tracing.live.all().expect("the live set"), [], "the live set");
    }
}

/// The oracle's words for a status.
#[must_use]
pub fn status(of: WaitStatus) -> Status {
    match of {
        WaitStatus::Exited(code) => Status::exited(i32::from(code)),
        WaitStatus::Signaled { signal, core } => Status::signaled(i32::from(signal), core),
    }
}

/// A cgroup of its own for what a test starts; everything in it is killed in the end.
#[derive(Debug)]
pub struct Run {
    cgroup: RunCgroup,
    dir: File,
    scratch: TempDir,
}

impl Run {
    /// Makes one below the test's own cgroup.
    ///
    /// # Panics
    /// When there are no cgroups, which `needs!(cgroup)` asks.
    #[must_use]
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // The time too: in another PID namespace another test has the same number.
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let leaf = format!("agent-loop-test-{}-{next}-{}", std::process::id(), sys::boot_ns());
        let cgroup = RunCgroup::create(&Home::find().expect("cgroup v2"), &leaf).expect("a cgroup");
        let dir = File::open(cgroup.path()).expect("its directory");
        Self { cgroup, dir, scratch: TempDir::new().expect("a scratch directory") }
    }

    /// The run's tag.
    #[must_use]
    pub fn tag(&self) -> RunTag {
        self.cgroup.tag()
    }

    /// The library's own handle.
    #[must_use]
    pub fn cgroup(&self) -> &RunCgroup {
        &self.cgroup
    }

    /// How its processes are told.
    #[must_use]
    pub fn by(&self) -> RunsBy {
        self.cgroup.level().map_or(RunsBy::Exact, RunsBy::Level)
    }

    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.cgroup.path()
    }

    /// A file of the test.
    #[must_use]
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// A child born in it.
    ///
    /// # Errors
    /// What clone3 says.
    pub fn clone(&self, stub: Stub, pid: Option<i32>) -> io::Result<Cloned> {
        sys::clone_at(stub, sys::Place { pid, cgroup: Some(self.dir.as_fd()), ..sys::Place::default() })
    }

    /// Its directory, to be born in.
    #[must_use]
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// An adversary that is in it before its exec, with an oracle and a file for "ready".
    #[must_use]
    pub fn adversary(&self, args: &[&str]) -> Command {
        self.program(&adversary(), args)
    }

    /// The same for a copy of the adversary under another name.
    #[must_use]
    pub fn program(&self, program: &Path, args: &[&str]) -> Command {
        let mut command = loose(program, self.scratch.path(), args);
        enter(&mut command, self.path());
        command
    }

    /// Waits until the adversary has said that all is built.
    pub fn wait_ready(&self) {
        eventually("the adversary to be ready", || self.scratch("ready").exists().then_some(()));
    }

    /// What waitid told the adversary.
    ///
    /// # Panics
    /// When it did not write.
    #[must_use]
    pub fn lives(&self) -> Vec<Life> {
        oracle::read(&self.scratch("oracle")).expect("the oracle")
    }

    /// Kills everything in it.
    pub fn kill(&self) {
        cgroup::kill(self.path());
        eventually("the cgroup to be empty", || {
            let events = fs::read_to_string(self.path().join("cgroup.events")).ok()?;
            events.contains("populated 0").then_some(())
        });
    }
}

impl Default for Run {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.kill();
        remove_tree(self.path());
    }
}

fn remove_tree(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok) {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    let _ = fs::remove_dir(dir);
}

/// An adversary where the test is, with its oracle and its file for "ready" in `scratch`.
#[must_use]
pub fn loose(program: &Path, scratch: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args).arg("--oracle").arg(scratch.join("oracle")).arg("--ready").arg(scratch.join("ready"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).current_dir(scratch);
    command
}

/// Moves the child into the cgroup at `path` between fork and exec.
///
/// # Panics
/// When the cgroup is not there.
pub fn enter(command: &mut Command, path: &Path) {
    let procs = OpenOptions::new().write(true).open(path.join("cgroup.procs")).expect("cgroup.procs");
    sys::before_exec(command, move || nix::unistd::write(&procs, b"0").map(drop).map_err(io::Error::from));
}

/// Waits for a child and returns its number and what waitid said.
///
/// # Panics
/// When it is not ours.
pub fn end(child: Child) -> (u32, Status) {
    (child.id(), sys::wait(child.id().cast_signed()).expect("our child"))
}

/// Copies a program, by another process: were the file open for writing here, a test that forks at this moment would
/// hold it open too, and its exec would fail with "text file busy".
///
/// # Panics
/// When it cannot be copied.
pub fn copy(program: &Path, to: &Path) {
    let copied = Command::new("cp").arg(program).arg(to).status();
    assert!(copied.as_ref().is_ok_and(std::process::ExitStatus::success), "{}: {copied:?}", to.display());
}

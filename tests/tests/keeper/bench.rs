//! A keeper with a place of its own, and the daemon that asks it. All of it ends with the test.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use agent_loop::keeper::launch::{Become, LaunchSpec, Session, SignalsAtStart};
use agent_loop::keeper::process::client::{Answered, Client, ClientError, Welcome};
use agent_loop::keeper::process::protocol::{
    CgroupLimits, Descriptors, Held, Notice, OutputState, Process, Reply, Request, StartState,
};
use agent_loop_tests::harness::cgroup::{self, Cell};
use agent_loop_tests::harness::{PATIENCE, agent_loop, eventually};
use agent_loop_tests::sys;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::Mode;
use tempfile::TempDir;

/// A directory and a cgroup for keepers and their runs.
pub struct Place {
    cell: Cell,
    dir: TempDir,
    args: Vec<OsString>,
}

impl Place {
    /// One in which agents may run as root.
    pub fn new() -> Self {
        Self::with(&["--allow-root", "--user", "root", "--user", "nobody"])
    }

    /// One whose keepers get these arguments.
    pub fn with(args: &[&str]) -> Self {
        let dir = TempDir::new().expect("a scratch directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).expect("our directory");
        Self { cell: Cell::new(), dir, args: args.iter().map(OsString::from).collect() }
    }

    /// One whose keepers believe in the live set pinned here.
    pub fn pinned(pins: &Path) -> Self {
        let mut place = Self::new();
        place.args.extend(["--pins".into(), pins.into()]);
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn socket(&self) -> PathBuf {
        self.path("socket")
    }

    pub fn runs(&self) -> PathBuf {
        self.cell.path().join("runs")
    }

    /// The cgroup's directory of a run.
    pub fn cgroup(&self, run: &str) -> PathBuf {
        self.runs().join(run)
    }

    /// The command line of a keeper.
    pub fn command(&self) -> Command {
        let mut command = Command::new(agent_loop());
        command.arg("keeper").arg("--socket").arg(self.socket()).arg("--runs").arg(self.runs()).args(&self.args);
        command.stdin(Stdio::null());
        command
    }

    /// Starts a keeper and waits until it says that it is ready.
    pub fn keeper(&self) -> Keeper {
        self.keeper_by(|_| ())
    }

    /// The same, its command line changed.
    pub fn keeper_by(&self, change: impl FnOnce(&mut Command)) -> Keeper {
        let notify = self.path("notify");
        let _ = fs::remove_file(&notify);
        let ready = UnixDatagram::bind(&notify).expect("a socket");
        ready.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        let mut command = self.command();
        command.env("NOTIFY_SOCKET", &notify).stderr(File::create(self.path("stderr")).expect("a file"));
        change(&mut command);
        let child = command.spawn().expect("the keeper starts");
        let mut said = [0; 64];
        let count = ready.recv(&mut said).unwrap_or_else(|error| panic!("{error}: {}", self.stderr()));
        assert_eq!(&said[..count], b"READY=1\n");
        Keeper(child)
    }

    /// Starts a keeper that ends by itself: its exit code, and what it said.
    pub fn refused_keeper(&self) -> (Option<i32>, String) {
        let log = self.path("refused");
        let mut command = self.command();
        let mut keeper = Keeper(command.stderr(File::create(&log).expect("a file")).spawn().expect("it starts"));
        let status = eventually("the end of a keeper", || keeper.0.try_wait().expect("our child"));
        (status.code(), fs::read_to_string(log).expect("what it said"))
    }

    /// What the last keeper said.
    pub fn stderr(&self) -> String {
        fs::read_to_string(self.path("stderr")).unwrap_or_default()
    }

    /// Connects as a daemon. A process that another test starts may hold a copy of the last daemon's end for a moment.
    pub fn daemon(&self) -> Daemon {
        eventually("a keeper without a client", || match self.try_daemon() {
            Ok(daemon) => Some(daemon),
            Err(ClientError::Lost(_)) => None,
            Err(error) => panic!("{error}; the keeper: {}", self.stderr()),
        })
    }

    pub fn try_daemon(&self) -> Result<Daemon, ClientError> {
        let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (client, held, welcome) = rt.block_on(Client::connect(&self.socket()))?;
        Ok(Daemon { rt, client, held, welcome, runs: self.runs() })
    }
}

impl Drop for Place {
    /// Ends whatever a failed test left in the cgroup, which holds nothing else.
    fn drop(&mut self) {
        cgroup::kill(self.cell.path());
        for _ in 0..400 {
            remove_below(&self.runs());
            if fs::remove_dir(self.runs()).is_ok() || !self.runs().exists() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn remove_below(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok) {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_below(&entry.path());
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// A keeper, ended with the value.
pub struct Keeper(Child);

impl Keeper {
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// SIGKILL, and its end.
    pub fn crash(mut self) {
        self.0.kill().expect("our child");
        self.0.wait().expect("our child");
    }

    /// A polite signal, and its exit code.
    pub fn end(mut self, signal: i32) -> Option<i32> {
        sys::kill(i32::try_from(self.pid()).expect("a pid"), signal).expect("our child, not yet reaped");
        self.0.wait().expect("our child").code()
    }

    pub fn is_alive(&mut self) -> bool {
        self.0.try_wait().expect("our child").is_none()
    }

    /// How many descriptors it has open at rest.
    ///
    /// One more was counted once, for a moment: most likely a file that it opened to look into a late word of a cgroup
    /// (`CGROUP_FILE_NOTIFY_MIN_INTV` in `kernel/cgroup/cgroup.c`: 10 ms after the last).
    pub fn open(&self) -> usize {
        let count = || fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("it lives").count();
        let alike = |first: usize| {
            (0..8).all(|_| {
                std::thread::sleep(Duration::from_millis(5));
                count() == first
            })
        };
        eventually("as many descriptors for 40 ms", || Some(count()).filter(|&first| alike(first)))
    }

    /// Its children now, zombies too.
    pub fn children(&self) -> Vec<u32> {
        let pid = self.pid();
        let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("it lives");
        text.split_ascii_whitespace().map(|pid| pid.parse().expect("a pid")).collect()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The name of a run of a test.
pub fn run(number: u32) -> String {
    format!("run-{number:026}")
}

/// The daemon's end; dropping it is its death.
pub struct Daemon {
    rt: tokio::runtime::Runtime,
    client: Client,
    runs: PathBuf,
    /// What was held when it connected.
    pub held: Vec<Held>,
    /// What the keeper said of itself.
    pub welcome: Welcome,
}

/// A run as it was born.
#[derive(Clone, Debug)]
pub struct Born {
    pub run: String,
    pub cgroup: u64,
    pub main: Process,
}

impl Daemon {
    pub fn ask(&mut self, request: Request, fds: &[BorrowedFd<'_>]) -> Answered {
        self.rt.block_on(self.client.ask(request, fds)).expect("the keeper answers")
    }

    /// Asks what has no descriptors.
    pub fn reply(&mut self, request: Request) -> Reply {
        self.ask(request, &[]).reply
    }

    pub fn done(&mut self, request: Request) {
        assert_eq!(self.reply(request), Reply::Done);
    }

    pub fn refused(&mut self, request: Request) -> String {
        refusal(self.reply(request))
    }

    pub fn notice(&mut self) -> Notice {
        let next = async { tokio::time::timeout(PATIENCE, self.client.notice()).await };
        self.rt.block_on(next).expect("a notice in time").expect("the keeper is there")
    }

    /// Waits until it knows that the keeper is gone.
    pub fn until_lost(&mut self) {
        let lost =
            async { tokio::time::timeout(PATIENCE, async { while self.client.notice().await.is_ok() {} }).await };
        self.rt.block_on(lost).expect("the end in time");
    }

    /// The first notice of which `wanted` makes something.
    pub fn until<T>(&mut self, mut wanted: impl FnMut(&Notice) -> Option<T>) -> T {
        loop {
            let notice = self.notice();
            if let Some(found) = wanted(&notice) {
                return found;
            }
        }
    }

    pub fn until_exited(&mut self, run: &str) -> Option<i32> {
        self.until(
            |notice| {
                if let Notice::Exited { run: of, status } = notice { (of == run).then_some(*status) } else { None }
            },
        )
    }

    pub fn until_started(&mut self, run: &str) -> StartState {
        self.until(|notice| {
            if let Notice::Start { run: of, start } = notice { (of == run).then(|| start.clone()) } else { None }
        })
    }

    pub fn until_output(&mut self, run: &str, mut wanted: impl FnMut(&OutputState) -> bool) -> OutputState {
        self.until(|notice| {
            if let Notice::Output(state) = notice {
                (state.run == run && wanted(state)).then(|| state.clone())
            } else {
                None
            }
        })
    }

    /// Makes the cgroup; its id.
    pub fn prepare(&mut self, run: &str) -> u64 {
        let reply = self.reply(Request::Prepare { run: run.to_owned(), limits: CgroupLimits::default() });
        let Reply::Prepared { cgroup, .. } = reply else { panic!("{reply:?}") };
        cgroup
    }

    /// Prepares and launches.
    pub fn bear(&mut self, run: &str, spec: &LaunchSpec, with: &With) -> Born {
        let cgroup = self.prepare(run);
        let (born, _pidfd) = self.launch(run, spec, with).unwrap_or_else(|why| panic!("{why}"));
        Born { cgroup, ..born }
    }

    pub fn launch(&mut self, run: &str, spec: &LaunchSpec, with: &With) -> Result<(Born, OwnedFd), String> {
        let spec = sealed(&serde_json::to_vec(spec).expect("JSON"));
        let fds: Vec<_> = [spec.as_fd()].into_iter().chain(with.fds()).collect();
        let request = Request::Launch { run: run.to_owned(), fds: with.announced(), output_bytes: with.budget };
        let mut answered = self.ask(request, &fds);
        let Reply::Born { pid, ino } = answered.reply else { return Err(refusal(answered.reply)) };
        let main = Process { pid, start_ns: 0, ino };
        Ok((Born { run: run.to_owned(), cgroup: 0, main }, answered.fds.remove(0)))
    }

    pub fn thaw(&mut self, run: &str) {
        self.done(Request::Thaw { run: run.to_owned() });
    }

    /// Prepares, launches, thaws, and waits until the command is executed.
    pub fn start(&mut self, run: &str, script: &str) -> Born {
        let born = self.bear(run, &shell(script), &With::default());
        self.thaw(run);
        assert_eq!(self.until_started(run), StartState::Started);
        born
    }

    pub fn adopt(&mut self, run: &str, cgroup: u64, main: Option<Process>) -> Reply {
        let fds = Descriptors::default();
        self.reply(Request::Adopt { run: run.to_owned(), cgroup, main, fds, output_bytes: None })
    }

    pub fn signal(&mut self, run: &str, to: Process, signal: i32) -> Reply {
        let signal = u8::try_from(signal).expect("a signal");
        self.reply(Request::Signal { run: run.to_owned(), to, signal })
    }

    /// Removes the run as soon as its tree is empty.
    pub fn remove(&mut self, run: &str) {
        eventually("the removal of a run whose tree is empty", || {
            (self.reply(Request::Remove { run: run.to_owned() }) == Reply::Done).then_some(())
        });
    }

    /// Has the keeper kill what is in the run: at once, or one by one where the kernel has no cgroup.kill (before Linux
    /// 5.14), which the keeper then says.
    pub fn kill(&mut self, run: &str) {
        let cgroup = self.runs.join(run);
        let reply = self.reply(Request::Kill { run: run.to_owned() });
        if cgroup.join("cgroup.kill").exists() {
            return assert_eq!(reply, Reply::Done);
        }
        assert!(refusal(reply).contains("cgroup.kill"));
        eventually("the end of every member", || {
            let members = cgroup::processes(&cgroup);
            for pid in &members {
                // It may be gone by now.
                let member = Request::SignalMember { run: run.to_owned(), pid: pid.cast_unsigned(), signal: 9 };
                let _ = self.reply(member);
            }
            members.is_empty().then_some(())
        });
    }

    /// Kills what is left, and removes the run.
    pub fn finish(&mut self, run: &str) {
        self.kill(run);
        self.remove(run);
    }
}

pub fn refusal(reply: Reply) -> String {
    let Reply::Refused { why, .. } = reply else { panic!("not refused: {reply:?}") };
    why
}

/// What a launch or an adoption is given besides its specification.
#[derive(Default)]
pub struct With {
    pub stdin: Option<OwnedFd>,
    pub output: Option<Output>,
    pub budget: Option<u64>,
}

impl With {
    pub fn output(output: Output) -> Self {
        Self { output: Some(output), ..Self::default() }
    }

    pub fn announced(&self) -> Descriptors {
        let output = self.output.is_some();
        Descriptors { stdin: self.stdin.is_some(), writers: output, drains: output }
    }

    pub fn fds(&self) -> Vec<BorrowedFd<'_>> {
        let stdin = self.stdin.iter().map(AsFd::as_fd);
        let output = self.output.iter().flat_map(|output| output.writers.iter().chain(&output.drains).map(AsFd::as_fd));
        stdin.chain(output).collect()
    }
}

/// Both pipes of a run and the files they are drained into, as the daemon makes them.
pub struct Output {
    pub writers: Vec<OwnedFd>,
    /// Pipe and file of standard output, pipe and file of standard error.
    pub drains: Vec<OwnedFd>,
}

impl Output {
    /// With pipes and files in this directory, `out` and `err` with this ending.
    pub fn new(dir: &Path, ending: &str) -> Self {
        let mut output = Self { writers: Vec::new(), drains: Vec::new() };
        for stream in ["out", "err"] {
            let fifo = dir.join(format!("{stream}.pipe.{ending}"));
            if !fifo.exists() {
                nix::unistd::mkfifo(&fifo, Mode::from_bits_truncate(0o600)).expect("a pipe");
            }
            let read = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&fifo).expect("its reader");
            // For reading too: the agent gets no SIGPIPE while no keeper reads.
            output.writers.push(File::options().read(true).write(true).open(&fifo).expect("its writer").into());
            let file = dir.join(format!("{stream}.{ending}"));
            let file = File::options().append(true).create(true).open(file).expect("a file");
            output.drains.extend([read.into(), file.into()]);
        }
        output
    }
}

/// A memory file that nobody can change.
pub fn sealed(bytes: &[u8]) -> OwnedFd {
    let fd = memory(bytes);
    let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW;
    fcntl(&fd, FcntlArg::F_ADD_SEALS(seals)).expect("seals");
    fd
}

/// A memory file that anybody can change.
pub fn memory(bytes: &[u8]) -> OwnedFd {
    let fd = memfd_create(c"test", MFdFlags::MFD_ALLOW_SEALING | MFdFlags::MFD_CLOEXEC).expect("a memory file");
    let mut file = File::from(fd);
    io::Write::write_all(&mut file, bytes).expect("memory");
    file.into()
}

/// A shell's command, as root.
pub fn shell(script: &str) -> LaunchSpec {
    LaunchSpec {
        env: vec![("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into())],
        session: Session::New,
        ..LaunchSpec::as_caller(vec!["sh".into(), "-c".into(), script.into()], &SignalsAtStart::default())
    }
}

/// The same as nobody.
pub fn shell_of_nobody(script: &str) -> LaunchSpec {
    let user = Become::Account { name: "nobody".to_owned(), may_be_root: true };
    LaunchSpec { user: Some(user), session: Session::Callers, no_new_privs: false, ..shell(script) }
}

/// A process of the test outside every run, ended with the value.
pub struct Stranger(sys::Cloned);

impl Stranger {
    pub fn new() -> Self {
        Self(sys::clone(sys::Stub::Pause, None).expect("clone3"))
    }

    /// As a record would name it: its exact number, inode, and start to a tick.
    pub fn process(&self) -> Process {
        process(self.0.pid.cast_unsigned())
    }

    pub fn is_alive(&self) -> bool {
        !sys::pidfd_ended(self.0.pidfd.as_fd(), Duration::ZERO)
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = sys::pidfd_signal(&self.0.pidfd, libc::SIGKILL);
        let _ = sys::wait(self.0.pid);
    }
}

/// Who has this number now, by what /proc and its pidfd say.
pub fn process(pid: u32) -> Process {
    let pidfd = sys::pidfd_open(i32::try_from(pid).expect("a pid")).expect("it is there");
    Process { pid, start_ns: start_ns(pid), ino: sys::pidfd_ino(&pidfd) }
}

fn start_ns(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it is there");
    let (_, fields) = stat.rsplit_once(") ").expect("its form");
    let ticks: u64 = fields.split(' ').nth(19).expect("its form").parse().expect("a number");
    let hertz = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten().expect("its frequency");
    ticks * (1_000_000_000 / hertz.cast_unsigned())
}

//! What the tests of this room share: processes and cgroups that are cleaned up whatever happens.

use std::ffi::{CStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::birth::{CLONE_CLEAR_SIGHAND, CLONE_PIDFD, CloneArgs, clone3};
use super::cgroup::{Home, RunCgroup};
use super::launch::{self, Child, LaunchSpec, Session, SignalsAtStart, Stdio};
use super::pidfd::PidFd;
use super::{guard, launcher, signal};
use crate::model::{RunTag, WaitStatus};

/// Serves the hidden subcommands in the test binary, which is what /proc/self/exe is here.
///
/// The C library calls it before `main` with main's arguments.
#[used]
#[unsafe(link_section = ".init_array")]
static SUBCOMMANDS: extern "C" fn(libc::c_int, *const *const libc::c_char) = subcommands;

extern "C" fn subcommands(argc: libc::c_int, argv: *const *const libc::c_char) {
    let args: Vec<OsString> = (0..usize::try_from(argc).unwrap_or(0))
        .map(|at| {
            // SAFETY: argv has argc entries.
            let arg = unsafe { argv.add(at) };
            // SAFETY: as above.
            let arg = unsafe { arg.read() };
            // SAFETY: each entry is a terminated string that lives as long as the process.
            OsString::from_vec(unsafe { CStr::from_ptr(arg) }.to_bytes().to_vec())
        })
        .collect();
    let rest = args.iter().skip(2).cloned();
    match args.get(1).and_then(|arg| arg.to_str()) {
        Some(launch::LAUNCHER) => launcher::launcher_main(rest),
        Some(guard::GUARD) => guard::guard_main(rest),
        Some("test-guarded") => super::tests::guarded_main(rest),
        Some("test-terminal") => super::tests::terminal_main(),
        _ => {}
    }
}

/// Says by name that a test did not run here.
pub(super) fn skip(test: &str, why: &str) {
    // Past the capture of the test harness: a skip is never silent.
    let _ = io::Write::write_all(&mut io::stderr(), format!("skipped {test}: {why}\n").as_bytes());
}

/// Root and a writable cgroup2, or `None` after saying so.
pub(super) fn cgroup(test: &str) -> Option<TestCgroup> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let made = Home::find()
        .and_then(|home| RunCgroup::create(&home, &format!("agent-loop-test-{}-{number}", std::process::id())));
    match made {
        Ok(cgroup) => Some(TestCgroup(cgroup)),
        Err(error) => {
            skip(test, &error.to_string());
            None
        }
    }
}

/// Whether we are root; says so if not.
pub(super) fn root(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        skip(test, "not root");
    }
    root
}

/// A cgroup that is emptied and removed at the end.
pub(super) struct TestCgroup(pub(super) RunCgroup);

impl std::ops::Deref for TestCgroup {
    type Target = RunCgroup;
    fn deref(&self) -> &RunCgroup {
        &self.0
    }
}

impl Drop for TestCgroup {
    fn drop(&mut self) {
        let _ = signal::kill_cgroup(self.0.own(), self.0.tag());
        for _ in 0..200 {
            if !self.0.own().populated().unwrap_or(false) {
                break;
            }
            let _ = signal::sweep(self.0.own());
            std::thread::sleep(Duration::from_millis(10));
        }
        match self.0.remove() {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => eprintln!("could not remove {}: {error}", self.0.path().display()),
        }
    }
}

/// A child of the test that is killed through its pidfd and reaped at the end.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) pidfd: PidFd,
    reaped: bool,
}

impl Held {
    pub(super) fn adopt(pidfd: PidFd) -> Self {
        Self { pidfd, reaped: false }
    }

    pub(super) fn pid(&self) -> u32 {
        self.pidfd.pid()
    }

    /// One that waits for ever.
    pub(super) fn pause() -> Self {
        Self::born(None, None).expect("clone3")
    }

    /// One that waits for ever, under a number of our choice or in a cgroup.
    pub(super) fn born(number: Option<u32>, cgroup: Option<&RunCgroup>) -> io::Result<Self> {
        let mut pidfd = -1;
        let wanted = number.map_or(0, u32::cast_signed);
        let mut args = CloneArgs {
            flags: CLONE_PIDFD | CLONE_CLEAR_SIGHAND,
            pidfd: (&raw mut pidfd).addr() as u64,
            exit_signal: libc::SIGCHLD as u64,
            ..CloneArgs::default()
        };
        if number.is_some() {
            args.set_tid = (&raw const wanted).addr() as u64;
            args.set_tid_size = 1;
        }
        if let Some(cgroup) = cgroup {
            args.flags |= super::birth::CLONE_INTO_CGROUP;
            args.cgroup = u64::from(cgroup.own().dir().as_raw_fd().unsigned_abs());
        }
        // SAFETY: the addresses outlive the call; the child does nothing but wait.
        let pid = unsafe { clone3(&args) }?;
        if pid == 0 {
            loop {
                // SAFETY: pause takes nothing.
                unsafe { libc::pause() };
            }
        }
        // SAFETY: CLONE_PIDFD made it.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
        Ok(Self::adopt(PidFd::of_own_child(pidfd, pid.unsigned_abs(), RunTag(0))))
    }

    pub(super) fn kill(&self) {
        let none = std::ptr::null::<libc::siginfo_t>();
        let fd = self.pidfd.as_fd().as_raw_fd();
        // SAFETY: an open pidfd, a null siginfo, no flags.
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, libc::SIGKILL, none, 0) };
    }

    pub(super) fn end(&mut self) {
        if !self.reaped {
            self.kill();
            let _ = self.pidfd.wait();
            self.reaped = true;
        }
    }

    pub(super) fn wait(&mut self) -> WaitStatus {
        self.reaped = true;
        self.pidfd.wait().expect("our child")
    }

    /// It was reaped by somebody else.
    pub(super) fn forget(&mut self) {
        self.reaped = true;
    }

    pub(super) fn is_alive(&self) -> bool {
        !self.pidfd.has_exited().expect("poll")
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.end();
    }
}

/// Ends a process of the test and gives its number to a stranger, who waits for ever.
pub(super) fn recycle(victim: &mut Held) -> Option<Held> {
    let number = victim.pid();
    victim.end();
    Held::born(Some(number), None).ok()
}

/// A scratch directory that everybody may write to.
pub(super) fn scratch() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(dir.path(), open).expect("its mode");
    dir
}

/// A shell command with nothing inherited but stderr.
pub(super) fn shell(script: &str) -> LaunchSpec {
    LaunchSpec {
        env: vec![("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into())],
        session: Session::New,
        stdio: [Stdio::Null, Stdio::Null, Stdio::Inherit],
        ..LaunchSpec::as_caller(vec!["sh".into(), "-c".into(), script.into()], &SignalsAtStart::default())
    }
}

/// Launches into the cgroup; the child is held for clean-up.
pub(super) fn launch_in(cgroup: &RunCgroup, spec: &LaunchSpec) -> (Held, launch::StartPipe) {
    cgroup.freeze().expect("freeze");
    let Child { pidfd, start, .. } = launch::launch(spec, cgroup.tag(), launch::Place::Cgroup(cgroup)).expect("launch");
    (Held::adopt(pidfd), start)
}

/// Waits for a marker, never for time.
pub(super) fn until(what: &str, mut ready: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !ready() {
        assert!(begun.elapsed() < Duration::from_secs(20), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(super) fn at(dir: &tempfile::TempDir, name: &str) -> PathBuf {
    dir.path().join(name)
}

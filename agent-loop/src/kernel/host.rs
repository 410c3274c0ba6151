//! What this host can do, each fact tried and not guessed from a version. The judgement is `doctor`'s.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags};

use super::load::{INITIAL_PIDNS, told};
use super::{ExitHook, Layout, LoadError, Options, Tracepoints, load, object};
pub use crate::keeper::probe::{Calls, Cgroups, Probe};
use crate::keeper::scan;

/// Everything that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// What the kernel calls itself; for people, nothing is decided by it.
    pub release: String,
    /// Whether /proc is there and of our PID namespace.
    pub proc: Probe,
    /// The system calls.
    pub calls: Calls,
    /// A timer on CLOCK_BOOTTIME.
    pub boot_timer: Probe,
    /// Cgroups.
    pub cgroups: Cgroups,
    /// The size of the eBPF object inside this binary.
    pub object: Probe<usize>,
    /// The layout of the kernel's structures.
    pub layout: Probe<KernelLayout>,
    /// Our rights.
    pub rights: Rights,
    /// Whether the eBPF program can be loaded and attached.
    pub load: Load,
    /// The lockdown of the kernel, where it has one.
    pub lockdown: Option<String>,
    /// Where the file system of pins is mounted.
    pub bpffs: Probe<PathBuf>,
    /// Whether we are in the host's PID namespace.
    pub initial_pid_namespace: Probe<bool>,
}

/// What the kernel's type information says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelLayout {
    /// Which form of the exit hook it has.
    pub exit: ExitHook,
    /// Whether it preempts a program at a tracepoint.
    pub tracepoints: Tracepoints,
    /// Whether the kernel side can read the inodes of pidfds.
    pub pidfs: bool,
}

/// Who we are, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    /// Whether the effective user is root.
    pub root: bool,
    /// The effective capabilities.
    pub capabilities: u64,
}

impl Rights {
    const CAP_SYS_ADMIN: u32 = 21;
    const CAP_PERFMON: u32 = 38;
    const CAP_BPF: u32 = 39;

    /// Whether they are what loading a tracing program takes (capabilities(7)).
    #[must_use]
    pub fn may_trace(self) -> bool {
        let has = |capability: u32| self.capabilities >> capability & 1 == 1;
        has(Self::CAP_SYS_ADMIN) || has(Self::CAP_BPF) && has(Self::CAP_PERFMON)
    }
}

/// What became of loading and attaching the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Load {
    /// It was attached, and detached again.
    Works,
    /// There is nothing to load.
    NoObject,
    /// The kernel's structures are not known.
    NoLayout,
    /// The kernel says EPERM.
    NotPermitted(String),
    /// The kernel refused the program, a map or a hook.
    Refused(String),
}

impl Facts {
    /// Tries everything; takes a fraction of a second. What it makes it removes.
    #[must_use]
    pub fn find() -> Self {
        let release = nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned());
        Self {
            release: release.unwrap_or_else(|_| "unknown".to_owned()),
            proc: own_proc(),
            calls: Calls::probe(),
            boot_timer: boot_timer(),
            cgroups: Cgroups::probe(),
            object: object::embedded()
                .map_or_else(|| Probe::Missing("built without it".to_owned()), |object| Probe::Present(object.len())),
            layout: layout(),
            rights: rights(),
            load: loading(),
            lockdown: lockdown(),
            bpffs: bpffs(),
            initial_pid_namespace: initial_pid_namespace().into(),
        }
    }
}

fn own_proc() -> Probe {
    match scan::proc_is_ours() {
        Ok(true) => Probe::Present(()),
        Ok(false) => Probe::Missing("/proc is of another PID namespace".to_owned()),
        Err(error) => Probe::Missing(format!("reading /proc/self: {error}")),
    }
}

fn boot_timer() -> Probe {
    match TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_CLOEXEC) {
        Ok(_) => Probe::Present(()),
        Err(errno) => Probe::Missing(io::Error::from(errno).to_string()),
    }
}

fn layout() -> Probe<KernelLayout> {
    match Layout::of_running_kernel() {
        Ok(layout) => Probe::Present(KernelLayout {
            exit: layout.exit_hook(),
            tracepoints: layout.tracepoints(),
            pidfs: layout.has_pidfs(),
        }),
        Err(error) => Probe::Missing(error.to_string()),
    }
}

fn rights() -> Rights {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let capabilities = effective.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    Rights { root: nix::unistd::geteuid().is_root(), capabilities }
}

/// Loads with the smallest rings, attaches to the real hooks, and lets go.
fn loading() -> Load {
    let try_load = || -> Result<(), LoadError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
        let runtime = runtime.map_err(|error| LoadError::Refused(error.into()))?;
        let _entered = runtime.enter();
        let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten();
        let bytes = page.and_then(|page| u32::try_from(page).ok()).unwrap_or(4096);
        let options = Options { events_bytes: bytes, execs_bytes: bytes, live_entries: 64, ..Options::default() };
        load(&options).map(drop)
    };
    match try_load() {
        Ok(()) => Load::Works,
        Err(LoadError::NoObject) => Load::NoObject,
        Err(LoadError::Layout(_)) => Load::NoLayout,
        Err(LoadError::Pins(why)) => Load::Refused(why),
        Err(LoadError::Refused(error)) => {
            // Only EPERM is about rights: the verifier refuses a program with EACCES or EINVAL.
            let not_permitted = error
                .chain()
                .any(|cause| cause.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) == Some(libc::EPERM));
            let why = told(&error).replace('\n', " ");
            if not_permitted { Load::NotPermitted(why) } else { Load::Refused(why) }
        }
    }
}

/// The mode in brackets, for instance `none [integrity] confidentiality`; securityfs shows it to root alone.
fn lockdown() -> Option<String> {
    let text = fs::read_to_string("/sys/kernel/security/lockdown").ok()?;
    let mode = text.split_once('[')?.1.split_once(']')?.0;
    (mode != "none").then(|| mode.to_owned())
}

fn bpffs() -> Probe<PathBuf> {
    let path = PathBuf::from("/sys/fs/bpf");
    match nix::sys::statfs::statfs(&path) {
        Ok(fs) if fs.filesystem_type() == nix::sys::statfs::BPF_FS_MAGIC => Probe::Present(path),
        Ok(_) => Probe::Missing(format!("nothing is mounted on {}", path.display())),
        Err(errno) => Probe::Missing(format!("{}: {}", path.display(), io::Error::from(errno))),
    }
}

fn initial_pid_namespace() -> io::Result<bool> {
    Ok(fs::metadata("/proc/self/ns/pid")?.ino() == INITIAL_PIDNS)
}

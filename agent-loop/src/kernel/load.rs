//! Loads the eBPF program into the kernel and attaches it.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;

use anyhow::Context as _;
use aya::maps::{HashMap, Map, MapType};
use aya::programs::links::FdLink;
use aya::programs::{BtfTracePoint, Iter};
use aya::sys::is_map_supported;
use aya::{Btf, Ebpf, EbpfLoader};

use super::btf::{ExitHook, Layout, LayoutError, Tracepoints};
use super::hooks::{self, hooks};
use super::watch::Watch;
use super::{Counters, LiveSet, Rings, RunTable, object};
use crate::keeper::probe::pid_level;
use crate::model::Live;

/// The inode of the initial PID namespace (`PROC_PID_INIT_INO`, include/linux/proc_ns.h).
pub(super) const INITIAL_PIDNS: u64 = 0xEFFF_FFFC;

/// The bit of `signal->flags` (linux/sched/signal.h).
const SIGNAL_GROUP_EXIT: u32 = 4;

/// Why the kernel side could not be brought up.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// This binary was built without the eBPF object.
    #[error("this build of agent-loop carries no eBPF program; build it with `cargo xtask build-ebpf` and build again")]
    NoObject,
    /// The kernel's structures are not known.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The directory of the pins, or what is in it, is not what it may be; nothing was touched.
    #[error("the pins of the eBPF program cannot be used: {0}")]
    Pins(String),
    /// The kernel refused.
    #[error("loading the eBPF program: {}", told(.0))]
    Refused(anyhow::Error),
}

/// Why the kernel refused, in a few lines: of a verifier's hundreds the last say what it does not take.
pub(super) fn told(error: &anyhow::Error) -> String {
    const LAST: usize = 6;
    let text = format!("{error:#}");
    let lines: Vec<&str> = text.trim_end().lines().collect();
    match lines.len().checked_sub(LAST + 1) {
        Some(left_out @ 1..) => {
            format!("{}\n[{left_out} lines of the verifier]\n{}", lines[0], lines[1 + left_out..].join("\n"))
        }
        Some(0) | None => lines.join("\n"),
    }
}

/// What was being done, and what it lacks where the kernel is too old.
fn creating_maps() -> &'static str {
    match is_map_supported(MapType::RingBuf) {
        Ok(false) => "creating maps (this kernel has no ring buffers, which came with Linux 5.8)",
        Ok(true) | Err(_) => "creating maps",
    }
}

/// How a process is told to be in a run's cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunsBy {
    /// Not at all: only watch rules apply.
    Nothing,
    /// Run cgroups lie this deep below the root of the hierarchy; what is below them belongs to them.
    Level(u32),
    /// Their depth is not known (inside a cgroup namespace): only the run's own cgroup counts, and what is born
    /// of its processes.
    Exact,
}

impl RunsBy {
    /// As the eBPF program takes it.
    const fn raw(self) -> u32 {
        match self {
            Self::Nothing => 0,
            Self::Level(level) => level,
            Self::Exact => u32::MAX,
        }
    }
}

/// What can be chosen.
#[derive(Clone, Debug)]
pub struct Options {
    /// How a process is told to be born in a run's cgroup.
    pub runs: RunsBy,
    /// The size of the ring of births and deaths in bytes: a power of two, at least a page.
    pub events_bytes: u32,
    /// The size of the ring of execs in bytes: a power of two, at least a page.
    pub execs_bytes: u32,
    /// How many processes can be tracked at once.
    pub live_entries: u32,
    /// Names of programs to observe wherever they run, with the number of their rule.
    pub watch: Vec<(String, u32)>,
    /// The exit rule to use where it is not the kernel's own: the older one also works on newer kernels.
    pub exit_hook: Option<ExitHook>,
    /// Whether a program at a tracepoint can be preempted, where it is not the kernel's own: hooks with copies also work
    /// where it cannot be.
    pub tracepoints: Option<Tracepoints>,
    /// Whether SIGNAL_GROUP_EXIT is looked at, which from Linux 6.0 every process that ends has. Without it a death is
    /// told as on older kernels when the threads of a process leave one by one; for tests.
    pub group_exit: bool,
    /// Whether the eBPF program says on its error paths what went wrong; see [`Probes::print_log`].
    pub log: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            runs: RunsBy::Nothing,
            events_bytes: 4 << 20,
            execs_bytes: 4 << 20,
            live_entries: 65_536,
            watch: Vec::new(),
            exit_hook: None,
            tracepoints: None,
            group_exit: true,
            log: false,
        }
    }
}

/// The attached program; dropping it detaches everything, unless it is pinned (`pins`).
pub struct Probes {
    _held: Held,
    snapshot: OwnedFd,
    exit: ExitHook,
    tracepoints: Tracepoints,
    log: Option<super::log::Printer>,
}

/// Who keeps the program attached.
enum Held {
    /// We alone.
    Own { _ebpf: Box<Ebpf>, _links: Vec<FdLink> },
    /// Its pins, and we: were the pins removed, our maps would else go stale without a word.
    Pins { _links: Vec<OwnedFd> },
}

/// The attached program and the handles to what it tells.
pub struct Tracing {
    /// Keeps the program attached.
    pub probes: Probes,
    /// Its records.
    pub rings: Rings,
    /// Who is tracked and alive.
    pub live: LiveSet,
    /// The runs.
    pub runs: RunTable,
    /// What was seen and lost.
    pub counters: Counters,
    /// The names that are observed.
    pub(super) watch: Watch,
}

/// Loads and attaches the program; from its return on nothing that is tracked is missed.
///
/// Takes some 70 ms, most of it spent on reading BTF, which aya does twice. Needs CAP_BPF and CAP_PERFMON, and a tokio runtime
/// to poll the rings with.
///
/// # Errors
/// When there is no object, no BTF, a field is missing, or the kernel refuses a program or map.
pub fn load(options: &Options) -> Result<Tracing, LoadError> {
    let object = object::embedded().ok_or(LoadError::NoObject)?;
    let layout = Layout::of_running_kernel()?;
    let attached = attach(object, &layout, options).map_err(LoadError::Refused)?;
    let tracing = attached.into_tracing(options.log).map_err(LoadError::Refused)?;
    give_back_memory();
    Ok(tracing)
}

/// Returns to the kernel what reading BTF took and freed: more than all that is kept, and a run may last for days.
pub(super) fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: glibc's own call, safe at any time; it touches free memory only.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The globals of the eBPF program that do not come from the kernel's type information.
pub(super) struct Settings {
    pub(super) run_level: u32,
    pidns: u32,
    pidns_level: u32,
    signal_group_exit: u32,
}

impl Settings {
    /// What these options come to here.
    ///
    /// # Errors
    /// When the own PID namespace cannot be read.
    pub(super) fn of(options: &Options) -> anyhow::Result<Self> {
        let pidns = own_pidns().context("reading the own PID namespace")?;
        Ok(Self {
            run_level: options.runs.raw(),
            pidns,
            pidns_level: if pidns == 0 { 0 } else { pid_level().unwrap_or(u32::MAX) },
            signal_group_exit: if options.group_exit { SIGNAL_GROUP_EXIT } else { 0 },
        })
    }

    /// Each with its name.
    pub(super) fn globals(&self) -> [(&'static str, &u32); 4] {
        [
            ("PIDNS_INUM", &self.pidns),
            ("PIDNS_LEVEL", &self.pidns_level),
            ("RUN_LEVEL", &self.run_level),
            ("SIGNAL_GROUP_EXIT", &self.signal_group_exit),
        ]
    }
}

/// The program, attached by links that are its own.
pub(super) struct Attached {
    pub(super) ebpf: Ebpf,
    pub(super) exit: ExitHook,
    pub(super) tracepoints: Tracepoints,
    /// The programs and links of [`hooks`], in their order.
    pub(super) hooks: Vec<(OwnedFd, FdLink)>,
    /// The program that no hook calls.
    pub(super) snapshot: OwnedFd,
}

/// Loads the object with these options and attaches its hooks.
pub(super) fn attach(object: &[u8], layout: &Layout, options: &Options) -> anyhow::Result<Attached> {
    let btf = Btf::from_sys_fs().context("reading BTF")?;
    let settings = Settings::of(options)?;
    let mut loader = EbpfLoader::new();
    loader.btf(Some(&btf));
    for (name, value) in layout.globals().chain(settings.globals()) {
        loader.override_global(name, value, true);
    }
    let log_level = super::log::level(options.log);
    loader.override_global(aya_log::LEVEL, &log_level, true);
    let tracepoints = options.tracepoints.unwrap_or(layout.tracepoints());
    let preemptible = u32::from(tracepoints == Tracepoints::Preemptible);
    loader.override_global("PREEMPTIBLE", &preemptible, true);
    if !options.log {
        // Nothing is written there; a page is the least it can be.
        loader.map_max_entries("AYA_LOGS", 4096);
    }
    loader.map_max_entries("EVENTS", options.events_bytes);
    loader.map_max_entries("EXECS", options.execs_bytes);
    loader.map_max_entries("LIVE", options.live_entries);
    let mut ebpf = loader.load(object).with_context(creating_maps)?;
    Watch::set(&mut HashMap::try_from(ebpf.map_mut("WATCH").context("finding the watch rules")?)?, options)?;

    let exit = options.exit_hook.unwrap_or(layout.exit_hook());
    let hooks = hooks(tracepoints).iter();
    let hooks = hooks.map(|hook| attach_one(&mut ebpf, &btf, &hook.program(exit), hook.tracepoint));
    let hooks = hooks.collect::<anyhow::Result<Vec<_>>>()?;
    let snapshot: &mut Iter = ebpf.program_mut("snapshot").context("finding the snapshot program")?.try_into()?;
    snapshot.load("task", &btf).context("loading the snapshot program")?;
    let snapshot = snapshot.fd()?.as_fd().try_clone_to_owned()?;
    Ok(Attached { ebpf, exit, tracepoints, hooks, snapshot })
}

fn attach_one(ebpf: &mut Ebpf, btf: &Btf, name: &str, tracepoint: &str) -> anyhow::Result<(OwnedFd, FdLink)> {
    let program: &mut BtfTracePoint =
        ebpf.program_mut(name).with_context(|| format!("finding the program {name}"))?.try_into()?;
    program.load(tracepoint, btf).with_context(|| format!("loading the program {name}"))?;
    let id = program.attach().with_context(|| format!("attaching to {tracepoint}"))?;
    let link = program.take_link(id).with_context(|| format!("taking the link to {tracepoint}"))?;
    Ok((program.fd()?.as_fd().try_clone_to_owned()?, link.into()))
}

impl Attached {
    /// The handles to what it tells; it is detached when they are dropped.
    fn into_tracing(mut self, log: bool) -> anyhow::Result<Tracing> {
        let log = log.then(|| super::log::Printer::new(&mut self.ebpf)).transpose().context("opening the log")?;
        let (programs, links): (Vec<_>, _) = self.hooks.into_iter().unzip();
        let mut take =
            |name: &str| -> anyhow::Result<Map> { self.ebpf.take_map(name).with_context(|| format!("finding {name}")) };
        Ok(Tracing {
            rings: Rings::new(take("EVENTS")?, take("EXECS")?)?,
            live: LiveSet::new(take("LIVE")?)?,
            runs: RunTable::new(take("RUNS")?, take("MAINS")?)?,
            counters: Counters::new(take("COUNTERS")?, hooks::watched(self.tracepoints, programs))?,
            watch: Watch::new(take("WATCH")?)?,
            probes: Probes {
                _held: Held::Own { _ebpf: Box::new(self.ebpf), _links: links },
                snapshot: self.snapshot,
                exit: self.exit,
                tracepoints: self.tracepoints,
                log,
            },
        })
    }
}

/// The inode of the own PID namespace, 0 for the initial one.
fn own_pidns() -> io::Result<u32> {
    let inode = std::fs::metadata("/proc/self/ns/pid")?.ino();
    if inode == INITIAL_PIDNS { Ok(0) } else { u32::try_from(inode).map_err(io::Error::other) }
}

impl Probes {
    /// A program that is kept attached by its pins.
    pub(super) fn pinned(snapshot: OwnedFd, links: Vec<OwnedFd>, exit: ExitHook, tracepoints: Tracepoints) -> Self {
        Self { _held: Held::Pins { _links: links }, snapshot, exit, tracepoints, log: None }
    }

    /// Which exit rule is in use.
    #[must_use]
    pub const fn exit_hook(&self) -> ExitHook {
        self.exit
    }

    /// Whether the hooks have copies, and where births are hooked.
    #[must_use]
    pub const fn tracepoints(&self) -> Tracepoints {
        self.tracepoints
    }

    /// Hands what the eBPF program has said since the last time to the `log` crate; does nothing unless it was asked for.
    pub fn print_log(&mut self) {
        if let Some(log) = &mut self.log {
            log.print();
        }
    }

    /// Finds the processes of known runs and watch rules, and their descendants, that lived before.
    ///
    /// Their births come through the ring, marked as found by the snapshot.
    ///
    /// # Errors
    /// When the walk fails.
    pub fn snapshot(&self) -> anyhow::Result<Vec<Live>> {
        super::snapshot::walk(self.snapshot.as_fd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_a_verifier_wrote_the_last_lines_are_told() {
        let log: Vec<String> = (0..300).map(|line| format!("{line}: (79) r1 = *(u64 *)(r10 -88)")).collect();
        let text = format!("Verifier output: {}\ninvalid read from stack\nprocessed 300 insns\n", log.join("\n"));
        let told = told(&anyhow::Error::msg(text).context("loading the program exec"));
        assert!(told.starts_with("loading the program exec: Verifier output: 0: "), "{told}");
        assert!(
            told.ends_with("299: (79) r1 = *(u64 *)(r10 -88)\ninvalid read from stack\nprocessed 300 insns"),
            "{told}"
        );
        assert_eq!(told.lines().count(), 8, "{told}");
        assert_eq!(super::told(&anyhow::Error::msg("one\ntwo\n")), "one\ntwo");
    }
}

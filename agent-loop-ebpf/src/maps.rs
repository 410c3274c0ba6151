//! The maps, and the counters kept in one of them.

use core::ptr::NonNull;

use agent_loop_common::COMM_LEN;
use agent_loop_common::counter::Counter;
use agent_loop_common::map::{LiveEntry, OBSERVED, RunEntry};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{HashMap, PerCpuArray, RingBuf};

/// Who is tracked and alive, by number: the ground truth.
#[map]
pub static LIVE: HashMap<u32, LiveEntry> = HashMap::with_max_entries(65_536, 0);

/// The runs, by the id of their cgroup.
#[map]
pub static RUNS: HashMap<u64, RunEntry> = HashMap::with_max_entries(4_096, 0);

/// Who claimed to be a run's main process, by the id of its cgroup. Only ever inserted under NOEXIST: of two
/// processes born at once in a fresh run, on two CPUs, one becomes its main process.
#[map]
pub static MAINS: HashMap<u64, u32> = HashMap::with_max_entries(4_096, 0);

/// Names of programs that are observed wherever they run, by the kernel's `comm` right after exec.
#[map]
pub static WATCH: HashMap<[u8; COMM_LEN], u32> = HashMap::with_max_entries(64, 0);

/// Births and deaths.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(4 << 20, 0);

/// Execs with their arguments: a ring of its own, so that a storm of arguments never costs a death.
#[map]
pub static EXECS: RingBuf = RingBuf::with_byte_size(4 << 20, 0);

/// The counters of [`Counter`].
#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::COUNT, 0);

/// Adds one to a counter of this CPU.
///
/// With one atomic instruction: iterators always, and tracepoints on some kernels, run with migration disabled but
/// can be preempted, by a hook that counts on the same CPU.
pub fn count(counter: Counter) {
    count_more(counter, 1);
}

/// Adds to a counter of this CPU, as [`count`] does.
pub fn count_more(counter: Counter, more: u64) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter as u32) {
        add(value, more);
    }
}

/// Adds with one atomic instruction.
#[inline(always)]
fn add(value: *mut u64, more: u64) {
    // SAFETY: a map returned the pointer, aligned to eight bytes; the instruction writes nothing else.
    unsafe { core::arch::asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) value, in(reg) more) };
}

/// Adds one with one atomic instruction.
#[inline(always)]
fn add_one(value: *mut u64) {
    add(value, 1);
}

/// What a run counts of its own.
#[derive(Clone, Copy)]
pub enum Kind {
    /// Births.
    Fork,
    /// Execs.
    Exec,
    /// Deaths.
    Exit,
}

/// A run's entry of [`RUNS`], looked up once per hook.
///
/// User space forgets a run when its cgroup is empty, and then no hook of its processes runs any more: the entry is
/// not given to another run under a hook that still holds it.
#[derive(Clone, Copy)]
pub struct Run(Option<NonNull<RunEntry>>);

impl Run {
    /// Of processes that are only observed.
    pub const NONE: Self = Self(None);

    /// The entry of this tag; none for what is only observed, and for a run that user space has forgotten.
    #[inline(always)]
    pub fn of(tag: u64) -> Self {
        if tag & OBSERVED != 0 {
            return Self::NONE;
        }
        Self(RUNS.get_ptr_mut(tag).and_then(NonNull::new))
    }

    /// The entry, if there is one.
    #[inline(always)]
    pub fn entry(self) -> Option<*mut RunEntry> {
        self.0.map(NonNull::as_ptr)
    }

    /// Counts an event of one of its processes, for the host and for the run.
    #[inline(always)]
    pub fn seen(self, kind: Kind) {
        count(match kind {
            Kind::Fork => Counter::SeenFork,
            Kind::Exec => Counter::SeenExec,
            Kind::Exit => Counter::SeenExit,
        });
        if let Some(entry) = self.entry() {
            add_one(match kind {
                // SAFETY: the map returned the entry; only the field's address is taken.
                Kind::Fork => unsafe { &raw mut (*entry).seen_fork },
                // SAFETY: as above.
                Kind::Exec => unsafe { &raw mut (*entry).seen_exec },
                // SAFETY: as above.
                Kind::Exit => unsafe { &raw mut (*entry).seen_exit },
            });
        }
    }

    /// Counts an event whose record found no room, for the host and for the run.
    #[inline(always)]
    pub fn lost(self, kind: Kind) {
        count(match kind {
            Kind::Fork => Counter::LostFork,
            Kind::Exec => Counter::LostExec,
            Kind::Exit => Counter::LostExit,
        });
        if let Some(entry) = self.entry() {
            add_one(match kind {
                // SAFETY: the map returned the entry; only the field's address is taken.
                Kind::Fork => unsafe { &raw mut (*entry).lost_fork },
                // SAFETY: as above.
                Kind::Exec => unsafe { &raw mut (*entry).lost_exec },
                // SAFETY: as above.
                Kind::Exit => unsafe { &raw mut (*entry).lost_exit },
            });
        }
    }
}

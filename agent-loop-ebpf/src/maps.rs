//! The maps, and the counters kept in one of them.

use agent_loop_common::COMM_LEN;
use agent_loop_common::counter::Counter;
use agent_loop_common::map::{LiveEntry, RunEntry};
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
    if let Some(value) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: the map returned the pointer, aligned to eight bytes; the instruction writes nothing else.
        unsafe { core::arch::asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) value, in(reg) 1_u64) };
    }
}

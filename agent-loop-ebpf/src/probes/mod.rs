//! The hooks. Each is an attribute function and a `try_` function; the hooked prototype stands beside it.
//!
//! A structure that cannot be read ends a hook without a record and is counted; offsets are checked before
//! loading, so this does not happen on a kernel that was not refused.
//!
//! The kernel runs no program twice at once on one CPU, and skips it instead. Before Linux 7.0 nothing preempts a program
//! at a tracepoint, so this never happens. From then on a process can be preempted inside a hook, and whoever comes to
//! the same hook on the same CPU meanwhile would not be told. There births are hooked where interrupts are off, and the
//! other two hooks are attached in four copies, one after the other: the first that is free tells. A death that all four
//! are skipped for leaves its entry in the live set, an exec a jump in the kernel's count of them: neither is silent.

mod exec;
mod exit;
mod fork;
mod snapshot;

use agent_loop_common::counter::Counter;
use agent_loop_common::map::LiveEntry;
use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use aya_ebpf::helpers::bpf_get_current_uid_gid;

use crate::maps::{LIVE, count};
use crate::task::{Read, Task, Unreadable};

/// Ends a hook: one that could not read a structure is counted, and logged where logging is on.
fn finish(ctx: &impl EbpfContext, hook: &'static str, result: Result<(), Unreadable>) -> u32 {
    if result.is_err() {
        count(Counter::Unreadable);
        aya_log_ebpf::error!(ctx, "{}: a kernel structure could not be read", hook);
    }
    0
}

/// What an insert under NOEXIST says where there is an entry; else the live set is full.
const EEXIST: i32 = -17;

/// What [`track`] did.
#[derive(PartialEq)]
enum Track {
    /// It is in the live set now.
    Inserted,
    /// The snapshot had found it a moment before, and told its birth.
    Known,
    /// The live set is full; nothing is told of it until it is found again by its cgroup.
    Full,
}

/// Puts a process into the live set.
///
/// An entry under the same number with another start names a process that is gone (two live processes never share
/// a number): it is counted and replaced.
fn track(tgid: u32, entry: &LiveEntry) -> Track {
    let known = match LIVE.insert(tgid, entry, u64::from(BPF_NOEXIST)) {
        Ok(()) => return Track::Inserted,
        Err(EEXIST) => tracked(tgid, entry.start_boottime_ns).is_some(),
        Err(_) => {
            count(Counter::LiveFull);
            return Track::Full;
        }
    };
    if !known {
        count(Counter::Stale);
    }
    if LIVE.insert(tgid, entry, u64::from(BPF_ANY)).is_err() {
        count(Counter::LiveFull);
        return Track::Full;
    }
    if known { Track::Known } else { Track::Inserted }
}

/// The live set's entry for a process, if it names exactly this one.
fn tracked(tgid: u32, start_boottime_ns: u64) -> Option<LiveEntry> {
    let entry = LIVE.get_ptr(tgid)?;
    // SAFETY: the map returned it. An entry is replaced as a whole, so its start tells whose the rest is.
    let entry = unsafe { *entry };
    (entry.start_boottime_ns == start_boottime_ns).then_some(entry)
}

/// The number of this leader and, if it is tracked, its entry; `None` outside the supervisor's PID namespace.
///
/// Its start is only read where the live set has its number: most processes of a host are nobody's.
#[inline(always)]
fn find(leader: Task) -> Read<Option<(u32, Option<LiveEntry>)>> {
    let Some(tgid) = leader.number()? else { return Ok(None) };
    let Some(entry) = LIVE.get_ptr(tgid) else { return Ok(Some((tgid, None))) };
    // SAFETY: the map returned it. An entry is replaced as a whole, so its start tells whose the rest is.
    let entry = unsafe { *entry };
    let exact = entry.start_boottime_ns == leader.start_boottime_ns()?;
    Ok(Some((tgid, exact.then_some(entry))))
}

/// The user id of the current task.
fn current_uid() -> u32 {
    bpf_get_current_uid_gid() as u32
}

//! The hooks. Each is an attribute function and a `try_` function; the hooked prototype stands beside it.
//!
//! A structure that cannot be read ends a hook without a record and is counted; offsets are checked before
//! loading, so this does not happen on a kernel that was not refused.

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
use crate::task::Unreadable;

/// Ends a hook: one that could not read a structure is counted, and logged where logging is on.
fn finish(ctx: &impl EbpfContext, hook: &'static str, result: Result<(), Unreadable>) -> u32 {
    if result.is_err() {
        count(Counter::Unreadable);
        aya_log_ebpf::error!(ctx, "{}: a kernel structure could not be read", hook);
    }
    0
}

/// Puts a process into the live set; whether it is there now.
///
/// An entry under the same number names a process that is gone (two live processes never share a number):
/// it is counted and replaced.
fn track(tgid: u32, entry: &LiveEntry) -> bool {
    if LIVE.insert(tgid, entry, u64::from(BPF_NOEXIST)).is_ok() {
        return true;
    }
    if LIVE.get_ptr(tgid).is_some() {
        count(Counter::Stale);
    }
    let tracked = LIVE.insert(tgid, entry, u64::from(BPF_ANY)).is_ok();
    if !tracked {
        count(Counter::LiveFull);
    }
    tracked
}

/// The live set's entry for a process, if it names exactly this one.
fn tracked(tgid: u32, start_boottime_ns: u64) -> Option<LiveEntry> {
    let entry = LIVE.get_ptr(tgid)?;
    // SAFETY: the map returned it. Only this process's own hooks change its entry while it lives.
    let entry = unsafe { *entry };
    (entry.start_boottime_ns == start_boottime_ns).then_some(entry)
}

/// The user id of the current task.
fn current_uid() -> u32 {
    bpf_get_current_uid_gid() as u32
}

//! Deaths: once per process, never per thread.

use agent_loop_common::ProcessKey;
use agent_loop_common::counter::Counter;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;

use super::{find, finish};
use crate::emit;
use crate::maps::{LIVE, Run, count_more};
use crate::task::{Read, Task, has_copies};

macro_rules! hooks {
    ($($group_dead:ident $latch:ident)*) => {
        $(
            /// `sched_process_exit(struct task_struct *p, bool group_dead)`, Linux 6.16 and later.
            ///
            /// `group_dead` is the result of the kernel's atomic decrement of `signal->live`: true for exactly one
            /// thread.
            #[btf_tracepoint(function = "sched_process_exit")]
            fn $group_dead(ctx: BtfTracePointContext) -> u32 {
                if ctx.arg::<u64>(1) & 0xff == 0 {
                    return 0;
                }
                finish(&ctx, "exit", try_exit(Task::new(ctx.arg(0))))
            }

            /// `sched_process_exit(struct task_struct *p)`, before Linux 6.16.
            ///
            /// `signal->live` was decremented before this hook, so that zero means no thread runs any more; when
            /// several threads leave at once each may read zero, and the delete from the live set lets one of them
            /// through.
            #[btf_tracepoint(function = "sched_process_exit")]
            fn $latch(ctx: BtfTracePointContext) -> u32 {
                finish(&ctx, "exit", try_latch(Task::new(ctx.arg(0))))
            }
        )*
    };
}

// The copies: see `super`. Whichever runs first deletes the process from the live set, and the others find nothing.
hooks! {
    exit_group_dead exit_latch
    exit_group_dead_2 exit_latch_2
    exit_group_dead_3 exit_latch_3
    exit_group_dead_4 exit_latch_4
}

#[inline(always)]
fn try_latch(task: Task) -> Read<()> {
    if task.is_group_dead()? { try_exit(task) } else { Ok(()) }
}

#[inline(always)]
fn try_exit(task: Task) -> Read<()> {
    let leader = task.leader()?;
    let Some((tgid, Some(entry))) = find(leader)? else { return Ok(()) };
    let key = ProcessKey { tgid, start_boottime_ns: entry.start_boottime_ns };
    let now = emit::now();
    // First of all: whatever cannot be read below, a dead process is not in the live set.
    if LIVE.remove(key.tgid).is_err() {
        return Ok(());
    }
    if has_copies() {
        let untold = leader.exec_id()?.saturating_sub(entry.exec_id);
        if untold > 0 {
            count_more(Counter::SkippedExec, untold - u64::from(task.died_in_exec()));
        }
    }
    let status = leader.wait_status(task)?;
    let counted = Run::of(entry.run);
    if let Some(run) = counted.entry() {
        // SAFETY: the map returned it; only the birth of its main process writes these fields, before this death.
        let main = unsafe { (*run).main() };
        if main == Some(key) {
            // SAFETY: the map returned it; only the death of its main process writes this field, once.
            unsafe { (&raw mut (*run).exit_boot_ns).write_volatile(now) };
            // SAFETY: as above; status and mark are one aligned word, stored at once, the mark in its upper half.
            unsafe { (&raw mut (*run).exit_status).cast::<u64>().write_volatile(status.0) };
        }
    }
    emit::death(counted, key.tgid, &entry, status, task.tid()?, now);
    Ok(())
}

//! Births.

use agent_loop_common::map::{LiveEntry, OBSERVED, RunEntry};
use agent_loop_common::record::flag;
use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;

use super::{Track, current_uid, find, finish, track};
use crate::emit;
use crate::maps::{MAINS, Run};
use crate::task::{Read, Task};

/// `sched_process_fork(struct task_struct *parent, struct task_struct *child)`, all supported kernels.
///
/// Runs in the parent before the child is woken: whatever is recorded here is known before the child's first
/// instruction.
#[btf_tracepoint(function = "sched_process_fork")]
fn fork(ctx: BtfTracePointContext) -> u32 {
    let parent = Task::new(ctx.arg(0));
    let child = Task::new(ctx.arg(1));
    let result = try_fork(parent, child);
    finish(&ctx, "fork", result)
}

/// `sched_wakeup_new(struct task_struct *p)`, all supported kernels; used where a program at a tracepoint can be preempted.
///
/// Runs in the parent, right before the child may run, and with the lock of a run queue held: with interrupts off nothing
/// comes between, and no birth is skipped for another one.
#[btf_tracepoint(function = "sched_wakeup_new")]
fn woken(ctx: BtfTracePointContext) -> u32 {
    let result = try_fork(Task::current(), Task::new(ctx.arg(0)));
    finish(&ctx, "fork", result)
}

#[inline(always)]
fn try_fork(parent: Task, child: Task) -> Read<()> {
    if !child.is_leader()? {
        return Ok(());
    }
    let parent = parent.leader()?;
    let forker = find(parent)?;
    let inherited = forker.and_then(|(_, entry)| entry).map(|entry| entry.run);
    // A run's cgroup outranks a watch rule: an observed agent may start a run of its own.
    let (run, counted) = match inherited {
        Some(run) if run & OBSERVED == 0 => (run, Run::of(run)),
        Some(_) | None => match (child.run_by_cgroup()?, inherited) {
            (Some(found), _) => found,
            (None, Some(rule)) => (rule, Run::NONE),
            (None, None) => return Ok(()),
        },
    };
    let Some(key) = child.key()? else { return Ok(()) };

    let forker_start_boottime_ns = match forker {
        Some((_, Some(entry))) => entry.start_boottime_ns,
        Some((_, None)) => parent.start_boottime_ns()?,
        None => 0,
    };
    let mut entry = LiveEntry {
        start_boottime_ns: key.start_boottime_ns,
        run,
        pidfs_ino: child.pidfs_ino()?,
        forker_start_boottime_ns,
        forker_tgid: forker.map_or(0, |(tgid, _)| tgid),
        flags: 0,
        exec_id: child.exec_id()?,
    };
    if inherited != Some(run) && claim_main(run, counted, &entry, key.tgid) {
        entry.flags |= flag::MAIN;
    }
    // The child is on the kernel's lists before this hook runs: a snapshot on another CPU may have found it.
    if track(key.tgid, &entry) == Track::Inserted {
        emit::birth(counted, key.tgid, &entry, child.parent_number(), current_uid());
    }
    Ok(())
}

/// Makes the first process born in a run's cgroup its main process; whether this one is.
fn claim_main(run: u64, counted: Run, entry: &LiveEntry, tgid: u32) -> bool {
    let Some(main) = counted.entry() else { return false };
    if MAINS.insert(run, tgid, u64::from(BPF_NOEXIST)).is_err() {
        return false;
    }
    // SAFETY: the map returned it; whoever won the claim is the only writer of these two fields, once.
    let main: &mut RunEntry = unsafe { &mut *main };
    main.main_start_boottime_ns = entry.start_boottime_ns;
    main.main_tgid = tgid;
    true
}

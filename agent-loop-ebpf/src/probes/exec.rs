//! Execs.

use agent_loop_common::ProcessKey;
use agent_loop_common::counter::Counter;
use agent_loop_common::map::{LiveEntry, NO_EXEC_ID};
use agent_loop_common::record::flag;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;

use super::{Track, current_uid, find, finish, track};
use crate::emit;
use crate::maps::{LIVE, Run, count_more};
use crate::task::{Binprm, Read, Task, has_copies, watched};

macro_rules! hooks {
    ($($name:ident)*) => {
        $(
            /// `sched_process_exec(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`, all supported
            /// kernels.
            ///
            /// Runs after the point of no return, when the calling thread has become the leader: number, start and
            /// inode of the process are what they were before.
            #[btf_tracepoint(function = "sched_process_exec")]
            fn $name(ctx: BtfTracePointContext) -> u32 {
                let result = try_exec(Task::new(ctx.arg(0)), ctx.arg(1), Binprm::new(ctx.arg(2)));
                finish(&ctx, "exec", result)
            }
        )*
    };
}

// The copies: see `super`.
hooks! { exec exec_2 exec_3 exec_4 }

#[inline(always)]
fn try_exec(task: Task, old_tid: u32, bprm: Binprm) -> Read<()> {
    let leader = task.leader()?;
    let Some((tgid, known)) = find(leader)? else { return Ok(()) };
    let (entry, counted) = match known {
        Some(entry) => (entry, Run::of(entry.run)),
        None => {
            let (run, counted) = match leader.run_by_cgroup()? {
                Some(found) => found,
                None => {
                    let Some(rule) = watched() else { return Ok(()) };
                    (rule, Run::NONE)
                }
            };
            let entry = LiveEntry {
                start_boottime_ns: leader.start_boottime_ns()?,
                run,
                pidfs_ino: leader.pidfs_ino()?,
                flags: flag::AT_EXEC,
                exec_id: NO_EXEC_ID,
                ..LiveEntry::default()
            };
            match track(tgid, &entry) {
                Track::Inserted => emit::birth(counted, tgid, &entry, leader.parent_number(), current_uid()),
                Track::Known => {}
                Track::Full => return Ok(()),
            }
            (entry, counted)
        }
    };
    if has_copies() && is_told(tgid, leader.exec_id()?) {
        return Ok(());
    }
    let (start, end) = leader.arguments()?;
    let exec = emit::Exec {
        key: ProcessKey { tgid, start_boottime_ns: entry.start_boottime_ns },
        pidfs_ino: entry.pidfs_ino,
        run: entry.run,
        counted,
        old_tid,
        uid: current_uid(),
        arguments: (start, end.saturating_sub(start)),
    };
    emit::exec(&exec, bprm);
    Ok(())
}

/// Whether a copy of this hook told this exec; else it is this one's to tell.
///
/// The copies run one after the other on the one thread that the process has, so nobody else writes the count. One that
/// jumped is of execs that all copies were skipped for.
#[inline(always)]
fn is_told(tgid: u32, id: u64) -> bool {
    let Some(live) = LIVE.get_ptr_mut(tgid) else { return false };
    // SAFETY: the map returned it; only its process's exec hooks write this field.
    let last = unsafe { &mut (*live).exec_id };
    if *last == id {
        return true;
    }
    let since = id.saturating_sub(*last);
    if since > 1 {
        count_more(Counter::SkippedExec, since - 1);
    }
    *last = id;
    false
}

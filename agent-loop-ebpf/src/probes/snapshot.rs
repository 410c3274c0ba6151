//! The snapshot: finds processes that lived before the hooks were attached.

use core::ffi::c_void;

use agent_loop_common::ProcessKey;
use agent_loop_common::counter::Counter;
use agent_loop_common::map::{LiveEntry, NO_EXEC_ID};
use agent_loop_common::record::{SnapshotRecord, flag};
use aya_ebpf::bindings::{BPF_NOEXIST, seq_file};
use aya_ebpf::helpers::generated::bpf_seq_write;

use super::{EEXIST, tracked};
use crate::emit;
use crate::maps::{LIVE, Run, count};
use crate::task::{Read, Task};

/// `struct bpf_iter_meta`, as far as it is read.
#[repr(C)]
struct Meta {
    seq: *mut seq_file,
}

/// `struct bpf_iter__task`: the context of `iter/task`, Linux 5.8 and later.
#[repr(C)]
struct Context {
    meta: *const Meta,
    task: *const u8,
}

/// Visits every task; puts the processes of known runs, and the children of tracked ones, into the live set.
///
/// Call it after the hooks are attached, again until it inserts nothing: a child may be visited before its
/// parent. aya has no macro for iterators, so the link section is written here.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
fn snapshot(ctx: *mut c_void) -> u32 {
    let ctx: *const Context = ctx.cast();
    // SAFETY: the kernel passes this context; the verifier types the loads by BTF.
    let (meta, task) = unsafe { ((*ctx).meta, (*ctx).task) };
    if meta.is_null() || task.is_null() {
        return 0;
    }
    // SAFETY: as above.
    let seq = unsafe { (*meta).seq };
    let task = Task::new(task);
    // A task that is released while it is looked at loses its numbers: that is no loss, it is dead.
    if try_snapshot(seq, task).is_err() && !task.is_group_dead().unwrap_or(false) {
        count(Counter::Unreadable);
    }
    0
}

fn try_snapshot(seq: *mut seq_file, task: Task) -> Read<()> {
    if !task.is_leader()? || task.is_kernel_thread()? || task.is_group_dead()? {
        return Ok(());
    }
    let Some(key) = task.key()? else { return Ok(()) };
    let parent = task.parent().and_then(Task::leader).and_then(Task::key).ok().flatten();
    let (run, inserted) = match tracked(key.tgid, key.start_boottime_ns) {
        Some(entry) => (entry.run, false),
        None => {
            let inherited = parent.and_then(|key| tracked(key.tgid, key.start_boottime_ns)).map(|entry| entry.run);
            let (run, counted) = match (task.run_by_cgroup()?, inherited) {
                (Some(found), _) => found,
                (None, Some(run)) => (run, Run::of(run)),
                (None, None) => {
                    let Some(rule) = task.run_by_name()? else { return Ok(()) };
                    (rule, Run::NONE)
                }
            };
            let entry = LiveEntry {
                start_boottime_ns: key.start_boottime_ns,
                run,
                pidfs_ino: task.pidfs_ino()?,
                flags: flag::AT_SNAPSHOT,
                // Not its count: of an exec that is under way the hook is yet to tell.
                exec_id: NO_EXEC_ID,
                ..LiveEntry::default()
            };
            if !found(task, key, counted, &entry, parent.map_or(0, |key| key.tgid)) {
                return Ok(());
            }
            (run, true)
        }
    };
    let record = SnapshotRecord {
        start_boottime_ns: key.start_boottime_ns,
        pidfs_ino: task.pidfs_ino()?,
        run,
        tgid: key.tgid,
        parent_tgid: parent.map_or(0, |key| key.tgid),
        boot_ns: emit::now(),
        inserted: u32::from(inserted),
        pad: 0,
    };
    // SAFETY: `seq` comes from the context, the record lives on the stack for its whole size.
    unsafe { bpf_seq_write(seq, (&raw const record).cast(), size_of::<SnapshotRecord>() as u32) };
    Ok(())
}

/// Puts a process that was found into the live set and tells its birth; whether it did.
///
/// Insert first, then look whether it lives: its exit hook either finds the entry, or has run before and is seen
/// here. Either way no entry of a dead process stays. The record is reserved before the insert, so that the birth
/// stands in the ring before a death that follows at once.
fn found(task: Task, key: ProcessKey, counted: Run, entry: &LiveEntry, parent_tgid: u32) -> bool {
    if let Some(other) = LIVE.get_ptr(key.tgid) {
        // SAFETY: the map returned it.
        let start = unsafe { (*other).start_boottime_ns };
        // A younger owner of the number means that the task is the one that is gone.
        if start >= key.start_boottime_ns || task.is_group_dead().unwrap_or(true) {
            return false;
        }
        count(Counter::Stale);
        let _ = LIVE.remove(key.tgid);
    }
    let room = emit::reserve_birth();
    if let Err(error) = LIVE.insert(key.tgid, entry, u64::from(BPF_NOEXIST)) {
        emit::discard(room);
        // An entry there now is of the fork hook, which was faster.
        if error != EEXIST {
            count(Counter::LiveFull);
        }
        return false;
    }
    // Where the entry is gone already, the exit hook has taken it and told a death: its birth is told as well.
    if task.is_group_dead().unwrap_or(true)
        && tracked(key.tgid, key.start_boottime_ns).is_some()
        && LIVE.remove(key.tgid).is_ok()
    {
        emit::discard(room);
        return false;
    }
    emit::fill_birth(room, counted, key.tgid, entry, parent_tgid, u32::MAX);
    true
}

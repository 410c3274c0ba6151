//! The only reader of kernel structures: their offsets are handed in at load time.
//!
//! Rust's eBPF target has no CO-RE relocations, so user space finds each offset in the kernel's BTF and
//! overrides the global of that name before the program is loaded. [`ABSENT`] marks a field that this kernel
//! does not have, for the few that are optional.

use agent_loop_common::COMM_LEN;
use agent_loop_common::ProcessKey;
use agent_loop_common::counter::Counter;
use agent_loop_common::map::{EXIT_KNOWN, EXIT_STATUS_UNKNOWN, NO_EXEC_ID, OBSERVED};
use aya_ebpf::helpers::generated::bpf_get_current_task;
use aya_ebpf::helpers::{bpf_get_current_comm, bpf_probe_read_kernel};

use crate::maps::{Run, WATCH, count};

/// The offset of a field that this kernel does not have.
pub const ABSENT: u32 = u32::MAX;

/// How deep PID namespaces can be nested (`MAX_PID_NS_LEVEL` of linux/pid_namespace.h).
const MAX_PID_LEVEL: u32 = 32;

macro_rules! offsets {
    ($($name:ident)*) => {
        $(
            #[unsafe(no_mangle)]
            static $name: u32 = ABSENT;
        )*
    };
}

offsets! {
    OFF_TASK_PID OFF_TASK_TGID OFF_TASK_GROUP_LEADER OFF_TASK_REAL_PARENT OFF_TASK_THREAD_PID OFF_TASK_SIGNAL
    OFF_TASK_START_BOOTTIME OFF_TASK_EXIT_CODE OFF_TASK_FLAGS OFF_TASK_MM OFF_TASK_CGROUPS OFF_TASK_COMM
    OFF_TASK_SELF_EXEC_ID
    OFF_SIGNAL_LIVE OFF_SIGNAL_FLAGS OFF_SIGNAL_GROUP_EXIT_CODE
    OFF_PID_INO OFF_PID_LEVEL OFF_PID_NUMBERS OFF_UPID_NR OFF_UPID_NS SIZE_UPID OFF_PIDNS_INUM
    OFF_CSS_SET_DFL_CGRP OFF_CGROUP_KN OFF_CGROUP_LEVEL OFF_CGROUP_ANCESTORS OFF_CGROUP_ANCESTOR_IDS OFF_KN_ID
    OFF_MM_ARG_START OFF_MM_ARG_END
    OFF_BPRM_FILENAME OFF_BPRM_FILE OFF_BPRM_ARGC OFF_FILE_INODE OFF_INODE_INO OFF_INODE_SB OFF_SB_DEV
}

/// The inode of the supervisor's PID namespace; 0 for the initial one.
#[unsafe(no_mangle)]
static PIDNS_INUM: u32 = 0;

/// How deep that namespace lies below the initial one; [`ANY_LEVEL`] where the loader cannot tell.
#[unsafe(no_mangle)]
static PIDNS_LEVEL: u32 = 0;

/// The depth of run cgroups below the root of the hierarchy; 0 tags by no cgroup, [`ANY_LEVEL`] only by the
/// task's own.
#[unsafe(no_mangle)]
static RUN_LEVEL: u32 = 0;

/// The bit of `signal->flags` that says that the whole group exits (linux/sched/signal.h); 0 reads the status as if
/// no thread had set it.
#[unsafe(no_mangle)]
static SIGNAL_GROUP_EXIT: u32 = 4;

/// Whether a program at a tracepoint can be preempted, so that hooks have copies; 0 if not.
#[unsafe(no_mangle)]
static PREEMPTIBLE: u32 = 0;

/// The value of [`RUN_LEVEL`] where the depth is not known.
const ANY_LEVEL: u32 = u32::MAX;

/// Why a structure could not be read: the program then counts and skips, it never guesses.
pub struct Unreadable;

/// The result of a read.
pub type Read<T> = Result<T, Unreadable>;

fn global(global: &'static u32) -> u32 {
    // SAFETY: a live static; volatile keeps the compiler from folding the value it has at build time.
    unsafe { core::ptr::read_volatile(global) }
}

/// Whether hooks have copies here: what one of them tells, the others must not.
pub fn has_copies() -> bool {
    global(&PREEMPTIBLE) != 0
}

/// A pointer into kernel memory that is only ever read through [`bpf_probe_read_kernel`].
#[derive(Clone, Copy)]
pub struct Kernel(*const u8);

impl Kernel {
    fn field<T>(self, offset: &'static u32) -> Read<T> {
        self.at(global(offset))
    }

    fn at<T>(self, offset: u32) -> Read<T> {
        let address = self.0.wrapping_add(offset as usize).cast::<T>();
        // SAFETY: the helper checks the address itself and fails on a bad one.
        unsafe { bpf_probe_read_kernel(address) }.map_err(|_| Unreadable)
    }

    fn follow(self, offset: &'static u32) -> Read<Self> {
        let next: u64 = self.field(offset)?;
        if next == 0 { Err(Unreadable) } else { Ok(Self(next as *const u8)) }
    }
}

/// A task: one thread.
#[derive(Clone, Copy)]
pub struct Task(Kernel);

impl Task {
    /// The task that a hook's argument points to.
    pub fn new(task: *const u8) -> Self {
        Self(Kernel(task))
    }

    /// The task that runs this program.
    pub fn current() -> Self {
        // SAFETY: the helper takes nothing and gives a pointer.
        Self::new(unsafe { bpf_get_current_task() } as *const u8)
    }

    /// Whether it leads its thread group: of a fork's child this means a new process.
    pub fn is_leader(self) -> Read<bool> {
        let (pid, tgid) = (global(&OFF_TASK_PID), global(&OFF_TASK_TGID));
        // They stand side by side on every kernel so far: then one read does, at each fork of the host.
        if tgid == pid.wrapping_add(4) {
            let [pid, tgid] = self.0.at::<[u32; 2]>(pid)?;
            return Ok(pid == tgid);
        }
        Ok(self.0.at::<u32>(pid)? == self.0.at::<u32>(tgid)?)
    }

    /// Its thread number in the initial namespace.
    pub fn tid(self) -> Read<u32> {
        self.0.field(&OFF_TASK_PID)
    }

    /// The leader of its thread group.
    pub fn leader(self) -> Read<Self> {
        self.0.follow(&OFF_TASK_GROUP_LEADER).map(Self)
    }

    /// Its parent at this moment.
    pub fn parent(self) -> Read<Self> {
        self.0.follow(&OFF_TASK_REAL_PARENT).map(Self)
    }

    /// When it started, nanoseconds of CLOCK_BOOTTIME.
    pub fn start_boottime_ns(self) -> Read<u64> {
        self.0.field(&OFF_TASK_START_BOOTTIME)
    }

    /// How often its process has executed, as the kernel counts it, and its forebears before they bore it; where no hook
    /// has copies nobody has to know, and it is [`NO_EXEC_ID`].
    ///
    /// `begin_new_exec` counts it up after the point of no return and before the exec hook. A thread has its creator's
    /// count, and an exec leaves one thread: within a process it only grows.
    pub fn exec_id(self) -> Read<u64> {
        if has_copies() { self.0.field(&OFF_TASK_SELF_EXEC_ID) } else { Ok(NO_EXEC_ID) }
    }

    /// Whether the file that it executed last is not started: it died in the exec, whose hook never came.
    ///
    /// The kernel fills a new memory's `arg_end` in when nothing can fail any more.
    pub fn died_in_exec(self) -> bool {
        self.arguments().is_ok_and(|(_, end)| end == 0)
    }

    /// Whether it is a thread of the kernel.
    pub fn is_kernel_thread(self) -> Read<bool> {
        const PF_KTHREAD: u32 = 0x0020_0000;
        Ok(self.0.field::<u32>(&OFF_TASK_FLAGS)? & PF_KTHREAD != 0)
    }

    /// The number of this leader in the supervisor's PID namespace; `None` outside of it.
    ///
    /// `struct pid` holds one number per namespace from the initial one (level 0) down to the task's own. Where our level is
    /// known there is nothing to search for, which the verifiers of Linux 5.10 and 6.1 cannot follow.
    pub fn number(self) -> Read<Option<u32>> {
        let wanted = global(&PIDNS_INUM);
        if wanted == 0 {
            return self.0.field::<u32>(&OFF_TASK_TGID).map(Some);
        }
        let pid = self.0.follow(&OFF_TASK_THREAD_PID)?;
        let level: u32 = pid.field(&OFF_PID_LEVEL)?;
        let own = global(&PIDNS_LEVEL);
        let (mut at, last) = if own == ANY_LEVEL { (0, MAX_PID_LEVEL) } else { (own, own) };
        while at <= last && at <= level {
            let upid = global(&OFF_PID_NUMBERS) + at * global(&SIZE_UPID);
            let ns: u64 = pid.at(upid + global(&OFF_UPID_NS))?;
            if Kernel(ns as *const u8).field::<u32>(&OFF_PIDNS_INUM)? == wanted {
                return pid.at(upid + global(&OFF_UPID_NR)).map(Some);
            }
            at += 1;
        }
        count(Counter::Outside);
        Ok(None)
    }

    /// The number of its parent's process, 0 where unknown. Never worth losing a record: the parent may be gone.
    pub fn parent_number(self) -> u32 {
        self.parent().and_then(Self::leader).and_then(Self::number).ok().flatten().unwrap_or(0)
    }

    /// The identity of this leader; `None` outside the supervisor's PID namespace.
    pub fn key(self) -> Read<Option<ProcessKey>> {
        let Some(tgid) = self.number()? else { return Ok(None) };
        Ok(Some(ProcessKey { tgid, start_boottime_ns: self.start_boottime_ns()? }))
    }

    /// The inode that this leader's pidfd has; 0 before Linux 6.9.
    pub fn pidfs_ino(self) -> Read<u64> {
        if global(&OFF_PID_INO) == ABSENT {
            return Ok(0);
        }
        self.0.follow(&OFF_TASK_THREAD_PID)?.field(&OFF_PID_INO)
    }

    /// The run whose cgroup this task is in, at whatever depth below the run's own, and its entry; `None` in none.
    pub fn run_by_cgroup(self) -> Read<Option<(u64, Run)>> {
        let wanted = global(&RUN_LEVEL);
        if wanted == 0 {
            return Ok(None);
        }
        let cgroup = self.0.follow(&OFF_TASK_CGROUPS)?.follow(&OFF_CSS_SET_DFL_CGRP)?;
        let level: u32 = cgroup.field(&OFF_CGROUP_LEVEL)?;
        let wanted = if wanted == ANY_LEVEL { level } else { wanted };
        if level < wanted {
            return Ok(None);
        }
        let id: u64 = if level == wanted {
            cgroup.follow(&OFF_CGROUP_KN)?.field(&OFF_KN_ID)?
        } else if global(&OFF_CGROUP_ANCESTORS) != ABSENT {
            let ancestor: u64 = cgroup.at(global(&OFF_CGROUP_ANCESTORS) + wanted * 8)?;
            Kernel(ancestor as *const u8).follow(&OFF_CGROUP_KN)?.field(&OFF_KN_ID)?
        } else if global(&OFF_CGROUP_ANCESTOR_IDS) != ABSENT {
            cgroup.at(global(&OFF_CGROUP_ANCESTOR_IDS) + wanted * 8)?
        } else {
            return Ok(None);
        };
        let run = Run::of(id);
        Ok(run.entry().map(|_| (id, run)))
    }

    /// The tag of the watch rule that its name, which it may have changed, matches.
    pub fn run_by_name(self) -> Read<Option<u64>> {
        let mut comm: [u8; COMM_LEN] = self.0.field(&OFF_TASK_COMM)?;
        // Before Linux 5.17 (commit 06c5088aeedd) what was left of a longer name stands behind its end.
        let mut ended = false;
        for byte in &mut comm {
            ended |= *byte == 0;
            if ended {
                *byte = 0;
            }
        }
        Ok(rule_of(comm))
    }

    /// The memory holding its arguments: start and end.
    pub fn arguments(self) -> Read<(u64, u64)> {
        let mm = self.0.follow(&OFF_TASK_MM)?;
        Ok((mm.field(&OFF_MM_ARG_START)?, mm.field(&OFF_MM_ARG_END)?))
    }

    /// Whether no thread of its group lives any more.
    pub fn is_group_dead(self) -> Read<bool> {
        Ok(self.0.follow(&OFF_TASK_SIGNAL)?.field::<i32>(&OFF_SIGNAL_LIVE)? == 0)
    }

    /// The status that `wait(2)` will give for this leader's group, by the kernel's own rule (`wait_task_zombie`),
    /// as `last`, the thread whose exit hook this is, can know it.
    ///
    /// `do_exit` lowers `signal->live`, then stores the thread's `exit_code`, then runs its hook. With
    /// SIGNAL_GROUP_EXIT the status is `group_exit_code`, stored under the same lock as the flag before the thread
    /// that set it came to `do_exit`: whoever sees that nobody lives reads it settled. From Linux 6.0 the flag is set
    /// for every process that ends (`synchronize_group_exit`, commit d80f7d7b2c75). Before it, and where the threads
    /// leave one by one, the status is the leader's own `exit_code`. In the leader's own hook that is stored, by the
    /// same thread. A sibling's hook may run between the leader's two steps and would read what is not yet there.
    pub fn wait_status(self, last: Self) -> Read<WaitStatus> {
        let signal = self.0.follow(&OFF_TASK_SIGNAL)?;
        if signal.field::<u32>(&OFF_SIGNAL_FLAGS)? & global(&SIGNAL_GROUP_EXIT) != 0 {
            Ok(WaitStatus::known(signal.field(&OFF_SIGNAL_GROUP_EXIT_CODE)?))
        } else if last.is_leader()? {
            Ok(WaitStatus::known(self.0.field(&OFF_TASK_EXIT_CODE)?))
        } else {
            Ok(WaitStatus::UNKNOWN)
        }
    }
}

/// A status that may not be known, as it stands in the run table: the mark in the upper half of the word.
///
/// No `Option`: its unwritten half may be kept on the stack, and verifiers before Linux 6.3 refuse to read that.
#[derive(Clone, Copy)]
pub struct WaitStatus(pub u64);

impl WaitStatus {
    const UNKNOWN: Self = Self((EXIT_STATUS_UNKNOWN as u64) << 32);

    const fn known(status: i32) -> Self {
        Self(status.cast_unsigned() as u64 | (EXIT_KNOWN as u64) << 32)
    }

    /// Whether it is known.
    pub const fn is_known(self) -> bool {
        self.0 >> 32 == EXIT_KNOWN as u64
    }

    /// The status; 0 where it is not known.
    pub const fn status(self) -> i32 {
        (self.0 as u32).cast_signed()
    }
}

/// The tag of the watch rule that names the current task; valid right after an exec, when the kernel has just
/// set its name from the executed file.
pub fn watched() -> Option<u64> {
    rule_of(bpf_get_current_comm().ok()?)
}

fn rule_of(comm: [u8; COMM_LEN]) -> Option<u64> {
    let rule = WATCH.get_ptr(comm)?;
    // SAFETY: the map returned it; a rule is only replaced as a whole.
    Some(OBSERVED | u64::from(unsafe { *rule }))
}

/// `struct linux_binprm`: an exec in progress.
#[derive(Clone, Copy)]
pub struct Binprm(Kernel);

impl Binprm {
    /// The one that the exec hook's argument points to.
    pub fn new(bprm: *const u8) -> Self {
        Self(Kernel(bprm))
    }

    /// The path as called, in kernel memory.
    pub fn filename(self) -> Read<*const u8> {
        self.0.follow(&OFF_BPRM_FILENAME).map(|name| name.0)
    }

    /// The number of arguments.
    pub fn argc(self) -> Read<u32> {
        self.0.field(&OFF_BPRM_ARGC)
    }

    /// Inode and device of the executed file.
    pub fn file(self) -> Read<(u64, u32)> {
        let inode = self.0.follow(&OFF_BPRM_FILE)?.follow(&OFF_FILE_INODE)?;
        Ok((inode.field(&OFF_INODE_INO)?, inode.follow(&OFF_INODE_SB)?.field(&OFF_SB_DEV)?))
    }
}

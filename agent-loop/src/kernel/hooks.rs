//! Which programs are attached, to which tracepoints, under which names: one of each hook, or copies where a tracepoint can
//! be preempted (why is said beside the programs, in `agent-loop-ebpf/src/probes`).

use std::os::fd::OwnedFd;

use super::btf::{ExitHook, Tracepoints};
use super::counters::Program;

/// A hook: one program at one tracepoint.
#[derive(Debug)]
pub(super) struct Hook {
    /// The name of its link as a pin.
    pub(super) name: &'static str,
    /// The name of its program as a pin: opening a program by its id would need CAP_SYS_ADMIN, opening a pin CAP_BPF.
    pub(super) pin: &'static str,
    /// The tracepoint.
    pub(super) tracepoint: &'static str,
    /// The name of its program in the object; of the exit hook without which form it has.
    program: &'static str,
    /// Whether it has copies that do its work where the kernel skips it.
    copied: bool,
}

const fn exit(name: &'static str, pin: &'static str, copied: bool) -> Hook {
    Hook { name, pin, tracepoint: "sched_process_exit", program: name, copied }
}

const fn exec(name: &'static str, pin: &'static str, copied: bool) -> Hook {
    Hook { name, pin, tracepoint: "sched_process_exec", program: name, copied }
}

const fn fork(program: &'static str, tracepoint: &'static str) -> Hook {
    Hook { name: "fork", pin: "fork_program", tracepoint, program, copied: false }
}

/// The most hooks that there are.
pub(super) const MOST: usize = 9;

/// The hooks where nothing preempts them, in the order in which they are attached: a process tracked by a later hook can
/// then not die unseen.
static WHOLE: [Hook; 3] =
    [exit("exit", "exit_program", false), exec("exec", "exec_program", false), fork("fork", "sched_process_fork")];

/// The hooks where they can be preempted, in the same order; births are hooked where nothing preempts there either. It has
/// every name that there is.
static COPIED: [Hook; MOST] = [
    exit("exit", "exit_program", true),
    exit("exit_2", "exit_2_program", true),
    exit("exit_3", "exit_3_program", true),
    exit("exit_4", "exit_4_program", true),
    exec("exec", "exec_program", true),
    exec("exec_2", "exec_2_program", true),
    exec("exec_3", "exec_3_program", true),
    exec("exec_4", "exec_4_program", true),
    fork("woken", "sched_wakeup_new"),
];

/// The hooks that are attached on such a kernel, in the order in which they are attached.
pub(super) const fn hooks(tracepoints: Tracepoints) -> &'static [Hook] {
    match tracepoints {
        Tracepoints::Whole => &WHOLE,
        Tracepoints::Preemptible => &COPIED,
    }
}

impl Hook {
    /// The name of its program in the object.
    pub(super) fn program(&self, exit: ExitHook) -> String {
        let form = match exit {
            ExitHook::GroupDead => "exit_group_dead",
            ExitHook::Latch => "exit_latch",
        };
        match self.program.strip_prefix("exit") {
            Some(copy) => format!("{form}{copy}"),
            None => self.program.to_owned(),
        }
    }
}

/// The programs of the hooks, with what becomes of a run of one that the kernel skips.
pub(super) fn watched(tracepoints: Tracepoints, programs: impl IntoIterator<Item = OwnedFd>) -> Vec<Program> {
    let hooks = hooks(tracepoints).iter();
    hooks.zip(programs).map(|(hook, fd)| Program { name: hook.name, copied: hook.copied, fd }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_hooks_share_a_name_and_every_copied_tracepoint_has_more_than_one() {
        for tracepoints in [Tracepoints::Whole, Tracepoints::Preemptible] {
            let hooks = hooks(tracepoints);
            let names: std::collections::BTreeSet<_> = hooks.iter().flat_map(|hook| [hook.name, hook.pin]).collect();
            assert_eq!(names.len(), 2 * hooks.len());
            for hook in hooks {
                let beside = hooks.iter().filter(|other| other.tracepoint == hook.tracepoint).count();
                assert_eq!(hook.copied, beside > 1, "{hook:?}");
            }
        }
        assert!(WHOLE.iter().all(|hook| COPIED.iter().any(|other| other.name == hook.name)));
        assert_eq!(COPIED[1].program(ExitHook::GroupDead), "exit_group_dead_2");
        assert_eq!(COPIED[0].program(ExitHook::Latch), "exit_latch");
        assert_eq!(COPIED[5].program(ExitHook::Latch), "exec_2");
    }
}

//! What the eBPF program tells, asked through the library alone, against what the kernel itself says.

mod argv;
mod birth;
mod copies;
mod deaths;
mod layout;
mod loss;
mod namespaces;
mod pins;
mod recycled;
mod snapshot;
mod totals;
mod watch;

use agent_loop::kernel::{ExitHook, Layout};
use agent_loop_tests::harness::{adversary, skip};
use agent_loop_tests::oracle::{Life, Status};
use agent_loop_tests::traced::{Run, Traced, end};

/// Lets an adversary run to its end in a traced cgroup; it has to exit with 0.
fn to_the_end(traced: &mut Traced, run: &Run, args: &[&str]) -> Vec<Life> {
    let (_, status) = end(run.adversary(args).spawn().expect("the adversary starts"));
    assert_eq!(status, Status::exited(0), "{}", adversary().display());
    traced.drain();
    run.lives()
}

/// The exit rules that this kernel can run; one that it cannot is reported as skipped.
fn exit_rules(test: &str) -> Vec<ExitHook> {
    match Layout::of_running_kernel().expect("a known layout").exit_hook() {
        ExitHook::GroupDead => vec![ExitHook::GroupDead, ExitHook::Latch],
        ExitHook::Latch => {
            skip(test, "the rule by group_dead needs Linux 6.16");
            vec![ExitHook::Latch]
        }
    }
}

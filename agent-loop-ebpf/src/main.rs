//! The eBPF program: it tells user space when each tracked process is born, executes and dies.
//!
//! Three BTF tracepoints and one iterator (`probes`), the maps they share with user space (`maps`), the only
//! code that reads kernel structures (`task`), and the only code that writes records (`emit`). Nothing here
//! decides anything: a process is tracked because its forker is, because it was born in a run's cgroup, or
//! because a watch rule names it.
#![no_std]
#![no_main]
// For the one instruction that adds atomically: the target has no `AtomicU64::fetch_add`.
#![feature(asm_experimental_arch)]

mod emit;
mod maps;
mod probes;
mod task;

/// Makes the verifier refuse a program that could panic: an endless loop is never accepted.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The licence of the program as the kernel reads it; the helpers used are GPL-only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

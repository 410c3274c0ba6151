//! The adversaries' program. It starts without Rust's runtime, which would ignore SIGPIPE and install handlers:
//! what the process inherited must be seen as it was.
#![no_main]

/// The C library's entry.
// SAFETY: the only `main` of this program, with the C signature.
#[unsafe(no_mangle)]
pub extern "C" fn main(_argc: i32, _argv: *const *const u8) -> i32 {
    i32::from(agent_loop_tests::adversary::run())
}

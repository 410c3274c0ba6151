#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (agent_loop_tests::fuzzing::target("bundle").run)(bytes));

//! The short form of fuzzing, the same each time: the committed inputs, and some thousand changed ones.
//! `cargo xtask fuzz` is the long one.

use std::path::PathBuf;

use agent_loop_tests::fuzzing::{Mutator, TARGETS, target};

fn any_bytes(name: &str, count: usize) {
    let target = target(name);
    let corpus = target.corpus();
    assert!(!corpus.is_empty());
    corpus.iter().for_each(|input| (target.run)(input));
    for seed in 1..=count {
        let input = Mutator::new((seed as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)).change(&corpus);
        // A failure names its seed, and the input can be kept in the corpus.
        let passed = std::panic::catch_unwind(|| (target.run)(&input));
        assert!(passed.is_ok(), "{name}, seed {seed}: {:?}", String::from_utf8_lossy(&input));
    }
}

#[test]
fn no_bytes_of_a_ring_are_read_past_their_end_or_panic() {
    any_bytes("record", 20_000);
}

#[test]
fn no_datagram_to_the_keeper_panics_or_leaves_a_descriptor_open() {
    any_bytes("keeper", 5_000);
}

#[test]
fn no_configuration_panics_and_each_mistake_names_the_file() {
    any_bytes("config", 5_000);
}

#[test]
fn no_request_to_the_control_socket_panics_or_reaches_the_daemon_unchecked() {
    any_bytes("control", 3_000);
}

#[test]
fn no_log_that_is_read_back_panics() {
    any_bytes("replay", 20_000);
}

#[test]
fn no_line_of_a_log_panics_an_export_or_the_report() {
    any_bytes("line", 5_000);
}

#[test]
fn no_segment_panics_who_judges_or_reads_it() {
    any_bytes("segment", 1_000);
}

#[test]
fn no_checkpoint_panics_or_is_believed_without_its_key() {
    any_bytes("checkpoint", 5_000);
}

#[test]
fn no_bundle_panics_who_checks_it() {
    any_bytes("bundle", 2_000);
}

#[test]
fn every_target_has_its_file_and_its_inputs() {
    let fuzz = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    let manifest = std::fs::read_to_string(fuzz.join("Cargo.toml")).expect("its manifest");
    for target in TARGETS {
        let file = std::fs::read_to_string(fuzz.join("fuzz_targets").join(format!("{}.rs", target.name)));
        assert!(file.is_ok_and(|text| text.contains(&format!("target(\"{}\")", target.name))), "{}", target.name);
        assert!(manifest.contains(&format!("name = \"{}\"", target.name)), "{}", target.name);
        assert!(target.corpus().len() > 1, "{}", target.name);
    }
}

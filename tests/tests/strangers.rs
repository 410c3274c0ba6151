//! Forced PID recycling: methods by number hit strangers, so the harness can fail; a pidfd that is opened, then
//! verified, then signalled hits none.
//!
//! Which proof each point exercises, for a method by pidfd: *before open* the inode (the pidfd is the stranger's and
//! must be refused); *open to verify* and *verify to signal* the pidfd itself (it stays the victim's, the signal
//! finds nobody); *any time* both.

use std::collections::HashMap;
use std::process::Command;

use agent_loop_tests::needs;
use agent_loop_tests::recycle::{Point, Tally};

/// Runs a method of the `recycler`, which contains those by number in a PID namespace.
fn recycle(method: &str, rounds: u32) -> HashMap<String, Tally> {
    let out = Command::new(env!("CARGO_BIN_EXE_recycler")).args([method, "--rounds", &rounds.to_string()]).output();
    let out = out.expect("the recycler can be started");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).expect("JSON lines");
    println!("{method}\n{text}");
    let read = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).expect("a tally");
        (
            line["point"].as_str().expect("a point").to_owned(),
            serde_json::from_value(line["tally"].clone()).expect("a tally"),
        )
    };
    let tallies: HashMap<_, _> = text.lines().map(read).collect();
    assert_eq!(tallies.len(), Point::ALL.len());
    tallies
}

#[test]
fn kill_by_number_hits_strangers_by_the_hundred() {
    needs!(root);
    let tallies = recycle("agent-loop-py", 5_000);
    for point in ["before_open", "open_to_verify", "verify_to_signal"] {
        let tally = &tallies[point];
        assert_eq!(tally.strangers_hit, tally.recycled, "{point}: nothing protects them");
    }
    let random = &tallies["any_time"];
    assert!(random.strangers_hit >= 100, "{} of {}", random.strangers_hit, random.recycled);
}

#[test]
fn comparing_name_and_start_time_still_hits_strangers() {
    needs!(root);
    let tallies = recycle("stopgap", 5_000);
    assert_eq!(tallies["verify_to_signal"].strangers_hit, tallies["verify_to_signal"].recycled);
    assert!(tallies["before_open"].strangers_hit > 0, "within one tick the stranger looks like the victim");
    assert!(tallies["any_time"].strangers_hit > 0);
}

#[test]
fn a_verified_pidfd_hits_no_stranger() {
    needs!(root);
    let tallies = recycle("pidfd", 25_000);
    for (point, tally) in &tallies {
        assert_eq!(tally.strangers_hit, 0, "{point}");
        assert!(tally.recycled > 0, "{point}");
    }
    assert_eq!(
        tallies["before_open"].refused_verify, tallies["before_open"].recycled,
        "the inode refuses the stranger"
    );
    assert_eq!(tallies["verify_to_signal"].found_gone, tallies["verify_to_signal"].recycled, "the pidfd finds nobody");
    assert!(tallies["any_time"].victims_hit > 0, "it is not harmless only by doing nothing");
}

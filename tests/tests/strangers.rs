//! Forced PID recycling: methods by number hit strangers, so the harness can fail; a pidfd that is opened, then
//! verified, then signalled hits none.
//!
//! Which proof each point exercises is printed by each test, as the method itself counted it, and asserted: *before
//! open* the identity or the belonging (the pidfd is the stranger's and must be refused: by its inode, by its start in
//! the live set, by its cgroup); *open to verify* the check that the pidfd's own process still lives; *verify to
//! signal* the pidfd itself (it stays the victim's, the signal finds nobody); *any time* all of them. A child that we
//! launched has had its pidfd since birth: there the pidfd itself decides at every point.
//!
//! `cargo xtask strangers` is the long form.

use std::collections::HashMap;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use agent_loop_tests::harness::skip;
use agent_loop_tests::recycle::{Point, Tally};
use agent_loop_tests::{needs, test_name};

/// Runs a method of the `recycler`, which contains those by number in a PID namespace.
fn recycle(method: &str, rounds: u32) -> HashMap<String, Tally> {
    // One at a time: at random instants two threads race, each needs a CPU.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
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
    // How often a random moment falls into the window is the machine's; that it does is the method's.
    let random = &tallies["any_time"];
    assert!(random.strangers_hit >= 10, "{} of {}", random.strangers_hit, random.recycled);
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

/// The product's own method by one proof: no stranger is hit, and at each point this is what decided.
fn by_our_own(method: &str, rounds: u32, decided: [&str; 3]) {
    let tallies = recycle(method, rounds);
    for (point, what) in ["before_open", "open_to_verify", "verify_to_signal"].into_iter().zip(decided) {
        let tally = &tallies[point];
        assert_eq!(tally.strangers_hit, 0, "{point}");
        assert!(tally.recycled > 0, "{point}");
        assert_eq!(tally.decided.get(what), Some(&tally.recycled), "{point}: {:?}", tally.decided);
        assert_eq!(tally.victims_hit, 0, "{point}");
    }
    let random = &tallies["any_time"];
    assert_eq!(random.strangers_hit, 0);
    assert!(random.victims_hit > 0, "it is not harmless only by doing nothing");
}

#[test]
fn i02_our_signal_by_inode_hits_no_stranger_in_the_same_run() {
    needs!(cgroup, bpf);
    let Ok(layout) = agent_loop::kernel::Layout::of_running_kernel() else { return };
    if !layout.has_pidfs() {
        return skip(test_name!(), "pidfds have no inodes before Linux 6.9");
    }
    let decided = ["verify refused: OtherInode", "verify: gone", "proof pidfs_ino, then gone"];
    by_our_own("inode", 3_000, decided);
}

#[test]
fn i02_our_signal_by_the_live_set_hits_no_stranger_in_the_same_run() {
    needs!(cgroup, bpf);
    let decided = ["verify refused: OtherStart", "verify: gone", "proof live_set, then gone"];
    by_our_own("live-set", 3_000, decided);
}

#[test]
fn i02_our_signal_by_the_runs_cgroup_hits_no_stranger_outside() {
    needs!(cgroup, bpf);
    let decided = ["verify refused: NotOurs", "verify: gone", "proof own_cgroup, then gone"];
    by_our_own("member", 3_000, decided);
}

#[test]
fn i02_our_signal_to_our_own_child_hits_no_stranger() {
    needs!(root);
    by_our_own("own-child", 500, ["verify: gone", "verify: gone", "proof own_child, then gone"]);
}

//! Faults, in their short form: `cargo xtask faults` plays a thousand seeds and more.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use agent_loop_tests::faults::{Plan, Tally, play};
use agent_loop_tests::needs;

/// How many seeds are played where nothing else is said, and which is the first.
const SEEDS: u64 = 36;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn no_crash_loses_an_agent_runs_one_twice_or_tells_a_status_that_is_not_true() {
    needs!(root, bpf, cgroup);
    let seeds = number("AGENT_LOOP_FAULT_SEEDS").unwrap_or(SEEDS);
    let first = number("AGENT_LOOP_FAULT_FIRST").unwrap_or(0);
    // The short form takes steps from all over: a stride that no period of the plans divides.
    let stride = if seeds == SEEDS { 7 } else { 1 };
    let next = AtomicU64::new(0);
    let total = Mutex::new(Tally::default());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= seeds {
                        return;
                    }
                    let tally = play(Plan::of(first + number * stride));
                    let mut total = total.lock().expect("no seed failed");
                    total.add(&tally);
                    if total.seeds.is_multiple_of(50) {
                        println!("{} seeds, {} runs, {:?}", total.seeds, total.runs, total.crashes);
                    }
                }
            });
        }
    });
    let total = total.into_inner().expect("no seed failed");
    println!("{total:#?}");
    assert_eq!(total.seeds, seeds);
    assert!(total.crashes.values().sum::<u64>() * 3 > seeds, "too few of the crashes came about: {total:?}");
    assert!(total.statuses > 0);
}

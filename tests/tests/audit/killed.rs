//! A writer that is killed at any time: the log verifies, and what was said to be durable stands in it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use agent_loop::audit::log::layout;

use super::{Second, judged, state};

/// How many kills there are: many more by `cargo xtask kills`.
fn kills() -> u64 {
    std::env::var("AGENT_LOOP_KILLS").ok().and_then(|count| count.parse().ok()).unwrap_or(60)
}

/// Every intent that stands in a log.
fn intents(audit: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for segment in layout::segments(audit).expect("segments") {
        // One that is compressed meanwhile is read by its other name.
        let bytes =
            fs::read(&segment.path).or_else(|_| fs::read(segment.path.with_extension("jsonl.zst"))).expect("a segment");
        let bytes = zstd::decode_all(bytes.as_slice()).unwrap_or(bytes);
        for line in String::from_utf8_lossy(&bytes).lines().filter(|line| line.contains("\"run.intent\"")) {
            let line: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
            found.extend(line["argv"][0].as_str().map(str::to_owned));
        }
    }
    found
}

#[test]
fn a_writer_that_is_killed_at_any_time_leaves_a_log_that_verifies_with_all_that_was_durable() {
    let dir = state();
    let audit = dir.path().join("audit");
    let mut second = Second::start();
    let (mut durable, mut torn, mut gaps) = (BTreeSet::new(), 0_u64, 0_u64);
    let mut dice: u64 = 0x9E37_79B9_7F4A_7C15;
    for life in 0..kills() {
        let mut writer = Command::new(env!("CARGO_BIN_EXE_log_writer"))
            .arg(dir.path())
            .arg(life.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a writer");
        let lines = BufReader::new(writer.stdout.take().expect("a pipe")).lines();
        // xorshift64*, Vigna 2016.
        dice ^= dice >> 12;
        dice ^= dice << 25;
        dice ^= dice >> 27;
        let pause = Duration::from_micros(dice.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32 & 0x3_ffff);
        let killer = std::thread::spawn(move || {
            std::thread::sleep(pause);
            writer.kill().expect("our child");
            writer.wait().expect("our child")
        });
        let mut opened = false;
        for line in lines.map_while(Result::ok) {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["opened", _, bytes] => {
                    opened = true;
                    gaps += u64::from(bytes != "0");
                }
                ["durable", word] => drop(durable.insert(word.to_owned())),
                _ => panic!("{line}"),
            }
        }
        let status = killer.join().expect("the killer");
        assert!(status.code().is_none(), "life {life} ended by itself: {status}");
        if !audit.join("checkpoint").exists() {
            // Killed before there was a log at all.
            assert!(!opened || durable.is_empty());
            continue;
        }
        let report = judged(&audit);
        assert!(report.verdict().code() <= 2, "life {life}: {:?}", report.damage);
        torn += u64::from(report.torn > 0);
        if life % 20 == 0
            && let Some(second) = &mut second
            && layout::segments(&audit).expect("segments").iter().all(|segment| !segment.packed)
        {
            assert_eq!(second.judge(&audit), report.verdict().code());
        }
    }
    let there = intents(&audit);
    let missing: Vec<&String> = durable.difference(&there).take(5).collect();
    assert!(missing.is_empty(), "{missing:?} of {}", durable.len());
    let report = judged(&audit);
    assert!(report.gaps.len() as u64 >= gaps, "{gaps} torn ends were found, {} are declared", report.gaps.len());
    println!(
        "{} kills, {} intents durable and there, {torn} torn ends, {} lines",
        kills(),
        durable.len(),
        report.lines
    );
    assert!(durable.len() > 20, "{} intents", durable.len());
}

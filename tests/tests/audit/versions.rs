//! Logs of every past version: each must verify for ever.

use std::fs;
use std::path::{Path, PathBuf};

use agent_loop::audit::log::{AuditLog, Place, Settings, layout};
use agent_loop::audit::verify::{Wanted, check_bundle, prove};
use agent_loop::audit::{Clock, Recorder};
use agent_loop::model::BootNs;
use agent_loop_tests::harness::skip;

use super::{Second, judged, state};

/// The log of format 1.
fn version_1() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/audit-v1")
}

#[test]
fn a_log_of_version_1_verifies_and_proves_its_lines() {
    let audit = version_1();
    let report = judged(&audit);
    assert_eq!((report.verdict().code(), report.signed), (1, report.lines), "{report:?}");
    assert!(report.lines > 300 && report.checkpoints > 5, "{report:?}");
    let segments = layout::segments(&audit).expect("segments");
    assert!(segments.iter().any(|segment| segment.packed), "compressed ones are among them");
    match Second::start() {
        Some(mut second) => assert_eq!(second.judge(&audit), 1),
        None => skip("a_log_of_version_1_verifies_and_proves_its_lines", "python3 is not installed"),
    }
    let made = prove(&audit, &Wanted::Run("01RUN".to_owned())).expect("a bundle");
    let key = fs::read_to_string(audit.join(layout::key(1))).expect("a key");
    let proven = check_bundle(&made.bytes, key.lines().next()).expect("it is proven");
    assert_eq!(proven.lines.len(), 300);
}

/// Writes `data/audit-v1` anew, which is done once for each version, before its release:
/// `cargo test -p agent-loop-tests --test audit -- --ignored write_version_1`.
#[test]
#[ignore = "it writes what the other test reads"]
fn write_version_1() {
    const BOOT: &str = "7c1e0a52-0000-4000-8000-000000000001";
    let dir = state();
    let place = Place::below(dir.path());
    let settings = Settings { segment_bytes: 12_000, reserve: 0, low_water: 0, ..Settings::default() };
    let (mut log, _) = AuditLog::open(&place, settings, BOOT).expect("a log");
    let mut recorder = Recorder::new(BOOT.to_owned(), "01RUN".to_owned(), vec!["sh".to_owned()], "agent".to_owned());
    for number in 0..300 {
        let clock = Clock { boot: BootNs(number), real_ns: 1_000 };
        log.append(recorder.adopted(number.to_string(), clock)).expect("there is room");
    }
    let _ = log.close();
    let audit = dir.path().join("audit");
    let is_packed = || layout::segments(&audit).expect("segments").iter().rev().skip(1).all(|segment| segment.packed);
    while !is_packed() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    copy(&audit, &version_1());
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).expect("copied");
        }
    }
}

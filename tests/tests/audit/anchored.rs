//! Checkpoints that were handed out of the log, and what they say of one that was rewritten or rolled back since.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use agent_loop::audit::anchor::{Anchor, Files, Journal};
use agent_loop::audit::log::{AuditLog, Place, Settings, layout};
use agent_loop::audit::{Clock, Recorder};
use agent_loop::model::BootNs;
use agent_loop_tests::harness::agent_loop;
use serde_json::{Value, json};

use super::state;

const BOOT: &str = "7c1e0a52-0000-4000-8000-000000000001";

/// Writes so many lines, in segments of a few, hands the last checkpoint to these anchors, and ends.
fn write(dir: &Path, lines: u64, anchors: Vec<Arc<dyn Anchor>>) {
    let every = Duration::from_secs(3_600);
    let settings = Settings {
        segment_bytes: 1_500,
        reserve: 0,
        low_water: 0,
        anchors,
        anchor_every: every,
        ..Settings::default()
    };
    let (mut log, _) = AuditLog::open(&Place::below(dir), settings, BOOT).expect("a log");
    let mut recorder = Recorder::new(BOOT.to_owned(), "01RUN".to_owned(), vec!["sh".to_owned()], "agent".to_owned());
    for number in 0..lines {
        let clock = Clock { boot: BootNs(number), real_ns: 1_000 };
        log.append(recorder.adopted(number.to_string(), clock)).expect("there is room");
    }
    let progress = log.close();
    assert_eq!((progress.durable, progress.failing), (progress.signed, None));
}

/// The exit code of `audit verify`, and what it prints. The second verifier comes to the same where it can look.
fn verify(dir: &Path, more: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(agent_loop()).args(["audit", "verify"]).args(more).arg(dir).output().expect("it runs");
    let outside = match more {
        [] => Some(None),
        ["--anchors", outside] if Path::new(outside).is_dir() => Some(Some(outside)),
        _ => None,
    };
    if let Some(outside) = outside {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/verify.py");
        let second = Command::new("python3").arg(script).arg(dir).args(outside).output();
        if let Ok(second) = second {
            let told =
                format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&second.stderr));
            assert_eq!(second.status.code(), output.status.code(), "{told}");
        }
    }
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

fn lines(dir: &Path) -> Vec<Value> {
    let mut lines = Vec::new();
    for segment in layout::segments(&dir.join("audit")).expect("segments") {
        let bytes = fs::read(&segment.path).expect("a segment");
        let bytes = if segment.packed { zstd::decode_all(bytes.as_slice()).expect("zstd") } else { bytes };
        lines.extend(
            String::from_utf8_lossy(&bytes).lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")),
        );
    }
    lines
}

/// How many lines there are before those at the end that tell of anchoring alone.
fn before_the_last_anchoring(dir: &Path) -> u64 {
    let lines = lines(dir);
    lines.iter().rposition(|line| line["kind"] != "anchor").map_or(0, |at| at as u64 + 1)
}

/// The files below a directory.
fn below(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { all.extend(below(&path)) } else { all.push(path) }
    }
    all.sort();
    all
}

#[test]
fn a_log_whose_end_was_dropped_outside_is_intact_and_anchored() {
    let (dir, outside) = (state(), state());
    let kept = outside.path().to_str().expect("text");
    write(dir.path(), 30, vec![Arc::new(Files::new(outside.path()))]);
    let (code, said) = verify(dir.path(), &["--anchors", kept]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("PASS: intact and anchored"), "{said}");
    // The record of the last anchoring is the one that no anchor covers.
    assert!(said.contains("which tell of anchoring alone"), "{said}");
    let records: Vec<Value> = lines(dir.path()).into_iter().filter(|line| line["kind"] == "anchor").collect();
    let last = records.last().expect("it was recorded");
    assert_eq!((&last["anchor"]["to"], &last["anchor"]["result"]), (&json!("files"), &json!("anchored")));
    let size = last["anchor"]["size"].as_u64().expect("a size");
    assert_eq!(size, before_the_last_anchoring(dir.path()), "it covers all before the records of the last anchoring");
    assert!(dir.path().join("audit/checkpoints").join(size.to_string()).exists(), "and is kept in the log too");
    let (code, said) = verify(dir.path(), &[]);
    assert_eq!(code, Some(1), "without its anchors: {said}");
    assert!(said.contains("could have rewritten all of it until"), "{said}");
}

#[test]
fn what_is_written_after_the_last_anchor_is_the_window() {
    let (dir, outside) = (state(), state());
    let kept = outside.path().to_str().expect("text");
    write(dir.path(), 10, vec![Arc::new(Files::new(outside.path()))]);
    let before = before_the_last_anchoring(dir.path());
    write(dir.path(), 10, Vec::new());
    let (code, said) = verify(dir.path(), &["--anchors", kept]);
    assert_eq!(code, Some(1), "{said}");
    let last = lines(dir.path()).len() - 1;
    let window = format!("no anchor covers lines {before} to {last}: who had its key could have rewritten them until");
    assert!(said.contains(&window), "{window}: {said}");
}

#[test]
fn a_log_that_was_rolled_back_below_an_anchor_is_tampered_with() {
    let (dir, outside, early) = (state(), state(), state());
    let kept = outside.path().to_str().expect("text");
    write(dir.path(), 10, Vec::new());
    assert!(
        Command::new("cp").arg("-a").arg(dir.path().join("audit")).arg(early.path()).status().expect("cp").success()
    );
    assert_eq!(verify(early.path(), &[]).0, Some(1));
    write(dir.path(), 10, vec![Arc::new(Files::new(outside.path()))]);
    // The copy of before is put in place of what was written since: by itself it is whole and signed.
    let (code, said) = verify(early.path(), &["--anchors", kept]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("lines, ") && said.contains("are there"), "{said}");
}

#[test]
fn a_log_that_its_own_key_signed_anew_is_tampered_with() {
    let (dir, outside) = (state(), state());
    write(dir.path(), 10, vec![Arc::new(Files::new(outside.path()))]);
    // Who has the key begins the same log again with other lines.
    let public = fs::read(dir.path().join("audit/keys/epoch-1.pub")).expect("a key");
    fs::remove_dir_all(dir.path().join("audit")).expect("removed");
    write(dir.path(), 25, Vec::new());
    assert_eq!(fs::read(dir.path().join("audit/keys/epoch-1.pub")).expect("a key"), public, "it is the same key");
    assert_eq!(verify(dir.path(), &[]).0, Some(1), "by itself it is whole");
    let (code, said) = verify(dir.path(), &["--anchors", outside.path().to_str().expect("text")]);
    assert_eq!(code, Some(3), "{said}");
}

#[test]
fn the_journal_is_an_anchor_and_what_anybody_writes_there_is_none() {
    let (dir, place) = (state(), state());
    let path = place.path().join("socket");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    write(dir.path(), 10, vec![Arc::new(Journal::new(&path))]);
    socket.set_nonblocking(true).expect("ours");
    let mut note = String::new();
    let mut buffer = vec![0; 1 << 16];
    while let Ok(length) = socket.recv(&mut buffer) {
        let entry = String::from_utf8_lossy(&buffer[..length]).into_owned();
        let (_, value) = entry.split_once("AGENT_LOOP_CHECKPOINT\n").expect("the field");
        // Behind eight bytes of length.
        note = value.get(value.find("agent-loop/").expect("a note")..value.len() - 1).expect("whole").to_owned();
    }
    let kept = place.path().join("kept.json");
    let entry =
        |note: &str, uid: &str| json!({ "AGENT_LOOP_CHECKPOINT": note, "_UID": uid, "MESSAGE": "x" }).to_string();
    let judge = |entries: &[String]| {
        fs::write(&kept, entries.join("\n") + "\n").expect("written");
        verify(dir.path(), &["--anchors", kept.to_str().expect("text")])
    };
    let (code, said) = judge(&[entry(&note, "0")]);
    assert_eq!(code, Some(0), "{said}");
    // A note is as long as any is, and anybody may write one: what is not signed says nothing, unless root wrote it.
    let mut forged = note.clone();
    let size = note.lines().nth(1).expect("a size");
    forged = forged.replacen(&format!("\n{size}\n"), "\n99999\n", 1);
    let (code, said) = judge(&[entry(&note, "0"), entry(&forged, "1000")]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("1 of what is in") && said.contains("did not sign"), "{said}");
    let (code, said) = judge(&[entry(&note, "0"), entry(&forged, "0")]);
    assert_eq!(code, Some(3), "{said}");
}

#[test]
fn anchors_of_other_logs_in_the_same_directory_are_passed_over() {
    let (dir, other, outside) = (state(), state(), state());
    let files = || -> Vec<Arc<dyn Anchor>> { vec![Arc::new(Files::new(outside.path()))] };
    write(dir.path(), 10, files());
    write(other.path(), 10, files());
    let sizes = below(outside.path());
    assert!(sizes.len() >= 2, "{sizes:?}");
    for log in [dir.path(), other.path()] {
        let (code, said) = verify(log, &["--anchors", outside.path().to_str().expect("text")]);
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("that are of another log"), "{said}");
    }
}

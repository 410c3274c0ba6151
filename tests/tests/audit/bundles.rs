//! `audit prove` and `audit verify-bundle`, as commands: from a log to a file, and from that file alone to a verdict.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use agent_loop_tests::harness::agent_loop;

use super::state;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/audit-v1").join(name)
}

fn audit(words: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } =
        Command::new(agent_loop()).arg("audit").args(words).output().expect("it runs");
    (status.code(), String::from_utf8_lossy(&stdout).into_owned(), String::from_utf8_lossy(&stderr).into_owned())
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

/// The segment of the log that is not compressed: its lines as they were written.
fn written() -> String {
    fs::read_to_string(data("seg/000000000274.jsonl")).expect("a segment")
}

#[test]
fn lines_are_proven_by_a_file_alone() {
    let dir = state();
    let (bundle, key) = (dir.path().join("lines.bundle"), data("keys/epoch-1.pub"));
    let (code, _, said) = audit(&["prove", "276", "280", "--dir", text(&data("")), "-o", text(&bundle)]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said, _) = audit(&["verify-bundle", "--pubkey", text(&key), text(&bundle)]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.ends_with("PASS: the log holds these lines\n"), "{said}");
    let (code, said, _) = audit(&["verify-bundle", text(&bundle)]);
    assert_eq!(code, Some(1), "by the key that it names itself: {said}");
    assert!(said.contains("the key is the bundle's own"), "{said}");
    let (_, lines, _) = audit(&["verify-bundle", "--pubkey", text(&key), "--lines", text(&bundle)]);
    let expected: Vec<String> =
        [2, 6].iter().map(|at| written().lines().nth(*at).expect("a line").to_owned()).collect();
    assert_eq!(lines.lines().collect::<Vec<_>>(), expected);
    let (code, _, said) = audit(&["prove", "276", "--dir", text(&data("")), "-o", text(&bundle)]);
    assert_eq!(code, Some(4), "what is there is not written over: {said}");
}

#[test]
fn a_run_is_proven_whole_and_what_is_not_there_is_not() {
    let dir = state();
    let prove = |words: &[&str]| {
        let bundle = dir.path().join(words.join("-"));
        let log = data("");
        let (code, _, said) = audit(&[&["prove", "--dir", text(&log), "-o", text(&bundle)], words].concat());
        (code, said, bundle)
    };
    let (code, said, bundle) = prove(&["--run", "01RUN"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.starts_with("300 lines proven"), "{said}");
    let (code, said, _) = audit(&["verify-bundle", "--json", text(&bundle)]);
    let said: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!((code, &said["proven"]["run"], &said["code"]), (Some(1), &"01RUN".into(), &1.into()));
    for words in [&["--run", "01RU"][..], &["--run", "none"], &["9999"]] {
        let (code, said, bundle) = prove(words);
        assert_eq!((code, bundle.exists()), (Some(4), false), "{words:?}: {said}");
    }
}

#[test]
fn a_bundle_that_was_changed_is_refused_whatever_was_changed() {
    let dir = state();
    let (bundle, key) = (dir.path().join("lines.bundle"), data("keys/epoch-1.pub"));
    let (code, _, said) = audit(&["prove", "276", "--dir", text(&data("")), "-o", text(&bundle)]);
    assert_eq!(code, Some(0), "{said}");
    let whole = fs::read_to_string(&bundle).expect("a bundle");
    let judge = |changed: &str| {
        assert_ne!(changed, whole, "it is changed");
        let path = dir.path().join("changed.bundle");
        fs::write(&path, changed).expect("written");
        audit(&["verify-bundle", "--pubkey", text(&key), text(&path)])
    };
    for (what, from, to) in [
        ("a word of the line", "run.adopted", "run.adopter"),
        ("the number", "{\"seq\":276,", "{\"seq\":275,"),
        ("the proof", "\"proof\":[\"", "\"proof\":[\"AAAA"),
        ("the size that was signed", "\\n305\\n", "\\n306\\n"),
    ] {
        let changed = whole.replacen(from, to, 1);
        if what == "the size that was signed" && changed == whole {
            continue;
        }
        let (code, _, said) = judge(&changed);
        assert_eq!(code, Some(3), "{what}: {said}");
        assert!(said.starts_with("FAIL: "), "{what}: {said}");
    }
    for (what, changed) in [
        ("cut", whole[..whole.len() / 2].to_owned()),
        ("a space more", whole.replacen(',', ", ", 1)),
        ("nothing", String::new()),
    ] {
        let (code, _, said) = judge(&changed);
        assert_eq!(code, Some(4), "{what}: {said}");
    }
    let (code, _, said) = audit(&["verify-bundle", text(&dir.path().join("none"))]);
    assert_eq!(code, Some(4), "{said}");
}

#[test]
fn a_line_of_a_changed_log_is_in_no_bundle() {
    let dir = state();
    assert!(Command::new("cp").arg("-a").arg(data("")).arg(dir.path().join("audit")).status().expect("cp").success());
    let segment = dir.path().join("audit/seg/000000000274.jsonl");
    fs::write(&segment, written().replacen("run.adopted", "run.adopter", 1)).expect("written");
    let bundle = dir.path().join("lines.bundle");
    let (code, _, said) = audit(&["prove", "275", "276", "--dir", text(dir.path()), "-o", text(&bundle)]);
    assert_eq!((code, bundle.exists()), (Some(3), false), "{said}");
    let (code, _, said) = audit(&["prove", "276", "--dir", text(dir.path()), "-o", text(&bundle)]);
    assert_eq!(code, Some(0), "the others are: {said}");
}

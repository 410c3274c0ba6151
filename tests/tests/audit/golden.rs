//! What the verbs that read print, to the byte, over the log of version 1 and over a log of every kind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use agent_loop_tests::harness::agent_loop;

use super::{corpus, state};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(name)
}

/// What `audit WORDS LOG` prints.
fn said(words: &[&str], log: &Path) -> String {
    let output = Command::new(agent_loop()).arg("audit").args(words).arg(log).output().expect("it runs");
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// Compares with the committed file; with `AGENT_LOOP_RENEW=1` it is written anew.
fn compare(name: &str, said: &str) {
    let path = data("golden").join(name);
    if std::env::var_os("AGENT_LOOP_RENEW").is_some() {
        fs::create_dir_all(data("golden")).expect("made");
        fs::write(&path, said).expect("written");
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    let renew = "AGENT_LOOP_RENEW=1 cargo test -p agent-loop-tests --test audit golden::";
    assert!(said == expected, "{name} differs; where that is meant, renew it: {renew}\n{said}");
}

#[test]
fn the_log_of_version_1_reads_as_it_always_did() {
    let log = data("audit-v1");
    compare("v1-query.txt", &said(&["query", "--kind", "log", "--kind", "key"], &log));
    compare("v1-query-lines.jsonl", &said(&["query", "--kind", "log.segment", "--json"], &log));
    // It tells of each of its three hundred lines in the same way.
    let why = said(&["why", "01RUN"], &log);
    let ends = why.lines().take(3).chain(why.lines().skip(299));
    compare("v1-why.txt", &ends.map(|line| format!("{line}\n")).collect::<String>());
    compare("v1-tree.txt", &said(&["tree", "01RUN"], &log));
    compare("v1-export.csv", &said(&["export", "--format", "csv", "--kind", "log", "--kind", "key"], &log));
    let whole = said(&["export", "--format", "csv", "--run", "01RUN"], &log);
    assert_eq!(whole.lines().count(), 301, "a head, and a row for each line of the run");
}

#[test]
fn a_log_of_every_kind_reads_as_it_did() {
    let dir = state();
    let log = dir.path().join("events.jsonl");
    // The one with arguments of eighty thousand bytes is of another run.
    let texts: Vec<String> = corpus::texts().into_iter().filter(|text| !text.contains("01KAWXJ7LNG")).collect();
    fs::write(&log, texts.join("\n") + "\n").expect("written");
    compare("query.txt", &said(&["query"], &log));
    compare("why.txt", &said(&["why", "01KAWXJ7RVN"], &log));
    compare("tree.txt", &said(&["tree", "01KAWXJ7RVN"], &log));
    compare("export.csv", &said(&["export", "--format", "csv"], &log));
    // The version is that of the program, which moves on by itself.
    let version = format!("\"version\":\"{}\"", env!("CARGO_PKG_VERSION"));
    let ocsf = said(&["export", "--format", "ocsf"], &log);
    assert!(ocsf.lines().all(|line| line.contains(&version)), "{version}\n{ocsf}");
    compare("export.ocsf.jsonl", &ocsf.replace(&version, "\"version\":\"V\""));
}

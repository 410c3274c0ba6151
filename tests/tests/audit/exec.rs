//! What `exec --state-dir` writes.

use std::fs;
use std::process::Command;

use agent_loop_tests::harness::{Exec, agent_loop};
use agent_loop_tests::needs;

use super::{Second, judged, state};

#[test]
fn a_clean_run_has_no_gap_and_verifies_and_runs_follow_each_other() {
    needs!(bpf, cgroup);
    let dir = state();
    for round in 1..=3 {
        let outcome = Exec::new().arg("--state-dir").arg(dir.path()).cmd(["sh", "-c", "true; /bin/true; exit 3"]).run();
        assert_eq!(outcome.code, 3, "{}", outcome.stderr);
        let report = judged(&dir.path().join("audit"));
        assert_eq!((report.verdict().code(), report.runs), (1, round), "{report:?}");
        assert!(report.gaps.is_empty() && report.lines == report.signed);
    }
    if let Some(mut second) = Second::start() {
        assert_eq!(second.judge(dir.path()), 1);
    }
    let verify =
        Command::new(agent_loop()).args(["audit", "verify", "--account"]).arg(dir.path()).output().expect("run");
    assert_eq!(verify.status.code(), Some(1), "{}", String::from_utf8_lossy(&verify.stderr));
    assert!(String::from_utf8_lossy(&verify.stdout).contains("sums: 3 runs, 0 wrong"));
}

#[test]
fn the_lines_of_events_are_those_of_the_log() {
    needs!(bpf, cgroup);
    let dir = state();
    let outcome = Exec::new().arg("--state-dir").arg(dir.path()).cmd(["sh", "-c", "/bin/true"]).run();
    let events = fs::read_to_string(outcome.path("events.jsonl")).expect("events");
    let log = fs::read_to_string(dir.path().join("audit/seg/000000000000.jsonl")).expect("a log");
    let of_runs: Vec<&str> = log.lines().filter(|line| !line.contains("\"run\":null")).collect();
    assert_eq!(events.lines().collect::<Vec<_>>(), of_runs);
}

#[test]
fn a_second_exec_on_the_same_log_is_refused_and_launches_nothing() {
    needs!(bpf, cgroup);
    let dir = state();
    let marker = dir.path().join("ran");
    let inner =
        format!("{} exec --state-dir {} -- touch {}", agent_loop().display(), dir.path().display(), marker.display());
    let outcome = Exec::new().arg("--state-dir").arg(dir.path()).cmd(["sh", "-c", &format!("{inner}; echo $?")]).run();
    assert_eq!(outcome.stdout.trim(), "125", "{}", outcome.stderr);
    assert!(outcome.stderr.contains("in use") && !marker.exists(), "{}", outcome.stderr);
}

#[test]
fn a_changed_log_is_refused_before_anything_is_launched() {
    needs!(bpf, cgroup);
    let dir = state();
    let _ = Exec::new().arg("--state-dir").arg(dir.path()).cmd(["true"]).run();
    let segment = dir.path().join("audit/seg/000000000000.jsonl");
    let text = fs::read_to_string(&segment).expect("text");
    fs::write(&segment, text.replacen("run.born", "run.bOrn", 1)).expect("written");
    let marker = dir.path().join("ran");
    let outcome =
        Exec::new().arg("--state-dir").arg(dir.path()).cmd(["touch".to_owned(), marker.display().to_string()]).run();
    assert_eq!(outcome.code, 125);
    assert!(outcome.stderr.contains("audit verify") && !marker.exists(), "{}", outcome.stderr);
}

#[test]
fn intents_are_durable_before_what_they_announce() {
    needs!(bpf, cgroup);
    let dir = state();
    // The command itself reads the log: its own birth stands in it before its first instruction.
    let script = format!("grep -c '\"kind\":\"run.born\"' {}/audit/seg/000000000000.jsonl", dir.path().display());
    let outcome = Exec::new().arg("--state-dir").arg(dir.path()).cmd(["sh", "-c", &script]).run();
    assert_eq!(outcome.stdout.trim(), "1", "{}", outcome.stderr);
}

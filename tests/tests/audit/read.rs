//! Reading as a person does it: a log that is being written.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use agent_loop_tests::harness::{Exec, agent_loop};
use agent_loop_tests::needs;

use super::state;

/// What a run of this command leaves in the log.
fn ran(state: &Path, code: &str) {
    let outcome = Exec::new().arg("--state-dir").arg(state).cmd(["sh", "-c", &format!("exit {code}")]).run();
    assert_eq!(outcome.code.to_string(), code, "{}", outcome.stderr);
}

#[test]
fn a_log_is_followed_by_its_command_line_for_line_while_runs_come_and_go() {
    needs!(bpf, cgroup);
    let dir = state();
    ran(dir.path(), "1");
    let mut command = Command::new(agent_loop());
    command.args(["audit", "tail", "-f", "-n", "1", "--kind", "run", "--json"]).arg(dir.path());
    let mut tail = command.stdout(Stdio::piped()).spawn().expect("it runs");
    let mut lines = BufReader::new(tail.stdout.take().expect("a pipe")).lines().map(|line| line.expect("text"));
    let mut told = vec![lines.next().expect("the last line of the first run")];
    assert!(told[0].contains("\"kind\":\"run.exit\""), "{told:?}");
    for code in ["2", "3"] {
        ran(dir.path(), code);
        // Read as it is written: the follower does not end.
        loop {
            told.push(lines.next().expect("it goes on"));
            if told.last().is_some_and(|line| line.contains("\"kind\":\"run.exit\"")) {
                break;
            }
        }
    }
    tail.kill().expect("our child, which nobody has waited for");
    assert_eq!(tail.wait().expect("our child").signal(), Some(9), "it had not ended by itself");
    let segment = fs::read_to_string(dir.path().join("audit/seg/000000000000.jsonl")).expect("text");
    let mut all: Vec<&str> = segment.lines().filter(|line| line.contains("\"kind\":\"run.")).collect();
    let first = all.iter().position(|line| line.contains("\"kind\":\"run.exit\"")).expect("an end");
    assert_eq!(told, all.split_off(first), "each line once, in order, to the byte");
}

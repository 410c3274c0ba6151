//! `audit export --format ocsf`, against the schema that the framework published.

use std::fs;
use std::path::Path;
use std::process::Command;

use agent_loop_tests::harness::{Exec, agent_loop};
use agent_loop_tests::needs;
use jsonschema::Validator;
use serde_json::{Value, json};

use super::{corpus, state};

fn validator() -> Validator {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/ocsf/process_activity.json");
    let schema: Value = serde_json::from_slice(&fs::read(path).expect("the schema")).expect("JSON");
    jsonschema::validator_for(&schema).expect("a schema")
}

fn exported(log: &Path) -> Vec<Value> {
    let output =
        Command::new(agent_loop()).args(["audit", "export", "--format", "ocsf"]).arg(log).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// What is wrong with an event, in words.
fn wrong(validator: &Validator, event: &Value) -> Vec<String> {
    validator.iter_errors(event).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

fn of_kind(events: &[Value], kind: &str) -> usize {
    events.iter().filter(|event| event["metadata"]["event_code"] == kind).count()
}

#[test]
fn every_shape_of_a_birth_an_exec_and_a_death_is_an_event_of_the_framework() {
    let dir = state();
    let log = dir.path().join("events.jsonl");
    let texts = corpus::texts();
    fs::write(&log, texts.join("\n") + "\n").expect("written");
    let events = exported(&log);
    let validator = validator();
    for event in &events {
        assert_eq!(wrong(&validator, event), Vec::<String>::new(), "{event:#}");
    }
    for kind in ["run.born", "proc.fork", "proc.exec", "proc.exit"] {
        let written = texts.iter().filter(|text| text.contains(&format!("\"kind\":\"{kind}\""))).count();
        assert_eq!((of_kind(&events, kind), written > 0), (written, true), "{kind}");
    }
    let all: usize =
        ["run.born", "proc.fork", "proc.exec", "proc.exit"].map(|kind| of_kind(&events, kind)).iter().sum();
    assert_eq!(all, events.len(), "and nothing else is one");
}

#[test]
fn what_is_no_event_of_the_framework_is_found() {
    let dir = state();
    let log = dir.path().join("events.jsonl");
    fs::write(&log, corpus::texts().join("\n") + "\n").expect("written");
    let validator = validator();
    let event = exported(&log).remove(0);
    for (pointer, value) in [
        ("/class_uid", json!(1001)),
        ("/type_uid", json!(100_706)),
        ("/activity_id", json!("1")),
        ("/time", json!("2026-11-22T14:00:00Z")),
        ("/actor", json!({})),
        ("/device", json!({ "type_id": 0 })),
        ("/process/unheard_of", json!(1)),
        ("/metadata/product", json!("agent-loop")),
    ] {
        let mut other = event.clone();
        match pointer.strip_prefix("/process/") {
            Some(name) => other["process"][name] = value,
            None => *other.pointer_mut(pointer).expect("it is there") = value,
        }
        assert!(!wrong(&validator, &other).is_empty(), "{pointer}");
    }
}

#[test]
fn a_real_run_is_exported_whole() {
    needs!(bpf, cgroup);
    let dir = state();
    let script = "/bin/true; sh -c 'kill -SEGV $$'; exit 3";
    let outcome = Exec::new().arg("--state-dir").arg(dir.path()).cmd(["sh", "-c", script]).run();
    assert_eq!(outcome.code, 3, "{}", outcome.stderr);
    let events = exported(dir.path());
    let validator = validator();
    for event in &events {
        assert_eq!(wrong(&validator, event), Vec::<String>::new(), "{event:#}");
    }
    let ends: Vec<&Value> = events.iter().filter(|event| event["activity_id"] == 2).collect();
    assert_eq!(of_kind(&events, "run.born") + of_kind(&events, "proc.fork"), ends.len(), "each birth has its death");
    assert!(ends.iter().any(|end| end["exit_code"] == 3 && end["status"] == "Failure"));
    assert!(ends.iter().any(|end| end["unmapped"]["signal"] == 11));
    assert!(ends.iter().all(|end| end["process"]["created_time"].is_i64() && end["process"]["cmd_line"].is_string()));
}

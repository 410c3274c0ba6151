//! The lines that are written are those of the committed schema.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use agent_loop::audit::log::layout;
use agent_loop::audit::schema;
use agent_loop::audit::{Area, CiBody, Clock, OwnLines, Recorder, TaskBody, TaskKind, TaskLine, WriteBody};
use agent_loop::event::{Fact, Member, Phase};
use agent_loop::model::BootNs;
use agent_loop_tests::harness::Exec;
use agent_loop_tests::needs;
use jsonschema::Validator;
use serde_json::{Value, json};

use super::{corpus, state};

fn validator() -> (Value, Validator) {
    let schema: Value = serde_json::from_str(schema::JSON).expect("JSON");
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    (schema, validator)
}

/// What is wrong with a line, in words.
fn wrong(validator: &Validator, line: &Value) -> Vec<String> {
    validator.iter_errors(line).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

/// The lines of the corpus, and one of each kind of the issue loop.
fn texts() -> Vec<String> {
    let withstands = |clock| {
        let member =
            Member { pid: 7, key: None, state: Some('D'), wchan: Some("rq".to_owned()), comm: Some("cat".to_owned()) };
        let phase = Phase::Unkillable { members: vec![member], since: Duration::from_secs(1) };
        let mut recorder = Recorder::new("b".to_owned(), "01RUN".to_owned(), vec!["sh".to_owned()], "agent".to_owned());
        let line = recorder.fact(&Fact::Phase(phase), clock).expect("a line");
        let mut bytes = Vec::new();
        line.write(&mut bytes);
        String::from_utf8(bytes).expect("text")
    };
    let areas = [Area::Comment, Area::Merge, Area::Forge];
    let writes = areas.into_iter().flat_map(|area| [TaskKind::Intent(area), TaskKind::Result(area)]);
    let clock = Clock { boot: BootNs(5), real_ns: 1_800_000_000_000_000_000 };
    let lines = [TaskKind::State, TaskKind::Verdict].into_iter().chain(writes).map(|kind| {
        let of_write = matches!(kind, TaskKind::Intent(_) | TaskKind::Result(_));
        let line = TaskLine {
            kind,
            issue: "o/r#7".to_owned(),
            task: TaskBody { state: "merging", branch: "issue-7-fix".to_owned(), ..TaskBody::default() },
            write: of_write.then(|| WriteBody { what: "merge", answer: Some("done"), ..WriteBody::default() }),
            ci: (kind == TaskKind::Verdict).then(|| CiBody { verdict: "green", ..CiBody::default() }),
        };
        let mut bytes = Vec::new();
        OwnLines::new("7c1e0d8e-0000-4000-8000-000000000000").task(line, clock).write(&mut bytes);
        String::from_utf8(bytes).expect("text")
    });
    corpus::texts().into_iter().chain(lines).chain([withstands(clock)]).collect()
}

#[test]
fn a_line_of_every_kind_is_valid_and_no_kind_is_left_out() {
    let (schema, validator) = validator();
    let mut seen = BTreeSet::new();
    for text in texts() {
        let line: Value = serde_json::from_str(&text).expect("JSON");
        assert!(text.len() < layout::LONGEST_LINE);
        assert_eq!(wrong(&validator, &line), Vec::<String>::new(), "{text}");
        seen.insert(line["kind"].as_str().expect("a kind").to_owned());
    }
    let kinds: BTreeSet<String> = serde_json::from_value(schema["properties"]["kind"]["enum"].clone()).expect("kinds");
    assert_eq!(seen, kinds);
}

#[test]
fn what_is_no_line_is_not_valid() {
    let (_, validator) = validator();
    let good: Vec<Value> = texts().iter().map(|text| serde_json::from_str(text).expect("JSON")).collect();
    for line in &good {
        let kind = &line["kind"];
        for (field, value) in line.as_object().expect("an object") {
            if ["issue", "run"].contains(&field.as_str()) {
                continue;
            }
            let mut other = line.clone();
            other[field] = match value {
                Value::String(_) => json!(7),
                Value::Null => json!([]),
                Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => json!("7"),
            };
            assert!(!wrong(&validator, &other).is_empty(), "{kind}: {field} of another type");
            let is_extra = ["proof", "why", "clock_ahead_ns", "argv_cut"].contains(&field.as_str());
            let mut less = line.clone();
            less.as_object_mut().expect("an object").remove(field);
            assert!(is_extra || !wrong(&validator, &less).is_empty(), "{kind}: without {field}");
        }
        let mut more = line.clone();
        more["unheard_of"] = json!(1);
        assert!(!wrong(&validator, &more).is_empty(), "{kind}: a field more");
    }
    let mut other = good[0].clone();
    other["kind"] = json!("proc.unheard_of");
    assert!(!wrong(&validator, &other).is_empty(), "another kind");
}

#[test]
fn every_line_of_a_real_run_is_valid_and_its_segment_names_the_schema() {
    needs!(bpf, cgroup);
    let dir = state();
    let script = "/bin/true; sleep 300 & sh -c 'kill -SEGV $$'; exit 3";
    let outcome = Exec::new().arg("--state-dir").arg(dir.path()).cmd(["sh", "-c", script]).run();
    assert_eq!(outcome.code, 3, "{}", outcome.stderr);
    let (_, validator) = validator();
    let log = fs::read_to_string(dir.path().join("audit/seg/000000000000.jsonl")).expect("a log");
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(lines.len() > 15, "{} lines", lines.len());
    for line in &lines {
        assert_eq!(wrong(&validator, line), Vec::<String>::new(), "{line}");
    }
    assert_eq!(lines[0]["segment"]["schema_sha256"], schema::sha256());
}

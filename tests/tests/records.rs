//! The lines of `--events`: their shape is normative, and their sum is checked without agent-loop's help.

use agent_loop_tests::harness::Exec;
use agent_loop_tests::needs;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// The raw lines of a run.
struct Lines(Vec<Value>);

/// A tree with forks, execs, codes, signals, a deadline and leftovers: every kind of line but `gap`.
fn eventful() -> Lines {
    let script =
        "(exit 3); ls >/dev/null; sh -c 'kill -9 $$'; setsid sh -c 'trap \"\" TERM; sleep 50; sleep 50' & sleep 50";
    let outcome = Exec::new().limit("700ms").grace("100ms").cmd(["sh", "-c", script]).run();
    assert_eq!(outcome.code, 124, "{}", outcome.stderr);
    let text = std::fs::read_to_string(outcome.path("events.jsonl")).expect("the events");
    Lines(text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect())
}

impl Lines {
    fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.0.iter().filter(move |line| line["kind"] == kind)
    }

    fn count(&self, kinds: &[&str]) -> u64 {
        kinds.iter().map(|kind| self.of_kind(kind).count() as u64).sum()
    }
}

fn at<'a>(line: &'a Value, path: &str) -> &'a Value {
    line.pointer(path).unwrap_or_else(|| panic!("no {path} in {line}"))
}

#[test]
fn every_line_names_what_its_kind_must() {
    needs!(bpf, cgroup);
    let lines = eventful();
    let kinds: &[(&str, &[&str])] = &[
        ("host.start", &["/host/version", "/host/schema", "/host/kernel", "/host/backend", "/host/degraded"]),
        ("run.intent", &["/argv/0", "/user"]),
        ("run.born", &["/proc/id", "/proc/pid", "/proc/start_ns", "/cgroup/id", "/cgroup/path", "/argv/0", "/user"]),
        ("proc.fork", &["/proc/id", "/proc/pid", "/proc/start_ns", "/parent/id", "/parent/pid", "/inferred"]),
        (
            "proc.exec",
            &[
                "/proc/id",
                "/exec/exe",
                "/exec/argv/0",
                "/exec/argc",
                "/exec/argv_total",
                "/exec/truncated",
                "/exec/cwd",
                "/exec/source",
            ],
        ),
        (
            "proc.exit",
            &[
                "/proc/id",
                "/exit/code",
                "/exit/signal",
                "/exit/core",
                "/exit/oom",
                "/exit/cause",
                "/exit/source",
                "/inferred",
            ],
        ),
        ("signal.intent", &["/to/pid", "/signal", "/proof", "/reason"]),
        ("signal.result", &["/to/pid", "/signal", "/result"]),
        ("run.killed", &["/reason", "/survivors", "/elapsed_ms", "/tree"]),
        ("run.exit", &["/outcome", "/exit/code", "/births", "/deaths", "/leftovers", "/tree"]),
        ("stats", &["/stats/seen", "/stats/written", "/stats/filtered", "/stats/late", "/stats/lost", "/stats/missed"]),
    ];
    for (kind, names) in kinds {
        assert!(lines.count(&[kind]) > 0, "no {kind}");
        for line in lines.of_kind(kind) {
            for name in ["/seq", "/boot_ns", "/time", "/boot_id", "/run", "/issue"].iter().chain(*names) {
                // A kill of the whole cgroup names no process.
                if !(*name == "/to/pid" && line.pointer("/to/cgroup").is_some()) {
                    at(line, name);
                }
            }
        }
    }
    for line in &lines.0 {
        assert!(kinds.iter().any(|(kind, _)| line["kind"] == *kind), "an unknown kind: {line}");
    }
}

#[test]
fn the_sequence_has_no_hole_and_times_are_of_one_boot() {
    needs!(bpf, cgroup);
    let lines = eventful();
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("a boot id");
    for (index, event) in lines.0.iter().enumerate() {
        assert_eq!(at(event, "/seq").as_u64(), Some(index as u64));
        assert_eq!(at(event, "/boot_id").as_str(), Some(boot_id.trim()));
        let time = at(event, "/time").as_str().expect("a time");
        assert!(time.len() == 30 && time.ends_with('Z'), "{time}");
        assert!(at(event, "/boot_ns").as_u64().is_some_and(|ns| ns > 0));
    }
}

#[test]
fn exactly_one_of_code_and_signal_is_known() {
    needs!(bpf, cgroup);
    let lines = eventful();
    for event in lines.of_kind("proc.exit") {
        let known =
            [at(event, "/exit/code"), at(event, "/exit/signal")].iter().filter(|value| !value.is_null()).count();
        assert_eq!(known, 1, "{event}");
    }
    let causes: Vec<_> =
        lines.of_kind("proc.exit").map(|death| at(death, "/exit/cause").as_str().unwrap_or_default()).collect();
    for cause in ["exited", "signal", "stopped_by_us"] {
        assert!(causes.contains(&cause), "{causes:?}");
    }
}

#[test]
fn a_process_id_is_what_the_schema_says() {
    needs!(bpf, cgroup);
    let lines = eventful();
    for event in lines.of_kind("run.born").chain(lines.of_kind("proc.fork")) {
        let mut hash = Sha256::new();
        hash.update(at(event, "/boot_id").as_str().expect("text"));
        hash.update(u32::try_from(at(event, "/proc/pid").as_u64().expect("a number")).expect("fits").to_le_bytes());
        hash.update(at(event, "/proc/start_ns").as_u64().expect("a number").to_le_bytes());
        let id = data_encoding::BASE32_NOPAD.encode(&hash.finalize()[..16]);
        assert_eq!(at(event, "/proc/id").as_str(), Some(id.as_str()));
    }
}

#[test]
fn i20_what_the_kernel_saw_is_written_or_filtered() {
    needs!(bpf, cgroup);
    let lines = eventful();
    let stats = lines.of_kind("stats").next().expect("a sum");
    for (name, written) in [
        ("fork", lines.count(&["run.born", "proc.fork"])),
        ("exec", lines.count(&["proc.exec"])),
        ("exit", lines.count(&["proc.exit"])),
    ] {
        let count = |column: &str| at(stats, &format!("/stats/{column}/{name}")).as_u64().expect("a number");
        assert_eq!(count("written"), written, "{name}: {}", stats);
        assert_eq!(count("seen"), written + count("filtered"), "{name}: {}", stats);
        assert_eq!(count("lost") + count("late"), 0, "{name}: {}", stats);
    }
    assert_eq!(at(stats, "/stats/filtered/exec").as_u64(), Some(1), "the launcher's own exec");
}

#[test]
fn an_intent_stands_before_each_signal_and_its_result_after() {
    needs!(bpf, cgroup);
    let lines = eventful();
    let mut open = Vec::new();
    for event in &lines.0 {
        let who = event.pointer("/to/pid").cloned();
        match event["kind"].as_str().unwrap_or_default() {
            "signal.intent" => open.push((who, at(event, "/signal").clone())),
            "signal.result" | "signal.refused" => {
                let found = open.iter().position(|(_, signal)| signal == at(event, "/signal"));
                open.remove(found.unwrap_or_else(|| panic!("no intent before {event}")));
            }
            _ => {}
        }
    }
    assert!(open.is_empty(), "without a result: {open:?}");
}

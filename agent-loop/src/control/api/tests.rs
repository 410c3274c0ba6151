//! The form of what crosses the socket: programs rely on these names. What an old version wrote must still load.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::*;

/// Every view and request of version 1, as this version writes them.
const VERSION_1: &str = include_str!("v1.json");

fn process() -> ProcessView {
    ProcessView { pid: 4711, start_ns: 123, parent: Some(1), command: "claude -p".to_owned() }
}

fn run() -> RunView {
    let text = |text: &str| Some(text.to_owned());
    RunView {
        run: "01KAP0V4G05E8Q3C9W7D8QK3MP".to_owned(),
        state: "ended".to_owned(),
        argv: vec!["claude".to_owned(), "-p".to_owned()],
        user: "agent".to_owned(),
        submitted: "2026-11-22T20:00:00Z".to_owned(),
        born: text("2026-11-22T20:00:01Z"),
        elapsed_ms: Some(1500),
        remaining_ms: Some(-1),
        main_pid: Some(4711),
        alive: 0,
        output_bytes: Some(12),
        reason: text("deadline"),
        outcome: text("deadline"),
        status: text("SIGKILL"),
        code: None,
        signal: Some(9),
        leftovers: 1,
        proven: Some(true),
        why: vec!["its limit was reached".to_owned()],
    }
}

fn status(keeper: Result<u32, String>) -> StatusView {
    StatusView {
        version: "0.1.0".to_owned(),
        pid: 7,
        backend: "ebpf".to_owned(),
        degraded: vec!["no memory controller".to_owned()],
        keeper,
        since: "2026-11-22T20:00:00Z".to_owned(),
        runs: BTreeMap::from([("running".to_owned(), 1)]),
        max_agents: 4,
        observed: vec![process()],
        lost: 0,
        log: LogView { durable: 4_812, signed: 4_800, checkpoint_age_ms: Some(2_100) },
        forges: Vec::new(),
    }
}

fn start() -> StartRequest {
    let text = |text: &str| Some(text.to_owned());
    StartRequest {
        argv: vec!["true".to_owned()],
        env: vec![("A".to_owned(), "b".to_owned())],
        cwd: Some("/srv".into()),
        stdin: Some("/dev/null".into()),
        limit: text("1h"),
        active_limit: text("1h"),
        idle_limit: text("15m"),
        grace: text("10s"),
        output_bytes: Some(1),
        memory_bytes: Some(2),
        tasks: Some(3),
        cpu_percent: Some(150),
        leftovers: text("kill"),
    }
}

/// One part of the sample: what is written now is what was written then, and that is read as what it was.
fn same<T: Serialize + DeserializeOwned + PartialEq + fmt::Debug>(sample: &Value, name: &str, now: &T) {
    let then = &sample[name];
    assert_eq!(&serde_json::to_value(now).expect("it can be written"), then, "{name}");
    assert_eq!(&serde_json::from_value::<T>(then.clone()).expect("it can be read"), now, "{name}");
}

#[test]
fn version_1_is_written_and_read_as_it_was() {
    let sample: Value = serde_json::from_str(VERSION_1).expect("JSON");
    let id = || run().run;
    same(&sample, "status", &status(Ok(6)));
    let mut before = sample["status"].clone();
    before.as_object_mut().expect("an object").remove("log");
    let before: StatusView = serde_json::from_value(before).expect("a daemon of before says nothing of its log");
    assert_eq!(before, StatusView { log: LogView::default(), ..status(Ok(6)) });
    same(&sample, "status_without_keeper", &status(Err("it ended".to_owned())));
    same(&sample, "runs", &RunsView { runs: vec![run()] });
    same(&sample, "run_that_waits", &RunView { run: id(), state: "queued".to_owned(), ..RunView::default() });
    same(&sample, "tree", &TreeView { run: id(), processes: vec![process()] });
    same(&sample, "start", &start());
    same(&sample, "start_of_a_command", &StartRequest { argv: vec!["true".to_owned()], ..StartRequest::default() });
    same(&sample, "started", &StartedView { run: id() });
    same(&sample, "kill", &KillRequest { reason: "r".to_owned(), dry_run: true });
    let killing = KillView { run: id(), state: "running".to_owned(), processes: vec![process()], dry_run: true };
    same(&sample, "killing", &killing);
    let error = ErrorView { code: "not_found".to_owned(), message: "there is no run X".to_owned() };
    same(&sample, "error", &ErrorBody { error });
    same(&sample, "missed", &MissedView { kind: MissedView::KIND.to_owned(), lines: 3 });
    let (stream, text) = ("stdout".to_owned(), "a line".to_owned());
    same(&sample, "output", &OutputView { run: id(), stream, from: 0, text, ended: true });
}

//! A night that was never lived: the lines of many runs, the same for the same numbers.
//!
//! Its shape is the log's; its names are what an agent could choose to call itself.

use serde_json::{Value, json};

/// When it begins: 2026-11-24 20:00 UTC, nanoseconds since 1970.
const EVENING: u64 = 1_795_550_400_000_000_000;
const SECOND: u64 = 1_000_000_000;
/// How long it is.
const HOURS: u64 = 10;

/// Names that try to be markup, or to hide.
pub const HOSTILE: [&str; 6] = [
    "<script>document.title='taken'</script>",
    "\"><img src=http://127.0.0.1:9/x onerror=alert(1)>",
    "'; </style><style>body{display:none}</style>",
    "make \u{202e}tset\u{202c} \u{1b}[31mred\u{7}\u{0}",
    "]]></title></svg><base href=//127.0.0.1:9/>",
    "&lt;b&gt; &#x3c;i&#x3e; {{7*7}} ${7*7}",
];

/// Makes the lines of a night of so many runs with some so many births and deaths in all.
#[must_use]
pub fn lines(runs: u64, events: u64) -> String {
    let mut lines: Vec<(u64, Value)> = Vec::new();
    let mut dice = Dice(42);
    let each = events / (2 * runs.max(1));
    for run in 0..runs {
        one_run(&mut lines, &mut dice, run, runs, each);
    }
    let gap = gap(EVENING + 5 * 3_600 * SECOND, 95 * SECOND, "disk_full", json!({ "lines": 41 }));
    lines.push(gap);
    lines.sort_by_key(|(at, _)| *at);
    let mut text = String::new();
    for (seq, (at, mut line)) in lines.into_iter().enumerate() {
        line["seq"] = json!(seq);
        line["boot_ns"] = json!(at - EVENING + 7_000 * SECOND);
        line["time"] = json!(time(at));
        line["boot_id"] = json!("7c1e0a52-0000-4000-8000-000000000001");
        text.push_str(&line.to_string());
        text.push('\n');
    }
    text
}

struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end.max(1)
    }
}

/// A moment within the night as RFC 3339.
fn time(at: u64) -> String {
    let seconds = at / SECOND - EVENING / SECOND + 20 * 3_600;
    let (day, of_day) = (24 + seconds / 86_400, seconds % 86_400);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("2026-11-{day:02}T{hour:02}:{minute:02}:{second:02}.{:09}Z", at % SECOND)
}

fn gap(at: u64, before: u64, cause: &str, mut body: Value) -> (u64, Value) {
    body["cause"] = json!(cause);
    body["from_ns"] = json!(at - before - EVENING + 7_000 * SECOND);
    body["to_ns"] = json!(at - EVENING + 7_000 * SECOND);
    (at, json!({ "kind": "gap", "run": null, "issue": null, "gap": body }))
}

fn one_run(lines: &mut Vec<(u64, Value)>, dice: &mut Dice, run: u64, runs: u64, events: u64) {
    let born = EVENING + run * (HOURS * 3_600 * SECOND * 8 / 10) / runs + dice.below(600) * SECOND + 1;
    let lasts = (120 + dice.below(3_480)) * SECOND;
    let end = born + lasts;
    let id = format!("01KAT{run:021}");
    let issue = if run % 7 == 6 { Value::Null } else { json!(format!("{}", 100 + run % 17)) };
    let hostile = HOSTILE.get(usize::try_from(run % 10).unwrap_or(9)).copied();
    let name = ["claude", "codex", "make"].get(usize::try_from(run % 3).unwrap_or(0));
    let argv = json!([name, "-p", hostile.unwrap_or("fix it")]);
    let mut put = |at: u64, kind: &str, mut line: Value| {
        line["kind"] = json!(kind);
        line["run"] = json!(id);
        line["issue"] = issue.clone();
        lines.push((at, line));
    };
    let process =
        |number: u64| json!({ "id": format!("P{run:05}X{number:019}"), "pid": 4_000 + number, "start_ns": number });
    put(born - dice.below(90) * SECOND - 1, "run.intent", json!({ "argv": argv, "user": "agent" }));
    if run % 20 == 19 {
        let exit =
            json!({ "code": null, "signal": null, "core": null, "oom": null, "cause": "unknown", "source": "unknown" });
        let end = json!({ "outcome": "launch_failed", "reason": null, "why": "setting the user", "exit": exit, "births": 0,
            "deaths": 0, "leftovers": 0, "survivors": 0, "tree": "empty" });
        return put(born, "run.exit", end);
    }
    put(born, "run.born", json!({ "proc": process(0), "argv": argv, "user": "agent" }));
    let (mut births, mut deaths) = (1, 0);
    for number in 1..=events {
        // Work comes in bursts.
        let at = born + SECOND + (lasts - 2 * SECOND) / 1_000 * (dice.below(25) * 40 + dice.below(8));
        put(at, "proc.fork", json!({ "proc": process(number), "parent": process(0) }));
        births += 1;
        put(
            at + 1_000,
            "proc.exec",
            json!({ "proc": process(number), "exec": { "exe": "/bin/sh", "argv": ["sh", "-c", HOSTILE[3]] } }),
        );
        let exit =
            json!({ "code": 0, "signal": null, "core": false, "oom": null, "cause": "exited", "source": "kernel" });
        put(
            (at + dice.below(60 * SECOND)).min(end - 10),
            "proc.exit",
            json!({ "proc": process(number), "exit": exit, "inferred": null }),
        );
        deaths += 1;
    }
    let is_open = run % 20 == 13;
    if is_open {
        return;
    }
    let (outcome, code, signal) = match run % 10 {
        3 | 8 => ("ended", json!(2), Value::Null),
        4 => ("deadline", Value::Null, json!(9)),
        5 if run % 20 == 5 => ("ended", Value::Null, Value::Null),
        6 if run % 20 == 6 => ("not_empty", Value::Null, json!(9)),
        _ => ("ended", json!(0), Value::Null),
    };
    if outcome == "deadline" || outcome == "not_empty" {
        let to = json!({ "id": process(0)["id"], "pid": 4_000 });
        for (number, name) in [(30, 2), (20, 15), (10, 9)] {
            let at = end - number * SECOND;
            put(at, "signal.intent", json!({ "to": to, "signal": name, "proof": "pidfs_ino", "reason": "deadline" }));
            if name == 15 {
                put(
                    at + 1,
                    "signal.refused",
                    json!({ "to": to, "signal": name, "result": "refused", "why": "it is in no run of ours" }),
                );
            } else {
                put(
                    at + 1,
                    "signal.result",
                    json!({ "to": to, "signal": name, "proof": "pidfs_ino", "result": "sent" }),
                );
            }
        }
        let survivors = u64::from(outcome == "not_empty");
        let tree = if survivors > 0 { "not empty" } else { "empty" };
        put(
            end - 2,
            "run.killed",
            json!({ "reason": "deadline", "survivors": survivors, "tree": tree, "elapsed_ms": 30_000 }),
        );
    }
    let source = if code.is_null() && signal.is_null() { "unknown" } else { "waitid" };
    let exit =
        json!({ "code": code, "signal": signal, "core": false, "oom": null, "cause": "observed", "source": source });
    put(end - 5, "proc.exit", json!({ "proc": process(0), "exit": exit, "inferred": null }));
    deaths += 1;
    let three = |n: u64, execs: u64, m: u64| json!({ "fork": n, "exec": execs, "exit": m });
    put(
        end,
        "run.exit",
        json!({ "outcome": outcome, "reason": null, "exit": exit, "births": births, "deaths": deaths,
        "leftovers": 0, "survivors": 0, "tree": "empty", "elapsed_ms": lasts / 1_000_000 }),
    );
    put(
        end + 1,
        "stats",
        json!({ "stats": { "seen": three(births, events + 1, deaths), "written": three(births, events, deaths),
        "filtered": three(0, 1, 0), "late": three(0, 0, 0), "lost": three(0, 0, 0), "untracked": 0, "missed": 0 } }),
    );
    if run % 9 == 2 {
        let body = json!({ "id": 1, "lost": three(0, 12, 3), "untracked": 0, "missed": 0, "inferred": three(0, 0, 3), "repaired": true });
        let (at, line) = gap(born + lasts / 2, lasts / 30, "ring_full", body);
        put(at, "gap", line);
    }
}

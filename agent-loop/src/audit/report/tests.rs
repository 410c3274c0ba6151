//! Tests of the report: from lines to a page.

use serde_json::{Value, json};

use super::model::{Outcome, Sending};
use super::{Builder, Report, Selection, html};
use crate::audit::read::NotARecord;

/// A line `ms` milliseconds after midnight.
fn line(ms: u64, kind: &str, run: &str, mut more: Value) -> String {
    more["seq"] = json!(ms);
    more["kind"] = json!(kind);
    more["boot_ns"] = json!(5_000_000_000 + ms * 1_000_000);
    more["time"] = json!(format!("2026-11-25T00:{:02}:{:02}.{:03}Z", ms / 60_000, ms / 1_000 % 60, ms % 1_000));
    more["boot_id"] = json!("7c1e");
    more["run"] = json!(run);
    more.to_string()
}

fn proc(id: &str) -> Value {
    json!({ "id": id, "pid": 70, "start_ns": 1 })
}

fn born(ms: u64, run: &str, issue: Value, argv: &[&str]) -> String {
    line(ms, "run.born", run, json!({ "issue": issue, "proc": proc("MAIN"), "argv": argv, "user": "agent" }))
}

fn exit(code: Option<u8>, signal: Option<u8>) -> Value {
    json!({ "code": code, "signal": signal, "core": false, "oom": null, "cause": "observed", "source": "waitid" })
}

fn ended(ms: u64, run: &str, outcome: &str, exit: &Value) -> String {
    line(
        ms,
        "run.exit",
        run,
        json!({ "outcome": outcome, "exit": exit, "births": 1, "deaths": 0, "leftovers": 0, "tree": "empty" }),
    )
}

fn build(lines: &[String], selection: &Selection) -> Report {
    let mut builder = Builder::default();
    builder.file("seg/000000000000.jsonl".to_owned(), 1);
    lines.iter().for_each(|line| builder.line(line.as_bytes()).expect("of this shape"));
    builder.finish(selection)
}

fn report(lines: &[String]) -> Report {
    build(lines, &Selection::default())
}

#[test]
fn every_end_of_a_run_is_told_as_what_it_is() {
    let ends = [
        ("ended", exit(Some(0), None), Outcome::Succeeded),
        ("ended", exit(Some(1), None), Outcome::Failed),
        ("ended", exit(None, Some(11)), Outcome::Failed),
        ("ended", exit(None, None), Outcome::Unknown),
        ("deadline", exit(None, Some(9)), Outcome::Stopped("deadline".to_owned())),
        ("not_empty", exit(None, Some(9)), Outcome::NotEmpty),
        ("launch_failed", exit(None, None), Outcome::LaunchFailed),
    ];
    for (word, exit, outcome) in ends {
        let report = report(&[born(0, "r", json!(null), &["sh"]), ended(9, "r", word, &exit)]);
        assert_eq!(report.runs[0].outcome, outcome, "{word} {exit}");
    }
    assert_eq!(report(&[born(0, "r", json!(null), &["sh"])]).runs[0].outcome, Outcome::Open);
}

#[test]
fn runs_stand_in_the_lane_of_their_issue_and_those_without_in_one_of_their_own() {
    let issues = [json!(null), json!("7"), json!("o/r#8"), json!(7)];
    let lines: Vec<String> = (0..).zip(issues).map(|(ms, issue)| born(ms, &format!("r{ms}"), issue, &["sh"])).collect();
    let report = report(&lines);
    let lanes: Vec<(Option<&str>, &[usize])> =
        report.lanes.iter().map(|lane| (lane.issue.as_deref(), lane.runs.as_slice())).collect();
    assert_eq!(lanes, [(Some("#7"), &[1, 3][..]), (Some("o/r#8"), &[2]), (None, &[0])]);
}

#[test]
fn a_signal_and_its_result_are_one_act_and_a_refusal_keeps_its_reason() {
    let to = json!({ "id": "MAIN", "pid": 70 });
    let intent = |ms, signal| {
        line(
            ms,
            "signal.intent",
            "r",
            json!({ "to": to, "signal": signal, "proof": "pidfs_ino", "reason": "deadline" }),
        )
    };
    let lines = [
        born(0, "r", json!(null), &["sh"]),
        intent(1, 15),
        line(2, "signal.result", "r", json!({ "to": to, "signal": 15, "result": "sent" })),
        intent(3, 9),
        line(4, "signal.refused", "r", json!({ "to": to, "signal": 9, "result": "refused", "why": "not ours" })),
        intent(5, 9),
    ];
    let report = report(&lines);
    let results: Vec<_> = report.runs[0].acts.iter().map(|act| act.result.clone()).collect();
    assert_eq!(results, [Some(Sending::Sent), Some(Sending::Refused(Some("not ours".to_owned()))), None]);
    assert!(html(&report).contains("unknown: no result in the log"));
}

#[test]
fn who_lives_when_the_main_process_dies_is_a_leftover() {
    let lines = [
        born(0, "r", json!(null), &["sh"]),
        line(1, "proc.fork", "r", json!({ "proc": proc("A") })),
        line(2, "proc.fork", "r", json!({ "proc": proc("B") })),
        line(3, "proc.exec", "r", json!({ "proc": proc("B"), "exec": { "argv": ["sleep", "9"] } })),
        line(4, "proc.exit", "r", json!({ "proc": proc("A"), "exit": exit(Some(0), None) })),
        line(5, "proc.exit", "r", json!({ "proc": proc("MAIN"), "exit": exit(Some(0), None) })),
        line(6, "proc.exit", "r", json!({ "proc": proc("B"), "exit": exit(None, Some(9)) })),
    ];
    let left = &report(&lines).runs[0].left;
    assert_eq!(left.len(), 1);
    assert_eq!((left[0].argv.join(" ").as_str(), left[0].death.is_some()), ("sleep 9", true));
}

#[test]
fn a_gap_keeps_its_bounds_and_loss_and_what_it_does_not_say_is_unknown() {
    let gap = json!({ "gap": { "cause": "ring_full", "lost": { "fork": 0, "exec": 12, "exit": 3 },
        "from_ns": 5_001_000_000_u64, "to_ns": 5_002_000_000_u64, "repaired": true } });
    let lines = [
        born(0, "r", json!(null), &["sh"]),
        line(9, "gap", "r", gap),
        line(10, "gap", "", json!({ "gap": { "cause": "torn_tail", "bytes": 17 } })),
        line(11, "gap", "", json!({ "gap": { "cause": "new_kind_of_loss" } })),
    ];
    let report = report(&lines);
    assert_eq!(report.gaps[0].to - report.gaps[0].from, 1_000_000);
    let page = html(&report);
    for said in ["12 execs, 3 deaths", "17 bytes of a torn line", "how much was lost is unknown", "new_kind_of_loss"] {
        assert!(page.contains(said), "{said}");
    }
}

#[test]
fn what_cannot_be_read_is_counted_and_named() {
    let report = report(&["{\"seq\":".to_owned(), born(1, "r", json!(null), &["sh"]), "\u{0}".to_owned()]);
    assert_eq!((report.evidence.unreadable_total, report.runs.len()), (2, 1));
    assert!(html(&report).contains("2 lines could not be read."));
}

#[test]
fn a_selection_says_what_it_left_out() {
    let lines = [
        born(0, "r1", json!("7"), &["sh"]),
        ended(1_000, "r1", "ended", &exit(Some(0), None)),
        born(5_000, "r2", json!("8"), &["sh"]),
    ];
    let since = report(&lines).runs[1].born;
    for selection in [
        Selection { run: Some("r2".to_owned()), ..Selection::default() },
        Selection { issue: Some("8".to_owned()), ..Selection::default() },
        Selection { since, ..Selection::default() },
    ] {
        let report = build(&lines, &selection);
        assert_eq!(report.runs.iter().map(|run| run.id.as_str()).collect::<Vec<_>>(), ["r2"], "{selection:?}");
        assert!(html(&report).contains("1 of the 2 runs of the log are shown"));
    }
}

#[test]
fn the_same_lines_make_the_same_bytes() {
    let lines: Vec<String> = (0..200).map(|ms| born(ms, &format!("r{ms}"), json!(ms % 9), &["sh"])).collect();
    assert_eq!(html(&report(&lines)), html(&report(&lines)));
}

#[test]
fn no_text_of_the_log_is_markup_wherever_it_stands() {
    const EVIL: &str = "\"'><script>x</script><img src=//h onerror=x>\u{202e}\u{0}";
    let evil = json!(EVIL);
    let to = json!({ "id": EVIL, "pid": 7 });
    let main = json!({ "id": EVIL, "pid": 7, "start_ns": 1 });
    let status = json!({ "code": null, "signal": 9, "cause": EVIL, "source": EVIL });
    let lines = [
        line(
            0,
            "host.start",
            EVIL,
            json!({ "host": { "version": EVIL, "kernel": EVIL, "backend": EVIL, "degraded": [EVIL], "schema": EVIL } }),
        ),
        line(1, "run.born", EVIL, json!({ "issue": EVIL, "proc": main, "argv": [EVIL], "user": EVIL })),
        line(2, "proc.fork", EVIL, json!({ "proc": { "id": "x<", "pid": 8, "start_ns": 2 } })),
        line(
            2,
            "proc.exec",
            EVIL,
            json!({ "proc": { "id": "x<", "pid": 8, "start_ns": 2 }, "exec": { "argv": [EVIL] } }),
        ),
        line(3, "signal.intent", EVIL, json!({ "to": to, "signal": 9, "proof": EVIL, "reason": EVIL })),
        line(4, "signal.refused", EVIL, json!({ "to": to, "signal": 9, "why": EVIL })),
        line(5, "proc.exit", EVIL, json!({ "proc": main, "exit": status })),
        line(6, "proc.exit", EVIL, json!({ "proc": { "id": "x<", "pid": 8, "start_ns": 2 }, "exit": status })),
        line(7, "gap", EVIL, json!({ "gap": { "cause": EVIL } })),
        line(8, "run.stop_asked", EVIL, json!({ "why": EVIL })),
        line(9, "run.killed", EVIL, json!({ "reason": EVIL, "tree": EVIL, "survivors": 1 })),
        line(
            10,
            "run.exit",
            EVIL,
            json!({ "outcome": EVIL, "exit": status, "why": EVIL, "tree": EVIL, "leftovers": 1 }),
        ),
        line(11, EVIL, EVIL, json!({})),
        line(
            12,
            "log.segment",
            "",
            json!({ "segment": { "format": evil, "schema": evil, "log": evil, "redaction_sha256": evil } }),
        ),
        line(13, "retention", "", json!({ "retention": { "first_seq": 0, "lines": 1, "reason": evil } })),
    ];
    let mut builder = Builder::default();
    builder.file(EVIL.to_owned(), 1);
    builder.checkpoint(&format!("{EVIL}\n1\n{EVIL}\ntime {EVIL}\n"));
    builder.key(EVIL.to_owned());
    lines.iter().for_each(|line| builder.line(line.as_bytes()).expect("of this shape"));
    let page = html(&builder.finish(&Selection::default()));
    for never in ["<script", "<img", "\u{202e}", "\u{0}", "'><"] {
        let own = page.matches(never).count();
        assert_eq!(own, 0, "{never:?} stands in the page");
    }
    // As often as the log says it: nothing was dropped to pass.
    assert!(page.matches("&lt;script&gt;").count() >= 25, "{}", page.matches("&lt;script&gt;").count());
}

#[test]
fn a_page_does_not_grow_with_births_that_are_denser_than_pixels() {
    let page = |births: u64| {
        let mut builder = Builder::default();
        builder.line(born(0, "r", json!(null), &["sh"]).as_bytes()).expect("of this shape");
        for number in 0..births {
            let ms = number * 1_000_000 / births;
            let text =
                line(ms, "proc.fork", "r", json!({ "proc": { "id": number.to_string(), "pid": 1, "start_ns": 1 } }));
            builder.line(text.as_bytes()).expect("of this shape");
        }
        html(&builder.finish(&Selection::default())).len()
    };
    let (few, many) = (page(5_000), page(100_000));
    assert!(many < few + 2_000, "{few} bytes of 5,000 births, {many} of 100,000");
}

#[test]
fn the_policy_allows_the_one_style_and_nothing_else() {
    use sha2::{Digest as _, Sha256};
    let page = html(&report(&[]));
    let style = page.split("<style>").nth(1).and_then(|rest| rest.split("</style>").next()).expect("a style");
    let hash = data_encoding::BASE64.encode(&Sha256::digest(style.as_bytes()));
    assert!(
        page.contains(&format!("default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'"))
    );
    assert!(
        !page.contains(" style=") && !page.contains("http:") && !page.contains("https:") && !page.contains("@import")
    );
}

#[test]
fn a_log_of_a_newer_major_of_the_shape_is_refused() {
    let head = |schema: &str| line(0, "log.segment", "", json!({ "segment": { "schema": schema } }));
    let mut builder = Builder::default();
    assert_eq!(builder.line(head("1.9").as_bytes()), Ok(()));
    assert_eq!(builder.line(head("2.0").as_bytes()), Err(NotARecord::Newer("2.0".to_owned())));
}

//! What people read, as files: a change there is a change for them.

use std::collections::BTreeMap;

use super::text::{bytes, columns, span};
use super::*;
use crate::control::api::{KillView, LogView, ProcessView, RunView, StatusView, TreeView};

const PLAIN: Page = Page { width: 80, colour: false };

fn now() -> jiff::Timestamp {
    "2026-11-22T20:00:00Z".parse().expect("a time")
}

fn argv(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn running() -> RunView {
    RunView {
        run: "01KAP0V4G05E8Q3C9W7D8QK3MP".to_owned(),
        state: "running".to_owned(),
        argv: argv(&["claude", "-p", "fix the failing test of the parser, and nothing else, please"]),
        user: "agent".to_owned(),
        submitted: "2026-11-22T19:47:00.123456789Z".to_owned(),
        born: Some("2026-11-22T19:47:01Z".to_owned()),
        elapsed_ms: Some(779_000),
        remaining_ms: Some(2_821_000),
        main_pid: Some(4711),
        alive: 4,
        output_bytes: Some(123_456),
        ..RunView::default()
    }
}

fn ended() -> RunView {
    RunView {
        run: "01KAP0V4G05E8Q3C9W7D8QK3MQ".to_owned(),
        state: "ended".to_owned(),
        argv: argv(&["./nightly.sh"]),
        user: "agent".to_owned(),
        submitted: "2026-11-21T12:00:00Z".to_owned(),
        born: Some("2026-11-21T12:00:00.5Z".to_owned()),
        elapsed_ms: Some(3_610_250),
        remaining_ms: Some(-10_250),
        main_pid: Some(99),
        output_bytes: Some(12),
        reason: Some("deadline".to_owned()),
        outcome: Some("deadline".to_owned()),
        status: Some("SIGKILL".to_owned()),
        signal: Some(9),
        leftovers: 1,
        proven: Some(true),
        why: vec![
            "its limit of 1h was reached at 13:00:00, an hour after its birth on the clock that counts suspend too"
                .to_owned(),
            "SIGINT and SIGTERM were sent on proof of the pidfd's inode and ignored for 5s each".to_owned(),
        ],
        ..RunView::default()
    }
}

fn runs() -> Vec<RunView> {
    let of = |run: &str, state: &str| RunView {
        run: run.to_owned(),
        state: state.to_owned(),
        argv: argv(&["make", "check"]),
        submitted: "2026-11-22T19:59:18Z".to_owned(),
        ..RunView::default()
    };
    vec![
        of("01KAP0V4G05E8Q3C9W7D8QK3MR", "queued"),
        running(),
        RunView {
            remaining_ms: Some(-30_000),
            elapsed_ms: Some(90_000_000),
            alive: 12_345,
            argv: argv(&["表表表表表", "\x1b[2J", "表表表表表表表表表表表表表表"]),
            ..of("01KAP0V4G05E8Q3C9W7D8QK3MS", "unkillable")
        },
        ended(),
        RunView {
            outcome: Some("ended".to_owned()),
            status: Some("exit 0".to_owned()),
            code: Some(0),
            elapsed_ms: Some(850),
            ..of("01KAP0V4G05E8Q3C9W7D8QK3MT", "ended")
        },
        RunView { outcome: Some("lost_to_reboot".to_owned()), ..of("01KAP0V4G05E8Q3C9W7D8QK3MV", "ended") },
    ]
}

fn daemon() -> StatusView {
    StatusView {
        version: "0.1.0".to_owned(),
        pid: 812,
        backend: "ebpf".to_owned(),
        degraded: vec![
            "no memory controller in /sys/fs/cgroup/agent-loop: memory limits are refused, since nothing would hold them"
                .to_owned(),
            "no idle limits: \x1b[31m".to_owned(),
        ],
        keeper: Ok(800),
        since: "2026-11-22T16:55:30Z".to_owned(),
        runs: BTreeMap::from([("queued".to_owned(), 1), ("running".to_owned(), 3)]),
        max_agents: 4,
        observed: vec![process(4711, None, "claude -p 'what somebody else started, with quite a long command line'")],
        lost: 0,
        log: LogView { durable: 4_812, signed: 4_800, checkpoint_age_ms: Some(2_100) },
        forges: Vec::new(),
    }
}

fn process(pid: u32, parent: Option<u32>, command: &str) -> ProcessView {
    ProcessView { pid, start_ns: 1, parent, command: command.to_owned() }
}

fn family() -> TreeView {
    let chain = (100..116).map(|pid| process(pid, Some(if pid == 100 { 20 } else { pid - 1 }), "sh -c deeper"));
    let processes = [
        process(10, Some(1), "claude -p fix"),
        process(20, Some(10), "bash -c 'cargo test'"),
        process(30, Some(10), "node server.js"),
        process(31, Some(30), "node worker.js with many arguments that do not fit on the page at all"),
        process(40, None, "a daemon \x1b[2J"),
        // Each other's parents, as numbers that were used again may seem.
        process(50, Some(51), "one"),
        process(51, Some(50), "other"),
        process(60, Some(60), "its own"),
    ];
    TreeView { run: running().run, processes: processes.into_iter().chain(chain).collect() }
}

fn fits(text: &str) {
    for line in text.lines() {
        assert!(columns(line) <= 80, "{} columns: {line}", columns(line));
        assert!(!line.contains(char::is_control), "{line:?}");
        assert_eq!(line, line.trim_end(), "no blanks at the end");
    }
}

macro_rules! golden {
    ($name:literal, $text:expr) => {{
        let text = $text;
        fits(&text);
        assert_eq!(text, include_str!(concat!("golden/", $name, ".txt")), "{} is now:\n{text}", $name);
    }};
}

#[test]
fn the_table_of_runs_is_aligned_and_fits() {
    golden!("ps", table(&runs(), now(), PLAIN));
}

#[test]
fn a_table_in_a_pipe_is_whole() {
    let text = table(&runs(), now(), Page { width: usize::MAX, colour: false });
    assert!(text.contains("nothing else, please'\n"), "{text}");
}

#[test]
fn the_daemon_is_told_in_full() {
    golden!("status", status(&daemon(), now(), PLAIN));
    let alone = StatusView {
        keeper: Err("it was ended by signal 9; it is started again".to_owned()),
        backend: "pidfd".to_owned(),
        runs: BTreeMap::new(),
        observed: Vec::new(),
        degraded: Vec::new(),
        lost: 1,
        ..daemon()
    };
    golden!("status_alone", status(&alone, now(), PLAIN));
}

#[test]
fn a_run_is_told_in_full() {
    golden!("run_running", run(&running(), now(), PLAIN));
    golden!("run_ended", run(&ended(), now(), PLAIN));
}

#[test]
fn a_word_longer_than_the_page_is_broken_and_none_of_it_lost() {
    for word in ["x".repeat(300), "表".repeat(150), format!("a{}", "表".repeat(150))] {
        let text = run(&RunView { argv: argv(&["say", &word, "end"]), ..running() }, now(), PLAIN);
        fits(&text);
        let (_, command) = text.split_once("command").expect("it is there");
        let (command, _) = command.split_once("user").expect("it is there");
        assert_eq!(command.replace(['\n', ' '], ""), format!("say{word}end"));
    }
}

#[test]
fn why_names_the_end_and_each_piece_of_evidence() {
    golden!("why", why(&ended(), PLAIN) + &why(&running(), PLAIN));
}

#[test]
fn every_process_is_drawn_once_below_its_parent() {
    golden!("tree", tree(&family(), PLAIN));
    let text = tree(&family(), PLAIN);
    for process in family().processes {
        let number = format!("{} ", process.pid);
        let drawn = text.lines().filter(|line| line.trim_start_matches(['│', '├', '└', '─', ' ']).starts_with(&number));
        assert_eq!(drawn.count(), 1, "{}", process.pid);
    }
}

#[test]
fn a_chain_of_ten_thousand_is_drawn() {
    let processes = (1..10_000).map(|pid| process(pid, Some(pid - 1), "sh")).collect();
    let text = tree(&TreeView { run: running().run, processes }, PLAIN);
    assert_eq!(text.lines().count(), 10_000);
    fits(&text);
}

#[test]
fn a_kill_says_what_it_does_or_would() {
    let view = KillView {
        run: running().run,
        state: "running".to_owned(),
        processes: family().processes.into_iter().take(3).collect(),
        dry_run: true,
    };
    golden!("kill", killing(&view, PLAIN) + &killing(&KillView { dry_run: false, ..view.clone() }, PLAIN));
}

#[test]
fn endings_are_sentences() {
    let of = |outcome: &str, status: Option<&str>| {
        let status = status.map(str::to_owned);
        ending(&RunView { outcome: Some(outcome.to_owned()), status, ..ended() }) + "\n"
    };
    let rows = [
        ("ended", Some("exit 3")),
        ("ended", None),
        ("deadline", Some("SIGKILL")),
        ("idle", Some("exit 0")),
        ("operator", Some("SIGTERM")),
        ("launch_failed", None),
        ("lost_to_reboot", None),
        ("withdrawn", None),
        ("not_empty", None),
        ("a word of the future", Some("exit 0")),
    ];
    let text: String = rows.into_iter().map(|(outcome, status)| of(outcome, status)).collect();
    assert_eq!(text, include_str!("golden/endings.txt"), "is now:\n{text}");
}

#[test]
fn events_are_lines_for_people() {
    let lines = [
        r#"{"seq":1,"kind":"run.born","time":"2026-11-22T20:00:00.123456789Z","run":"01KAP0V4G05E8Q3C9W7D8QK3MP","proc":{"id":"A","pid":4711,"start_ns":1},"argv":["claude","-p","fix it"]}"#,
        r#"{"seq":2,"kind":"proc.fork","time":"2026-11-22T20:00:00.2Z","run":"01KAP0V4G05E8Q3C9W7D8QK3MP","proc":{"id":"B","pid":4720,"start_ns":2},"parent":{"id":"A","pid":4711}}"#,
        r#"{"seq":3,"kind":"proc.exec","time":"2026-11-22T20:00:00.3Z","run":"01KAP0V4G05E8Q3C9W7D8QK3MP","proc":{"id":"B","pid":4720,"start_ns":2},"exec":{"exe":"/bin/sh","argv":["sh","-c","echo \u001b[2J and much more that does not fit on a page of eighty columns"]}}"#,
        r#"{"seq":4,"kind":"proc.exit","time":"2026-11-22T20:00:00.4Z","run":"01KAP0V4G05E8Q3C9W7D8QK3MP","proc":{"id":"B","pid":4720,"start_ns":2},"exit":{"code":3,"signal":null}}"#,
        r#"{"seq":5,"kind":"signal.intent","time":"2026-11-22T20:00:01Z","run":"01KAP0V4G05E8Q3C9W7D8QK3MP","to":{"id":null,"pid":null,"cgroup":77},"signal":9,"reason":"deadline"}"#,
        r#"{"seq":6,"kind":"run.exit","time":"2026-11-22T20:00:02Z","run":"01KAP0V4G05E8Q3C9W7D8QK3MP","outcome":"deadline","reason":"deadline","exit":{"code":null,"signal":9},"tree":"empty"}"#,
        r#"{"kind":"of the future","time":"never","more":[1,2]}"#,
        "not JSON \u{1b}[2J",
    ];
    let text: String = lines.iter().map(|line| event(line, PLAIN) + "\n").collect();
    golden!("events", text);
}

#[test]
fn colours_are_for_terminals_and_change_no_width() {
    let coloured = table(&runs(), now(), Page { colour: true, ..PLAIN });
    assert!(coloured.contains("\x1b[32m") && coloured.contains("\x1b[31m"), "{coloured}");
    let mut plain = coloured;
    for code in ["1", "2", "31", "32", "33", "0"] {
        plain = plain.replace(&format!("\x1b[{code}m"), "");
    }
    assert_eq!(plain, table(&runs(), now(), PLAIN));
}

#[test]
fn spans_and_sizes_are_short() {
    let spans = [0, 1, 999, 1000, 59_999, 60_000, 61_000, 3_600_000, 3_661_000, 86_400_000, 90_000_000, u64::MAX];
    assert_eq!(
        spans.map(span),
        ["0s", "1ms", "999ms", "1s", "59s", "1m", "1m 1s", "1h", "1h 1m", "1d", "1d 1h", "213503982334d 14h"]
    );
    let sizes = [0, 1023, 1024, 1536, 1_048_576, 10_000_000_000, u64::MAX];
    assert_eq!(sizes.map(bytes), ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "9.3 GiB", "16777215.9 TiB"]);
}

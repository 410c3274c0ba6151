//! The console on a terminal of so many columns and lines.

use jiff::Timestamp;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use serde_json::json;

use super::picture;
use super::screen::{Key, Look, Screen, Wish};
use crate::control::api::{LogView, ProcessView, QueueView, RepoView, RunView, StatusView, TaskView, TreeView};

const NOW: &str = "2026-11-25T20:00:00Z";

fn run(id: &str, state: &str) -> RunView {
    RunView {
        run: id.to_owned(),
        state: state.to_owned(),
        argv: vec!["claude".to_owned(), "-p".to_owned(), "fix\u{1b}[31m it".to_owned()],
        elapsed_ms: Some(900_000),
        remaining_ms: Some(2_700_000),
        alive: 3,
        output_bytes: Some(12_345),
        ..RunView::default()
    }
}

fn look() -> Look {
    let status = StatusView {
        version: "0.1.0".to_owned(),
        pid: 7,
        backend: "ebpf".to_owned(),
        degraded: Vec::new(),
        keeper: Ok(4_211),
        since: "2026-11-25T17:58:00Z".to_owned(),
        runs: [("running".to_owned(), 2), ("queued".to_owned(), 1)].into(),
        max_agents: 8,
        observed: Vec::new(),
        lost: 0,
        forges: Vec::new(),
        log: LogView { durable: 4_812, signed: 4_800, checkpoint_age_ms: Some(2_100) },
    };
    let task = TaskView {
        issue: "o/r#7".to_owned(),
        state: "ci_wait".to_owned(),
        says: "waiting for the checks of `abc`".to_owned(),
        attempt: 1,
        pull: Some(9),
        ..TaskView::default()
    };
    let repo = RepoView { repo: "o/r".to_owned(), tasks: vec![task], remaining: Some(4_990), ..RepoView::default() };
    let process = |pid, parent, command: &str| ProcessView { pid, start_ns: 1, parent, command: command.to_owned() };
    let first = "01M8A1Z6QYK9JGEB4ZEV1FEVSS";
    let tree = TreeView {
        run: first.to_owned(),
        processes: vec![process(10, None, "claude -p"), process(11, Some(10), "git log")],
    };
    Look {
        status,
        runs: vec![
            run(first, "running"),
            run("01M8A1Z6QYK9JGEB4ZEV1FEVTT", "stopping"),
            run("01M8A1Z6QYK9JGEB4ZEV1FEVUU", "queued"),
        ],
        queue: QueueView { repos: vec![repo] },
        tree: Some(tree),
    }
}

/// What is seen, a string for each line.
fn seen(screen: &Screen, width: u16, height: u16, colour: bool) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
    let now: Timestamp = NOW.parse().expect("a time");
    terminal.draw(|frame| picture::draw(frame, screen, now, colour)).expect("a picture");
    let buffer = terminal.backend().buffer();
    let colours = buffer.content().iter().any(|cell| cell.fg != ratatui::style::Color::Reset);
    assert!(colour || !colours, "a colour where none is seen");
    let lines = buffer.content().chunks(usize::from(width));
    lines.map(|cells| cells.iter().map(ratatui::buffer::Cell::symbol).collect()).collect()
}

fn screen() -> Screen {
    let mut screen = Screen::default();
    screen.take(Ok(look()));
    screen.event(json!({ "kind": "proc.exit", "seq": 9, "time": NOW, "run": "01M8A1Z6QYK9JGEB4ZEV1FEVSS", "proc": { "pid": 12 } }).to_string());
    screen
}

#[test]
fn all_of_it_is_seen_in_eighty_columns_and_twenty_four_lines() {
    let text = seen(&screen(), 80, 24, false);
    let all = text.join("\n");
    assert!(
        text[0].starts_with("agent-loop 0.1.0 · ebpf · keeper 4211 · up 2h 2m") && text[0].ends_with("ok"),
        "{all}"
    );
    assert!(text[1].starts_with("runs 2 of 8 · queued 1 · lost 0 · log 4812 lines, signed 2s ago"), "{all}");
    for wanted in [
        "> EV1FEVSS",
        "running",
        "15m",
        "█░░░░ 45m",
        "12.0 KiB",
        "claude -p",
        "stopping",
        "o/r#7  ci wait, attempt 1: waiting for the checks of `abc` (pull request #9)",
        "o/r: 0 waiting, 0 not taken, 4990 requests left in this hour",
        "10 claude -p",
        "└─ 11 git log",
        "q: quit",
    ] {
        assert!(all.contains(wanted), "{wanted:?} is not in\n{all}");
    }
    assert!(!all.contains('\u{1b}'), "{all:?}");
    assert!(text[20].contains("EV1FEVSS       12  proc.exit") && text[23].contains("q: quit"), "{all}");
}

#[test]
fn no_size_of_a_terminal_is_too_small_or_too_large() {
    for (width, height) in [(1, 1), (20, 5), (79, 23), (80, 24), (120, 40), (300, 100)] {
        for colour in [false, true] {
            seen(&screen(), width, height, colour);
            seen(&Screen::default(), width, height, colour);
        }
    }
}

#[test]
fn what_is_wrong_is_said_in_words() {
    let mut screen = screen();
    let mut bad = look();
    bad.status.degraded = vec!["the disk of the audit log is full".to_owned(), "another".to_owned()];
    screen.take(Ok(bad));
    let text = seen(&screen, 80, 24, false);
    assert!(text[0].ends_with("DEGRADED"), "{text:?}");
    assert!(text[2].starts_with("the disk of the audit log is full (and 1 more: `agent-loop status`)"), "{text:?}");

    // What was seen last stays, and is called old.
    screen.take(Err("no daemon answers".to_owned()));
    let text = seen(&screen, 80, 24, false);
    assert!(text[0].ends_with("OLD") && text[2].starts_with("no daemon answers"), "{text:?}");
    assert!(text.join("\n").contains("V1FEVSS"), "{text:?}");

    let mut alone = Screen::default();
    alone.take(Err("no daemon answers on /run: start it with `agent-loop serve`".to_owned()));
    assert!(seen(&alone, 80, 24, false)[0].starts_with("no daemon answers on /run"));
}

#[test]
fn keys_choose_a_run_and_another_ones_processes_are_not_shown_for_it() {
    let mut screen = screen();
    assert_eq!(screen.place(), Some(0));
    assert_eq!(screen.press(Key::Down), Some(Wish::Look));
    assert_eq!(screen.place(), Some(1));
    assert!(screen.look.as_ref().is_some_and(|look| look.tree.is_none()));
    screen.press(Key::Last);
    screen.press(Key::Down);
    assert_eq!(screen.place(), Some(2), "there is no other after it");
    screen.press(Key::First);
    screen.press(Key::Up);
    assert_eq!(screen.place(), Some(0));
    assert_eq!((screen.press(Key::All), screen.all), (Some(Wish::Look), true));
    assert_eq!(screen.press(Key::Quit), Some(Wish::Quit));

    // The chosen one stays chosen wherever it moves, and gives way once it is gone.
    screen.press(Key::Last);
    let mut next = look();
    next.runs.reverse();
    screen.take(Ok(next.clone()));
    assert_eq!(screen.place(), Some(0));
    next.runs.remove(0);
    screen.take(Ok(next));
    assert_eq!(screen.place(), Some(0));
    assert_eq!(screen.chosen(), Some("01M8A1Z6QYK9JGEB4ZEV1FEVTT"));
}

#[test]
fn the_chosen_one_of_many_is_in_sight() {
    let mut many = look();
    many.runs = (10..90).map(|number| run(&format!("01M8A1Z6QYK9JGEB4ZEV1FEV{number}"), "running")).collect();
    let mut screen = Screen::default();
    screen.take(Ok(many));
    screen.press(Key::Last);
    let text = seen(&screen, 80, 24, false).join("\n");
    assert!(text.contains("FEV89"), "{text}");
    assert!(text.lines().any(|line| line.starts_with("> ")), "{text}");
}

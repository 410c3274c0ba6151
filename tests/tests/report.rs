//! `audit report` in a real browser: what it draws is there, and it asks nobody for anything.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use agent_loop_tests::browser::Browser;
use agent_loop_tests::harness::agent_loop;
use agent_loop_tests::{needs, night};
use serde_json::{Value, json};

/// Writes a night and its report; the directory goes with the returned value.
fn report(runs: u64, events: u64) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (log, page) = (dir.path().join("night.jsonl"), dir.path().join("night.html"));
    fs::write(&log, night::lines(runs, events)).expect("writing the night");
    make(&log, &page);
    (dir, page)
}

fn make(log: &Path, page: &Path) {
    let made =
        Command::new(agent_loop()).args(["audit", "report", "-o"]).arg(page).arg(log).stdin(Stdio::null()).output();
    let made = made.expect("running agent-loop");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

#[test]
fn a_night_of_ten_thousand_events_is_a_page_of_a_bounded_size_and_always_the_same() {
    let (dir, page) = report(40, 10_000);
    let bytes = fs::read(&page).expect("the page");
    assert!(bytes.len() < 400_000, "{} bytes", bytes.len());
    let again = dir.path().join("again.html");
    make(&dir.path().join("night.jsonl"), &again);
    assert!(fs::read(&again).expect("the page") == bytes, "two pages of the same log differ");
}

#[test]
fn in_a_browser_every_bar_is_there_nothing_is_asked_of_the_network_and_nothing_is_wrong() {
    needs!(browser);
    let (_dir, page) = report(40, 10_000);
    let mut browser = Browser::start(1_280, 900);
    for scheme in ["light", "dark"] {
        browser.scheme(scheme);
        let url = browser.open(&page);
        assert_eq!(browser.title(), "agent-loop: 40 runs, 2026-11-24");
        let sizes = browser.script(
            "return [...document.querySelectorAll('a.run')].map(run => {const bar = run.querySelector('rect.bar'); \
             const box = bar.getBoundingClientRect(); const style = getComputedStyle(bar); \
             return [run.dataset.run, box.width, box.height, style.stroke];})",
        );
        let sizes = sizes.as_array().expect("bars");
        assert_eq!(sizes.len(), 40);
        for bar in sizes {
            let size = |place: usize| bar[place].as_f64().expect("a size");
            assert!(size(1) >= 2.0 && size(2) >= 10.0 && bar[3] != "none", "{bar}");
        }
        let ground = browser.script("return getComputedStyle(document.body).backgroundColor");
        assert_eq!(ground, if scheme == "light" { "rgb(255, 255, 255)" } else { "rgb(20, 23, 27)" });
        let foreign = browser.script(
            "return [document.scripts.length, document.images.length, document.querySelectorAll('base,iframe,object').length, \
             document.styleSheets.length]",
        );
        assert_eq!(foreign, json!([0, 0, 0, 1]));
        assert_eq!(browser.requests(), [url]);
        assert_eq!(browser.complaints(), Vec::<Value>::new());
        browser.keep_picture(&format!("night-{scheme}"));
    }
}

#[test]
fn the_page_is_never_wider_than_the_screen_and_its_labels_never_overlap() {
    needs!(browser);
    let (_dir, page) = report(40, 10_000);
    for width in [1_280, 800, 500] {
        let mut browser = Browser::start(width, 900);
        browser.open(&page);
        let over = browser.script("return document.documentElement.scrollWidth - document.documentElement.clientWidth");
        browser.keep_picture(&format!("night-{width}"));
        assert_eq!(over, 0, "at {width}");
        let overlaps = browser.script(
            "let n = 0; for (const axis of document.querySelectorAll('.axis svg')) { let last = -1; \
             for (const text of axis.querySelectorAll('text')) { const box = text.getBoundingClientRect(); \
             if (box.width && box.left < last + 2) n++; if (box.width) last = box.right; } } \
             let low = -1; for (const label of document.querySelectorAll('.lanes .label')) { \
             const box = label.getBoundingClientRect(); if (box.top < low - 1) n++; low = box.bottom; } return n",
        );
        assert_eq!(overlaps, 0, "at {width}");
    }
}

//! The table of `agent-loop ps`.

use super::Page;
use super::text::{Colour, ago, columns, command, cut, paint, short, span, standing, standing_colour};
use crate::control::api::RunView;

/// How its columns are called.
const HEAD: [&str; 6] = ["RUN", "STATE", "AGE", "LEFT", "ALIVE", "COMMAND"];

/// Columns that hold numbers.
const RIGHT: [bool; 6] = [false, false, true, true, true, false];

/// The runs, one on each line.
pub(in crate::cli::client) fn table(runs: &[RunView], now: jiff::Timestamp, page: Page) -> String {
    let ids: Vec<&str> = runs.iter().map(|view| view.run.as_str()).collect();
    let rows: Vec<[String; 6]> = runs.iter().zip(short(&ids)).map(|(view, id)| row(view, id, now)).collect();
    let mut widths = HEAD.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(columns(cell));
        }
    }
    let mut text = line(&HEAD.map(str::to_owned), &widths, page, |_, cell| paint(page, Colour::Bold, cell));
    for (row, view) in rows.iter().zip(runs) {
        text.push_str(&line(row, &widths, page, |at, cell| match at {
            1 => paint(page, standing_colour(view), cell),
            _ => cell.to_owned(),
        }));
    }
    text
}

fn row(view: &RunView, id: String, now: jiff::Timestamp) -> [String; 6] {
    let none = || "-".to_owned();
    let age = view.elapsed_ms.or_else(|| ago(&view.submitted, now)).map_or_else(none, span);
    let left = match (view.state.as_str(), view.remaining_ms) {
        ("ended", _) | (_, None) => none(),
        (_, Some(ms)) => u64::try_from(ms).map_or_else(|_| "over".to_owned(), span),
    };
    [id, cut(&standing(view), 16), age, left, view.alive.to_string(), command(&view.argv)]
}

fn line(cells: &[String; 6], widths: &[usize; 6], page: Page, paint: impl Fn(usize, &str) -> String) -> String {
    let mut text = String::new();
    let mut used = 0;
    for (at, ((cell, width), right)) in cells.iter().zip(widths).zip(RIGHT).enumerate() {
        if at + 1 == cells.len() {
            text.push_str(&paint(at, &cut(cell, page.width.saturating_sub(used))));
            break;
        }
        let pad = " ".repeat(width.saturating_sub(columns(cell)));
        let cell = paint(at, cell);
        text.push_str(&if right { pad + &cell } else { cell + &pad });
        text.push_str("  ");
        used += width + 2;
    }
    text.push('\n');
    text
}

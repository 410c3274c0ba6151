//! Words and numbers as people read them.

use std::collections::BTreeSet;

use crate::control::api::RunView;

use super::Page;

/// A colour, as a terminal code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli::client) enum Colour {
    Bold,
    Dim,
    Red,
    Green,
    Yellow,
}

/// The text in a colour, where colours are seen.
pub(in crate::cli::client) fn paint(page: Page, colour: Colour, text: &str) -> String {
    if !page.colour {
        return text.to_owned();
    }
    let code = match colour {
        Colour::Bold => "1",
        Colour::Dim => "2",
        Colour::Red => "31",
        Colour::Green => "32",
        Colour::Yellow => "33",
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// A text on one line in which nothing is a terminal code: what cannot be printed is escaped.
pub(in crate::cli) fn visible(text: &str) -> String {
    let mut visible = String::with_capacity(text.len());
    for char in text.chars() {
        if matches!(char, '"' | '\'' | '\\') { visible.push(char) } else { visible.extend(char.escape_debug()) }
    }
    visible
}

/// A command line as a shell would take it, nearly: arguments with spaces stand in quotes.
pub(in crate::cli::client) fn command(argv: &[String]) -> String {
    let words = argv.iter().map(|word| {
        let bare = !word.is_empty() && !word.contains(char::is_whitespace);
        if bare { visible(word) } else { format!("'{}'", visible(word)) }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Columns of a terminal that a character takes: two for East Asian wide ones and pictures.
fn columns_of(char: char) -> usize {
    let wide = matches!(u32::from(char),
        0x1100..=0x115f | 0x2e80..=0xa4cf | 0xac00..=0xd7a3 | 0xf900..=0xfaff | 0xfe30..=0xfe6f
        | 0xff00..=0xff60 | 0xffe0..=0xffe6 | 0x1f300..=0x1faff | 0x20000..=0x3fffd);
    if wide { 2 } else { 1 }
}

/// Columns of a terminal that a text takes.
pub(in crate::cli::client) fn columns(text: &str) -> usize {
    text.chars().map(columns_of).sum()
}

/// A text in at most so many columns.
pub(in crate::cli::client) fn cut(text: &str, width: usize) -> String {
    if columns(text) <= width {
        return text.to_owned();
    }
    let mut left = width.saturating_sub(1);
    let mut cut = String::new();
    for char in text.chars() {
        match left.checked_sub(columns_of(char)) {
            Some(rest) => left = rest,
            None => break,
        }
        cut.push(char);
    }
    cut.push('…');
    cut
}

/// A span in its two largest units.
pub(in crate::cli::client) fn span(ms: u64) -> String {
    let seconds = ms / 1000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    let two = |large: u64, name: &str, small: u64, small_name: &str| {
        if small == 0 { format!("{large}{name}") } else { format!("{large}{name} {small}{small_name}") }
    };
    match seconds {
        0 if ms > 0 => format!("{ms}ms"),
        0..60 => format!("{seconds}s"),
        60..3600 => two(minutes, "m", seconds % 60, "s"),
        3600..86400 => two(hours, "h", minutes % 60, "m"),
        86400.. => two(days, "d", hours % 24, "h"),
    }
}

/// How long ago a time of the interface was; nothing for one that is none.
pub(in crate::cli::client) fn ago(time: &str, now: jiff::Timestamp) -> Option<u64> {
    let then: jiff::Timestamp = time.parse().ok()?;
    Some(u64::try_from(now.as_millisecond().saturating_sub(then.as_millisecond())).unwrap_or(0))
}

/// A number of bytes.
pub(in crate::cli::client) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    // Tenths, in integers: no number of bytes is too large for them.
    let (mut tenths, mut unit) = (u128::from(bytes) * 10 / 1024, 0);
    while tenths >= 10240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS.get(unit).unwrap_or(&""))
}

/// So many of a thing.
pub(in crate::cli::client) fn count(number: u64, one: &str, many: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {many}") }
}

/// The shortest endings, from 8 characters on, that tell these runs apart and are no numbers.
pub(in crate::cli::client) fn short(runs: &[&str]) -> Vec<String> {
    let end = |run: &str, length: usize| run.get(run.len().saturating_sub(length)..).unwrap_or(run).to_owned();
    let tells = |length: usize| {
        let ends: BTreeSet<String> = runs.iter().map(|run| end(run, length)).collect();
        ends.len() == runs.len() && ends.iter().all(|end| !end.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let length = (8..26).find(|length| tells(*length)).unwrap_or(26);
    runs.iter().map(|run| end(run, length)).collect()
}

/// In a word: its state, or how it ended.
pub(in crate::cli::client) fn standing(view: &RunView) -> String {
    if view.state != "ended" {
        return visible(&view.state);
    }
    match view.outcome.as_deref() {
        Some("ended") | None => visible(view.status.as_deref().unwrap_or("unknown")),
        Some(outcome) => visible(outcome),
    }
}

/// The colour of that word.
pub(in crate::cli::client) fn standing_colour(view: &RunView) -> Colour {
    match view.state.as_str() {
        "running" => Colour::Green,
        "ended" if view.outcome.as_deref() == Some("ended") && view.code == Some(0) => Colour::Dim,
        "ended" | "unkillable" => Colour::Red,
        _ => Colour::Yellow,
    }
}

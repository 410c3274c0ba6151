//! Times, durations, sizes and signals as people read them.

use super::model::{Exit, Moment};

const SECOND: i64 = 1_000_000_000;

/// A moment in UTC, to the millisecond.
pub(super) fn utc(at: Moment) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(at))
        .map_or_else(|_| "unknown".to_owned(), |time| time.strftime("%Y-%m-%d %H:%M:%S.%3fZ").to_string())
}

/// A part of a moment in UTC, by a pattern of strftime.
pub(super) fn part(at: Moment, pattern: &str) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(at))
        .map_or_else(|_| "?".to_owned(), |time| time.strftime(pattern).to_string())
}

/// A duration with two units at most.
pub(super) fn duration(ns: i64) -> String {
    let ns = ns.max(0);
    let (ms, s) = (ns / 1_000_000, ns / SECOND);
    match s {
        _ if ns < 1_000_000 => format!("{} µs", ns / 1_000),
        0 => format!("{ms} ms"),
        1..10 => format!("{}.{} s", s, ms % 1_000 / 100),
        10..60 => format!("{s} s"),
        60..3_600 => format!("{} min {:02} s", s / 60, s % 60),
        3_600..86_400 => format!("{} h {:02} min", s / 3_600, s / 60 % 60),
        _ => format!("{} d {:02} h", s / 86_400, s / 3_600 % 24),
    }
}

/// A number with thin gaps between thousands.
pub(super) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// A number of things.
pub(super) fn count(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", number(n), if n == 1 { one } else { many })
}

/// A size in bytes.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut unit = 0;
    let mut left = bytes * 10 / 1024;
    while left >= 10_240 && unit + 1 < UNITS.len() {
        left /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", left / 10, left % 10, UNITS.get(unit).copied().unwrap_or_default())
}

/// The name of a signal, with its number where it has none.
pub(super) fn signal(number: u8) -> String {
    nix::sys::signal::Signal::try_from(i32::from(number))
        .map_or_else(|_| format!("signal {number}"), |signal| signal.as_str().to_owned())
}

/// A status in a few words.
pub(super) fn status(exit: Option<&Exit>) -> String {
    let Some(exit) = exit else { return "unknown".to_owned() };
    let core = if exit.core == Some(true) { ", core dumped" } else { "" };
    let oom = if exit.oom == Some(true) { ", out of memory" } else { "" };
    match (exit.code, exit.signal) {
        (Some(code), _) => format!("exit {code}{oom}"),
        (None, Some(number)) => format!("{}{core}{oom}", signal(number)),
        (None, None) => format!("unknown{oom}"),
    }
}

/// The words of a command as one line.
pub(super) fn command(argv: &[String]) -> String {
    const LONGEST: usize = 300;
    let mut text = argv.join(" ");
    if let Some((cut, _)) = text.char_indices().nth(LONGEST) {
        text.truncate(cut);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units_at_most() {
        let said = [1_500, 38_000_000, 4_210_000_000, 59_900_000_000, 62 * SECOND, 3_720 * SECOND, 90_000 * SECOND]
            .map(duration);
        assert_eq!(said, ["1 µs", "38 ms", "4.2 s", "59 s", "1 min 02 s", "1 h 02 min", "1 d 01 h"]);
    }

    #[test]
    fn numbers_sizes_and_signals_are_readable() {
        assert_eq!(number(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(
            (size(1023).as_str(), size(1024).as_str(), size(64 << 20).as_str()),
            ("1023 B", "1.0 KiB", "64.0 MiB")
        );
        assert_eq!((signal(9).as_str(), signal(64).as_str()), ("SIGKILL", "signal 64"));
    }

    #[test]
    fn a_status_that_is_not_known_is_no_success() {
        let exit = |code, signal| Exit { code, signal, core: None, oom: None, cause: None, source: None };
        assert_eq!(status(Some(&exit(Some(0), None))), "exit 0");
        assert_eq!(status(Some(&exit(None, Some(15)))), "SIGTERM");
        assert_eq!((status(Some(&exit(None, None))).as_str(), status(None).as_str()), ("unknown", "unknown"));
    }
}

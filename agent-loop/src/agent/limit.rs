//! Until when a limit of the provider lasts, as its words say. [pure]
//!
//! Known forms: `Claude AI usage limit reached|1790000400`, `You've hit your limit · resets 9am (UTC)`, `5-hour limit reached ∙
//! resets 3:30pm (Europe/Berlin)`, `Weekly limit reached · resets Dec 1, 9am (UTC)`, `… resets Oct 9 at 5pm (…)`.
//!
//! A time of day is one of a time zone. UTC is exact. Of other zones only the offsets of winter and summer are known here,
//! not on which day they change: the later of the two moments is taken, at most an hour too late. A zone that is not known
//! and a time without one say nothing, and the caller waits its default.

use jiff::SignedDuration;
use jiff::civil::{Date, DateTime, Time};

use crate::work::At;

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;
/// No limit of the provider lasts longer: a moment beyond this is no moment.
const LONGEST: i64 = 32 * DAY;

/// What a text says of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reset {
    /// It is over then.
    At(At),
    /// It was reached, and when it is over is not told or not understood.
    Untold,
}

/// Whether a text says that a limit of the provider was reached; `None` where it says nothing of it.
pub(super) fn read(text: &str, now: At) -> Option<Reset> {
    let lower = text.to_lowercase();
    let hit = ["hit your", "reached your"].iter().any(|it| lower.contains(it)) && lower.contains("limit");
    let told = ["limit reached", "limit will reset", "out of extra usage", "out of usage"];
    if !hit && !told.iter().any(|it| lower.contains(it)) {
        return None;
    }
    let at = epoch(&lower).or_else(|| time_of_day(&lower, now));
    Some(at.filter(|at| plausible(*at, now)).map_or(Reset::Untold, Reset::At))
}

/// Whether a moment can be the end of a limit.
pub(super) fn plausible(at: At, now: At) -> bool {
    at > now && at.0.saturating_sub(now.0) <= LONGEST
}

/// Seconds since 1970 after a bar.
fn epoch(text: &str) -> Option<At> {
    let (_, rest) = text.split_once("limit reached|")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok().map(At)
}

/// A time of day after "resets", with a date before it and a zone behind it.
fn time_of_day(text: &str, now: At) -> Option<At> {
    let (_, rest) = ["resets at ", "reset at ", "resets "].iter().find_map(|word| text.split_once(word))?;
    // Somebody's text can follow.
    let rest = rest.lines().next()?;
    let open = rest.find('(')?;
    let when = rest.get(..open)?;
    let zone = rest.get(open + 1..)?.split(')').next()?.trim();
    let mut words: Vec<&str> =
        when.split(|c: char| c.is_whitespace() || c == ',').filter(|it| !it.is_empty() && *it != "at").collect();
    let time = clock(words.pop()?)?;
    let date = match words[..] {
        [] => None,
        [month, day] => Some((month_of(month)?, day.parse().ok()?)),
        _ => return None,
    };
    let (winter, summer) = offsets(zone)?;
    let (one, two) = (moment(date, time, winter, now)?, moment(date, time, summer, now)?);
    // An hour apart: the later. A day apart: the earlier one is still to come, the other has just passed.
    Some(if one.0.abs_diff(two.0) <= 3 * HOUR.unsigned_abs() { one.max(two) } else { one.min(two) })
}

/// `9am`, `3:30pm`, `15:30`.
fn clock(text: &str) -> Option<Time> {
    let (digits, half) = match (text.strip_suffix("am"), text.strip_suffix("pm")) {
        (Some(digits), _) => (digits, Some(0)),
        (None, Some(digits)) => (digits, Some(12)),
        (None, None) => (text, None),
    };
    let (hour, minute) = digits.split_once(':').unwrap_or((digits, "0"));
    let (hour, minute): (i8, i8) = (hour.parse().ok()?, minute.parse().ok()?);
    let hour = match half {
        Some(half) if (1..=12).contains(&hour) => hour % 12 + half,
        // Without a half of the day only hours and minutes are a time.
        None if digits.contains(':') => hour,
        Some(_) | None => return None,
    };
    Time::new(hour, minute, 0, 0).ok()
}

fn month_of(text: &str) -> Option<i8> {
    const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    let at = MONTHS.iter().position(|month| text.starts_with(month))?;
    i8::try_from(at + 1).ok()
}

/// The next moment after `now` at which it is this time, at this date where one is told, in a zone of this offset.
fn moment(date: Option<(i8, i8)>, time: Time, offset: i64, now: At) -> Option<At> {
    let here = civil(now.0.checked_add(offset)?)?;
    let found = match date {
        None => {
            let today = here.date().to_datetime(time);
            if today > here { today } else { today.checked_add(SignedDuration::from_hours(24)).ok()? }
        }
        Some((month, day)) => {
            let this = Date::new(here.year(), month, day).ok()?.to_datetime(time);
            // In December a limit lasts until January.
            if this > here { this } else { Date::new(here.year() + 1, month, day).ok()?.to_datetime(time) }
        }
    };
    Some(At(found.duration_since(BEGINNING).as_secs().checked_sub(offset)?))
}

const BEGINNING: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);

fn civil(seconds: i64) -> Option<DateTime> {
    BEGINNING.checked_add(SignedDuration::from_secs(seconds)).ok()
}

/// The offsets of a zone from UTC in winter and summer, seconds.
fn offsets(zone: &str) -> Option<(i64, i64)> {
    let quarters = |winter: i64, summer: i64| Some((winter * HOUR / 4, summer * HOUR / 4));
    match zone {
        "utc" | "etc/utc" | "gmt" | "etc/gmt" | "z" | "atlantic/reykjavik" | "africa/abidjan" => Some((0, 0)),
        "europe/london" | "europe/dublin" | "europe/lisbon" => quarters(0, 4),
        "europe/berlin" | "europe/paris" | "europe/madrid" | "europe/rome" | "europe/amsterdam" | "europe/vienna"
        | "europe/zurich" | "europe/brussels" | "europe/stockholm" | "europe/oslo" | "europe/copenhagen"
        | "europe/prague" | "europe/warsaw" | "europe/budapest" => quarters(4, 8),
        "europe/athens" | "europe/helsinki" | "europe/kiev" | "europe/kyiv" | "europe/bucharest" | "asia/jerusalem" => {
            quarters(8, 12)
        }
        "europe/istanbul" | "europe/moscow" | "asia/riyadh" | "africa/nairobi" => quarters(12, 12),
        "africa/lagos" => quarters(4, 4),
        "africa/johannesburg" => quarters(8, 8),
        "asia/dubai" => quarters(16, 16),
        "asia/karachi" => quarters(20, 20),
        "asia/kolkata" | "asia/calcutta" => quarters(22, 22),
        "asia/dhaka" => quarters(24, 24),
        "asia/bangkok" | "asia/jakarta" | "asia/saigon" | "asia/ho_chi_minh" => quarters(28, 28),
        "asia/shanghai" | "asia/hong_kong" | "asia/singapore" | "asia/taipei" | "asia/manila" | "australia/perth" => {
            quarters(32, 32)
        }
        "asia/tokyo" | "asia/seoul" => quarters(36, 36),
        "australia/brisbane" => quarters(40, 40),
        "australia/sydney" | "australia/melbourne" => quarters(40, 44),
        "pacific/auckland" => quarters(48, 52),
        "america/sao_paulo" | "america/buenos_aires" | "america/argentina/buenos_aires" => quarters(-12, -12),
        "america/halifax" => quarters(-16, -12),
        "america/new_york" | "america/toronto" | "america/detroit" => quarters(-20, -16),
        "america/bogota" | "america/lima" => quarters(-20, -20),
        "america/chicago" | "america/winnipeg" => quarters(-24, -20),
        "america/mexico_city" => quarters(-24, -24),
        "america/denver" | "america/edmonton" => quarters(-28, -24),
        "america/phoenix" => quarters(-28, -28),
        "america/los_angeles" | "america/vancouver" => quarters(-32, -28),
        "america/anchorage" => quarters(-36, -32),
        "pacific/honolulu" => quarters(-40, -40),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-25 15:40:00 UTC.
    const NOW: At = At(1_795_621_200);

    fn at(text: &str) -> Option<String> {
        match read(text, NOW)? {
            Reset::At(at) => civil(at.0).map(|it| it.strftime("%m-%d %H:%M").to_string()),
            Reset::Untold => Some("untold".to_owned()),
        }
    }

    #[test]
    fn the_known_words_are_understood() {
        assert_eq!(civil(NOW.0).map(|it| it.to_string()).as_deref(), Some("2026-11-25T15:40:00"));
        for (text, expected) in [
            ("You've hit your limit · resets 9am (UTC)", "11-26 09:00"),
            ("You've hit your limit · resets 4pm (UTC)", "11-25 16:00"),
            ("You've hit your session limit · resets 3:40pm (UTC)", "11-26 15:40"),
            ("You've hit your weekly limit · resets Dec 1, 9am (UTC)", "12-01 09:00"),
            ("Weekly limit reached ∙ resets Nov 28 at 5pm (Etc/UTC)", "11-28 17:00"),
            ("5-hour limit reached - resets 12:30am (UTC)", "11-26 00:30"),
            ("5-hour limit reached ∙ resets 12pm (UTC)\nand more", "11-26 12:00"),
            ("Claude usage limit reached. Your limit will reset at 17:05 (UTC).", "11-25 17:05"),
            ("Claude AI usage limit reached|1795626000", "11-25 17:00"),
            // Winter: 16:00 UTC. Summer would be 15:00, an hour before.
            ("You've hit your limit · resets 5pm (Europe/Berlin)", "11-25 16:00"),
            ("You've hit your limit · resets 11am (America/New_York)", "11-25 16:00"),
            ("You've hit your limit · resets 10pm (Asia/Kolkata)", "11-25 16:30"),
            ("You've hit your limit · resets 3am (Australia/Sydney)", "11-25 17:00"),
        ] {
            assert_eq!(at(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn a_limit_whose_end_is_not_understood_is_a_limit_all_the_same() {
        for text in [
            "You've hit your limit",
            "You've hit your monthly spend limit. /model to switch models.",
            "You've hit your limit · resets 9am",
            "You've hit your limit · resets 9am (Mars/Olympus)",
            "You've hit your limit · resets 25am (UTC)",
            "You've hit your limit · resets Feb 30, 9am (UTC)",
            "You've hit your limit · resets Foo 3, 9am (UTC)",
            "You've hit your limit · resets 9 (UTC)",
            "Claude AI usage limit reached|99999999999999999999",
            "Claude AI usage limit reached|17",
            "Claude AI usage limit reached|4102444800",
            "You're out of extra usage",
        ] {
            assert_eq!(at(text).as_deref(), Some("untold"), "{text}");
        }
        for text in ["All is done.", "I set a rate limit in the code.", "resets 9am (UTC)", ""] {
            assert_eq!(read(text, NOW), None, "{text}");
        }
    }

    #[test]
    fn of_a_zone_with_two_offsets_the_moment_is_at_most_an_hour_late_and_never_early() {
        for hour in 0..24 {
            let text = format!("You've hit your limit · resets {hour}:00 (Europe/Berlin)");
            let Some(Reset::At(found)) = read(&text, NOW) else { panic!("{text}") };
            // In November the offset is one hour.
            let truth = moment(None, Time::new(hour, 0, 0, 0).expect("an hour"), HOUR, NOW).expect("a moment");
            let late = found.0 - truth.0;
            assert!(late == 0 || late == HOUR, "{text}: {late}");
        }
    }
}

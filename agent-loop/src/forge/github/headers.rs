//! What GitHub says in the headers of its answers: limits, its clock, the next page.

use std::time::Duration;

use hyper::HeaderMap;

use crate::forge::{At, LimitKind, RateLimit};

/// How long to be quiet where the forge does not say: "at least one minute".
const QUIET: Duration = Duration::from_secs(60);
/// The longest that a header can make us quiet: the hourly limit lasts an hour.
const LONGEST: Duration = Duration::from_secs(3_700);

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    text(headers, name)?.trim().parse().ok()
}

/// The forge's clock.
pub(super) fn date(headers: &HeaderMap) -> Option<At> {
    let parser = jiff::fmt::rfc2822::DateTimeParser::new();
    parser.parse_timestamp(text(headers, "date")?).ok().map(|time| At(time.as_second()))
}

/// The hourly limit. Other resources have limits of their own, which are not this one.
pub(super) fn hourly(headers: &HeaderMap) -> Option<RateLimit> {
    if text(headers, "x-ratelimit-resource").is_some_and(|resource| resource != "core") {
        return None;
    }
    Some(RateLimit {
        limit: number(headers, "x-ratelimit-limit")?,
        remaining: number(headers, "x-ratelimit-remaining")?,
        reset: At(i64::try_from(number(headers, "x-ratelimit-reset")?).ok()?),
    })
}

/// Whether an answer is a limit, which, and for how long: 403 is a limit or a refusal.
pub(super) fn limit(status: u16, headers: &HeaderMap, said: &str, now: Option<At>) -> Option<(LimitKind, Duration)> {
    if !matches!(status, 403 | 429) {
        return None;
    }
    let spent = number(headers, "x-ratelimit-remaining") == Some(0);
    let kind = if spent { LimitKind::Primary } else { LimitKind::Secondary };
    let after = number(headers, "retry-after").map(Duration::from_secs);
    let reset = number(headers, "x-ratelimit-reset").and_then(|reset| i64::try_from(reset).ok()).map(At);
    // By the forge's own clock: ours may be wrong by more than the hour.
    let until_reset = reset.zip(now).map(|(reset, now)| Duration::from_secs(reset.since(now).saturating_add(1)));
    let lower = said.to_ascii_lowercase();
    let told = lower.contains("rate limit") || lower.contains("abuse");
    let wait = match (after, spent) {
        (Some(after), _) => after,
        (None, true) => until_reset.unwrap_or(QUIET),
        (None, false) if status == 429 || told => QUIET,
        (None, false) => return None,
    };
    Some((kind, wait.min(LONGEST)))
}

/// The URL of the next page (RFC 8288).
pub(super) fn next(headers: &HeaderMap) -> Option<String> {
    for link in headers.get_all("link") {
        for part in link.to_str().ok()?.split(',') {
            let (url, parameters) = part.trim().strip_prefix('<')?.split_once('>')?;
            let is_next = parameters.split(';').any(|it| matches!(it.trim(), "rel=\"next\"" | "rel=next"));
            if is_next {
                return Some(url.to_owned());
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use hyper::header::{HeaderName, HeaderValue};

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn a_403_is_a_limit_only_where_the_forge_says_so() {
        let limit = |pairs: &[_], said| limit(403, &headers(pairs), said, Some(At(1_000)));
        assert_eq!(limit(&[], "Resource not accessible by integration"), None);
        assert_eq!(limit(&[("x-ratelimit-remaining", "17")], "Must have admin rights"), None);
        let spent = [("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1030")];
        assert_eq!(limit(&spent, ""), Some((LimitKind::Primary, Duration::from_secs(31))));
        assert_eq!(limit(&[("retry-after", "7")], ""), Some((LimitKind::Secondary, Duration::from_secs(7))));
        let told = "You have exceeded a secondary rate limit";
        assert_eq!(limit(&[], told), Some((LimitKind::Secondary, QUIET)));
    }

    #[test]
    fn other_answers_are_no_limit_and_a_429_always_is_one() {
        assert_eq!(limit(404, &headers(&[("retry-after", "7")]), "", None), None);
        assert_eq!(limit(429, &headers(&[]), "", None), Some((LimitKind::Secondary, QUIET)));
        let far = headers(&[("retry-after", "99999999")]);
        assert_eq!(limit(429, &far, "", None), Some((LimitKind::Secondary, LONGEST)));
    }

    #[test]
    fn the_next_page_is_read_among_others() {
        let link = headers(&[("link", "<https://f/x?page=1>; rel=\"prev\", <https://f/x?page=3>; rel=\"next\"")]);
        assert_eq!(next(&link).as_deref(), Some("https://f/x?page=3"));
        assert_eq!(next(&headers(&[("link", "<https://f/x?page=1>; rel=\"last\"")])), None);
        assert_eq!(next(&headers(&[("link", "nonsense")])), None);
    }

    #[test]
    fn the_clock_of_the_forge_is_read() {
        assert_eq!(date(&headers(&[("date", "Thu, 01 Jan 1970 00:01:40 GMT")])), Some(At(100)));
        assert_eq!(date(&headers(&[("date", "yesterday")])), None);
    }

    #[test]
    fn the_limit_of_another_resource_is_not_the_hourly_one() {
        let of = |resource| {
            hourly(&headers(&[
                ("x-ratelimit-limit", "5000"),
                ("x-ratelimit-remaining", "4999"),
                ("x-ratelimit-reset", "9"),
                ("x-ratelimit-resource", resource),
            ]))
        };
        assert_eq!(of("core"), Some(RateLimit { limit: 5_000, remaining: 4_999, reset: At(9) }));
        assert_eq!(of("search"), None);
    }
}

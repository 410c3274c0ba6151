//! The state file of `agent_loop.py`, as that wrote it. [pure]

use serde::Deserialize;
use serde_json::Value;

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Old {
    /// The process that it took for its agent; none while it waited for CI.
    pub(super) pid: Option<u32>,
    /// The issue.
    pub(super) issue: Option<u64>,
    /// When it wrote that, seconds since 1970, and in its own words.
    pub(super) started: Option<(i64, String)>,
    /// What it was at: `issue`, `ci-fix`, `pending-ci`.
    pub(super) kind: Option<String>,
    /// The name that it gave the session of `claude`.
    pub(super) session: Option<String>,
}

#[derive(Deserialize)]
struct Wire {
    pid: Option<Value>,
    issue: Option<Value>,
    started_at: Option<Value>,
    #[serde(rename = "type")]
    kind: Option<Value>,
    session_name: Option<Value>,
}

/// Reads the file.
///
/// # Errors
/// What makes no sense in it, with the place.
pub(super) fn parse(text: &str) -> Result<Old, String> {
    if text.trim().is_empty() {
        return Err("it is empty".to_owned());
    }
    let value: Value = serde_json::from_str(text).map_err(|error| format!("it is not JSON: {error}"))?;
    if !value.is_object() {
        return Err("it is JSON, and not an object with `pid`, `issue` and `started_at`".to_owned());
    }
    let wire: Wire = serde_json::from_value(value).map_err(|error| error.to_string())?;
    if wire.pid.is_none() && wire.issue.is_none() && wire.started_at.is_none() {
        return Err("it has neither `pid` nor `issue` nor `started_at`: it is no state of agent_loop.py".to_owned());
    }
    let pid = number("pid", wire.pid)?.map(|pid| {
        // What the kernel can have given out: numbers are below 4,194,304 (PID_MAX_LIMIT).
        u32::try_from(pid)
            .ok()
            .filter(|pid| (1..4_194_304).contains(pid))
            .ok_or(format!("`pid` is {pid}: no process has that"))
    });
    let started = text_of("started_at", wire.started_at)?.map(|text| {
        let time: Result<jiff::Timestamp, _> = text.parse();
        time.map(|time| (time.as_second(), text.clone())).map_err(|_| format!("`started_at` is no time: {text:?}"))
    });
    Ok(Old {
        pid: pid.transpose()?,
        issue: number("issue", wire.issue)?.filter(|issue| *issue > 0),
        started: started.transpose()?,
        kind: text_of("type", wire.kind)?,
        session: text_of("session_name", wire.session_name)?,
    })
}

fn number(name: &str, value: Option<Value>) -> Result<Option<u64>, String> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64() {
            Some(number) => Ok(Some(number)),
            None => Err(format!("`{name}` is {value}: no number that can be one")),
        },
    }
}

fn text_of(name: &str, value: Option<Value>) -> Result<Option<String>, String> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.chars().take(200).collect())),
        Some(other) => Err(format!("`{name}` is {other}: no text")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_script_wrote_is_read() {
        let text = r#"{"pid": 12345, "issue": 91, "started_at": "2026-05-15T12:00:00.123456+00:00", "type": "issue",
                       "issue_title": "t", "session_name": "issue-91", "ci_run_id_at_start": 7}"#;
        let old = parse(text).expect("it is one");
        assert_eq!((old.pid, old.issue, old.session.as_deref()), (Some(12345), Some(91), Some("issue-91")));
        assert_eq!(old.started.expect("a time").0, 1_778_846_400);
        let waiting =
            parse(r#"{"pid": null, "issue": 91, "started_at": "2026-05-15T12:00:00+00:00", "type": "pending-ci"}"#);
        assert_eq!(waiting.expect("it is one").pid, None);
    }

    #[test]
    fn what_makes_no_sense_is_told_and_never_taken_for_no_agent() {
        for (text, why) in [
            ("", "empty"),
            ("{\"pid\": 12", "not JSON"),
            ("[1]", "not an object"),
            ("{}", "neither"),
            ("{\"pid\": -1}", "`pid` is -1"),
            ("{\"pid\": 0}", "`pid` is 0"),
            ("{\"pid\": 99999999999}", "`pid` is 99999999999"),
            ("{\"pid\": \"1\"}", "`pid` is \"1\""),
            ("{\"pid\": 7, \"started_at\": \"yesterday\"}", "`started_at` is no time"),
            ("{\"pid\": 7, \"issue\": \"#9\"}", "`issue` is"),
        ] {
            let told = parse(text).expect_err(text);
            assert!(told.contains(why), "{text}: {told}");
        }
    }
}

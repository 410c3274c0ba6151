//! What `claude -p --output-format stream-json` says, read as it comes. [pure]
//!
//! One JSON document on each line; what is not understood is counted and passed over, keys may come in any order. The last
//! `result` of our session counts. Whatever it says is the word of a process of the agent: it is judged, not believed.

use serde_json::Value;

use super::session::SessionId;
use super::words::{Keep, clean};

/// The longest line that is read, bytes; longer ones are passed over and counted.
const LINE: usize = 4 << 20;
/// The most bytes of a text that are kept.
const TEXT: usize = 4 << 10;

/// What an agent said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Told {
    /// The session that it says it is.
    pub session: Option<String>,
    /// The version that it says it is.
    pub version: Option<String>,
    /// Its turns.
    pub turns: Option<u64>,
    /// What it cost, US dollars.
    pub cost_usd: Option<f64>,
    /// Whether its result is an error; `None` where there is no result.
    pub is_error: Option<bool>,
    /// The kind of its result: `success`, `error_max_turns`.
    pub subtype: Option<String>,
    /// The text of its result, or its errors; at most 4 KiB.
    pub result: Option<String>,
    /// How often a tool was denied to it.
    pub denied: u64,
    /// What its provider said last, where that was an error.
    pub api_error: Option<ApiError>,
    /// A limit of its provider that was reached, and when it is over.
    pub limit: Option<Limit>,
    /// Lines that were read.
    pub lines: u64,
    /// Lines that are no JSON, too long, or a result of another session.
    pub garbage: u64,
    /// The last of them, at most 4 KiB: an agent that cannot begin says why in words.
    pub last_words: Option<String>,
}

/// What went wrong between an agent and its provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiError {
    /// It is not logged in, or may not use it, or did not pay.
    NotLetIn,
    /// Too much at once, or in all.
    RateLimit,
    /// The provider has trouble.
    Provider,
    /// Another word.
    Other,
}

/// A limit of the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// When it is over, seconds since 1970, where that was told.
    pub resets: Option<i64>,
}

/// Reads output piece by piece.
#[derive(Debug)]
pub struct Stream {
    session: Option<String>,
    line: Vec<u8>,
    skipping: bool,
    told: Told,
}

impl Stream {
    /// A stream; with a session, results of others in it (an agent may run another one) are not taken for its own.
    #[must_use]
    pub fn new(session: Option<SessionId>) -> Self {
        Self { session: session.map(|it| it.to_string()), line: Vec::new(), skipping: false, told: Told::default() }
    }

    /// Takes the next bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let whole = part.ends_with(b"\n");
            if !self.skipping {
                self.line.extend_from_slice(part);
                if self.line.len() > LINE {
                    self.skipping = true;
                    self.line = Vec::new();
                }
            }
            if whole {
                self.end_line();
            }
        }
    }

    /// What was told so far.
    #[must_use]
    pub const fn so_far(&self) -> &Told {
        &self.told
    }

    /// What was told in all.
    #[must_use]
    pub fn finish(mut self) -> Told {
        if self.skipping || !self.line.is_empty() {
            self.end_line();
        }
        self.told
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        self.told.lines += 1;
        if std::mem::take(&mut self.skipping) {
            self.told.garbage += 1;
            return;
        }
        let text = line.trim_ascii();
        if text.is_empty() {
            return;
        }
        match serde_json::from_slice::<Value>(text) {
            Ok(value) if value.is_object() => self.document(&value),
            Ok(_) | Err(_) => {
                self.told.garbage += 1;
                self.told.last_words = Some(clean(&String::from_utf8_lossy(text), TEXT, Keep::End));
            }
        }
    }

    fn document(&mut self, document: &Value) {
        let word = |name: &str| document.get(name).and_then(Value::as_str);
        let session = word("session_id");
        let ours = match (&self.session, session) {
            (Some(ours), Some(theirs)) => ours == theirs,
            (Some(_) | None, None) | (None, Some(_)) => true,
        };
        if !ours {
            self.told.garbage += 1;
            return;
        }
        if let Some(session) = session {
            self.told.session = Some(short(session));
        }
        match word("type") {
            Some("system") => {
                if let Some(version) = word("claude_code_version") {
                    self.told.version = Some(short(version));
                }
            }
            // An error of the provider stands beside the words that claude makes of it; a later answer says that it is over.
            Some("assistant") => self.told.api_error = word("error").map(api_error),
            Some("rate_limit_event") => self.rate_limit(document.get("rate_limit_info").unwrap_or(&Value::Null)),
            Some("result") => self.result(document),
            Some(_) | None => {}
        }
    }

    fn rate_limit(&mut self, info: &Value) {
        let rejected = info.get("status").and_then(Value::as_str) == Some("rejected");
        // Beyond a limit it may go on by other means.
        let goes_on = info.get("isUsingOverage").and_then(Value::as_bool) == Some(true);
        let resets = info.get("resetsAt").and_then(Value::as_f64).filter(|it| it.is_finite() && it.abs() < 1e15);
        #[expect(clippy::cast_possible_truncation, reason = "it was just bounded")]
        let resets = resets.map(|it| it as i64);
        self.told.limit = (rejected && !goes_on).then_some(Limit { resets });
    }

    fn result(&mut self, result: &Value) {
        let told = &mut self.told;
        told.turns = result.get("num_turns").and_then(Value::as_u64);
        told.cost_usd = result.get("total_cost_usd").and_then(Value::as_f64).filter(|it| it.is_finite() && *it >= 0.0);
        // What does not say that it is none is an error.
        told.is_error = Some(result.get("is_error").and_then(Value::as_bool).unwrap_or(true));
        told.subtype = result.get("subtype").and_then(Value::as_str).map(short);
        told.denied = result.get("permission_denials").and_then(Value::as_array).map_or(0, |it| it.len() as u64);
        let errors = result.get("errors").and_then(Value::as_array).into_iter().flatten();
        let errors: Vec<&str> = errors.filter_map(Value::as_str).collect();
        let text = result.get("result").and_then(Value::as_str).map(str::to_owned);
        let text = text.or_else(|| (!errors.is_empty()).then(|| errors.join("; ")));
        told.result = text.map(|text| clean(&text, TEXT, Keep::End));
        if let Some(status) = result.get("api_error_status").and_then(Value::as_u64) {
            told.api_error = Some(match status {
                401..=403 => ApiError::NotLetIn,
                429 => ApiError::RateLimit,
                500..=599 => ApiError::Provider,
                _ => ApiError::Other,
            });
        }
    }
}

fn api_error(word: &str) -> ApiError {
    match word {
        "authentication_failed" | "oauth_org_not_allowed" | "billing_error" => ApiError::NotLetIn,
        "rate_limit" => ApiError::RateLimit,
        "overloaded" | "server_error" => ApiError::Provider,
        _ => ApiError::Other,
    }
}

fn short(text: &str) -> String {
    super::words::line(text, 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORK: &[u8] = include_bytes!("testdata/work.jsonl");

    fn session() -> SessionId {
        "01234567-89ab-4def-8123-456789abcdef".parse().expect("a session")
    }

    fn told(bytes: &[u8]) -> Told {
        let mut stream = Stream::new(Some(session()));
        stream.feed(bytes);
        stream.finish()
    }

    #[test]
    fn a_real_stream_is_read() {
        let work = told(WORK);
        assert_eq!(work.session, Some(session().to_string()));
        assert_eq!(work.version.as_deref(), Some("2.1.197"));
        assert_eq!((work.turns, work.cost_usd, work.is_error), (Some(2), Some(0.0015), Some(false)));
        assert_eq!((work.subtype.as_deref(), work.result.as_deref()), (Some("success"), Some("All is done.")));
        assert_eq!((work.denied, work.api_error, work.limit, work.lines, work.garbage), (0, None, None, 5, 0));

        let turns = told(include_bytes!("testdata/turns.jsonl"));
        assert_eq!((turns.is_error, turns.subtype.as_deref()), (Some(true), Some("error_max_turns")));
        assert_eq!(turns.result.as_deref(), Some("Reached maximum number of turns (1)"));
        let denied = told(include_bytes!("testdata/denied.jsonl"));
        assert_eq!((denied.is_error, denied.denied), (Some(false), 1));
        let limit = told(include_bytes!("testdata/limit.jsonl"));
        assert_eq!((limit.is_error, limit.api_error), (Some(true), Some(ApiError::RateLimit)));
    }

    #[test]
    fn it_is_the_same_however_it_is_cut_into_pieces() {
        for size in [1, 2, 7, 1_000] {
            let mut stream = Stream::new(Some(session()));
            WORK.chunks(size).for_each(|piece| stream.feed(piece));
            assert_eq!(stream.finish(), told(WORK), "pieces of {size}");
        }
    }

    #[test]
    fn garbage_is_passed_over_and_counted() {
        let mut bytes = b"Not JSON \x1b[31m\n[1]\nnull\n\n{\"type\": 7}\n\xff\xfe\n{\"type\":\"result\"".to_vec();
        bytes.extend(b"\n");
        bytes.extend(WORK);
        let read = told(&bytes);
        assert_eq!((read.garbage, read.is_error), (5, Some(false)));
        assert_eq!(told(b"Not logged in").last_words.as_deref(), Some("Not logged in"));
    }

    #[test]
    fn a_line_without_end_takes_no_memory_and_the_next_one_is_read() {
        let mut stream = Stream::new(Some(session()));
        for _ in 0..40 {
            stream.feed(&vec![b'{'; 1 << 20]);
            assert!(stream.line.capacity() <= 4 * LINE);
        }
        stream.feed(b"\n");
        stream.feed(WORK);
        let read = stream.finish();
        assert_eq!((read.garbage, read.lines, read.is_error), (1, 6, Some(false)));
    }

    #[test]
    fn the_result_of_another_session_is_not_its_own() {
        let other = String::from_utf8_lossy(WORK).replace("01234567-89ab", "01234567-0000");
        let read = told(other.as_bytes());
        assert_eq!((read.is_error, read.garbage), (None, 5));
    }

    #[test]
    fn a_limit_that_is_told_is_kept_until_it_is_told_to_be_over() {
        let event = |status: &str, more: &str| {
            format!(
                r#"{{"rate_limit_info":{{"status":"{status}","resetsAt":1790000400{more}}},"type":"rate_limit_event"}}"#
            )
        };
        let rejected = event("rejected", "");
        assert_eq!(told(rejected.as_bytes()).limit, Some(Limit { resets: Some(1_790_000_400) }));
        let over = format!("{rejected}\n{}", event("allowed", ""));
        assert_eq!(told(over.as_bytes()).limit, None);
        assert_eq!(told(event("rejected", r#","isUsingOverage":true"#).as_bytes()).limit, None);
        assert_eq!(told(event("allowed_warning", "").as_bytes()).limit, None);
    }

    #[test]
    fn a_result_that_does_not_say_that_it_is_no_error_is_one() {
        for result in [r#"{"type":"result"}"#, r#"{"type":"result","is_error":"false"}"#] {
            assert_eq!(told(result.as_bytes()).is_error, Some(true), "{result}");
        }
    }
}

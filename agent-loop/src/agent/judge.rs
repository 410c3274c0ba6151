//! What came out of a run: from how it ended and what it said. [pure]
//!
//! An exit code of 0 is no evidence of work, and 1 none of failure: a result is. That commits are there is looked at
//! afterwards, by the loop; "worked" here is what the agent says.

use super::command::Preset;
use super::limit::{self, Reset};
use super::stream::{ApiError, Told};
use super::words::line;
use crate::event::Outcome;
use crate::model::{StopReason, WaitStatus};
use crate::run::{End, RunOutcome};
use crate::work::{At, RunEnd};

/// The most characters of somebody's words in a reason.
const SHOWN: usize = 400;
/// After the moment that a limit is said to be over, seconds.
const MARGIN: u64 = 60;

/// How long is waited for a limit of a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waits {
    /// Where it is not told when it is over, seconds.
    pub default: u64,
    /// The longest, whatever is told, seconds.
    pub longest: u64,
}

impl Default for Waits {
    fn default() -> Self {
        Self { default: 3_600, longest: 8 * 24 * 3_600 }
    }
}

/// What came out of a run that is over and whose tree was proven empty. `now` is the forge's clock.
#[must_use]
pub fn judge(preset: Preset, end: &End, told: &Told, now: At, waits: Waits) -> RunEnd {
    let outcome = match &end.outcome {
        RunOutcome::Finished(outcome) => outcome,
        RunOutcome::LostToReboot => return host("the host was started again meanwhile"),
        RunOutcome::Lost => return host("whether and how it ran is not known"),
        RunOutcome::Withdrawn => return RunEnd::Stopped("it was withdrawn before it began".to_owned()),
    };
    match outcome {
        Outcome::LaunchFailed(failure) => {
            let errno = failure
                .errno
                .map_or_else(String::new, |errno| format!(": {}", std::io::Error::from_raw_os_error(errno)));
            host(&format!("it could not be started: {}{errno}", failure.step))
        }
        Outcome::NotEmpty { reason, survivors } => {
            RunEnd::Stopped(format!("{survivors} of its processes could not be ended ({})", reason.word()))
        }
        Outcome::Stopped(reason) => match stopped(*reason) {
            Some(end) => end,
            // The main process had ended by itself: what it left behind was put away.
            None => ended(preset, end.status, told, now, waits),
        },
        Outcome::Ended => ended(preset, end.status, told, now, waits),
    }
}

/// A stop; `None` where the agent itself was over before.
fn stopped(reason: StopReason) -> Option<RunEnd> {
    let why = match reason {
        StopReason::Deadline => "its time was over",
        StopReason::ActiveLimit => "its time awake was over",
        StopReason::Idle => "it wrote nothing for too long",
        StopReason::OutputBudget => "it wrote more than it may",
        StopReason::Operator { .. } => "a person stopped it",
        StopReason::Leftovers => return None,
        StopReason::OutputFailed => return Some(host("its output could not be written")),
        StopReason::Internal => return Some(host("agent-loop itself failed")),
    };
    Some(RunEnd::Stopped(why.to_owned()))
}

/// The main process ended by itself.
fn ended(preset: Preset, status: Option<WaitStatus>, told: &Told, now: At, waits: Waits) -> RunEnd {
    match (preset, told.is_error) {
        (Preset::Claude, Some(false)) if told.subtype.as_deref() == Some("success") => RunEnd::Worked,
        (Preset::Claude, Some(_)) => of_claude(told, now, waits),
        (Preset::Claude, None) => without_result(status, told, now, waits),
        (Preset::Other, _) => match status {
            Some(WaitStatus::Exited(0)) => RunEnd::Worked,
            Some(_) | None => of_status(status),
        },
    }
}

/// `claude` says that it failed.
fn of_claude(told: &Told, now: At, waits: Waits) -> RunEnd {
    let said = told.result.as_deref().unwrap_or_default();
    let kind = told.subtype.as_deref().unwrap_or("no kind");
    if let Some(wait) = limited(told, said, now, waits) {
        return wait;
    }
    match (told.api_error, kind) {
        (_, "error_max_turns") => RunEnd::Stopped("it used up its turns".to_owned()),
        (_, "error_max_budget_usd") => RunEnd::Stopped("it used up its budget of money".to_owned()),
        (Some(ApiError::NotLetIn), _) => not_let_in(said),
        (Some(ApiError::Provider), _) => host(&format!("its provider has trouble: {}", line(said, SHOWN))),
        (Some(ApiError::RateLimit), _) => RunEnd::WaitUntil(now.after(waits.default.min(waits.longest))),
        (Some(ApiError::Other) | None, _) if says_not_logged_in(said) => not_let_in(said),
        (Some(ApiError::Other) | None, _) if said.is_empty() => {
            RunEnd::Failed(format!("it ended with {}", line(kind, SHOWN)))
        }
        (Some(ApiError::Other) | None, _) => RunEnd::Failed(format!("{}: {}", line(kind, SHOWN), line(said, SHOWN))),
    }
}

/// `claude` ended without saying how.
fn without_result(status: Option<WaitStatus>, told: &Told, now: At, waits: Waits) -> RunEnd {
    let said = told.last_words.as_deref().unwrap_or_default();
    let failed = status != Some(WaitStatus::Exited(0));
    if failed && let Some(wait) = limited(told, said, now, waits) {
        return wait;
    }
    if says_not_logged_in(said) {
        return not_let_in(said);
    }
    if status == Some(WaitStatus::Exited(0)) {
        return RunEnd::Failed(format!("it ended without a result; its last words: {:?}", line(said, SHOWN)));
    }
    match of_status(status) {
        RunEnd::Failed(why) if !said.is_empty() => {
            RunEnd::Failed(format!("{why}; its last words: {}", line(said, SHOWN)))
        }
        end @ (RunEnd::Failed(_)
        | RunEnd::Worked
        | RunEnd::WaitUntil(_)
        | RunEnd::Stopped(_)
        | RunEnd::Infrastructure(_)) => end,
    }
}

/// A limit of the provider, by what it told in numbers, else in words.
fn limited(told: &Told, said: &str, now: At, waits: Waits) -> Option<RunEnd> {
    let in_words = limit::read(said, now);
    let in_numbers = told.limit.map(|limit| limit.resets.map(At).filter(|at| limit::plausible(*at, now)));
    let at = match (in_numbers, in_words) {
        (Some(Some(at)), _) | (Some(None) | None, Some(Reset::At(at))) => Some(at.after(MARGIN)),
        (Some(None), _) | (None, Some(Reset::Untold)) => None,
        (None, None) => return None,
    };
    let until = at.unwrap_or_else(|| now.after(waits.default));
    Some(RunEnd::WaitUntil(until.min(now.after(waits.longest))))
}

/// A status that is not success, by itself.
fn of_status(status: Option<WaitStatus>) -> RunEnd {
    match status {
        // What a shell or `env` says of a command that it cannot execute or find.
        Some(WaitStatus::Exited(126)) => {
            host("its command cannot be executed (exit 126): look at the configured command")
        }
        Some(WaitStatus::Exited(127)) => host("its command was not found (exit 127): look at the configured command"),
        Some(status) => RunEnd::Failed(format!("it ended with {status}")),
        None => host("how it ended was not seen"),
    }
}

fn says_not_logged_in(said: &str) -> bool {
    ["Not logged in", "Please run /login", "Invalid API key"].iter().any(|it| said.contains(it))
}

fn not_let_in(said: &str) -> RunEnd {
    host(&format!("its provider does not let it in: {}; log it in as its user", line(said, SHOWN)))
}

fn host(why: &str) -> RunEnd {
    RunEnd::Infrastructure(why.to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::stream::Stream;
    use super::*;
    use crate::event::LaunchFailure;
    use crate::model::Source;

    /// 2026-11-25 15:40:00 UTC.
    const NOW: At = At(1_795_621_200);

    fn end(outcome: Outcome, status: Option<WaitStatus>) -> End {
        End {
            outcome: RunOutcome::Finished(outcome),
            status,
            source: Source::Waitid,
            births: 1,
            deaths: 1,
            leftovers: 0,
            proven: true,
            oom_kills: None,
            elapsed: Duration::from_secs(1),
            at_unix_ns: 0,
        }
    }

    fn exited(code: u8) -> End {
        end(Outcome::Ended, Some(WaitStatus::Exited(code)))
    }

    fn read(bytes: &[u8]) -> Told {
        let mut stream = Stream::new(None);
        stream.feed(bytes);
        stream.finish()
    }

    fn of(bytes: &[u8], end: &End) -> RunEnd {
        judge(Preset::Claude, end, &read(bytes), NOW, Waits::default())
    }

    fn result(is_error: bool, text: &str) -> Vec<u8> {
        let value = serde_json::json!({
            "type": "result", "subtype": "success", "is_error": is_error, "result": text, "num_turns": 1,
        });
        value.to_string().into_bytes()
    }

    #[test]
    fn a_result_counts_and_the_exit_code_does_not() {
        let work = include_bytes!("testdata/work.jsonl");
        for code in [0, 1, 143] {
            assert_eq!(of(work, &exited(code)), RunEnd::Worked, "{code}");
        }
        assert!(matches!(of(b"", &exited(0)), RunEnd::Failed(_)), "0 and silence");
        assert!(matches!(of(&result(true, "no"), &exited(0)), RunEnd::Failed(_)), "0 and an error");
        let leftovers = end(Outcome::Stopped(StopReason::Leftovers), Some(WaitStatus::Exited(0)));
        assert_eq!(of(work, &leftovers), RunEnd::Worked);
    }

    #[test]
    fn a_limit_of_the_provider_is_a_wait_whatever_the_code() {
        let hit = |text: &str, code| of(&result(true, text), &exited(code));
        for code in [0, 1] {
            let nine = At(NOW.0 + 17 * 3_600 + 20 * 60);
            assert_eq!(hit("You've hit your limit · resets 9am (UTC)", code), RunEnd::WaitUntil(nine.after(MARGIN)));
        }
        let told = hit("Claude AI usage limit reached|1795626000", 1);
        assert_eq!(told, RunEnd::WaitUntil(At(1_795_626_000).after(MARGIN)));
        assert_eq!(hit("You've hit your limit", 1), RunEnd::WaitUntil(NOW.after(3_600)));
        let plain = of(b"You've hit your limit \xc2\xb7 resets 4pm (UTC)\n", &exited(1));
        assert_eq!(plain, RunEnd::WaitUntil(At(NOW.0 + 1_200).after(MARGIN)));
        let limit = include_bytes!("testdata/limit.jsonl");
        assert_eq!(of(limit, &exited(1)), RunEnd::WaitUntil(NOW.after(3_600)), "a 429 of the real one");
        let event = br#"{"type":"rate_limit_event","rate_limit_info":{"status":"rejected","resetsAt":1795626000}}"#;
        let both = [&event[..], b"\n", &result(true, "You've hit your limit")].concat();
        assert_eq!(of(&both, &exited(1)), RunEnd::WaitUntil(At(1_795_626_000).after(MARGIN)));
    }

    #[test]
    fn who_talks_of_limits_and_worked_has_worked() {
        let text = "I fixed the message \"You've hit your limit · resets 9am (UTC)\".";
        assert_eq!(of(&result(false, text), &exited(0)), RunEnd::Worked);
    }

    #[test]
    fn no_limit_lasts_for_ever() {
        let waits = Waits { default: 60, longest: 600 };
        let told = read(&result(true, "Claude AI usage limit reached|1796000000"));
        assert_eq!(judge(Preset::Claude, &exited(1), &told, NOW, waits), RunEnd::WaitUntil(NOW.after(600)));
    }

    #[test]
    fn what_the_host_or_the_provider_did_is_not_the_agents_fault() {
        let infrastructure = |end: RunEnd| matches!(end, RunEnd::Infrastructure(_));
        let failure = LaunchFailure { step: "executing the command".to_owned(), errno: Some(2) };
        assert!(infrastructure(of(b"", &end(Outcome::LaunchFailed(failure), None))));
        for code in [126, 127] {
            assert!(infrastructure(of(b"", &exited(code))), "{code}");
        }
        assert!(infrastructure(of("Not logged in · Please run /login\n".as_bytes(), &exited(1))));
        assert!(infrastructure(of(b"", &end(Outcome::Ended, None))), "nobody saw how it ended");
        let lost = End { outcome: RunOutcome::LostToReboot, ..exited(0) };
        assert!(infrastructure(of(include_bytes!("testdata/work.jsonl"), &lost)));
        let overloaded =
            br#"{"type":"result","subtype":"success","is_error":true,"api_error_status":529,"result":"x"}"#;
        assert!(infrastructure(of(overloaded, &exited(1))));
        let denied = br#"{"type":"result","subtype":"success","is_error":true,"api_error_status":401,"result":"x"}"#;
        assert!(infrastructure(of(denied, &exited(1))));
    }

    #[test]
    fn what_was_stopped_has_not_worked_whatever_it_said() {
        let work = include_bytes!("testdata/work.jsonl");
        for reason in [StopReason::Deadline, StopReason::Idle, StopReason::Operator { signal: 2 }] {
            let end = end(Outcome::Stopped(reason), Some(WaitStatus::Exited(0)));
            assert!(matches!(of(work, &end), RunEnd::Stopped(_)), "{reason:?}");
        }
        assert!(matches!(of(include_bytes!("testdata/turns.jsonl"), &exited(1)), RunEnd::Stopped(_)));
    }

    #[test]
    fn of_another_command_the_exit_code_is_all_there_is() {
        let judge = |end: &End| judge(Preset::Other, end, &Told::default(), NOW, Waits::default());
        assert_eq!(judge(&exited(0)), RunEnd::Worked);
        assert_eq!(judge(&exited(3)), RunEnd::Failed("it ended with exit 3".to_owned()));
        assert!(matches!(judge(&exited(127)), RunEnd::Infrastructure(_)));
        assert!(matches!(judge(&end(Outcome::Ended, None)), RunEnd::Infrastructure(_)));
    }

    #[test]
    fn a_stream_that_is_cut_off_has_not_worked() {
        let work = include_bytes!("testdata/work.jsonl").trim_ascii_end();
        for cut in 0..work.len() {
            let told = read(work.get(..cut).unwrap_or_default());
            let end = judge(Preset::Claude, &exited(0), &told, NOW, Waits::default());
            assert!(!matches!(end, RunEnd::Worked), "cut at {cut}");
        }
        assert_eq!(of(work, &exited(0)), RunEnd::Worked);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_bytes_make_it_panic_or_have_worked(bytes: Vec<u8>, code: u8, at: i64) {
            let end = judge(Preset::Claude, &exited(code), &read(&bytes), At(at), Waits::default());
            prop_assert!(!matches!(end, RunEnd::Worked));
        }

        #[test]
        fn no_words_of_a_limit_make_it_panic(text in "(You've hit your limit|limit reached\\|)[ ·0-9a-zA-Z:,()/|]{0,40}", at: i64) {
            let end = judge(Preset::Claude, &exited(1), &read(&result(true, &text)), At(at), Waits::default());
            prop_assert!(!matches!(end, RunEnd::Worked));
        }

        #[test]
        fn a_real_stream_with_changed_bytes_never_panics(changes in prop::collection::vec((0usize..4_000, any::<u8>()), 1..20)) {
            let mut bytes = include_bytes!("testdata/work.jsonl").to_vec();
            for (at, byte) in changes {
                if let Some(place) = bytes.get_mut(at) {
                    *place = byte;
                }
            }
            let _ = of(&bytes, &exited(0));
        }
    }
}

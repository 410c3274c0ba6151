//! Every word that people read on the forge. [pure]
//!
//! Words of an agent, of the forge or of an issue are shown as code, cut and without what could end it: they call nobody,
//! link nowhere and format nothing.

use std::fmt::Write as _;

use jiff::SignedDuration;
use jiff::civil::DateTime;
use sha2::{Digest as _, Sha256};

use super::seen::Mark;
use super::task::{Gone, Passed, State, Task, Why};
use super::words::{At, IssueKey};

/// How much of somebody's words is shown, characters.
const SHOWN: usize = 300;

/// The hidden first line of a comment of ours: what it is, of which issue, and the digest of what follows.
#[must_use]
pub fn marker(key: &IssueKey, mark: &Mark, digest: &str) -> String {
    match mark {
        Mark::Status => format!("<!-- agent-loop:1 status {key} {digest} -->"),
        Mark::Notice(of) => format!("<!-- agent-loop:1 notice:{of} {key} {digest} -->"),
    }
}

/// Reads the marker of a comment on an issue; `None` where it has none of ours.
#[must_use]
pub fn read_marker(key: &IssueKey, text: &str) -> Option<(Mark, String)> {
    let line = text.lines().next()?.trim_end();
    let inner = line.strip_prefix("<!-- agent-loop:1 ")?.strip_suffix(" -->")?;
    let mut words = inner.split(' ');
    let (mark, of, digest) = (words.next()?, words.next()?, words.next()?);
    if words.next().is_some() || of != key.to_string() {
        return None;
    }
    let mark = match mark.strip_prefix("notice:") {
        Some(of) => Mark::Notice(of.to_owned()),
        None if mark == "status" => Mark::Status,
        None => return None,
    };
    Some((mark, digest.to_owned()))
}

/// The digest of a text: the first 16 hexadecimal digits of its SHA-256.
#[must_use]
pub fn digest(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().take(8).fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// The status of a task: one comment for each issue, the same text for the same task.
#[must_use]
pub fn status(task: &Task) -> String {
    let mut text = format!("**agent-loop**: {}\n", sentence(task));
    if let Some(pull) = task.pull {
        let _ = writeln!(text, "\nPull request {pull} from `{}` into `{}`.", task.branch, task.base);
    }
    text.push_str("\n| since | state | attempt | commit | for |\n|---|---|---:|---|---:|\n");
    for (index, passed) in task.history.iter().enumerate() {
        let head = passed.head.as_ref().map_or_else(String::new, |head| format!("`{}`", head.short()));
        let until = task.history.get(index + 1).map(|next| next.at);
        let _ = writeln!(
            text,
            "| {} | {} | {} | {head} | {} |",
            moment(passed.at),
            passed.word.replace('_', " "),
            passed.attempt,
            until.map_or_else(String::new, |until| duration(until.since(passed.at)))
        );
    }
    text
}

/// What a person should be told of now, once for each state and head: its key, and its text.
#[must_use]
pub fn notice(task: &Task) -> Option<(String, String)> {
    let entered = |word: &str| task.history.iter().rev().find(|passed: &&Passed| passed.word == word).map(|it| it.at);
    match &task.state {
        State::NeedsHuman(why) => {
            // A task that comes here twice for two reasons says both, and the same one once.
            let key = format!("needs_human-{}-{}", task.attempt, digest(&reason(why)));
            let text = format!("agent-loop needs a person: {}\n\n{}\n", reason(why), next_step(why));
            Some((key, text))
        }
        State::CiMissing(head) => Some((
            format!("ci_missing-{}", head.sha),
            format!(
                "No check has started for `{}` since {}. Nothing is merged without one. Start the checks, or say in the \
                 configuration of agent-loop that there are none (`[ci] expect = \"none\"`).\n",
                head.sha.short(),
                moment(head.since)
            ),
        )),
        State::CiApproval(head) => Some((
            format!("ci_approval-{}", head.sha),
            format!(
                "The checks of `{}` wait for a person who lets them run{}.\n",
                head.sha.short(),
                entered("ci_approval").map_or_else(String::new, |at| format!(" (since {})", moment(at)))
            ),
        )),
        State::Eligible
        | State::Preparing(_)
        | State::Running { .. }
        | State::Exited(_)
        | State::Pushing(_)
        | State::Opening(_)
        | State::CiWait(_)
        | State::MergeGate { .. }
        | State::Merging(_)
        | State::MergeUnknown { .. }
        | State::Closing { .. }
        | State::Backoff { .. }
        | State::Done
        | State::Superseded(_)
        | State::Cleaned => None,
    }
}

/// The title and text of the pull request of a task.
#[must_use]
pub fn pull_request(task: &Task, title: &str) -> (String, String) {
    let title: String = inert(title).chars().take(200).collect();
    let title = if title.is_empty() { format!("Work on #{}", task.key.number) } else { title };
    (title, format!("Closes #{}.\n\nMade by an agent under agent-loop, attempt {}.\n", task.key.number, task.attempt))
}

/// A step that a task has passed, as a sentence.
#[must_use]
pub fn step(passed: &Passed) -> String {
    let attempt = passed.attempt;
    let head = passed.head.as_ref().map_or_else(|| "its commit".to_owned(), |head| head.short().to_owned());
    match passed.word {
        "eligible" => "it was to be claimed".to_owned(),
        "preparing" => format!("claimed by this host; attempt {} was prepared", attempt + 1),
        "running" => format!("attempt {attempt}: its agent was started"),
        "stopping" => format!("attempt {attempt}: its agent was stopped"),
        "exited" => format!("attempt {attempt}: its agent was over, and nothing of it was left running"),
        "pushing" => format!("{head} was to be pushed"),
        "opening" => format!("{head} was on the forge's branch; a pull request was to be made"),
        "ci_wait" => format!("the checks of {head} were awaited"),
        "ci_missing" => format!("no check had started for {head}"),
        "ci_approval" => format!("the checks of {head} waited for a person"),
        "merge_gate" => format!("{head} was green; everything else that a merge needs was looked at"),
        "merging" => format!("the merge of {head} was asked for"),
        "merge_unknown" => format!("whether {head} was merged was not known; it was read again"),
        "closing" => format!("{head} was proven to be merged; its issue was to be closed"),
        "backoff" => "it waited before the next attempt".to_owned(),
        "needs_human" => "a person had to decide".to_owned(),
        "done" => "the issue was closed".to_owned(),
        "superseded" => "it was taken out of our hands".to_owned(),
        "cleaned" => "nothing of it was left on this host".to_owned(),
        other => other.replace('_', " "),
    }
}

/// What a task is doing, as a sentence.
#[must_use]
pub fn sentence(task: &Task) -> String {
    match &task.state {
        State::Eligible => "this issue is about to be taken".to_owned(),
        State::Preparing(_) => format!("attempt {} is prepared", task.attempt + 1),
        State::Running { stop: None, .. } => format!("an agent works on it (attempt {})", task.attempt),
        State::Running { stop: Some(gone), .. } => format!("its agent is being stopped: {}", gone.sentence()),
        State::Exited(_) => "its agent has ended".to_owned(),
        State::Pushing(head) => format!("`{}` is being pushed", head.short()),
        State::Opening(_) => "its pull request is being made".to_owned(),
        State::CiWait(head) => format!("waiting for the checks of `{}`", head.sha.short()),
        State::CiMissing(head) => format!("no check has started for `{}`", head.sha.short()),
        State::CiApproval(head) => format!("the checks of `{}` wait for an approval", head.sha.short()),
        State::MergeGate { head, .. } => format!("`{}` is green and waits to be merged", head.sha.short()),
        State::Merging(head) => format!("`{}` is being merged", head.sha.short()),
        State::MergeUnknown { head, .. } => format!("whether `{}` was merged is being found out", head.sha.short()),
        State::Closing { head, .. } => format!("`{}` is merged", head.sha.short()),
        State::Backoff { until, why: None, .. } => format!("it is tried again after {}", moment(*until)),
        State::Backoff { until, why: Some(why), .. } => {
            format!("it is tried again after {}, for it failed: {}", moment(*until), code(why))
        }
        State::NeedsHuman(why) => format!("a person is needed: {}", reason(why)),
        State::Done => "merged, and closed by that".to_owned(),
        State::Superseded(gone) => format!("no longer worked on: {}", gone.sentence()),
        State::Cleaned => "nothing is left to do".to_owned(),
    }
}

impl Gone {
    const fn sentence(self) -> &'static str {
        match self {
            Self::IssueClosed => "the issue was closed",
            Self::LabelRemoved => "the label was taken away",
            Self::ClaimLost => "another host works on it",
            Self::PullClosed => "the pull request was closed",
            Self::MergedElsewhere => "a person merged the pull request",
        }
    }
}

fn reason(why: &Why) -> String {
    match why {
        Why::AgentFailed(last) => format!("the agent failed as often as it may, last: {}", code(last)),
        Why::NothingCommitted => "the agent ends without a commit".to_owned(),
        Why::HostFailed(last) => format!("this host failed too often, last: {}", code(last)),
        Why::ChecksFailed(names) => {
            let names: Vec<String> = names.iter().take(20).map(|name| code(name)).collect();
            format!("these checks still fail after every repair that may be tried: {}", names.join(", "))
        }
        Why::Conflicts => "the branch still conflicts with its base after every repair that may be tried".to_owned(),
        Why::ChecksStuck(why) => format!("the checks will not become green by themselves: {}", code(why)),
        Why::MergeQueue => "the base branch has a merge queue".to_owned(),
        Why::MergeFailed(why) => format!("the merge was not possible: {}", code(why)),
        Why::Refused(why) => format!("the forge refuses it: {}", code(why)),
        Why::ForeignBranch(head) => format!("the branch holds `{}`, which is not of this task", head.short()),
        Why::NotClosed(why) => format!("the pull request is merged, and the issue could not be closed: {}", code(why)),
        Why::TreeNotProven => "whether all processes of the last agent are gone is not known".to_owned(),
    }
}

fn next_step(why: &Why) -> &'static str {
    match why {
        Why::AgentFailed(_) | Why::NothingCommitted | Why::ChecksFailed(_) | Why::Conflicts => {
            "Say more in the issue, or finish the branch by hand; set the label of ready issues for another try."
        }
        Why::HostFailed(_) => "Look at `agent-loop why` on the host; set the label of ready issues for another try.",
        Why::ChecksStuck(_) => "Start the checks again; set the label of ready issues to have them looked at again.",
        Why::MergeQueue => "Put the pull request into the queue.",
        Why::MergeFailed(_) | Why::Refused(_) => {
            "See whether agent-loop's token may do this, and what the rules of the branch say; set the label of ready \
             issues for another try."
        }
        Why::ForeignBranch(_) => "Rename or remove the branch, then set the label of ready issues.",
        Why::NotClosed(_) => "Close the issue.",
        Why::TreeNotProven => "Look at `agent-loop tree` on the host; no second agent is started beside it.",
    }
}

/// Somebody's words as code.
fn code(text: &str) -> String {
    format!("`{}`", inert(text).replace('`', "'"))
}

/// Somebody's words on one line, without control characters or those that turn the direction of writing, and cut.
fn inert(text: &str) -> String {
    let turns =
        |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
    let plain: String = text.chars().map(|c| if c.is_control() || turns(c) { ' ' } else { c }).collect();
    let plain = plain.split_whitespace().collect::<Vec<_>>().join(" ");
    match plain.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", plain.get(..end).unwrap_or_default()),
        None => plain,
    }
}

fn moment(at: At) -> String {
    let since = SignedDuration::from_secs(at.0);
    let time = DateTime::constant(1970, 1, 1, 0, 0, 0, 0).checked_add(since);
    time.map_or_else(|_| at.0.to_string(), |time| time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}

fn duration(seconds: u64) -> String {
    match (seconds / 3_600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m} min {s} s"),
        (h, m, _) => format!("{h} h {m} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::Purpose;

    fn key() -> IssueKey {
        "o/r#42".parse().expect("an issue")
    }

    #[test]
    fn a_marker_reads_back_for_its_own_issue_alone() {
        for mark in [Mark::Status, Mark::Notice("ci_missing-aa".to_owned())] {
            let text = format!("{}\nhello", marker(&key(), &mark, "0011"));
            assert_eq!(read_marker(&key(), &text), Some((mark.clone(), "0011".to_owned())));
            assert_eq!(read_marker(&"o/r#4".parse().expect("an issue"), &text), None);
            assert_eq!(read_marker(&key(), &format!("> {text}")), None, "one that is quoted is not ours");
        }
        for other in ["", "<!-- agent-loop:2 status o/r#42 00 -->", "<!-- agent-loop:1 status o/r#42 -->", "hello"] {
            assert_eq!(read_marker(&key(), other), None, "{other:?}");
        }
    }

    #[test]
    fn a_moment_is_told_in_utc() {
        assert_eq!(moment(At(1_800_000_000)), "2027-01-15 08:00:00 UTC");
        assert_eq!(moment(At(i64::MAX)), i64::MAX.to_string());
    }

    #[test]
    fn what_waits_says_what_it_failed_at() {
        let mut task = Task::new(key(), "b".parse().expect("a branch"), "main".parse().expect("a branch"));
        let mut says = |why: Option<&str>| {
            task.state = State::Backoff { until: At(0), purpose: Purpose::Again, why: why.map(str::to_owned) };
            sentence(&task)
        };
        assert_eq!(says(None), "it is tried again after 1970-01-01 00:00:00 UTC");
        assert_eq!(says(Some("exit 1")), "it is tried again after 1970-01-01 00:00:00 UTC, for it failed: `exit 1`");
    }

    #[test]
    fn words_of_others_are_inert() {
        let shown = code("a`b @everyone\n# <script>\u{202e}\u{0}`");
        assert_eq!(shown, "`a'b @everyone # <script> '`");
        assert_eq!(inert(&"x".repeat(5_000)).chars().count(), SHOWN + 1);
    }
}

//! Which run a person means: its whole id, a piece from either end of it, or an issue. Never a process number.

use crate::control::client::Client;
use crate::run::RunId;
use crate::work::IssueKey;

use super::{Failure, doing};

/// The shortest piece of an id that is taken.
const SHORTEST: usize = 4;

/// How many characters an id has.
const WHOLE: usize = 26;

/// Crockford's base 32, of which an id consists.
const ALPHABET: &str = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// How many ids an ambiguity lists.
const LISTED: usize = 10;

/// Why no run is meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::cli) enum Unresolved {
    /// A number, which may be somebody else's process by now.
    #[error(
        "{0} is a number: agent-loop takes runs, never process numbers, since a number may be another process by now; \
         `agent-loop ps` lists the runs"
    )]
    Number(String),
    /// Not a piece of an id.
    #[error(
        "{0:?} is no id of a run: give at least 4 characters from its beginning or end, `agent-loop ps -a` lists them"
    )]
    NoPart(String),
    /// Not the name of an issue.
    #[error("{0:?} is no issue: it is written owner/name#number")]
    NoIssue(String),
    /// An issue on which no agent was started.
    #[error("no agent of this host has worked on {0} yet: `agent-loop why {0}` says what it waits for")]
    NoAgent(IssueKey),
    /// No run has it.
    #[error("no run is called {0}: `agent-loop ps -a` lists the latest, an older one needs its whole id")]
    Unknown(String),
    /// More than one has it.
    #[error("{0} may be any of these, give more of it:{list}", list = list(.1))]
    Ambiguous(String, Vec<String>),
}

fn list(runs: &[String]) -> String {
    let mut text: String = runs.iter().take(LISTED).map(|run| format!("\n  {run}")).collect();
    if let Some(more) = runs.len().checked_sub(LISTED).filter(|more| *more > 0) {
        text.push_str(&format!("\n  and {more} more"));
    }
    text
}

/// What a person typed, before any run is known.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Typed {
    /// The whole id.
    Whole(String),
    /// A piece of one, in capitals.
    Piece(String),
}

fn read(text: &str) -> Result<Typed, Unresolved> {
    let piece = text.to_ascii_uppercase();
    if let Some(id) = Some(&piece).filter(|it| it.len() == WHOLE).and_then(|it| it.parse::<RunId>().ok()) {
        return Ok(Typed::Whole(id.to_string()));
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Unresolved::Number(text.to_owned()));
    }
    let fits = (SHORTEST..WHOLE).contains(&piece.len()) && piece.chars().all(|char| ALPHABET.contains(char));
    if fits { Ok(Typed::Piece(piece)) } else { Err(Unresolved::NoPart(text.to_owned())) }
}

/// The one run that begins or ends with this piece.
fn find(piece: &str, runs: impl IntoIterator<Item = String>) -> Result<String, Unresolved> {
    let mut found: Vec<String> =
        runs.into_iter().filter(|run| run.starts_with(piece) || run.ends_with(piece)).collect();
    found.sort();
    found.dedup();
    match found.as_slice() {
        [] => Err(Unresolved::Unknown(piece.to_owned())),
        [run] => Ok(run.clone()),
        [_, _, ..] => Err(Unresolved::Ambiguous(piece.to_owned(), found)),
    }
}

/// The whole id of the run that is meant; asks the daemon for its runs where only a piece is given.
pub(super) async fn run(client: &Client, text: &str) -> Result<String, Failure> {
    match read(text)? {
        Typed::Whole(run) => Ok(run),
        Typed::Piece(piece) => {
            let runs = client.runs(true).await.map_err(doing("looking for the run"))?.runs;
            Ok(find(&piece, runs.into_iter().map(|view| view.run))?)
        }
    }
}

/// The same, where an issue (`owner/name#number`) may be named too: its latest agent is meant.
pub(super) async fn run_or_issue(client: &Client, text: &str) -> Result<String, Failure> {
    let Some(issue) = issue(text)? else { return run(client, text).await };
    let story = client.story(&issue).await.map_err(doing("asking for the issue"))?;
    Ok(story.runs.into_iter().next_back().ok_or(Unresolved::NoAgent(issue))?.run)
}

/// The issue that is named, where that is meant: no id has a `#`.
pub(super) fn issue(text: &str) -> Result<Option<IssueKey>, Unresolved> {
    if !text.contains('#') {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| Unresolved::NoIssue(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::client::draw::short;

    const ONE: &str = "01K9ZZZZZZ0000000000ABCD12";
    const TWO: &str = "01K9ZZZZZZ0000000000XYZD12";

    fn both() -> Vec<String> {
        vec![ONE.to_owned(), TWO.to_owned()]
    }

    fn resolve(text: &str) -> Result<String, Unresolved> {
        match read(text)? {
            Typed::Whole(run) => Ok(run),
            Typed::Piece(piece) => find(&piece, both()),
        }
    }

    #[test]
    fn a_piece_from_either_end_names_a_run_whatever_its_case() {
        assert_eq!(resolve("CD12").as_deref(), Ok(ONE));
        assert_eq!(resolve("xyzd12").as_deref(), Ok(TWO));
        assert_eq!(resolve("01K9ZZZZZZ0000000000A").as_deref(), Ok(ONE));
        assert_eq!(resolve(&ONE.to_lowercase()).as_deref(), Ok(ONE));
        assert_eq!(resolve("ABCD"), Err(Unresolved::Unknown("ABCD".to_owned())), "the middle of an id names none");
    }

    #[test]
    fn what_fits_two_runs_lists_them() {
        let said = resolve("01K9").expect_err("both begin so");
        assert_eq!(said, Unresolved::Ambiguous("01K9".to_owned(), both()));
        assert!(said.to_string().contains(ONE) && said.to_string().contains(TWO), "{said}");
        let many = Unresolved::Ambiguous("01K9".to_owned(), vec![ONE.to_owned(); 13]).to_string();
        assert!(many.ends_with("and 3 more") && many.lines().count() == 12, "{many}");
    }

    #[test]
    fn an_issue_is_told_by_its_sign_and_no_run_is() {
        assert_eq!(issue("CD12"), Ok(None));
        assert_eq!(issue("o/r#7"), Ok(Some("o/r#7".parse().expect("an issue"))));
        for odd in ["#7", "o/r#", "o#7", "o/r#-1", "o/r#7#8"] {
            assert_eq!(issue(odd), Err(Unresolved::NoIssue(odd.to_owned())));
        }
    }

    #[test]
    fn a_number_is_refused_whatever_runs_there_are() {
        for number in ["1", "4711", "00000000", "4194304"] {
            let said = resolve(number).expect_err("a number");
            assert_eq!(said, Unresolved::Number(number.to_owned()));
            assert!(said.to_string().contains("never process numbers"), "{said}");
        }
    }

    #[test]
    fn what_cannot_be_part_of_an_id_is_said_so() {
        for text in ["", "D12", "01K9-", "../..", "ABCDU", "01K9ZZZZZZ0000000000ABCD12A", "ÄÄÄÄ"] {
            assert_eq!(resolve(text), Err(Unresolved::NoPart(text.to_owned())));
        }
    }

    #[test]
    fn short_names_tell_runs_apart_and_are_taken_again() {
        assert_eq!(short(&[ONE, TWO]), ["00ABCD12", "00XYZD12"]);
        let alike = ["01K9ZZZZZZ00000A00000ABC12", "01K9ZZZZZZ00000B00000ABC12"];
        assert_eq!(short(&alike)[0].len(), 11);
        let number = ["01K9ZZZZZZZZZZZZZ012345678"];
        assert_eq!(short(&number), ["Z012345678"]);
        for end in short(&alike) {
            assert!(find(&end, alike.map(str::to_owned)).is_ok(), "{end}");
        }
    }
}

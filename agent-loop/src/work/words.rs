//! The words of the loop: issues, commits, pull requests, and the moments they are judged at. [pure]
//!
//! Text of the forge is somebody's: a type here is made only from text that was looked at.

use std::fmt;
use std::str::FromStr;

/// A repository of a forge: `owner/name`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepoName {
    owner: String,
    name: String,
}

/// A text that is not what it should name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {what}")]
pub struct NotAName {
    /// The text.
    pub text: String,
    /// What it should have been.
    pub what: &'static str,
}

impl RepoName {
    /// Who it belongs to.
    #[must_use]
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for RepoName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)
    }
}

impl FromStr for RepoName {
    type Err = NotAName;

    /// Reads `owner/name`: letters, digits, `-`, `_` and `.`, neither part `.` or `..` nor beginning with `-`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let part = |part: &str| {
            let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            let fits = (1..=100).contains(&part.len()) && part.chars().all(known);
            (fits && !part.starts_with('-') && !matches!(part, "." | "..")).then(|| part.to_owned())
        };
        text.split_once('/')
            .and_then(|(owner, name)| Some(Self { owner: part(owner)?, name: part(name)? }))
            .ok_or_else(|| NotAName { text: text.to_owned(), what: "a repository (owner/name)" })
    }
}

/// An issue of a repository: what a task is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IssueKey {
    /// Where.
    pub repo: RepoName,
    /// Its number there.
    pub number: u64,
}

impl fmt::Display for IssueKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.repo, self.number)
    }
}

impl FromStr for IssueKey {
    type Err = NotAName;

    /// Reads `owner/name#number`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let (repo, number) = text.split_once('#')?;
            let digits =
                !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) && !number.starts_with('0');
            Some(Self { repo: repo.parse().ok()?, number: number.parse().ok().filter(|_| digits)? })
        };
        read().ok_or_else(|| NotAName { text: text.to_owned(), what: "an issue (owner/name#number)" })
    }
}

/// The id of a commit: 40 (SHA-1) or 64 (SHA-256) hexadecimal digits in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sha(String);

impl Sha {
    /// Its digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its first ten digits, for people.
    #[must_use]
    pub fn short(&self) -> &str {
        self.0.get(..10).unwrap_or(&self.0)
    }
}

impl fmt::Display for Sha {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Sha {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if matches!(text.len(), 40 | 64) && text.bytes().all(digit) {
            return Ok(Self(text.to_owned()));
        }
        Err(NotAName { text: text.to_owned(), what: "the id of a commit" })
    }
}

/// The name of a branch, safe as an argument of git and as a part of a URL.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Branch(String);

impl Branch {
    /// The name, without `refs/heads/`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Branch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Branch {
    type Err = NotAName;

    /// Reads letters, digits, `-`, `_`, `.` and `/`: a part of what git allows (git-check-ref-format), with nothing that
    /// a shell, an option parser or a URL could take for something else.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let lock = std::path::Path::new(text).extension().is_some_and(|end| end.eq_ignore_ascii_case("lock"));
        let part = |part: &str| !part.is_empty() && !part.starts_with(['.', '-']) && part.chars().all(known);
        let odd = text.contains("..") || text.ends_with('.') || lock || text == "HEAD";
        if (1..=200).contains(&text.len()) && !odd && text.split('/').all(part) {
            return Ok(Self(text.to_owned()));
        }
        Err(NotAName { text: text.to_owned(), what: "a branch that can be used safely" })
    }
}

/// The number of a pull request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PullNumber(pub u64);

impl fmt::Display for PullNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// The id of a comment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommentId(pub u64);

/// A moment on the forge's clock, seconds since 1970. A host whose own clock is wrong judges no CI by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct At(pub i64);

impl At {
    /// Seconds from `earlier` to this, 0 where it is not later.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0)
    }

    /// This many seconds later.
    #[must_use]
    pub fn after(self, seconds: u64) -> Self {
        Self(self.0.saturating_add(i64::try_from(seconds).unwrap_or(i64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_only_what_is_safe_in_arguments_and_urls() {
        for good in ["a/b", "rust-lang/rust", "o.r_g/x-1"] {
            assert_eq!(good.parse::<RepoName>().map(|it| it.to_string()).as_deref(), Ok(good));
        }
        for bad in ["", "a", "a/", "/b", "a/b/c", "-o/b", "a/..", "a b/c", "a/b#1", "a/b?x", "ä/b", "a/\n"] {
            assert!(bad.parse::<RepoName>().is_err(), "{bad:?}");
        }
        for good in ["issue-42-fix", "agents/issue-1", "v1.2"] {
            assert_eq!(good.parse::<Branch>().map(|it| it.to_string()).as_deref(), Ok(good));
        }
        for bad in [
            "",
            "-x",
            "--upload-pack=sh",
            "a/-b",
            "a..b",
            "a/",
            "/a",
            "a//b",
            "a.lock",
            "a.",
            ".a",
            "a/.b",
            "a b",
            "a:b",
            "a~1",
            "a^",
            "@{u}",
            "HEAD",
            "a\0",
            "$(id)",
        ] {
            assert!(bad.parse::<Branch>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_issue_is_written_as_it_is_read() {
        let key: IssueKey = "o/r#42".parse().expect("an issue");
        assert_eq!((key.number, key.to_string().as_str()), (42, "o/r#42"));
        for bad in ["o/r", "o/r#", "o/r#x", "o/r#-1", "o/r#+1", "o/r#042", "o/r#0", "o/r#99999999999999999999999", "#1"]
        {
            assert!(bad.parse::<IssueKey>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_commit_is_forty_or_sixty_four_digits_in_lower_case() {
        assert!("a".repeat(40).parse::<Sha>().is_ok() && "0".repeat(64).parse::<Sha>().is_ok());
        for bad in ["a".repeat(39), "A".repeat(40), "g".repeat(40), String::new(), format!("{}\n", "a".repeat(40))] {
            assert!(bad.parse::<Sha>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_clock_that_steps_back_makes_no_time_pass() {
        assert_eq!((At(10).since(At(4)), At(4).since(At(10)), At(4).after(u64::MAX)), (6, 0, At(i64::MAX)));
    }
}

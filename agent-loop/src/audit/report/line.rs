//! What of a line of the log matters to a report; fields that are not known are passed over.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;

type Text<'a> = Cow<'a, str>;

/// A line, as far as it matters here.
#[derive(Debug, Deserialize)]
pub(super) struct Line<'a> {
    pub seq: u64,
    #[serde(borrow)]
    pub kind: Text<'a>,
    pub boot_ns: u64,
    #[serde(borrow)]
    pub time: Text<'a>,
    #[serde(borrow)]
    pub boot_id: Text<'a>,
    #[serde(borrow)]
    pub run: Option<Text<'a>>,
    pub issue: Option<Issue>,
    pub proc: Option<Proc>,
    pub exec: Option<Exec>,
    pub exit: Option<Exit>,
    pub argv: Option<Vec<String>>,
    pub user: Option<String>,
    pub to: Option<To>,
    pub signal: Option<u8>,
    pub proof: Option<String>,
    pub result: Option<String>,
    pub why: Option<String>,
    pub gap: Option<Gap>,
    pub reason: Option<String>,
    pub survivors: Option<u64>,
    pub tree: Option<String>,
    pub elapsed_ms: Option<u64>,
    pub outcome: Option<String>,
    pub births: Option<u64>,
    pub deaths: Option<u64>,
    pub leftovers: Option<u64>,
    pub host: Option<Host>,
    pub clock_ahead_ns: Option<i64>,
    pub stats: Option<Stats>,
    pub segment: Option<Segment>,
    pub retention: Option<Retention>,
}

/// An issue: a number, or a number with its repository.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Issue {
    Number(u64),
    Text(String),
}

impl fmt::Display for Issue {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(to, "#{number}"),
            Self::Text(text) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
                write!(to, "#{text}")
            }
            Self::Text(text) => to.write_str(text),
        }
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Proc {
    pub id: String,
    pub pid: u32,
}

#[derive(Debug, Deserialize)]
pub(super) struct To {
    pub id: Option<String>,
    pub pid: Option<u32>,
    pub cgroup: Option<u64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Exec {
    #[serde(default)]
    pub argv: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Exit {
    /// The exit code, where it is known and there was one.
    pub code: Option<u8>,
    /// The signal that ended it, where it is known and there was one.
    pub signal: Option<u8>,
    /// Whether a core was dumped.
    pub core: Option<bool>,
    /// Whether the out-of-memory killer did it.
    pub oom: Option<bool>,
    /// Who caused it.
    pub cause: Option<String>,
    /// Where the status is from.
    pub source: Option<String>,
}

/// Births, execs and deaths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Counts {
    /// Births.
    #[serde(default)]
    pub fork: u64,
    /// Execs.
    #[serde(default)]
    pub exec: u64,
    /// Deaths.
    #[serde(default)]
    pub exit: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Gap {
    pub cause: String,
    pub lost: Option<Counts>,
    pub untracked: Option<u64>,
    pub missed: Option<u64>,
    pub lines: Option<u64>,
    pub bytes: Option<u64>,
    pub from_ns: Option<u64>,
    pub to_ns: Option<u64>,
    pub inferred: Option<Counts>,
    pub repaired: Option<bool>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Host {
    /// The version of agent-loop that wrote.
    #[serde(default)]
    pub version: String,
    /// The kernel's release.
    #[serde(default)]
    pub kernel: String,
    /// How processes were watched.
    #[serde(default)]
    pub backend: String,
    /// What was missing on the host.
    #[serde(default)]
    pub degraded: Vec<String>,
    #[serde(default)]
    pub(super) schema: String,
}

/// The sum that the kernel and the log must agree on.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Stats {
    /// What the hooks counted.
    pub seen: Counts,
    /// What stands in the log.
    pub written: Counts,
    /// What was left out on purpose.
    pub filtered: Counts,
    /// What came after it had been inferred.
    pub late: Counts,
    /// What is declared lost.
    pub lost: Counts,
}

#[derive(Debug, Deserialize)]
pub(super) struct Segment {
    pub format: Option<String>,
    pub schema: Option<String>,
    pub log: Option<String>,
    pub redaction_sha256: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Retention {
    pub first_seq: Option<u64>,
    pub lines: Option<u64>,
    pub reason: Option<String>,
}

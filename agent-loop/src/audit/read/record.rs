//! A record as it is read: what every reader needs of it, and the whole line beside.

use serde::Deserialize;

use crate::audit::Counts;

/// Why a line is not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotARecord {
    /// It is none; the parser says why.
    #[error("{0}")]
    Not(String),
    /// It names a newer major of the shape: nothing after it is to be read either.
    #[error("its records have shape {0}, and this agent-loop reads up to {MAJOR}: use a newer one")]
    Newer(String),
}

/// A record. A field that a kind does not have, or that is not known, is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Record {
    /// Its number in the log.
    pub seq: u64,
    /// What it tells of.
    pub kind: String,
    /// When, CLOCK_BOOTTIME in nanoseconds.
    #[serde(default)]
    pub boot_ns: u64,
    /// When, RFC 3339 in UTC.
    #[serde(default)]
    pub time: String,
    /// In which boot.
    #[serde(default)]
    pub boot_id: String,
    /// Of which run.
    pub run: Option<String>,
    /// Of which issue.
    pub issue: Option<serde_json::Value>,
    /// Of which process.
    pub proc: Option<Proc>,
    /// Who forked it.
    pub parent: Option<Proc>,
    /// The number of its parent, who may not be tracked.
    pub parent_pid: Option<u32>,
    /// As which user.
    pub uid: Option<u32>,
    /// What was executed.
    pub exec: Option<Exec>,
    /// How it ended.
    pub exit: Option<Exit>,
    /// The command of a run.
    pub argv: Option<Vec<String>>,
    /// As whom it runs.
    pub user: Option<String>,
    /// Whom a signal was for.
    pub to: Option<To>,
    /// Which signal.
    pub signal: Option<i64>,
    /// By which proof.
    pub proof: Option<String>,
    /// What came of it.
    pub result: Option<String>,
    /// Why, in words.
    pub why: Option<String>,
    /// Why, by a word.
    pub reason: Option<String>,
    /// How a run ended, by a word.
    pub outcome: Option<String>,
    /// Processes that were left and could not be ended.
    pub survivors: Option<u64>,
    /// Whether the tree was empty.
    pub tree: Option<String>,
    /// How long that took.
    pub elapsed_ms: Option<u64>,
    /// Births in the tree.
    pub births: Option<u64>,
    /// Deaths in the tree.
    pub deaths: Option<u64>,
    /// Processes that outlived the command.
    pub leftovers: Option<u64>,
    /// A stretch in which something was lost.
    pub gap: Option<Gap>,
    /// By which gap it was inferred.
    pub inferred: Option<u64>,
    /// The head of a segment.
    pub segment: Option<Segment>,
    /// What a host offers.
    pub host: Option<Host>,
    /// How far our own clock is ahead of that of `proc` lines, nanoseconds.
    pub clock_ahead_ns: Option<i64>,
    /// The sum of a run.
    pub stats: Option<Stats>,
    /// What a retention removed.
    pub retention: Option<Retention>,
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Proc {
    /// Its id, unique for ever.
    pub id: String,
    /// Its number.
    pub pid: u32,
}

/// What was executed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Exec {
    /// The path as it was called.
    #[serde(default)]
    pub exe: String,
    /// The arguments.
    #[serde(default)]
    pub argv: Vec<String>,
    /// The working directory.
    pub cwd: Option<String>,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Exit {
    /// The exit code.
    pub code: Option<u8>,
    /// The signal.
    pub signal: Option<u8>,
    /// Whether it left a core.
    pub core: Option<bool>,
    /// Whether the out-of-memory killer did it.
    pub oom: Option<bool>,
    /// Who caused it.
    pub cause: Option<String>,
    /// Who said so.
    pub source: Option<String>,
}

/// Whom a signal was for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct To {
    /// The process.
    pub id: Option<String>,
    /// Its number.
    pub pid: Option<u32>,
    /// The cgroup.
    pub cgroup: Option<u64>,
}

/// A stretch in which something was lost. What it does not say is not known.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Gap {
    /// Why, by a word.
    pub cause: String,
    /// Records of the kernel that are lost.
    pub lost: Option<Counts>,
    /// Processes that were never tracked.
    pub untracked: Option<u64>,
    /// Runs of a hook that the kernel skipped.
    pub missed: Option<u64>,
    /// Lines of the log that are lost.
    pub lines: Option<u64>,
    /// Bytes that were moved aside.
    pub bytes: Option<u64>,
    /// Not before, CLOCK_BOOTTIME in nanoseconds.
    pub from_ns: Option<u64>,
    /// Not after.
    pub to_ns: Option<u64>,
    /// What a repair inferred.
    pub inferred: Option<Counts>,
    /// Whether what lives is known again.
    pub repaired: Option<bool>,
}

/// What a host offers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
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
    /// The version of the records' shape.
    #[serde(default)]
    pub schema: String,
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

/// The head of a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Segment {
    /// The format of the files.
    pub format: Option<String>,
    /// The version of the records' shape.
    pub schema: Option<String>,
    /// The version of agent-loop that wrote.
    pub version: Option<String>,
    /// The log's id.
    pub log: Option<String>,
    /// The policy by which secrets were taken out.
    pub redaction_sha256: Option<String>,
}

/// What a retention removed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Retention {
    /// The first line.
    pub first_seq: Option<u64>,
    /// How many.
    pub lines: Option<u64>,
    /// Why, by a word.
    pub reason: Option<String>,
}

/// The newest major of the shape that is read.
const MAJOR: u64 = 1;

impl Record {
    /// Reads a line.
    ///
    /// # Errors
    /// When it is none, or of a newer major of the shape.
    pub fn read(line: &[u8]) -> Result<Self, NotARecord> {
        let record: Self = serde_json::from_slice(line).map_err(|error| NotARecord::Not(error.to_string()))?;
        let of_segment = record.segment.as_ref().and_then(|segment| segment.schema.as_deref());
        let schema = of_segment.or(record.host.as_ref().map(|host| host.schema.as_str())).unwrap_or_default();
        let major = schema.split('.').next().and_then(|major| major.parse::<u64>().ok());
        match major {
            Some(newer) if newer > MAJOR => Err(NotARecord::Newer(schema.to_owned())),
            Some(_) | None => Ok(record),
        }
    }

    /// When it was, nanoseconds since 1970 by the wall clock of the host; `None` where its time cannot be read.
    #[must_use]
    pub fn moment(&self) -> Option<i64> {
        i64::try_from(self.time.parse::<jiff::Timestamp>().ok()?.as_nanosecond()).ok()
    }

    /// How its process ended, in words.
    #[must_use]
    pub fn status(&self) -> Option<String> {
        self.exit.as_ref().map(|exit| match (exit.code, exit.signal) {
            (Some(code), _) => format!("exit {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => "status unknown".to_owned(),
        })
    }

    /// The issue that it belongs to, as text.
    #[must_use]
    pub fn issue(&self) -> Option<String> {
        let issue = self.issue.as_ref().filter(|issue| !issue.is_null())?;
        Some(issue.as_str().map_or_else(|| issue.to_string(), str::to_owned))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_passed_over_and_a_newer_major_is_refused() {
        let line = br#"{"seq":1,"kind":"a.kind.of.the.future","run":null,"more":{"x":[1]},"host":{"schema":"1.7"}}"#;
        assert_eq!(Record::read(line).map(|record| record.seq), Ok(1));
        let newer = br#"{"seq":0,"kind":"log.segment","run":null,"segment":{"schema":"2.0"}}"#;
        assert_eq!(Record::read(newer), Err(NotARecord::Newer("2.0".to_owned())));
        let of_host = br#"{"seq":0,"kind":"host.start","host":{"schema":"2.1"}}"#;
        assert_eq!(Record::read(of_host), Err(NotARecord::Newer("2.1".to_owned())));
        for bad in [&b"{"[..], b"", b"[]", b"{\"kind\":\"x\"}", b"{\"seq\":1,\"kind\":\"\xff\"}"] {
            assert!(Record::read(bad).is_err());
        }
    }
}

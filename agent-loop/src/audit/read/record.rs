//! A record as it is read: what every reader needs of it, and the whole line beside.

use serde::Deserialize;

/// A line that is no record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotARecord(pub String);

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
    pub gap: Option<serde_json::Value>,
    /// By which gap it was inferred.
    pub inferred: Option<u64>,
    /// The head of a segment.
    pub segment: Option<Head>,
    /// What a host offers.
    pub host: Option<Head>,
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

/// What names the version of the records' shape.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Head {
    schema: Option<String>,
}

/// The newest major of the shape that is read.
const MAJOR: u64 = 1;

impl Record {
    /// Reads a line.
    ///
    /// # Errors
    /// When it is none, or of a newer major of the shape.
    pub fn read(line: &[u8]) -> Result<Self, NotARecord> {
        let record: Self = serde_json::from_slice(line).map_err(|error| NotARecord(error.to_string()))?;
        let schema = record.segment.as_ref().or(record.host.as_ref()).and_then(|head| head.schema.as_deref());
        let major = schema.and_then(|schema| schema.split('.').next()?.parse::<u64>().ok());
        match major {
            Some(newer) if newer > MAJOR => Err(NotARecord(format!(
                "its records have shape {}, and this agent-loop reads up to {MAJOR}: use a newer one",
                schema.unwrap_or_default()
            ))),
            Some(_) | None => Ok(record),
        }
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
        assert!(Record::read(newer).is_err_and(|error| error.0.contains("use a newer one")));
        for bad in [&b"{"[..], b"", b"[]", b"{\"kind\":\"x\"}", b"{\"seq\":1,\"kind\":\"\xff\"}"] {
            assert!(Record::read(bad).is_err());
        }
    }
}

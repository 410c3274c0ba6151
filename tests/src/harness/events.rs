//! One JSON line of `--events`.

use serde_json::Value;

use crate::oracle::Status;

/// A process in a record: who it is, not only its number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Proc {
    /// Its identity, unique over time.
    pub id: String,
    /// Its number.
    pub pid: i32,
    /// Its birth, in ns of CLOCK_BOOTTIME; zero where the record does not say.
    pub start_ns: u64,
}

impl Proc {
    fn read(value: &Value) -> Option<Self> {
        Some(Self {
            id: value["id"].as_str()?.to_owned(),
            pid: i32::try_from(value["pid"].as_i64()?).ok()?,
            start_ns: value["start_ns"].as_u64().unwrap_or(0),
        })
    }
}

/// One record.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its place in the log.
    pub seq: u64,
    /// What it tells.
    pub kind: String,
    /// Whom it is about.
    pub proc: Option<Proc>,
    /// Who forked that one.
    pub parent: Option<Proc>,
    /// How it ended; `None` where that is unknown.
    pub status: Option<Status>,
    /// Whether it was inferred in the repair of a gap.
    pub inferred: bool,
    /// The whole record; null for births and deaths, of which there are many.
    pub value: Value,
}

impl Event {
    /// Reads a line.
    ///
    /// # Errors
    /// What is wrong with the line.
    pub fn read(line: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(line).map_err(|err| format!("{err} in {line:?}"))?;
        let kind = value["kind"].as_str().ok_or_else(|| format!("no kind in {line:?}"))?.to_owned();
        let many = kind == "proc.fork" || kind == "proc.exit";
        Ok(Self {
            seq: value["seq"].as_u64().ok_or_else(|| format!("no seq in {line:?}"))?,
            proc: Proc::read(&value["proc"]),
            parent: Proc::read(&value["parent"]),
            status: status(&value["exit"]),
            inferred: !value["inferred"].is_null(),
            value: if many { Value::Null } else { value },
            kind,
        })
    }

    /// Whether it tells a birth: the main process's is folded into `run.born`.
    #[must_use]
    pub fn is_birth(&self) -> bool {
        self.kind == "run.born" || self.kind == "proc.fork"
    }

    /// Whether it tells a death.
    #[must_use]
    pub fn is_death(&self) -> bool {
        self.kind == "proc.exit"
    }

    /// The process it is about.
    ///
    /// # Panics
    /// When it names none.
    #[must_use]
    pub fn who(&self) -> &Proc {
        self.proc.as_ref().unwrap_or_else(|| panic!("no process in {self:?}"))
    }

    /// The argv of a `proc.exec`.
    #[must_use]
    pub fn argv(&self) -> Vec<&str> {
        self.value["exec"]["argv"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
    }
}

fn status(exit: &Value) -> Option<Status> {
    let number = |name: &str| exit[name].as_i64().and_then(|number| i32::try_from(number).ok());
    match (number("code"), number("signal")) {
        (Some(code), None) => Some(Status::exited(code)),
        (None, Some(signal)) => Some(Status::signaled(signal, exit["core"].as_bool().unwrap_or(false))),
        (None, None) => None,
        (Some(_), Some(_)) => panic!("both a code and a signal: {exit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_death_is_read_from_its_line() {
        let line = r#"{"seq":57,"kind":"proc.exit","proc":{"id":"KZ3","pid":4712,"start_ns":9},"exit":{"code":null,"signal":9,"core":false},"inferred":null}"#;
        let event = Event::read(line).expect("well formed");
        assert!(event.is_death() && !event.is_birth() && !event.inferred);
        assert_eq!(event.who(), &Proc { id: "KZ3".to_owned(), pid: 4712, start_ns: 9 });
        assert_eq!(event.status, Some(Status::signaled(9, false)));
    }

    #[test]
    fn an_unknown_status_is_none() {
        let line =
            r#"{"seq":1,"kind":"proc.exit","proc":{"id":"A","pid":4},"exit":{"code":null,"signal":null},"inferred":3}"#;
        let event = Event::read(line).expect("well formed");
        assert_eq!(event.status, None);
        assert!(event.inferred);
    }

    #[test]
    fn half_a_line_is_refused() {
        assert!(Event::read(r#"{"seq":1,"kind":"proc"#).is_err());
        assert!(Event::read(r#"{"kind":"gap"}"#).is_err());
    }
}

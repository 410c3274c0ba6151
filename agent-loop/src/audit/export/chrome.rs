//! The Chrome trace format, which Perfetto opens: a row for each process, grouped by its run.

use std::collections::HashMap;
use std::io;

use serde_json::{Value, json};

use crate::audit::read::Record;

/// A trace on its way. A run is a process of the trace, a process one of its threads.
pub struct Chrome<W: io::Write> {
    to: W,
    first: bool,
    /// The number of each run in the trace.
    runs: HashMap<String, u64>,
    /// When each process was born, microseconds, its row, and what it is called.
    alive: HashMap<String, (f64, u64, String)>,
}

impl<W: io::Write> Chrome<W> {
    /// Begins a trace.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn new(mut to: W) -> io::Result<Self> {
        to.write_all(b"{\"displayTimeUnit\":\"ms\",\"traceEvents\":[")?;
        Ok(Self { to, first: true, runs: HashMap::new(), alive: HashMap::new() })
    }

    fn event(&mut self, event: &Value) -> io::Result<()> {
        self.to.write_all(if std::mem::take(&mut self.first) { b"\n" } else { b",\n" })?;
        serde_json::to_writer(&mut self.to, event).map_err(io::Error::from)
    }

    /// Takes a record.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn record(&mut self, record: &Record) -> io::Result<()> {
        #[expect(clippy::cast_precision_loss, reason = "the format counts microseconds as a number of JSON")]
        let ts = record.boot_ns as f64 / 1_000.0;
        let Some(run) = record.run.clone() else { return Ok(()) };
        let number = match self.runs.get(&run) {
            Some(number) => *number,
            None => {
                let number = self.runs.len() as u64 + 1;
                self.runs.insert(run.clone(), number);
                let name = json!({ "name": format!("run {run}") });
                self.event(
                    &json!({ "ph": "M", "name": "process_name", "pid": number, "tid": 0, "ts": 0, "args": name }),
                )?;
                number
            }
        };
        let proc = record.proc.as_ref();
        match (record.kind.as_str(), proc) {
            ("run.born" | "proc.fork", Some(proc)) => {
                let name = record.argv.as_ref().map_or_else(|| "copy of its parent".to_owned(), |argv| argv.join(" "));
                self.alive.insert(proc.id.clone(), (ts, proc.pid.into(), name));
                Ok(())
            }
            ("proc.exec", Some(proc)) => {
                let name = record.exec.as_ref().map(|exec| exec.argv.join(" ")).unwrap_or_default();
                if let Some(alive) = self.alive.get_mut(&proc.id) {
                    alive.2.clone_from(&name);
                }
                let event = json!({
                    "ph": "i", "s": "t", "name": format!("exec {name}"), "pid": number, "tid": proc.pid, "ts": ts,
                    "args": { "seq": record.seq }
                });
                self.event(&event)
            }
            ("proc.exit", Some(proc)) => {
                let (born, tid, name) =
                    self.alive.remove(&proc.id).unwrap_or((ts, proc.pid.into(), "unknown".to_owned()));
                let args = json!({ "seq": record.seq, "status": record.status(), "cause": record.exit.as_ref().and_then(|it| it.cause.clone()) });
                let event = json!({
                    "ph": "X", "name": name, "pid": number, "tid": tid, "ts": born, "dur": (ts - born).max(0.0), "args": args
                });
                self.event(&event)
            }
            ("signal.intent" | "signal.result" | "signal.refused" | "run.killed" | "gap" | "run.exit", _) => {
                let tid = record.to.as_ref().and_then(|to| to.pid).or(proc.map(|proc| proc.pid)).unwrap_or(0);
                let args =
                    json!({ "seq": record.seq, "why": record.why, "reason": record.reason, "outcome": record.outcome });
                let event = json!({
                    "ph": "i", "s": "p", "name": record.kind, "pid": number, "tid": tid, "ts": ts, "args": args
                });
                self.event(&event)
            }
            _ => Ok(()),
        }
    }

    /// Ends the trace; who is still alive is drawn as having just begun.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn end(mut self) -> io::Result<()> {
        self.to.write_all(b"\n]}\n")?;
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_has_what_the_format_asks_for() {
        let mut text = Vec::new();
        let mut trace = Chrome::new(&mut text).expect("memory");
        for line in [
            r#"{"seq":0,"kind":"run.born","boot_ns":1000,"run":"R","argv":["sh"],"proc":{"id":"A","pid":7}}"#,
            r#"{"seq":1,"kind":"proc.exec","boot_ns":1500,"run":"R","exec":{"argv":["make","x"]},"proc":{"id":"A","pid":7}}"#,
            r#"{"seq":2,"kind":"signal.intent","boot_ns":1800,"run":"R","to":{"pid":7},"signal":9}"#,
            r#"{"seq":3,"kind":"proc.exit","boot_ns":3000,"run":"R","exit":{"code":0},"proc":{"id":"A","pid":7}}"#,
        ] {
            trace.record(&Record::read(line.as_bytes()).expect("a record")).expect("memory");
        }
        trace.end().expect("memory");
        let trace: Value = serde_json::from_slice(&text).expect("JSON");
        let events = trace["traceEvents"].as_array().expect("events");
        assert_eq!(events.len(), 4);
        for event in events {
            assert!(["ph", "name", "pid", "tid", "ts"].iter().all(|field| !event[field].is_null()), "{event}");
        }
        let whole = events.iter().find(|event| event["ph"] == "X").expect("the life of the process");
        assert_eq!((&whole["name"], &whole["ts"], &whole["dur"]), (&"make x".into(), &1.0.into(), &2.0.into()));
    }
}

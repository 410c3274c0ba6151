//! CSV (RFC 4180): a row for each record, the same columns for all kinds.

use std::io;

use crate::audit::read::Record;

/// The columns.
const COLUMNS: [&str; 17] = [
    "seq", "time", "boot_ns", "kind", "run", "issue", "proc", "pid", "parent", "command", "code", "signal", "to",
    "result", "proof", "reason", "why",
];

/// A table on its way.
pub struct Csv<W: io::Write>(csv::Writer<W>);

impl<W: io::Write> Csv<W> {
    /// Writes the head of the table.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn new(to: W) -> io::Result<Self> {
        let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(to);
        writer.write_record(COLUMNS).map_err(io::Error::other)?;
        Ok(Self(writer))
    }

    /// Writes a row.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn record(&mut self, record: &Record) -> io::Result<()> {
        let number = |number: Option<u64>| number.map_or_else(String::new, |number| number.to_string());
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let argv = record.exec.as_ref().map(|exec| &exec.argv).or(record.argv.as_ref());
        let exit = record.exit.as_ref();
        let signal = record.signal.or(exit.and_then(|exit| exit.signal).map(i64::from));
        let row = [
            record.seq.to_string(),
            record.time.clone(),
            record.boot_ns.to_string(),
            record.kind.clone(),
            text(&record.run),
            text(&record.issue()),
            record.proc.as_ref().map_or_else(String::new, |proc| proc.id.clone()),
            number(record.proc.as_ref().map(|proc| proc.pid.into())),
            record.parent.as_ref().map_or_else(String::new, |parent| parent.id.clone()),
            argv.map_or_else(String::new, |argv| inert(&argv.join(" "))),
            number(exit.and_then(|exit| exit.code).map(u64::from)),
            signal.map_or_else(String::new, |signal| signal.to_string()),
            number(record.to.as_ref().and_then(|to| to.pid).map(u64::from)),
            text(&record.result),
            text(&record.proof),
            text(&record.reason.clone().or_else(|| record.outcome.clone())),
            inert(&text(&record.why)),
        ];
        self.0.write_record(row).map_err(io::Error::other)
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn end(mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Somebody's words, so that no table program takes them for a formula.
fn inert(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_others_stay_in_their_cell_and_are_no_formula() {
        let mut text = Vec::new();
        let mut table = Csv::new(&mut text).expect("memory");
        let line = br#"{"seq":1,"kind":"proc.exec","run":"R","exec":{"argv":["=cmd()","a,\"b\"\nc"]}}"#;
        table.record(&Record::read(line).expect("a record")).expect("memory");
        table.end().expect("memory");
        let text = String::from_utf8(text).expect("text");
        assert_eq!(text.lines().next().expect("a head").split(',').count(), COLUMNS.len());
        assert!(text.contains("\"'=cmd() a,\"\"b\"\"\nc\""), "{text}");
    }
}

//! Which records are meant.

use jiff::Timestamp;
use memchr::memmem::Finder;

use super::record::Record;

/// Which records are meant: all that is given has to hold.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// The run, by the beginning of its id.
    pub run: Option<String>,
    /// The issue.
    pub issue: Option<String>,
    /// A process, by its id or its number.
    pub proc: Option<String>,
    /// Kinds, or the beginnings of kinds up to a dot: any of them.
    pub kinds: Vec<String>,
    /// Not before this time.
    pub since: Option<Timestamp>,
    /// Not after this time.
    pub until: Option<Timestamp>,
}

impl Filter {
    /// A test of the bytes of a line that lets all through that are meant, and most of the others not.
    pub fn prefilter(&self) -> impl Fn(&[u8]) -> bool + use<> {
        let run = self.run.as_ref().map(|run| format!("\"run\":\"{run}"));
        let proc = self.proc.as_ref().map(|proc| match proc.parse::<u32>() {
            Ok(pid) => format!("\"pid\":{pid}"),
            Err(_) => format!("\"id\":\"{proc}\""),
        });
        // Of several any may hold.
        let kind = match self.kinds.as_slice() {
            [kind] => Some(format!("\"kind\":\"{kind}")),
            [] | [_, _, ..] => None,
        };
        let needles: Vec<Finder<'static>> =
            [run, proc, kind].into_iter().flatten().map(|needle| Finder::new(needle.as_bytes()).into_owned()).collect();
        move |line| needles.iter().all(|needle| needle.find(line).is_some())
    }

    /// Whether a record is meant.
    #[must_use]
    pub fn takes(&self, record: &Record) -> bool {
        let run =
            self.run.as_ref().is_none_or(|run| record.run.as_ref().is_some_and(|of| of.starts_with(run.as_str())));
        let issue = self.issue.as_ref().is_none_or(|issue| record.issue().as_ref() == Some(issue));
        let kind = self.kinds.is_empty() || self.kinds.iter().any(|kind| is_kind(&record.kind, kind));
        run && issue && kind && self.takes_proc(record) && self.takes_time(record)
    }

    fn takes_proc(&self, record: &Record) -> bool {
        let Some(proc) = &self.proc else { return true };
        let number = proc.parse::<u32>().ok();
        let is = |id: Option<&String>, pid: Option<u32>| id == Some(proc) || number.is_some() && pid == number;
        record.proc.as_ref().is_some_and(|of| is(Some(&of.id), Some(of.pid)))
            || record.parent.as_ref().is_some_and(|of| is(Some(&of.id), Some(of.pid)))
            || record.to.as_ref().is_some_and(|of| is(of.id.as_ref(), of.pid))
    }

    fn takes_time(&self, record: &Record) -> bool {
        if self.since.is_none() && self.until.is_none() {
            return true;
        }
        // What does not say when it was is in no span of time.
        let Ok(time) = record.time.parse::<Timestamp>() else { return false };
        self.since.is_none_or(|since| time >= since) && self.until.is_none_or(|until| time <= until)
    }
}

/// `proc` is every `proc.…`, `proc.exit` is itself.
fn is_kind(kind: &str, wanted: &str) -> bool {
    kind.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('.') || wanted.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_that_is_meant_passes_the_first_look() {
        let line = br#"{"seq":5,"kind":"proc.exit","time":"2026-11-22T14:00:00.5Z","run":"01AB","issue":"7","proc":{"id":"KZ3","pid":12},"parent":{"id":"XY","pid":3}}"#;
        let record = Record::read(line).expect("a record");
        let text = |text: &str| Some(text.to_owned());
        let time = |text: &str| Some(text.parse().expect("a time"));
        let yes = [
            Filter::default(),
            Filter { run: text("01A"), ..Filter::default() },
            Filter { issue: text("7"), ..Filter::default() },
            Filter { proc: text("12"), ..Filter::default() },
            Filter { proc: text("XY"), ..Filter::default() },
            Filter { kinds: vec!["gap".to_owned(), "proc".to_owned()], ..Filter::default() },
            Filter { kinds: vec!["proc".to_owned()], ..Filter::default() },
            Filter { kinds: vec!["proc.exit".to_owned()], ..Filter::default() },
            Filter { since: time("2026-11-22T14:00:00Z"), until: time("2026-11-22T15:00:00Z"), ..Filter::default() },
        ];
        for filter in yes {
            assert!(filter.prefilter()(line) && filter.takes(&record), "{filter:?}");
        }
        let no = [
            Filter { run: text("01B"), ..Filter::default() },
            Filter { issue: text("8"), ..Filter::default() },
            Filter { proc: text("1"), ..Filter::default() },
            Filter { kinds: vec!["pro".to_owned()], ..Filter::default() },
            Filter { since: time("2026-11-22T14:00:01Z"), ..Filter::default() },
        ];
        for filter in no {
            assert!(!filter.takes(&record), "{filter:?}");
        }
    }
}

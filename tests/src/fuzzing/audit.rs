//! The audit log as its readers find it: a line, a segment, a checkpoint, a bundle.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};

use agent_loop::audit::export::{Chrome, Csv, Ocsf};
use agent_loop::audit::log::{layout, note};
use agent_loop::audit::read::{Filter, NotARecord, Record, Source};
use agent_loop::audit::report::{Builder, Selection, html};
use agent_loop::audit::verify::{self, Options};

/// A line: every export and the report take what it says.
pub(super) fn line(bytes: &[u8]) {
    let mut report = Builder::default();
    let told = report.line(bytes);
    let record = match Record::read(bytes) {
        Ok(record) => record,
        Err(error) => {
            assert_eq!(told.is_err(), matches!(error, NotARecord::Newer(_)));
            return assert!(!error.to_string().is_empty());
        }
    };
    assert_eq!(told, Ok(()));
    assert!(html(&report.finish(&Selection::default())).ends_with("</html>\n"));
    let filter = Filter { run: record.run.clone(), kinds: vec![record.kind.clone()], ..Filter::default() };
    assert!(filter.takes(&record) || record.kind.is_empty());
    let _ = filter.prefilter()(bytes);
    let (mut table, mut trace, mut events) = (Vec::new(), Vec::new(), Vec::new());
    let mut csv = Csv::new(&mut table).expect("memory");
    csv.record(&record).expect("memory");
    csv.end().expect("memory");
    let mut chrome = Chrome::new(&mut trace).expect("memory");
    chrome.record(&record).expect("memory");
    chrome.end().expect("memory");
    let mut ocsf = Ocsf::new(&mut events);
    ocsf.record(&record).expect("memory");
    ocsf.end().expect("memory");
    assert!(serde_json::from_slice::<serde_json::Value>(&trace).is_ok());
    for event in events.split(|byte| *byte == b'\n').filter(|event| !event.is_empty()) {
        assert!(serde_json::from_slice::<serde_json::Value>(event).is_ok());
    }
}

/// A log of one segment, plain or compressed by how it begins: it is judged, and read.
pub(super) fn segment(bytes: &[u8]) {
    thread_local! {
        static PLACE: RefCell<Option<tempfile::TempDir>> = const { RefCell::new(None) };
    }
    PLACE.with_borrow_mut(|place| {
        let dir = place.get_or_insert_with(|| {
            let dir = tempfile::tempdir().expect("a directory");
            fs::create_dir(dir.path().join(layout::SEGMENTS)).expect("made");
            dir
        });
        let names: [PathBuf; 2] = layout::names(0).map(|name| dir.path().join(name));
        let is_packed = bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
        let [plain, packed] = &names;
        let path: &Path = if is_packed { packed } else { plain };
        fs::write(path, bytes).expect("written");
        let options = Options { account: true, ..Options::default() };
        let report = verify::verify(dir.path(), &options, &mut |_| ()).expect("it can be read");
        // Nothing signs it.
        assert_eq!(report.verdict().code(), 3);
        let mut source = Source::open(dir.path()).expect("a log");
        let mut lines = 0_u64;
        while let Ok(Some(_)) = source.next_line() {
            lines += 1;
        }
        assert!(lines <= bytes.iter().filter(|byte| **byte == b'\n').count() as u64 || is_packed);
        fs::remove_file(path).expect("removed");
    });
}

/// A checkpoint; what it says is believed only where a key signed it.
pub(super) fn checkpoint(bytes: &[u8]) {
    const OTHER: &str =
        "agent-loop/01KAWXJ7000000000000000000+00000000+AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = note::is_key(text);
    }
    match note::read(bytes) {
        Ok(read) => {
            assert!(read.verify(OTHER).is_err() && read.verify("").is_err());
            if let Ok(text) = std::str::from_utf8(bytes) {
                assert!(read.verify(text).is_err());
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// A bundle: what it proves is in it, in order, and is as it was written.
pub(super) fn bundle(bytes: &[u8]) {
    match verify::check_bundle(bytes, None) {
        Ok(proven) => {
            assert!(!proven.lines.is_empty() && !proven.pinned && proven.lines.len() as u64 <= proven.size);
            assert!(verify::check_bundle(bytes, Some("another key")).is_err());
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

//! What the log says of some runs, in one pass: what a new daemon goes on from.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Read};
use std::path::Path;

use jiff::Timestamp;
use memchr::memmem::Finder;

use super::log::layout::{self, Segment};
use crate::run::RunId;

/// Reads the lines of these runs, each run's in their order and with their line ends.
///
/// Segments that ended before the first of the runs was submitted are passed over; a torn end is no line.
///
/// # Errors
/// When a segment cannot be read.
pub fn lines_of(audit: &Path, runs: &[RunId]) -> io::Result<BTreeMap<RunId, Vec<u8>>> {
    let mut found: BTreeMap<RunId, Vec<u8>> = runs.iter().map(|run| (*run, Vec::new())).collect();
    let Some(first) = runs.iter().map(|run| run.0.timestamp_ms()).min() else { return Ok(found) };
    let segments = layout::segments(audit)?;
    let needles: Vec<(RunId, Finder<'_>)> =
        runs.iter().map(|run| (*run, Finder::new(format!("\"run\":\"{run}\"").as_bytes()).into_owned())).collect();
    let mut line = Vec::new();
    for (number, segment) in segments.iter().enumerate() {
        // It ended when the next one began.
        let ended = segments.get(number + 1).map(begun).transpose()?.flatten();
        if ended.is_some_and(|ended| ended < first) {
            continue;
        }
        let mut from = open(segment)?;
        loop {
            line.clear();
            if from.read_until(b'\n', &mut line)? == 0 || !line.ends_with(b"\n") {
                break;
            }
            // The field stands once in a line, near its head; a text that looks like it has its quotes escaped.
            let of = needles.iter().find(|(_, needle)| needle.find(&line).is_some());
            if let Some(lines) = of.and_then(|(run, _)| found.get_mut(run)) {
                lines.extend_from_slice(&line);
            }
        }
    }
    Ok(found)
}

/// When a segment began, milliseconds since 1970; `None` where its head does not say.
pub(super) fn begun(segment: &Segment) -> io::Result<Option<u64>> {
    #[derive(serde::Deserialize)]
    struct Head {
        time: String,
    }
    let mut line = Vec::new();
    open(segment)?.read_until(b'\n', &mut line)?;
    let time = serde_json::from_slice::<Head>(&line).ok().and_then(|head| head.time.parse::<Timestamp>().ok());
    Ok(time.and_then(|time| u64::try_from(time.as_millisecond()).ok()))
}

/// Opens a segment for reading.
fn open(segment: &Segment) -> io::Result<BufReader<Box<dyn Read>>> {
    let (file, packed) = layout::open(segment, libc::O_NOFOLLOW)?;
    let from: Box<dyn Read> = if packed { Box::new(zstd::Decoder::new(file)?) } else { Box::new(file) };
    Ok(BufReader::with_capacity(256 << 10, from))
}

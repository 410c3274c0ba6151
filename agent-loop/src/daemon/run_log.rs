//! The event log of one run: lines appended to its file, and handed to whoever follows the events.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};

use super::feed::Feed;
use crate::audit::{Clock, Line, Recorder, Replayed};
use crate::clock;
use crate::run::{RunId, RunRecord};
use crate::store::{LogDir, RunFiles, StoreError};
use crate::track::Restored;

/// How much waits for a disk that cannot be written, before lines are thrown away and counted.
const PENDING_LIMIT: usize = 8 << 20;

/// How much of the end of a log is looked through for who asked for a stop: the rest of a run is short after that.
const ASKED_WITHIN: u64 = 4 << 20;

/// What the log of a run alone knows of its end, one sentence each: who asked for it, and what of its output is missing.
pub(super) fn told(dir: &LogDir, id: RunId) -> Vec<String> {
    #[derive(serde::Deserialize)]
    struct Told {
        kind: String,
        why: String,
    }
    let Ok((_, mut past)) = RunFiles::events(dir, id) else { return Vec::new() };
    let length = past.metadata().map_or(0, |it| it.len());
    if past.seek(SeekFrom::Start(length.saturating_sub(ASKED_WITHIN))).is_err() {
        return Vec::new();
    }
    let lines = BufReader::new(past.take(ASKED_WITHIN)).lines().map_while(Result::ok);
    let told = lines.filter(|line| line.contains("run.stop_asked") || line.contains("run.output_unheard"));
    let told = told.filter_map(|line| serde_json::from_str::<Told>(&line).ok());
    let sentence = |Told { kind, why }| match kind.as_str() {
        "run.stop_asked" => Some(format!("Its end was {why}.")),
        "run.output_unheard" => Some(format!("The end of its output may be missing: {why}.")),
        _ => None,
    };
    told.filter_map(sentence).collect()
}

/// The log of one run.
pub(super) struct RunLog {
    /// None where it could not be opened: its lines reach who follows, and no disk.
    file: Option<File>,
    recorder: Recorder,
    pending: Vec<u8>,
    /// Lines that were thrown away since the disk could not be written.
    dropped: u64,
    failing: Option<String>,
    feed: Feed,
    /// The end of the run and its sum stand in it already: written by a daemon that ended before it was remembered.
    ended: bool,
}

impl RunLog {
    /// Opens the log of a run and reads back what stands in it, for `restored` to go on from.
    ///
    /// A log that cannot be read back is gone on with all the same: what it said is then declared by the kernel's
    /// count, and the reason is returned beside an empty past.
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub(super) fn open(
        dir: &LogDir,
        record: &RunRecord,
        boot_id: &str,
        feed: Feed,
        restored: Option<&mut Restored>,
    ) -> Result<(Self, Replayed, Option<String>), StoreError> {
        let (file, past) = RunFiles::events(dir, record.id)?;
        let (past, trouble) = match Replayed::read(BufReader::new(past), restored) {
            Ok(past) => (past, None),
            Err(error) => (Replayed::default(), Some(error.to_string())),
        };
        let mut log = Self::new(Some(file), record, boot_id, feed);
        log.recorder.go_on_at(past.next_seq);
        log.ended = past.ended;
        if past.torn {
            log.pending.push(b'\n');
            log.write(Recorder::torn);
        }
        Ok((log, past, trouble))
    }

    /// The log of a run that has to be supervised though its log cannot be opened: what it says is not kept.
    pub(super) fn nowhere(record: &RunRecord, boot_id: &str, feed: Feed) -> Self {
        Self::new(None, record, boot_id, feed)
    }

    fn new(file: Option<File>, record: &RunRecord, boot_id: &str, feed: Feed) -> Self {
        let submission = &record.submission;
        let recorder =
            Recorder::new(boot_id.to_owned(), record.id.to_string(), submission.argv.clone(), submission.user.clone());
        Self { file, recorder, pending: Vec::new(), dropped: 0, failing: None, feed, ended: false }
    }

    /// Names the cgroup of the run.
    pub(super) fn set_cgroup(&mut self, id: u64, path: String) {
        self.recorder.set_cgroup(id, path);
    }

    /// Appends a line that the recorder makes.
    pub(super) fn write(&mut self, make: impl FnOnce(&mut Recorder, Clock) -> Line) {
        let line = make(&mut self.recorder, clock::both());
        self.append(&line);
    }

    /// Whether the end of the run stands in it.
    pub(super) const fn is_ended(&self) -> bool {
        self.ended
    }

    /// Appends the line of a fact, if it has one; the end of a run is told once.
    pub(super) fn fact(&mut self, fact: &crate::event::Fact) {
        if self.ended && matches!(fact, crate::event::Fact::RunExit(_)) {
            return;
        }
        if let Some(line) = self.recorder.fact(fact, clock::both()) {
            self.append(&line);
        }
    }

    fn append(&mut self, line: &Line) {
        let text = match serde_json::to_string(line) {
            Ok(text) => text,
            Err(error) => {
                self.dropped += 1;
                self.failing.get_or_insert(error.to_string());
                return;
            }
        };
        if self.file.is_none() {
            self.dropped += 1;
        } else if self.pending.len() + text.len() > PENDING_LIMIT {
            self.dropped += 1;
            return;
        } else {
            self.pending.extend_from_slice(text.as_bytes());
            self.pending.push(b'\n');
        }
        self.feed.send(text.into());
    }

    /// Writes what waits. Nothing waits for this: a disk that is full loses no deadline.
    ///
    /// The reason is returned once, when writing begins to fail.
    pub(super) fn flush(&mut self) -> Option<String> {
        let file = self.file.as_mut()?;
        while !self.pending.is_empty() {
            match file.write(&self.pending) {
                Ok(count) => {
                    self.pending.drain(..count);
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let first = self.failing.is_none();
                    self.failing = Some(error.to_string());
                    return first.then(|| error.to_string());
                }
            }
        }
        self.failing = None;
        if self.dropped > 0 {
            let dropped = std::mem::take(&mut self.dropped);
            self.write(|recorder, clock| recorder.dropped(dropped, clock));
        }
        None
    }

    /// Whether something waits for a disk that could not be written.
    pub(super) fn is_behind(&self) -> bool {
        !self.pending.is_empty()
    }
}

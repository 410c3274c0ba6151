//! The lines of one run: made, handed to the audit log, and to whoever follows the events.

use super::feed::Feed;
use crate::audit::log::AuditLog;
use crate::audit::{Clock, Line, Recorder, Replayed};
use crate::clock;
use crate::event::{Fact, Phase};
use crate::run::RunRecord;
use crate::track::Restored;

/// What a run says.
pub(super) struct RunLog {
    recorder: Recorder,
    feed: Feed,
    /// The end of the run and its sum stand in the log already: written by a daemon that ended before it was remembered.
    ended: bool,
}

impl RunLog {
    /// Of a run that begins.
    pub(super) fn new(record: &RunRecord, boot_id: &str, feed: Feed) -> Self {
        let submission = &record.submission;
        let mut recorder =
            Recorder::new(boot_id.to_owned(), record.id.to_string(), submission.argv.clone(), submission.user.clone());
        if let Some(part) = &submission.part {
            recorder.set_issue(&part.issue);
        }
        Self { recorder, feed, ended: false }
    }

    /// Of a run that goes on: what the log says of it is read back, for `restored` to go on from.
    ///
    /// A past that cannot be read back is gone on without: what it said is then declared by the kernel's count, and the
    /// reason is returned beside an empty past.
    pub(super) fn go_on(
        record: &RunRecord,
        boot_id: &str,
        feed: Feed,
        past: &[u8],
        restored: &mut Restored,
    ) -> (Self, Replayed, Option<String>) {
        let (past, trouble) = match Replayed::read(past, Some(restored)) {
            Ok(past) => (past, None),
            Err(error) => (Replayed::default(), Some(error.to_string())),
        };
        let log = Self { ended: past.ended, ..Self::new(record, boot_id, feed) };
        (log, past, trouble)
    }

    /// Names the cgroup of the run.
    pub(super) fn set_cgroup(&mut self, id: u64, path: String) {
        self.recorder.set_cgroup(id, path);
    }

    /// Appends a line that the recorder makes.
    pub(super) fn write(&mut self, to: &mut AuditLog, make: impl FnOnce(&mut Recorder, Clock) -> Line) {
        let line = make(&mut self.recorder, clock::both());
        self.append(to, line);
    }

    /// Whether the end of the run stands in it.
    pub(super) const fn is_ended(&self) -> bool {
        self.ended
    }

    /// Appends the line of a fact, if it has one; the end of a run is told once. What a person should see is returned.
    pub(super) fn fact(&mut self, to: &mut AuditLog, fact: &Fact) -> Option<String> {
        if self.ended && matches!(fact, Fact::RunExit(_)) {
            return None;
        }
        let line = self.recorder.fact(fact, clock::both())?;
        let told =
            matches!(fact, Fact::Phase(Phase::Unkillable { .. })).then(|| line.why().map(str::to_owned)).flatten();
        self.append(to, line);
        told
    }

    fn append(&self, to: &mut AuditLog, line: Line) {
        // What finds no room is counted by the log, and declared by it.
        if let Some((_, text)) = to.append(line) {
            self.feed.send(text.into());
        }
    }
}

//! The front end of the log: numbers lines, hands them over, and never waits for a disk.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::layout;
use super::open::{self, OpenError, Opened};
use super::retention::{Keep, Leaving, Retention};
use super::settings::{Place, Settings};
use super::thread::{Batch, Message, Writer};
use super::{Disk, Files};
use crate::audit::anchor::{Anchoring, Outcome};
use crate::audit::record::{Line, OwnLines, SegmentHead};
use crate::audit::{redact, schema};
use crate::clock;

/// How long the end waits for the thread, which itself gives a failing disk some seconds.
const CLOSE_WITHIN: Duration = Duration::from_secs(8);

/// How long the end waits for anchors.
const ANCHORED_WITHIN: Duration = Duration::from_secs(3);

/// How far the writing has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// How many lines of the log are durable.
    pub durable: u64,
    /// How many the newest checkpoint covers.
    pub signed: u64,
    /// When that was signed, CLOCK_BOOTTIME in nanoseconds.
    pub signed_ns: u64,
    /// Why writing fails, while it does.
    pub failing: Option<String>,
    /// Whether the disk is full, or was when that was last looked at.
    pub full: bool,
    /// Bytes that were free then.
    pub free: Option<u64>,
    /// Files that were to go and could not be removed: each sync tries again.
    pub unremoved: u64,
    /// Whether the log was closed.
    pub closed: bool,
}

/// What the two ends share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    progress: Mutex<Progress>,
    moved: Condvar,
    /// Bytes that were handed over and are not durable.
    pub(super) pending: AtomicUsize,
}

impl Shared {
    pub(super) fn read(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.read());
        self.moved.notify_all();
    }

    /// Waits until it holds, for at most this long; whether it does.
    fn wait(&self, within: Duration, holds: impl Fn(&Progress) -> bool) -> bool {
        let waited = self.moved.wait_timeout_while(self.read(), within, |progress| !holds(progress));
        holds(&waited.unwrap_or_else(PoisonError::into_inner).0)
    }
}

/// A log that is open for writing. Dropped without [`AuditLog::close`], what was handed over is written all the same.
pub struct AuditLog {
    settings: Settings,
    own: OwnLines,
    head: SegmentHead,
    /// The number of the next line.
    next: u64,
    /// The open segment: its first line, its bytes, when it was begun.
    segment: (u64, u64, Instant),
    batch: Batch,
    to: Sender<Message>,
    shared: Arc<Shared>,
    /// Lines that were refused since the last that was not.
    refused: u64,
    /// How many lines were durable at the last wait, and how long it is waited in vain since.
    vain: (u64, Duration),
    anchoring: Option<Anchoring>,
    /// Whether segments were closed since the last look at what may be kept.
    closed: bool,
    /// Whether somebody looks at that.
    retaining: bool,
    /// The first line of the oldest segment that is kept.
    kept_from: u64,
    audit: PathBuf,
}

impl AuditLog {
    /// Opens a log, or begins one, and declares what a crash left.
    ///
    /// # Errors
    /// [`OpenError`]: it is in use, not safe, cannot be read or written, was tampered with, or is of a newer format.
    pub fn open(place: &Place, settings: Settings, boot_id: &str) -> Result<(Self, Opened), OpenError> {
        Self::open_on(place, settings, boot_id, |files| Box::new(files))
    }

    /// As [`AuditLog::open`], on a disk that may fail.
    ///
    /// # Errors
    /// As [`AuditLog::open`].
    pub fn open_on(
        place: &Place,
        settings: Settings,
        boot_id: &str,
        disk: impl FnOnce(Files) -> Box<dyn Disk>,
    ) -> Result<(Self, Opened), OpenError> {
        let found = open::open(place, boot_id)?;
        let (to, from) = channel();
        let size = found.tree.size();
        let shared = Arc::new(Shared::default());
        shared.change(|progress| (progress.durable, progress.signed) = (size, found.signed));
        let mut head = SegmentHead::new(found.key.origin());
        head.schema_sha256 = Some(schema::sha256().to_owned());
        head.redaction_sha256 = Some(redact::ours().policy_sha256().to_owned());
        head.mended = (found.opened.mended > 0).then_some(found.opened.mended);
        let verifier = found.key.verifier().to_owned();
        let anchoring = (!settings.anchors.is_empty())
            .then(|| Anchoring::start(settings.anchors.clone(), settings.anchor_every, size))
            .transpose()
            .map_err(|error| OpenError::failed("starting the thread of the anchors", error))?;
        let mut disk = disk(found.files);
        found.pack.iter().for_each(|first| disk.pack(*first));
        let writer = Writer {
            disk,
            tree: found.tree,
            key: found.key,
            anchors: anchoring.as_ref().map(Anchoring::slot),
            boot_id: boot_id.to_owned(),
            settings: settings.clone(),
            shared: Arc::clone(&shared),
            offset: found.offset,
            first: found.first,
            plan: super::plan::Plan::default(),
            queue: std::collections::VecDeque::new(),
            unsynced: Vec::new(),
            rewrite: false,
            tiles: Vec::new(),
            edge: found.edge,
            soft: Vec::new(),
            keep: false,
            remove: Vec::new(),
            put: Vec::new(),
            reserved: place.audit.join(layout::RESERVE).exists(),
            lock: Some(found.lock),
            start: Instant::now(),
        };
        std::thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || writer.run(&from))
            .map_err(|error| OpenError::failed("starting the thread of the audit log", error))?;
        let mut log = Self {
            settings,
            own: OwnLines::new(boot_id),
            head,
            next: size,
            segment: (found.first, found.offset, Instant::now()),
            batch: Batch::default(),
            to,
            shared,
            refused: 0,
            vain: (0, Duration::ZERO),
            anchoring,
            closed: true,
            retaining: false,
            kept_from: 0,
            audit: place.audit.clone(),
        };
        if found.opened.lines == 0 {
            log.begin(None);
            let key = log.own.key(1, &verifier, 0, clock::both());
            log.append(key);
            log.signed_first()?;
        } else if found.begin {
            log.begin(Some(found.first));
        }
        // Told once.
        log.head.mended = None;
        for torn in &found.opened.torn {
            let line = log.own.torn(torn.bytes, &torn.sha256, clock::both());
            if log.append(line).is_some() {
                // Once that is durable.
                log.batch.remove.push(torn.mark());
            }
        }
        log.flush();
        Ok((log, found.opened))
    }

    /// A log whose place cannot be opened now: it takes lines as others do, holds them as far as there is room, and says
    /// that it fails. Agents that run are supervised on with it; nothing is launched.
    #[must_use]
    pub fn nowhere(place: &Place, settings: Settings, boot_id: &str, why: String) -> Self {
        let shared = Arc::new(Shared::default());
        shared.change(|progress| (progress.failing, progress.closed) = (Some(why), true));
        Self {
            settings,
            own: OwnLines::new(boot_id),
            head: SegmentHead::new(""),
            next: 0,
            segment: (0, 0, Instant::now()),
            batch: Batch::default(),
            to: channel().0,
            shared,
            refused: 0,
            vain: (0, Duration::ZERO),
            anchoring: None,
            closed: false,
            retaining: false,
            kept_from: 0,
            audit: place.audit.clone(),
        }
    }

    /// Has the first lines signed: a log without a checkpoint is none.
    fn signed_first(&mut self) -> Result<(), OpenError> {
        self.batch.sign = true;
        self.batch.keep = true;
        let next = self.next;
        self.flush();
        if self.shared.wait(CLOSE_WITHIN, |progress| progress.signed >= next) {
            return Ok(());
        }
        let why = self.progress().failing.unwrap_or_else(|| "the disk does not answer".to_owned());
        Err(OpenError::Failed { doing: "beginning the audit log", why })
    }

    /// Appends a line; its number, and its text without the line end. `None` where too much waits for the disk: that is
    /// counted, and declared when there is room again.
    ///
    /// Nothing is handed over before [`AuditLog::flush`].
    pub fn append(&mut self, line: Line) -> Option<(u64, &str)> {
        if self.shared.pending.load(Ordering::Relaxed) + self.batch.bytes.len() > self.settings.pending_bytes {
            self.refused += 1;
            return None;
        }
        if self.refused > 0 {
            let (refused, full) = (std::mem::take(&mut self.refused), self.shared.read().full);
            let gap = self.own.lost(refused, full, clock::both());
            self.write(gap);
        }
        self.tell_of_anchors();
        let (_, bytes, since) = self.segment;
        if bytes >= self.settings.segment_bytes || since.elapsed() >= self.settings.segment_age {
            self.begin(Some(self.segment.0));
        }
        Some(self.write(line))
    }

    /// Begins a segment.
    fn begin(&mut self, previous: Option<u64>) {
        self.flush();
        self.batch.begins = Some(self.next);
        self.closed = true;
        self.segment = (self.next, 0, Instant::now());
        let line = self.own.segment(&self.head, self.next, previous, clock::both());
        self.write(line);
    }

    fn write(&mut self, line: Line) -> (u64, &str) {
        let seq = self.next;
        let class = line.class();
        if let Some(anchoring) = self.anchoring.as_ref().filter(|_| !line.is_of_anchoring()) {
            anchoring.wrote(seq + 1);
        }
        let line = line.numbered(seq);
        let from = self.batch.bytes.len();
        line.write(&mut self.batch.bytes);
        let end = self.batch.bytes.len();
        self.batch.bytes.push(b'\n');
        self.batch.ends.push(end + 1);
        self.segment.1 += (end + 1 - from) as u64;
        self.next += 1;
        self.batch.urgent |= class.is_durable_first();
        self.batch.sign |= class.is_signed_at_once();
        self.batch.keep |= class.is_kept();
        (seq, self.batch.bytes.get(from..end).and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default())
    }

    /// Records what the anchors said since.
    fn tell_of_anchors(&mut self) {
        if let Some(anchoring) = &self.anchoring {
            let outcomes = anchoring.take();
            self.anchored(outcomes);
        }
    }

    fn anchored(&mut self, outcomes: Vec<Outcome>) {
        for Outcome { to, handed, told } in outcomes {
            let line = self.own.anchor(to, handed.size, &handed.root, &told, clock::both());
            self.write(line);
            if told.is_ok() {
                self.batch.put.push((layout::kept(handed.size), handed.text.clone()));
            }
        }
    }

    /// Hands over what was appended.
    pub fn flush(&mut self) {
        self.tell_of_anchors();
        if self.batch.ends.is_empty() {
            return;
        }
        let batch = std::mem::take(&mut self.batch);
        self.shared.pending.fetch_add(batch.bytes.len(), Ordering::Relaxed);
        // The thread ends only after us.
        let _ = self.to.send(Message::Batch(batch));
    }

    /// Hands over what was appended, and waits until it is durable, for at most this long; whether it is.
    ///
    /// The only call that waits for a disk in the middle of work: who must not wait long says so. While the disk does not
    /// answer all calls wait that long together, not each: a hundred stops are not late by a hundred waits.
    pub fn durable(&mut self, within: Duration) -> bool {
        self.flush();
        let (next, before) = (self.next, self.progress().durable);
        if self.refused > 0 {
            return false;
        }
        let patience = self.patience(within);
        let is_durable = self.shared.wait(patience, |progress| progress.durable >= next);
        let durable = self.progress().durable;
        // Whatever became durable meanwhile is an answer.
        let vain = if is_durable || durable > before { Duration::ZERO } else { within.max(self.vain.1) };
        self.vain = (durable, vain);
        is_durable
    }

    /// How much of such a wait is left, of which some was waited in vain since the disk answered last.
    pub(super) fn patience(&self, within: Duration) -> Duration {
        let (durable, vain) = self.vain;
        if self.progress().durable == durable { within.saturating_sub(vain) } else { within }
    }

    /// Has all that was appended signed at once, and waits for that, for at most this long or until writing fails; whether
    /// it is signed.
    pub fn sign(&mut self, within: Duration) -> bool {
        self.flush();
        let _ = self.to.send(Message::Sign);
        let next = self.next;
        self.shared.wait(within, |progress| progress.signed >= next || progress.failing.is_some());
        self.progress().signed >= next
    }

    /// How far the writing has come.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.shared.read().clone()
    }

    /// Lines that were refused and are not declared yet.
    #[must_use]
    pub const fn refused(&self) -> u64 {
        self.refused
    }

    /// The number of the next line.
    #[must_use]
    pub const fn next(&self) -> u64 {
        self.next
    }

    /// Where the log is.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.audit
    }

    /// What is to be looked at where segments were closed since the last time, and some may be too many or too old. Whoever
    /// takes it comes back with what goes: until then there is none.
    pub fn closed(&mut self) -> Option<Retention> {
        let keep = self.settings.keep;
        if !self.closed || self.retaining || keep == Keep::default() {
            return None;
        }
        (self.closed, self.retaining) = (false, true);
        Some(Retention { audit: self.audit.clone(), keep, from: self.kept_from, until: self.segment.0 })
    }

    /// Has these segments removed once it is durable that they go; none where it could not be looked.
    pub fn retire(&mut self, leaving: &[Leaving]) {
        self.retaining = false;
        for Leaving { first, lines, reason } in leaving {
            let line = self.own.retention(*first, *lines, reason, clock::both());
            if self.append(line).is_none() {
                // It is looked at again.
                self.closed = true;
                break;
            }
            self.batch.remove.extend(layout::names(*first));
            self.kept_from = first + lines;
        }
        self.flush();
    }

    /// Writes, signs and closes everything, within reason; how far that came.
    pub fn close(&mut self) -> Progress {
        self.flush();
        if let Some(anchoring) = self.anchoring.take() {
            self.sign(CLOSE_WITHIN);
            let outcomes = anchoring.close(ANCHORED_WITHIN);
            self.anchored(outcomes);
            self.flush();
        }
        let _ = self.to.send(Message::Close);
        self.shared.wait(CLOSE_WITHIN, |progress| progress.closed);
        self.progress()
    }
}

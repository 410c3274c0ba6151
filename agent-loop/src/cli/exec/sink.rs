//! Where lines go: a thread for each destination, so that a slow reader never holds up a deadline.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, Thread};
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use crate::keeper::streams;

/// How much may wait for a slow reader: some 200,000 events.
const PENDING_LIMIT: usize = 64 << 20;

/// How long a writer that has written lets lines gather: in a storm it would else be woken for each of them, which
/// costs more than all the rest. Nothing is decided by what it holds back, and the first line never waits.
const GATHER: Duration = Duration::from_millis(5);

/// The room for what one wake-up appends, about.
const CHUNK_SIZE: usize = 2 << 10;

/// How much is written at once, about.
const WRITE_SIZE: usize = 256 << 10;

/// How long the end waits for a reader that has stopped reading.
const FLUSH_LIMIT: Duration = Duration::from_secs(5);

/// A destination that failed.
#[derive(Debug)]
pub(super) struct SinkFailed {
    /// Which.
    pub(super) what: String,
    /// How.
    pub(super) error: io::Error,
    /// Whether it is the one for people.
    pub(super) is_human: bool,
}

/// A destination of lines.
pub(super) struct Sink {
    what: String,
    is_human: bool,
    buffer: Vec<u8>,
    chunks: Option<Sender<Vec<u8>>>,
    pending: Arc<AtomicUsize>,
    failed: UnboundedSender<SinkFailed>,
    done: oneshot::Receiver<()>,
    writer: Thread,
    full: bool,
}

impl Sink {
    /// Opens the events file; `-` is stdout.
    ///
    /// # Errors
    /// When it cannot be opened or created.
    pub(super) fn events(path: &Path, failed: UnboundedSender<SinkFailed>) -> anyhow::Result<Self> {
        if path == Path::new("-") {
            anyhow::ensure!(!streams::stdout_was_closed(), "--events - needs stdout, which is closed; name a file");
            let stdout = File::from(io::stdout().as_fd().try_clone_to_owned().context("opening stdout for --events")?);
            return Self::start("events on stdout".to_owned(), false, stdout, failed);
        }
        let file = append(path).with_context(|| format!("opening {} for --events", path.display()))?;
        Self::start(format!("events in {}", path.display()), false, file, failed)
    }

    /// Stderr, for people.
    ///
    /// # Errors
    /// When it is closed.
    pub(super) fn human(failed: UnboundedSender<SinkFailed>) -> anyhow::Result<Self> {
        let stderr = File::from(io::stderr().as_fd().try_clone_to_owned().context("opening stderr")?);
        Self::start("lines on stderr".to_owned(), true, stderr, failed)
    }

    fn start(what: String, is_human: bool, file: File, failed: UnboundedSender<SinkFailed>) -> anyhow::Result<Self> {
        let (chunks, receiver) = channel();
        let (done_sender, done) = oneshot::channel();
        let pending = Arc::new(AtomicUsize::new(0));
        let writer =
            Writer { what: what.clone(), is_human, file, pending: Arc::clone(&pending), failed: failed.clone() };
        let writer = thread::Builder::new()
            .name("writer".to_owned())
            .spawn(move || {
                writer.run(&receiver);
                let _ = done_sender.send(());
            })
            .context("starting a writer thread")?
            .thread()
            .clone();
        Ok(Self {
            what,
            is_human,
            buffer: Vec::new(),
            chunks: Some(chunks),
            pending,
            failed,
            done,
            writer,
            full: false,
        })
    }

    /// Where a line is appended; nothing is written before [`Sink::flush`].
    pub(super) const fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// Hands what was appended to the writer. A reader that is too slow is a failure, told once.
    pub(super) fn flush(&mut self) {
        if self.buffer.is_empty() || self.full {
            self.buffer.clear();
            return;
        }
        let chunk = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK_SIZE));
        if self.pending.fetch_add(chunk.len(), Ordering::Relaxed) + chunk.len() > PENDING_LIMIT {
            self.full = true;
            let error = io::Error::other("its reader is too slow");
            let _ = self.failed.send(SinkFailed { what: self.what.clone(), error, is_human: self.is_human });
            return;
        }
        if let Some(chunks) = &self.chunks {
            let _ = chunks.send(chunk);
        }
    }

    /// Waits until everything is written, within reason; whether it was.
    pub(super) async fn close(mut self) -> bool {
        self.flush();
        self.chunks = None;
        self.writer.unpark();
        !self.full && tokio::time::timeout(FLUSH_LIMIT, &mut self.done).await.is_ok()
    }
}

/// Opens a file of ours: appended to, for evidence is not overwritten, and readable by its owner alone, for
/// command lines may hold secrets.
pub(super) fn append(path: &Path) -> io::Result<File> {
    File::options().create(true).append(true).mode(0o600).open(path)
}

struct Writer {
    what: String,
    is_human: bool,
    file: File,
    pending: Arc<AtomicUsize>,
    failed: UnboundedSender<SinkFailed>,
}

impl Writer {
    fn run(mut self, chunks: &Receiver<Vec<u8>>) {
        let mut failed = false;
        while let Ok(mut chunk) = chunks.recv() {
            let drained = gather(&mut chunk, chunks);
            if !failed && let Err(error) = self.file.write_all(&chunk) {
                failed = true;
                let _ = self.failed.send(SinkFailed { what: self.what.clone(), error, is_human: self.is_human });
            }
            self.pending.fetch_sub(chunk.len(), Ordering::Relaxed);
            if drained {
                // The end wakes it; woken for nothing, it only writes earlier.
                thread::park_timeout(GATHER);
            }
        }
    }
}

/// Adds to the chunk what else waits, up to a bound; whether nothing waits any more.
fn gather(chunk: &mut Vec<u8>, chunks: &Receiver<Vec<u8>>) -> bool {
    while chunk.len() < WRITE_SIZE {
        match chunks.try_recv() {
            Ok(more) => chunk.extend_from_slice(&more),
            Err(_) => return true,
        }
    }
    false
}

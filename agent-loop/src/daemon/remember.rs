//! What is on a disk, on a thread of its own: a disk that does not answer holds up what waits for it, and nothing else. A
//! run is stopped, a signal is sent, a question about what lives is answered meanwhile. The store has one such thread, the
//! files of runs another: they may be on other disks.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::shell::Daemon;
use crate::clock;
use crate::fault;
use crate::store::{LogDir, SqliteStore, StateDir, StoreError};

/// From when on it is told that the store does not answer.
const SILENT: Duration = Duration::from_secs(2);
/// How long our end waits for what is still to be written.
const LAST_WITHIN: Duration = Duration::from_secs(2);
/// How long a stock waits for what is remembered.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// What is done with the answer, in the daemon's loop.
pub(super) type Then = Box<dyn FnOnce(&mut Daemon) + Send>;
type Job<S> = Box<dyn FnOnce(&mut S) + Send>;

/// The thread that has the store.
pub(super) type Remember = Beside<SqliteStore>;

/// Where the files of runs are. Their thread alone opens, makes and removes them.
pub(super) struct Files {
    /// Their pipes.
    pub(super) state: StateDir,
    /// Their output.
    pub(super) log: LogDir,
}

/// The loop's end of a thread that has something on a disk. What is asked is done one after the other, in the order in
/// which it was asked.
pub(super) struct Beside<S> {
    /// The disk, in words.
    disk: &'static str,
    jobs: Option<Sender<Job<S>>>,
    answers: mpsc::UnboundedSender<Then>,
    /// What came of it.
    pub(super) answered: mpsc::UnboundedReceiver<Then>,
    /// Since when the thread is at one job, nanoseconds of CLOCK_BOOTTIME; 0 while it is at none.
    busy_since: Arc<AtomicU64>,
    /// It did not answer when it was looked at last.
    silent: bool,
    /// Told nothing, and closed once the thread has closed what it has.
    closed: Receiver<()>,
}

impl<S: Send + 'static> Beside<S> {
    /// Gives something on a disk to a thread of that name.
    ///
    /// # Errors
    /// When there can be none.
    pub(super) fn start(name: &'static str, disk: &'static str, mut has: S) -> io::Result<Self> {
        let (jobs, wanted) = channel::<Job<S>>();
        let (answers, answered) = mpsc::unbounded_channel();
        let (closing, closed) = channel();
        let busy_since = Arc::new(AtomicU64::new(0));
        let busy = Arc::clone(&busy_since);
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            for job in wanted {
                busy.store(clock::boot().0, Ordering::Relaxed);
                fault::panic_in(name);
                job(&mut has);
                busy.store(0, Ordering::Relaxed);
            }
            drop(has);
            drop(closing);
        })?;
        Ok(Self { disk, jobs: Some(jobs), answers, answered, busy_since, silent: false, closed })
    }

    /// Asks the thread, and goes on with its answer in the loop.
    pub(super) fn ask<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut S) -> T + Send + 'static,
        then: impl FnOnce(&mut Daemon, T) + Send + 'static,
    ) {
        let answers = self.answers.clone();
        self.order(move |store| {
            let answer = ask(store);
            let _ = answers.send(Box::new(move |daemon| then(daemon, answer)));
        });
    }

    /// Asks the thread and waits for it, within reason; not at all where it has been at something else for long.
    ///
    /// # Errors
    /// What it says; [`StoreError::Failed`] where it does not answer.
    pub(super) async fn now<T: Send + 'static>(
        &self,
        within: Duration,
        ask: impl FnOnce(&mut S) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let silent = || StoreError::Failed { doing: "asking it", why: format!("{} does not answer", self.disk) };
        if self.busy_for().is_some_and(|busy| busy >= within.min(SILENT)) {
            return Err(silent());
        }
        let (tell, told) = oneshot::channel();
        self.order(move |has| drop(tell.send(ask(has))));
        match tokio::time::timeout(within, told).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(silent()),
        }
    }

    /// How long it has been at one thing, if it is at any.
    fn busy_for(&self) -> Option<Duration> {
        let since = self.busy_since.load(Ordering::Relaxed);
        (since > 0).then(|| Duration::from_nanos(clock::boot().0.saturating_sub(since)))
    }

    /// Why nothing is written or read there at present, if so.
    pub(super) fn silence(&self) -> Option<String> {
        let silent = self.busy_for().filter(|busy| *busy > SILENT)?.as_secs();
        let disk = self.disk;
        Some(format!("{disk} has not answered for {silent} s: nothing is launched, runs are stopped in time"))
    }

    /// What is new of its silence: why it is silent, or that it answers again.
    pub(super) fn news(&mut self) -> Option<Result<String, String>> {
        let silence = self.silence();
        let before = std::mem::replace(&mut self.silent, silence.is_some());
        match (before, silence) {
            (false, Some(why)) => Some(Err(why)),
            (true, None) => Some(Ok(format!("{} answers again", self.disk))),
            (true, Some(_)) | (false, None) => None,
        }
    }

    /// Asks the thread, and does not wait for an answer.
    pub(super) fn order(&self, job: impl FnOnce(&mut S) + Send + 'static) {
        if let Some(jobs) = &self.jobs {
            // It ends only with us.
            let _ = jobs.send(Box::new(job));
        }
    }
}

impl<S> Drop for Beside<S> {
    /// What was asked is still written, if that can be done in time.
    fn drop(&mut self) {
        drop(self.jobs.take());
        let _ = self.closed.recv_timeout(LAST_WITHIN);
    }
}

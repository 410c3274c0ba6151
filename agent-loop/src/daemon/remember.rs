//! The store, on a thread of its own: a disk of the state that does not answer holds up what waits for it, and nothing
//! else. A run is stopped, a signal is sent, a question about what lives is answered meanwhile.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::shell::Daemon;
use crate::clock;
use crate::fault;
use crate::store::{SqliteStore, StoreError};

/// From when on it is told that the store does not answer.
const SILENT: Duration = Duration::from_secs(2);
/// How long our end waits for what is still to be written.
const LAST_WITHIN: Duration = Duration::from_secs(2);
/// How long a stock waits for what is remembered.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// What is done with the answer, in the daemon's loop.
pub(super) type Then = Box<dyn FnOnce(&mut Daemon) + Send>;
type Job = Box<dyn FnOnce(&mut SqliteStore) + Send>;

/// The loop's end of it. What is asked is done one after the other, in the order in which it was asked.
pub(super) struct Remember {
    jobs: Option<Sender<Job>>,
    answers: mpsc::UnboundedSender<Then>,
    /// What came of it.
    pub(super) answered: mpsc::UnboundedReceiver<Then>,
    /// Since when the thread is at one job, nanoseconds of CLOCK_BOOTTIME; 0 while it is at none.
    busy_since: Arc<AtomicU64>,
    /// Told nothing, and closed once the thread has closed the store.
    closed: Receiver<()>,
}

impl Remember {
    /// Gives the store to a thread.
    ///
    /// # Errors
    /// When there can be none.
    pub(super) fn start(mut store: SqliteStore) -> io::Result<Self> {
        let (jobs, wanted) = channel::<Job>();
        let (answers, answered) = mpsc::unbounded_channel();
        let (closing, closed) = channel();
        let busy_since = Arc::new(AtomicU64::new(0));
        let busy = Arc::clone(&busy_since);
        std::thread::Builder::new().name("store".to_owned()).spawn(move || {
            for job in wanted {
                busy.store(clock::boot().0, Ordering::Relaxed);
                fault::panic_in("store");
                job(&mut store);
                busy.store(0, Ordering::Relaxed);
            }
            drop(store);
            drop(closing);
        })?;
        Ok(Self { jobs: Some(jobs), answers, answered, busy_since, closed })
    }

    /// Asks the store, and goes on with its answer in the loop.
    pub(super) fn ask<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut SqliteStore) -> T + Send + 'static,
        then: impl FnOnce(&mut Daemon, T) + Send + 'static,
    ) {
        let answers = self.answers.clone();
        self.order(move |store| {
            let answer = ask(store);
            let _ = answers.send(Box::new(move |daemon| then(daemon, answer)));
        });
    }

    /// Asks the store and waits for it, within reason.
    ///
    /// # Errors
    /// What the store says; [`StoreError::Failed`] where it does not answer.
    pub(super) async fn now<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut SqliteStore) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (tell, told) = oneshot::channel();
        self.order(move |store| drop(tell.send(ask(store))));
        match tokio::time::timeout(ANSWER_WITHIN, told).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => {
                Err(StoreError::Failed { doing: "reading the state", why: "its disk does not answer".to_owned() })
            }
        }
    }

    /// Why nothing is remembered at present, if so.
    pub(super) fn silence(&self) -> Option<String> {
        let since = self.busy_since.load(Ordering::Relaxed);
        let silent = clock::boot().0.saturating_sub(since);
        (since > 0 && silent > SILENT.as_nanos() as u64).then(|| {
            let seconds = silent / 1_000_000_000;
            format!(
                "the disk of the state has not answered for {seconds} s: nothing is launched, runs are stopped in time"
            )
        })
    }

    fn order(&self, job: impl FnOnce(&mut SqliteStore) + Send + 'static) {
        if let Some(jobs) = &self.jobs {
            // It ends only with us.
            let _ = jobs.send(Box::new(job));
        }
    }
}

impl Drop for Remember {
    /// What was asked is still written, if that can be done in time.
    fn drop(&mut self) {
        drop(self.jobs.take());
        let _ = self.closed.recv_timeout(LAST_WITHIN);
    }
}

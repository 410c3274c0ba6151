//! The thread that hands checkpoints out: always the newest one, and beside everything that writes the log.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::plan::Plan;
use super::{Anchor, Handed, Receipt};

/// How many outcomes wait to be recorded; of more the oldest are forgotten.
const WAITING: usize = 64;

/// What came of handing a checkpoint out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// The name of the anchor.
    pub(crate) to: &'static str,
    /// The checkpoint.
    pub(crate) handed: Arc<Handed>,
    /// What the other side said, or why it failed.
    pub(crate) told: Result<String, String>,
}

/// The place between the writer of the log and the thread.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    state: Mutex<State>,
    moved: Condvar,
    /// How many lines the log has up to the last that tells of something else than anchoring.
    of_others: AtomicU64,
    has_outcomes: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    newest: Option<Arc<Handed>>,
    /// What is being handed out now, and to whom.
    busy: Option<(&'static str, Arc<Handed>)>,
    outcomes: Vec<Outcome>,
    end: Option<End>,
    done: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// After the newest checkpoint was handed out once more.
    Handed,
    AtOnce,
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Offers a checkpoint; one that was not handed out is replaced.
    pub(crate) fn offer(&self, handed: Handed) {
        self.lock().newest = Some(Arc::new(handed));
        self.moved.notify_all();
    }
}

/// The thread, as the front end of the log sees it. Dropped, it ends without handing anything out.
#[derive(Debug)]
pub(crate) struct Anchoring(Arc<Slot>);

impl Anchoring {
    /// Starts the thread.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn start(anchors: Vec<Arc<dyn Anchor>>, every: Duration, lines: u64) -> io::Result<Self> {
        let slot = Arc::new(Slot { of_others: AtomicU64::new(lines), ..Slot::default() });
        let worker = Worker { slot: Arc::clone(&slot), anchors, every };
        std::thread::Builder::new().name("anchors".to_owned()).spawn(move || worker.run())?;
        Ok(Self(slot))
    }

    /// Where the writer puts its checkpoints.
    pub(crate) fn slot(&self) -> Arc<Slot> {
        Arc::clone(&self.0)
    }

    /// Takes that the log has so many lines, the last of which tells of something else than anchoring.
    pub(crate) fn wrote(&self, lines: u64) {
        self.0.of_others.store(lines, Ordering::Relaxed);
    }

    /// What came of it since it was asked last.
    pub(crate) fn take(&self) -> Vec<Outcome> {
        if !self.0.has_outcomes.swap(false, Ordering::Acquire) {
            return Vec::new();
        }
        std::mem::take(&mut self.0.lock().outcomes)
    }

    /// Hands the newest checkpoint out once more, and ends; what came of it, also of what did not answer in time.
    pub(crate) fn close(self, within: Duration) -> Vec<Outcome> {
        self.0.lock().end = Some(End::Handed);
        self.0.moved.notify_all();
        let waited = self.0.moved.wait_timeout_while(self.0.lock(), within, |state| !state.done);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let mut outcomes = std::mem::take(&mut state.outcomes);
        outcomes.extend(state.busy.take().map(|(to, handed)| {
            let why = format!("it did not answer within {}", humantime::format_duration(within));
            Outcome { to, handed, told: Err(why) }
        }));
        outcomes
    }
}

impl Drop for Anchoring {
    fn drop(&mut self) {
        self.0.lock().end = Some(End::AtOnce);
        self.0.moved.notify_all();
    }
}

struct Worker {
    slot: Arc<Slot>,
    anchors: Vec<Arc<dyn Anchor>>,
    every: Duration,
}

impl Worker {
    fn run(self) {
        let start = Instant::now();
        let mut plans: Vec<(Plan, Arc<dyn Anchor>, bool)> =
            self.anchors.iter().map(|anchor| (Plan::default(), Arc::clone(anchor), false)).collect();
        let mut state = self.slot.lock();
        loop {
            let of_others = self.slot.of_others.load(Ordering::Relaxed);
            let signed = state.newest.as_ref().map_or(0, |handed| handed.size);
            let now = start.elapsed();
            let due = |plan: &Plan| plan.due(signed, of_others, self.every);
            let next = match state.end {
                Some(End::AtOnce) => None,
                Some(End::Handed) => plans.iter_mut().find(|(plan, _, last)| !last && plan.lacks(signed, of_others)),
                None => plans.iter_mut().find(|(plan, _, _)| due(plan).is_some_and(|due| due <= now)),
            };
            if let (Some((plan, anchor, last)), Some(handed)) = (next, state.newest.clone()) {
                *last = state.end.is_some();
                state.busy = Some((anchor.name(), Arc::clone(&handed)));
                drop(state);
                let told = anchor.publish(&handed);
                plan.tried(told.is_ok().then_some(handed.size), start.elapsed());
                state = self.slot.lock();
                self.tell(&mut state, told);
                continue;
            }
            if state.end.is_some() {
                state.done = true;
                self.slot.moved.notify_all();
                return;
            }
            let sleep = plans.iter().filter_map(|(plan, _, _)| due(plan)).min().map(|due| due.saturating_sub(now));
            state = match sleep {
                // Nothing but another checkpoint, or the end, gives something to do.
                None => self.slot.moved.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(sleep) => {
                    let waited = self.slot.moved.wait_timeout(state, sleep);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    fn tell(&self, state: &mut State, told: io::Result<Receipt>) {
        // Taken away where the end did not wait for it any longer: it was told as not answered.
        let Some((to, handed)) = state.busy.take() else { return };
        let told = told.map(|Receipt(said)| said).map_err(|error| error.to_string());
        if state.outcomes.len() == WAITING {
            state.outcomes.remove(0);
        }
        state.outcomes.push(Outcome { to, handed, told });
        self.slot.has_outcomes.store(true, Ordering::Release);
    }
}

//! Forced PID recycling: a stranger is put on a dead process's number at a chosen moment of a method that signals.
//!
//! A round: a victim is born on an exact number (`clone3` with `set_tid`), the method records who it is, then opens,
//! verifies and signals. At the chosen [`Point`] the victim is killed and reaped and a stranger is born on the very
//! same number. Afterwards the stranger is told to end by a signal of our own: if it ended by another, it was hit.

mod methods;
mod product;
mod space;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

pub use methods::{ByNumber, PidfdInode, Stopgap};
pub use product::{OwnChild, Product, Proof};
pub use space::in_own_pid_namespace;

use crate::oracle::Status;
use crate::sys::{self, Cloned, Stub};

/// A way to signal a process that was recorded earlier, in three stages between which the world may change.
pub trait Method {
    /// What is remembered of a process.
    type Identity;
    /// What was opened.
    type Opened;
    /// What allows the signal; it may borrow what was opened.
    type Proof<'a>;

    /// Makes a victim that lives until it is signalled, on this number if the method leaves the choice to us; `None`
    /// when somebody has the number.
    ///
    /// # Errors
    /// When none can be made; the run ends.
    fn victim(&mut self, number: i32) -> io::Result<Option<Cloned>> {
        born(number, None)
    }

    /// The cgroup that strangers are born in, where it is not our own.
    fn strangers_home(&self) -> Option<Arc<File>> {
        None
    }

    /// What decided, how often, since it was last asked.
    fn decided(&mut self) -> BTreeMap<String, u64> {
        BTreeMap::new()
    }

    /// Records a process that certainly lives; `pidfd` came from the clone3 that made it.
    ///
    /// # Errors
    /// When it cannot be recorded; the run ends.
    fn record(&mut self, pid: i32, pidfd: BorrowedFd<'_>) -> io::Result<Self::Identity>;

    /// First stage; `None` refuses.
    fn open(&mut self, known: &Self::Identity) -> Option<Self::Opened>;

    /// Second stage; `None` refuses.
    fn verify<'a>(&mut self, known: &Self::Identity, opened: &'a Self::Opened) -> Option<Self::Proof<'a>>;

    /// Third stage: sends SIGKILL; whether the kernel took it.
    fn signal(&mut self, proof: Self::Proof<'_>) -> bool;
}

/// When the number changes hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Point {
    /// Before the first stage.
    BeforeOpen,
    /// Between the first and the second.
    OpenToVerify,
    /// Between the second and the third.
    VerifyToSignal,
    /// At a random instant, by another thread.
    AnyTime,
}

impl Point {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::BeforeOpen, Self::OpenToVerify, Self::VerifyToSignal, Self::AnyTime];
}

/// What happened in the rounds of one run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Rounds in which a stranger took the number.
    pub recycled: u64,
    /// Strangers that were hit.
    pub strangers_hit: u64,
    /// Rounds in which the victim itself was hit, before it was recycled.
    pub victims_hit: u64,
    /// Refused by the first stage.
    pub refused_open: u64,
    /// Refused by the second.
    pub refused_verify: u64,
    /// The third stage found nobody.
    pub found_gone: u64,
    /// Rounds given up since somebody else had the number.
    pub taken: u64,
    /// How long all took.
    pub elapsed_ms: u64,
    /// What decided, how often, by the method's own account.
    #[serde(default)]
    pub decided: BTreeMap<String, u64>,
}

/// How far a run goes; it ends at whichever comes first.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// Recycles to force.
    pub rounds: u64,
    /// Time to take.
    pub within: Duration,
    /// Of the random instants.
    pub seed: u64,
}

/// Forces recycles at `point` of `method`.
///
/// # Errors
/// When the kernel refuses `set_tid`, or the method cannot record.
pub fn run<M: Method>(method: &mut M, point: Point, span: Span) -> io::Result<Tally> {
    let begin = Instant::now();
    let mut tally = match point {
        Point::AnyTime => any_time(method, span)?,
        Point::BeforeOpen | Point::OpenToVerify | Point::VerifyToSignal => at_a_stage(method, point, span)?,
    };
    tally.decided = method.decided();
    tally.elapsed_ms = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(tally)
}

fn at_a_stage<M: Method>(method: &mut M, point: Point, span: Span) -> io::Result<Tally> {
    let mut tally = Tally::default();
    let begin = Instant::now();
    let mut number = Number::new()?;
    let home = method.strangers_home();
    while tally.recycled < span.rounds && begin.elapsed() < span.within {
        let Some(victim) = number.take(method)? else {
            tally.taken += 1;
            continue;
        };
        let known = method.record(victim.pid, victim.pidfd.as_fd())?;
        let mut exchange = Exchange { victim: Some(victim), stranger: None, home: home.clone() };
        stages(method, &known, &mut tally, |now| if now == point { exchange.make() } else { Ok(()) })?;
        exchange.make()?;
        exchange.settle(&mut tally, &mut number)?;
    }
    Ok(tally)
}

/// Runs the three stages, with `between` called before each.
fn stages<M: Method>(
    method: &mut M,
    known: &M::Identity,
    tally: &mut Tally,
    mut between: impl FnMut(Point) -> io::Result<()>,
) -> io::Result<()> {
    between(Point::BeforeOpen)?;
    let Some(opened) = method.open(known) else {
        tally.refused_open += 1;
        return Ok(());
    };
    between(Point::OpenToVerify)?;
    let Some(proof) = method.verify(known, &opened) else {
        tally.refused_verify += 1;
        return Ok(());
    };
    between(Point::VerifyToSignal)?;
    if !method.signal(proof) {
        tally.found_gone += 1;
    }
    Ok(())
}

fn any_time<M: Method>(method: &mut M, span: Span) -> io::Result<Tally> {
    let mut tally = Tally::default();
    let begin = Instant::now();
    let mut number = Number::new()?;
    let home = method.strangers_home();
    let mut random = Random(span.seed | 1);
    let turn = AtomicU64::new(0);
    let over = AtomicBool::new(false);
    let (give, taken) = mpsc::channel::<(Cloned, Duration)>();
    let (give_back, given_back) = mpsc::channel::<io::Result<Exchange>>();
    thread::scope(|scope| {
        let (turn, over) = (&turn, &over);
        scope.spawn(move || {
            let mut last = 0;
            while let Ok((victim, delay)) = taken.recv() {
                last += 1;
                while turn.load(Ordering::Acquire) < last && !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
                pass(delay);
                let mut exchange = Exchange { victim: Some(victim), stranger: None, home: home.clone() };
                let made = exchange.make().map(|()| exchange);
                if give_back.send(made).is_err() {
                    return;
                }
            }
        });
        let mut rounds = || {
            while tally.recycled < span.rounds && begin.elapsed() < span.within {
                let Some(victim) = number.take(method)? else {
                    tally.taken += 1;
                    continue;
                };
                let known = method.record(victim.pid, victim.pidfd.as_fd())?;
                if give.send((victim, random.below(AROUND))).is_err() {
                    return Err(io::Error::other("the recycling thread ended"));
                }
                turn.fetch_add(1, Ordering::Release);
                pass(random.below(AROUND));
                stages(method, &known, &mut tally, |_| Ok(()))?;
                let exchange = given_back.recv().map_err(io::Error::other)??;
                exchange.settle(&mut tally, &mut number)?;
            }
            Ok(())
        };
        let ended = rounds();
        over.store(true, Ordering::Relaxed);
        drop(give);
        ended
    })?;
    Ok(tally)
}

/// Both sides of a random round begin within this time: somewhat longer than a recycle takes.
const AROUND: Duration = Duration::from_micros(300);

fn pass(delay: Duration) {
    let end = Instant::now() + delay;
    while Instant::now() < end {
        std::hint::spin_loop();
    }
}

/// xorshift64: random instants that a seed repeats.
struct Random(u64);

impl Random {
    fn below(&mut self, span: Duration) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        span.mul_f64((self.0 >> 11) as f64 / (1u64 << 53) as f64)
    }
}

/// What a stranger is told to end by; no method sends it.
const TOLD: i32 = libc::SIGUSR2;

/// A number changing hands.
struct Exchange {
    victim: Option<Cloned>,
    stranger: Option<(Status, Option<Cloned>)>,
    home: Option<Arc<File>>,
}

impl Exchange {
    /// Ends and reaps the victim, then puts a stranger on its number; does nothing the second time.
    fn make(&mut self) -> io::Result<()> {
        let Some(victim) = self.victim.take() else { return Ok(()) };
        sys::pidfd_signal(&victim.pidfd, TOLD)?;
        let status = sys::wait(victim.pid)?;
        self.stranger = Some((status, born(victim.pid, self.home.as_deref())?));
        Ok(())
    }

    /// Ends the stranger and counts who was hit.
    fn settle(self, tally: &mut Tally, number: &mut Number) -> io::Result<()> {
        let told = Status::signaled(TOLD, false);
        let Some((victim, stranger)) = self.stranger else { return Ok(()) };
        tally.victims_hit += u64::from(victim != told);
        let Some(stranger) = stranger else {
            tally.taken += 1;
            return number.move_on();
        };
        sys::pidfd_signal(&stranger.pidfd, TOLD)?;
        tally.recycled += 1;
        tally.strangers_hit += u64::from(sys::wait(stranger.pid)? != told);
        Ok(())
    }
}

/// A process that lives until it is signalled, on this number and in this cgroup; `None` when somebody has it.
fn born(pid: i32, cgroup: Option<&File>) -> io::Result<Option<Cloned>> {
    let place = sys::Place { pid: Some(pid), cgroup: cgroup.map(AsFd::as_fd), ..sys::Place::default() };
    match sys::clone_at(Stub::Pause, place) {
        Ok(cloned) => Ok(Some(cloned)),
        Err(err) if err.raw_os_error() == Some(libc::EEXIST) => Ok(None),
        Err(err) => Err(err),
    }
}

/// The number in use: one just behind the kernel's own cursor, which comes back to it only after a whole wrap.
struct Number {
    pid: i32,
    used: u32,
}

impl Number {
    fn new() -> io::Result<Self> {
        let mut number = Self { pid: 0, used: 0 };
        number.move_on()?;
        Ok(number)
    }

    fn move_on(&mut self) -> io::Result<()> {
        self.pid = sys::clone(Stub::Exit(0), None)?.pid;
        sys::wait(self.pid)?;
        self.used = 0;
        Ok(())
    }

    /// A victim on this number; another number is taken now and then, or if somebody has it.
    fn take<M: Method>(&mut self, method: &mut M) -> io::Result<Option<Cloned>> {
        self.used += 1;
        if self.used > 500 {
            self.move_on()?;
        }
        let victim = method.victim(self.pid)?;
        if victim.is_none() {
            self.move_on()?;
        }
        Ok(victim)
    }
}

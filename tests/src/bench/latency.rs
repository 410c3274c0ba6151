//! From a process's exit to the moment that somebody in user space knows.
//!
//! The same generator in a process of its own on both sides; one observer is eBPF with our core, the other a bare
//! epoll loop over pidfds. The common clock is the exiting process's own stamp, just before its `_exit`; our side
//! also has the hook's own time, which the other cannot have.

use std::fs;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use agent_loop::clock;
use agent_loop::event::{Action, Event, Fact, Launched};
use agent_loop::keeper::cgroup::{Home, RunCgroup};
use agent_loop::kernel::{self, Options, RunsBy, Tracing};
use agent_loop::model::{Birth, RunTag};
use agent_loop::supervise::{Core, Settings};
use anyhow::Context as _;
use clap::ValueEnum;
use serde_json::{Value, json};

use super::exits::{self, Stamps};
use crate::sys;

/// Who observes.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Side {
    /// The exit hook, the rings, the core.
    Ours,
    /// A pidfd for each process in a bare epoll loop.
    Pidfd,
}

/// How long the observer waits for the last exits.
const TAIL: Duration = Duration::from_millis(200);

/// Latencies in ns.
#[derive(Default)]
struct Samples(Vec<u64>);

impl Samples {
    fn json(mut self) -> Value {
        self.0.sort_unstable();
        let at = |share: f64| self.0.get((self.0.len() as f64 * share) as usize).map(|ns| *ns as f64 / 1e3);
        json!({ "n": self.0.len(), "p50_us": at(0.5), "p90_us": at(0.9), "p99_us": at(0.99), "max_us": at(0.999_999) })
    }
}

/// Observes exits at this rate.
pub(super) fn measure(side: Side, rate: u32, span: Duration) -> anyhow::Result<Value> {
    sys::die_after(span + Duration::from_secs(60))?;
    let stamps = Stamps::new()?;
    match side {
        Side::Pidfd => pidfd(stamps, rate, span),
        Side::Ours => {
            let home = Home::find()?;
            let cgroup = RunCgroup::create(&home, &format!("agent-loop-bench-{}", std::process::id()))?;
            let result = ours(stamps, rate, span, &cgroup);
            let removed = cgroup.remove();
            let value = result?;
            removed.context("removing the cgroup")?;
            Ok(value)
        }
    }
}

fn pidfd(stamps: Stamps, rate: u32, span: Duration) -> anyhow::Result<Value> {
    let epoll = sys::epoll()?;
    let generator = sys::fork(|| exits::generate(stamps, rate, span, Some(&epoll)).unwrap_or(1))?;
    let mut samples = Samples::default();
    let ends = Instant::now() + span + TAIL;
    let mut ready = Vec::new();
    while Instant::now() < ends {
        sys::epoll_wait(epoll.as_fd(), &mut ready, Duration::from_millis(100))?;
        for &pid in &ready {
            let stamp = stamps.of(u32::try_from(pid)?);
            samples.0.push(sys::boot_ns().saturating_sub(stamp));
        }
    }
    let status = sys::wait(generator)?;
    anyhow::ensure!(status.code == Some(0), "the generator ended: {status:?}");
    Ok(json!({ "from_stamp": samples.json() }))
}

fn ours(stamps: Stamps, rate: u32, span: Duration, cgroup: &RunCgroup) -> anyhow::Result<Value> {
    // Forked before anything else, so that it holds nothing of ours; it begins when the hooks are attached.
    let [go, ..] = sys::shared_counters()?;
    let procs = cgroup.path().join("cgroup.procs");
    let outer = sys::fork(|| {
        let run = || -> std::io::Result<u8> {
            while go.load(std::sync::atomic::Ordering::Acquire) == 0 {
                std::thread::sleep(Duration::from_millis(2));
            }
            fs::write(&procs, "0")?;
            // Born in the run's cgroup: the fork hook takes it for the run's main process.
            let main = sys::fork(|| exits::generate(stamps, rate, span, None).unwrap_or(1))?;
            Ok(sys::wait(main)?.code.map_or(1, |code| u8::try_from(code).unwrap_or(1)))
        };
        run().unwrap_or(2)
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let value = runtime.block_on(async {
        let runs = cgroup.level().map_or(RunsBy::Exact, RunsBy::Level);
        let mut tracing = kernel::load(&Options { runs, ..Options::default() })?;
        tracing.runs.insert(cgroup.tag())?;
        go.store(1, std::sync::atomic::Ordering::Release);
        observe(stamps, span, &mut tracing, cgroup.tag()).await
    });
    go.store(1, std::sync::atomic::Ordering::Release);
    let status = sys::wait(outer)?;
    anyhow::ensure!(status.code == Some(0), "the generator ended: {status:?}");
    value
}

/// The loop of `exec`, without lines: each event goes through the core, questions are answered.
async fn observe(stamps: Stamps, span: Duration, tracing: &mut Tracing, run: RunTag) -> anyhow::Result<Value> {
    let mut core = Core::new(Settings::default());
    let (mut from_stamp, mut from_hook) = (Samples::default(), Samples::default());
    let (mut main, mut told) = (None, 0_u64);
    let ends = tokio::time::Instant::now() + span + TAIL;
    loop {
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(ends) => break,
            ready = tracing.rings.readable() => ready?,
        }
        loop {
            let round = tracing.rings.round();
            for event in round.events {
                if let (None, Event::Born(birth)) = (main, &event) {
                    main = Some(birth.key);
                    let now = clock::boot();
                    for event in [Event::Launched(launched(birth, run)), Event::Started] {
                        core.handle(now, event);
                    }
                }
                let death = if let Event::Died(death) = &event { Some((death.key.tgid, death.at)) } else { None };
                told += perform(&mut core, tracing, event)?;
                if let Some((pid, at)) = death.filter(|(pid, _)| main.is_some_and(|main| main.tgid != *pid)) {
                    let now = sys::boot_ns();
                    from_stamp.0.push(now.saturating_sub(stamps.of(pid)));
                    from_hook.0.push(now.saturating_sub(at.0));
                }
            }
            told += perform(&mut core, tracing, Event::RoundEnded)?;
            if !round.more {
                break;
            }
        }
    }
    let totals = tracing.counters.read()?;
    let lost = totals.lost_exit + totals.lost_fork + totals.missed;
    Ok(json!({ "from_stamp": from_stamp.json(), "from_hook": from_hook.json(), "facts": told, "lost": lost }))
}

fn launched(birth: &Birth, run: RunTag) -> Launched {
    Launched { key: birth.key, ino: birth.ino, run, at: birth.at, traced: true }
}

/// Hands an event to the core and answers what it asks; how many facts it told.
fn perform(core: &mut Core, tracing: &Tracing, event: Event) -> anyhow::Result<u64> {
    let (mut told, mut next) = (0, vec![event]);
    while let Some(event) = next.pop() {
        for action in core.handle(clock::boot(), event) {
            match action {
                Action::Log(fact) => told += u64::from(matches!(fact, Fact::Exit { .. } | Fact::Fork { .. })),
                Action::ReadCounters => next.push(Event::Counted(tracing.counters.read()?)),
                Action::ReadLiveSet => next.push(Event::LiveSet(tracing.live.all()?)),
                // The generator is not ours to stop, and nothing else is asked for while it runs.
                Action::Thaw
                | Action::WaitMain
                | Action::Verify { .. }
                | Action::FreezeTree
                | Action::ThawTree
                | Action::WakeAt(_)
                | Action::Signal { .. }
                | Action::SignalMember { .. }
                | Action::KillCgroup
                | Action::InspectTree
                | Action::Finish(_) => {}
            }
        }
    }
    Ok(told)
}

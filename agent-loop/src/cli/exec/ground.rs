//! The ground a run stands on: its cgroup, the guard over it, and eBPF; what is missing is named.

use std::io;

use anyhow::Context as _;
use ulid::Ulid;

use super::tree::is_init;
use super::{Args, Backend};
use crate::clock;
use crate::keeper::cgroup::{CgroupError, Home, RunCgroup};
use crate::keeper::guard::Guard;
use crate::keeper::scan;
use crate::kernel::{self, RunsBy, Tracing};
use crate::model::{ProcessKey, RunTag, WaitStatus};

const ADVICE: &str = "`agent-loop doctor` shows what is missing and what mends it";

/// What a run stands on.
pub(super) struct Ground {
    /// The run's cgroup, frozen and empty; `None` where none can be made.
    pub(super) cgroup: Option<RunCgroup>,
    /// Empties the cgroup should we be killed.
    pub(super) guard: Option<Guard>,
    /// eBPF, attached.
    pub(super) tracing: Option<Tracing>,
    /// What is missing, and what follows from it.
    pub(super) degraded: Vec<String>,
    /// The tag of the run: its cgroup's id.
    pub(super) tag: RunTag,
    /// The children that our caller had when it became us: none of the tree.
    pub(super) inherited: Vec<ProcessKey>,
    /// Whether anything was born on it: before, nobody descends from us but whom our caller left us.
    pub(super) is_used: bool,
    /// How far our clock is ahead of the kernel's records; zero where there are none.
    pub(super) clock_ahead: i64,
}

impl Ground {
    /// Prepares everything that has to be there before the birth.
    ///
    /// # Errors
    /// When something fails half-way, or `--backend ebpf` cannot be had; nothing is left behind.
    pub(super) fn prepare(args: &Args, id: Ulid) -> anyhow::Result<Self> {
        // Numbers are looked up in /proc before they are signalled: another namespace's would show strangers.
        anyhow::ensure!(
            scan::proc_is_ours().context("reading /proc, without which no process can be verified")?,
            "/proc is of another PID namespace, so no process could be verified; run `mount -t proc proc /proc` in this one"
        );
        let inherited = inherited().context("reading the own children")?;
        let mut degraded = Vec::new();
        let guarded = match Home::find() {
            Ok(home) => guarded(&home, &format!("agent-loop-exec-{id}"), args.no_cgroup_kill)?,
            Err(error) => Err(error),
        };
        let guarded = match guarded {
            Ok(guarded) => Some(guarded),
            Err(error) => {
                if args.backend == Backend::Ebpf {
                    anyhow::bail!("no cgroup for the tree, by which eBPF would know it: {error}; {ADVICE}");
                }
                anyhow::ensure!(
                    !is_init(),
                    "no cgroup for the tree ({error}), and as PID 1 the orphans of others could not be told from it; run \
                     it under an init, or where its cgroup can be written"
                );
                degraded.push(format!(
                    "no cgroup for the tree, and so no eBPF ({error}): short-lived processes can be missed, and should \
                     agent-loop itself be killed, only the command ends with it"
                ));
                None
            }
        };
        let Some((cgroup, guard)) = guarded else {
            return Ok(Self {
                cgroup: None,
                guard: None,
                tracing: None,
                degraded,
                tag: RunTag(0),
                inherited,
                is_used: false,
                clock_ahead: 0,
            });
        };
        let frozen = cgroup.freeze().context("freezing the run's cgroup");
        match frozen.and_then(|()| tracing(args, &cgroup, &mut degraded)) {
            Ok(tracing) => {
                let clock_ahead = if tracing.is_some() { clock::ahead_of_kernel() } else { 0 };
                let (tag, cgroup, guard) = (cgroup.tag(), Some(cgroup), Some(guard));
                Ok(Self { cgroup, guard, tracing, degraded, tag, inherited, is_used: false, clock_ahead })
            }
            Err(error) => {
                let _ = cgroup.remove();
                let _ = guard.dismiss();
                Err(error)
            }
        }
    }

    /// How the main process ended by the kernel's run table, where eBPF keeps one.
    pub(super) fn main_status(&self) -> Option<WaitStatus> {
        let run = self.tracing.as_ref()?.runs.get(self.tag).ok()??;
        run.exit.and_then(|(status, _)| status)
    }

    /// Leaves what could not be ended to the guard.
    ///
    /// # Errors
    /// When there is none any more.
    pub(super) fn hand_over(self) -> io::Result<()> {
        self.guard.map_or(Ok(()), Guard::hand_over)
    }

    /// Removes the empty cgroup and dismisses the guard.
    ///
    /// # Errors
    /// When the cgroup cannot be removed; the guard then goes on to empty it.
    pub(super) fn clear(self) -> anyhow::Result<()> {
        if let Some(cgroup) = &self.cgroup
            && let Err(error) = cgroup.remove()
        {
            let removing = format!("removing the cgroup {}", cgroup.path().display());
            self.hand_over().context("leaving the cgroup to the guard")?;
            return Err(error).context(removing);
        }
        if let Some(guard) = self.guard {
            guard.dismiss().context("dismissing the guard")?;
        }
        Ok(())
    }
}

/// The run's cgroup and the guard over it, or why no cgroup can be made.
///
/// The guard comes first: between the making of a cgroup and its guard's start we could be killed.
fn guarded(home: &Home, leaf: &str, swept_only: bool) -> anyhow::Result<Result<(RunCgroup, Guard), CgroupError>> {
    let mut guard = Guard::before(home.dir(), leaf).context("starting the guard")?;
    let cgroup = match RunCgroup::create(home, leaf) {
        Ok(cgroup) => cgroup,
        Err(error) => {
            guard.dismiss().context("dismissing the guard")?;
            return Ok(Err(error));
        }
    };
    if swept_only {
        cgroup.own().sweep_only();
    }
    if let Err(error) = guard.entrust(&cgroup) {
        let _ = cgroup.remove();
        let _ = guard.dismiss();
        return Err(error).context("entrusting the run's cgroup to the guard");
    }
    Ok(Ok((cgroup, guard)))
}

/// The children we have before we made any.
fn inherited() -> io::Result<Vec<ProcessKey>> {
    let mut keys = Vec::new();
    for child in scan::children(std::process::id())? {
        keys.extend(scan::Stat::read(child)?.map(|stat| stat.key()));
    }
    Ok(keys)
}

/// eBPF, or why it is done without.
fn tracing(args: &Args, cgroup: &RunCgroup, degraded: &mut Vec<String>) -> anyhow::Result<Option<Tracing>> {
    let why = match args.backend {
        Backend::Pidfd => "watched by pidfds as asked: short-lived processes can be missed".to_owned(),
        Backend::Auto | Backend::Ebpf => match load(args, cgroup) {
            Ok(tracing) => return Ok(Some(tracing)),
            Err(error) if args.backend == Backend::Ebpf => anyhow::bail!("no eBPF: {error:#}; {ADVICE}"),
            Err(error) => format!("no eBPF ({error:#}): short-lived processes can be missed"),
        },
    };
    degraded.push(why);
    Ok(None)
}

fn load(args: &Args, cgroup: &RunCgroup) -> anyhow::Result<Tracing> {
    let runs = cgroup.level().map_or(RunsBy::Exact, RunsBy::Level);
    let mut options = kernel::Options { runs, ..kernel::Options::default() };
    if let Some(bytes) = args.ring_bytes {
        (options.events_bytes, options.execs_bytes) = (bytes, bytes);
    }
    let mut tracing = kernel::load(&options)?;
    tracing.runs.insert(cgroup.tag()).context("entering the run into the kernel's run table")?;
    Ok(tracing)
}

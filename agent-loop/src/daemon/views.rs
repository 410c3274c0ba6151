//! What the daemon tells of its runs and of itself: its facts as the control socket's views.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::secret;
use super::shell::{Daemon, now};
use crate::audit::redact;
use crate::config::OnFull;
use crate::control::api::{LogFiles, LogView, ProcessView, RunView, StatusView, TreeView};
use crate::event::Outcome;
use crate::model::{StopReason, WaitStatus};
use crate::run::{End, RunId, RunOutcome, RunRecord, Stage};
use crate::store::RunFiles;
use crate::supervise::Leftovers;

/// Bytes of output of runs that are over, by their files.
pub(super) type Written = BTreeMap<RunId, u64>;

impl Daemon {
    pub(super) fn status(&self) -> StatusView {
        let mut runs = BTreeMap::new();
        for record in self.fleet.records() {
            *runs.entry(self.fleet.state(record.id).unwrap_or("ended").to_owned()).or_insert(0) += 1;
        }
        let mut degraded = self.degraded.clone();
        degraded.extend(self.unpinned.clone());
        degraded.extend(self.unseen.clone());
        degraded.extend(self.keeper.differs());
        degraded.extend(self.audit_state());
        degraded.extend(self.store.silence());
        degraded.extend(self.files.silence());
        degraded.extend(self.unsaved.iter().map(|(id, why)| format!("run {id} cannot be remembered: {why}")));
        let unread = |(id, why): (&RunId, &String)| {
            format!("run {id}: nobody reads its output, and it waits once its pipe is full: {why}")
        };
        degraded.extend(self.unread.iter().map(unread));
        degraded.extend(self.discards.iter().map(|discard| format!("{} is still being discarded", discard.name)));
        let lost = self.tracing.counters.read().map_or(0, |it| it.lost_fork + it.lost_exec + it.lost_exit);
        StatusView {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            backend: "ebpf".to_owned(),
            degraded,
            keeper: self.keeper.state(),
            since: time(self.since),
            runs,
            max_agents: self.setup.config.host.max_agents,
            observed: self.observed(),
            lost,
            log: self.log_view(),
            // The issue loop knows, and is asked by who answers over the socket.
            forges: Vec::new(),
        }
    }

    fn log_view(&self) -> LogView {
        let progress = self.audit.progress();
        let age = crate::clock::boot().0.saturating_sub(progress.signed_ns) / 1_000_000;
        LogView {
            durable: progress.durable,
            signed: progress.signed,
            checkpoint_age_ms: (progress.signed_ns > 0).then_some(age),
        }
    }

    /// What is wrong with the audit log.
    fn audit_state(&self) -> Vec<String> {
        let progress = self.audit.progress();
        let lost = self.audit.refused();
        let state = match (progress.failing, progress.full, lost) {
            (None, false, 0) => None,
            (Some(why), ..) => {
                Some(format!("the audit log cannot be written: {why}; nothing is launched, {lost} lines are lost"))
            }
            (None, true, _) if self.setup.config.audit.on_full == OnFull::Launch => {
                Some("the disk of the audit log is nearly full".to_owned())
            }
            (None, true, _) => Some("the disk of the audit log is full: nothing is launched".to_owned()),
            (None, false, lost) => Some(format!("{lost} lines of the audit log found no room and are to be declared")),
        };
        let left = (progress.unremoved > 0).then(|| {
            format!(
                "{} files of the audit log that are kept no longer cannot be removed; \
                 look at their directory's mode and mount",
                progress.unremoved
            )
        });
        state.into_iter().chain(left).collect()
    }

    /// Processes of agents that nobody launched through us.
    fn observed(&self) -> Vec<ProcessView> {
        let live = self.tracing.live.all().unwrap_or_default();
        let observed = live.iter().filter(|live| live.run.0 & agent_loop_common::map::OBSERVED != 0);
        let view = |live: &crate::model::Live| ProcessView {
            pid: live.key.tgid,
            start_ns: live.key.start_boottime_ns,
            parent: live.forker.map(|forker| forker.tgid),
            command: crate::keeper::scan::member(live.key.tgid, None).comm.unwrap_or_default(),
        };
        observed.map(view).collect()
    }

    /// The runs that go on, and those of `latest` that do not.
    pub(super) fn list(&self, latest: &[RunRecord], limit: u32, written: &Written) -> Vec<RunView> {
        let mut views: Vec<RunView> = self.fleet.records().map(|record| self.view(record, written)).collect();
        let over = latest.iter().filter(|record| self.fleet.record(record.id).is_none());
        views.extend(over.map(|record| self.view(record, written)));
        views.sort_by(|a, b| b.run.cmp(&a.run));
        views.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        views
    }

    pub(super) fn tree(&self, record: &RunRecord) -> TreeView {
        let registry = self.fleet.core(record.id).map(|core| core.tracker().registry());
        let tag = self.runs.get(&record.id).and_then(|watched| watched.tag);
        let mut processes: Vec<ProcessView> = match (registry, tag) {
            (Some(registry), Some(tag)) => registry
                .living(tag)
                .map(|entry| ProcessView {
                    pid: entry.key.tgid,
                    start_ns: entry.key.start_boottime_ns,
                    parent: entry.forker.map(|forker| forker.tgid),
                    command: secret::command(entry.name.as_deref().unwrap_or_default(), &redact::ours()),
                })
                .collect(),
            _ => Vec::new(),
        };
        processes.sort_by_key(|process| process.pid);
        TreeView { run: record.id.to_string(), processes }
    }

    pub(super) fn logs(&self, record: &RunRecord) -> LogFiles {
        let [stdout, stderr] = RunFiles::paths(&self.outputs, record.id);
        // Until its cgroup is removed a keeper may still be draining.
        LogFiles { stdout, stderr, open: self.fleet.record(record.id).is_some() }
    }

    pub(super) fn view(&self, record: &RunRecord, written: &Written) -> RunView {
        let (born, end) = match &record.stage {
            Stage::Born(born) => (Some(born), None),
            Stage::Ended(end) => (None, Some(end)),
            Stage::Queued | Stage::Intended(_) => (None, None),
        };
        let here = now();
        let wall = |at: crate::model::BootNs| {
            let since = i64::try_from(at.until(here.boot).as_nanos()).unwrap_or(i64::MAX);
            time(here.unix_ns.saturating_sub(since))
        };
        let status = end.map(|end| end.status.map_or_else(|| "unknown".to_owned(), |status| status.to_string()));
        let (code, signal) = match end.and_then(|end| end.status) {
            Some(WaitStatus::Exited(code)) => (Some(code), None),
            Some(WaitStatus::Signaled { signal, .. }) => (None, Some(signal)),
            None => (None, None),
        };
        let elapsed = match (born, end) {
            (Some(born), _) => Some(born.at.until(here.boot)),
            (None, Some(end)) => Some(end.elapsed),
            (None, None) => None,
        };
        let tag = born.map(|born| born.cgroup);
        let alive =
            self.fleet.core(record.id).zip(tag).map_or(0, |(core, tag)| core.tracker().registry().living_count(tag));
        RunView {
            run: record.id.to_string(),
            state: self.fleet.state(record.id).unwrap_or("ended").to_owned(),
            argv: record.submission.argv.clone(),
            user: record.submission.user.clone(),
            submitted: time(record.submitted_unix_ns),
            born: born.map(|born| wall(born.at)),
            elapsed_ms: elapsed.map(|elapsed| u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)),
            remaining_ms: born.and_then(|born| born.deadline).map(|deadline| remaining(here.boot.0, deadline.0)),
            main_pid: born.map(|born| born.main.tgid),
            alive: u64::try_from(alive).unwrap_or(u64::MAX),
            output_bytes: match self.runs.get(&record.id) {
                Some(watched) => Some(watched.output),
                // Before its launch it has written nothing.
                None => written.get(&record.id).copied().or_else(|| end.is_none().then_some(0)),
            },
            reason: reason(record),
            outcome: end.map(|end| outcome(&end.outcome)),
            status,
            code,
            signal,
            leftovers: end.map_or(0, |end| end.leftovers),
            proven: end.map(|end| end.proven),
            why: why(record),
        }
    }

    /// Answers once it is known how much those of these runs have written that are over; without that where their disk
    /// does not answer.
    pub(super) fn knowing_output(
        &mut self,
        runs: Vec<RunId>,
        answer: impl FnOnce(&mut Self, &Written) + Send + 'static,
    ) {
        let over: Vec<RunId> = runs.into_iter().filter(|id| self.fleet.record(*id).is_none()).collect();
        if over.is_empty() || self.files.silence().is_some() {
            return answer(self, &Written::new());
        }
        let length = |path: &std::path::PathBuf| std::fs::metadata(path).map_or(0, |it| it.len());
        self.files.ask(
            move |files| {
                let of = |id| (id, RunFiles::paths(files.log.path(), id).iter().map(length).sum());
                over.into_iter().map(of).collect::<Written>()
            },
            move |daemon, written| answer(daemon, &written),
        );
    }
}

fn remaining(now: u64, deadline: u64) -> i64 {
    let ms = |ns: u64| i64::try_from(ns / 1_000_000).unwrap_or(i64::MAX);
    ms(deadline).saturating_sub(ms(now))
}

fn time(unix_ns: i64) -> String {
    Timestamp::from_nanosecond(i128::from(unix_ns)).map_or_else(|_| String::new(), |time| format!("{time:.3}"))
}

/// Why a run is or was stopped.
fn reason(record: &RunRecord) -> Option<String> {
    match &record.stage {
        Stage::Born(born) => born.stopping.map(|reason| reason.word().to_owned()),
        Stage::Ended(End { outcome: RunOutcome::Finished(outcome), .. }) => match outcome {
            Outcome::Stopped(reason) | Outcome::NotEmpty { reason, .. } => Some(reason.word().to_owned()),
            Outcome::Ended | Outcome::LaunchFailed(_) => None,
        },
        Stage::Ended(_) | Stage::Queued | Stage::Intended(_) => None,
    }
}

fn outcome(outcome: &RunOutcome) -> String {
    match outcome {
        RunOutcome::Finished(Outcome::Ended) => "ended",
        RunOutcome::Finished(Outcome::Stopped(reason)) => reason.word(),
        RunOutcome::Finished(Outcome::LaunchFailed(_)) => "launch_failed",
        RunOutcome::Finished(Outcome::NotEmpty { .. }) => "not_empty",
        RunOutcome::LostToReboot => "lost_to_reboot",
        RunOutcome::Lost => "lost",
        RunOutcome::Withdrawn => "withdrawn",
    }
    .to_owned()
}

/// How a run ended, in one sentence without its full stop.
pub(super) fn sentence(end: &End) -> String {
    let status =
        end.status.map_or_else(|| "its status is not known".to_owned(), |status| format!("its status: {status}"));
    let stopped = |reason: StopReason| match reason {
        StopReason::Deadline => "its wall limit was reached",
        StopReason::ActiveLimit => "its limit of waking time was reached",
        StopReason::Idle => "it wrote nothing for too long",
        StopReason::OutputBudget => "its output budget was reached",
        StopReason::Leftovers => "its command left others behind",
        StopReason::Operator { .. } => "somebody asked for it",
        StopReason::OutputFailed => "its output could not be written",
        StopReason::Internal => "agent-loop failed",
    };
    match &end.outcome {
        RunOutcome::Finished(Outcome::Ended) => format!("its command ended by itself; {status}"),
        RunOutcome::Finished(Outcome::Stopped(reason)) => {
            format!("it was stopped, since {}; {status}", stopped(*reason))
        }
        RunOutcome::Finished(Outcome::LaunchFailed(failure)) => {
            let errno = failure.errno.map(|errno| format!(": {}", std::io::Error::from_raw_os_error(errno)));
            format!("it was never started: {}{}", failure.step, errno.unwrap_or_default())
        }
        RunOutcome::Finished(Outcome::NotEmpty { survivors, .. }) => {
            format!("{survivors} of its processes could not be ended; {status}")
        }
        RunOutcome::LostToReboot => "the host was started again meanwhile, and nobody saw its end".to_owned(),
        RunOutcome::Lost => {
            "what was remembered of it is older than what was found; how it ran is not known".to_owned()
        }
        RunOutcome::Withdrawn => "it was withdrawn before it was launched".to_owned(),
    }
}

/// What ended a run, by whom, on what evidence: one sentence each.
fn why(record: &RunRecord) -> Vec<String> {
    let Stage::Ended(end) = &record.stage else { return record.told.clone() };
    let mut why = vec![format!("Run {}: {}.", record.id, sentence(end))];
    why.extend(record.told.iter().cloned());
    let source = match end.source {
        crate::model::Source::Waitid => "the keeper's waitid on its own child",
        crate::model::Source::RunTable => "the kernel's run table, written by the exit hook",
        crate::model::Source::Kernel => "the kernel's record of its exit",
        crate::model::Source::LiveSet => "the kernel's live set",
        crate::model::Source::Scan => "a look at the processes",
        crate::model::Source::Unknown => "nobody, so that it stays unknown",
    };
    if !matches!(end.outcome, RunOutcome::Withdrawn | RunOutcome::Finished(Outcome::LaunchFailed(_))) {
        why.push(format!("The status was told by {source}."));
        let tree = if end.proven { "proven empty" } else { "not proven empty" };
        why.push(format!("{} processes were born in its tree and {} died; it was {tree}.", end.births, end.deaths));
    }
    if end.leftovers > 0 {
        let then = match record.submission.leftovers {
            Leftovers::Kill => "were stopped",
            Leftovers::Wait => "were waited for",
        };
        why.push(format!("{} processes outlived its command and {then}.", end.leftovers));
    }
    if let Some(kills) = end.oom_kills.filter(|kills| *kills > 0) {
        why.push(format!("The kernel killed {kills} of its processes for want of memory."));
    }
    why
}

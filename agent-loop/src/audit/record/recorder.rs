//! The lines of a run: facts in, lines out.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    Cgroup, Counts, ExecBody, ExitBody, FileId, GapBody, Host, Line, Parent, Proc, ProcId, Shared, Stats, To, own,
};
use crate::audit::redact::{self, Redactor};
use crate::event::{Fact, Gap, Member, Outcome, Phase, SignalResult, Signalled, Summary};
use crate::model::{BootNs, ProcessKey, ProofKind, Source, WaitStatus};

/// What stays the same in all lines of a run. The log that they go to numbers them.
pub struct Recorder {
    boot_id: Shared,
    run: Shared,
    issue: Option<Shared>,
    cgroup: Option<Cgroup>,
    argv: Vec<String>,
    user: String,
    ahead: i64,
    /// Who was told last to withstand SIGKILL.
    unkillable: Vec<u32>,
    redact: Redactor,
}

/// How many of those that withstand SIGKILL are named.
const NAMED: usize = 16;

impl Recorder {
    /// A recorder for one run of `argv` by `user`. What it records is redacted as this process redacts.
    #[must_use]
    pub fn new(boot_id: String, run: String, argv: Vec<String>, user: String) -> Self {
        let (boot_id, run) = (Shared(boot_id.into()), Shared(run.into()));
        let redact = redact::ours();
        let (argv, user) = (redact.words(&argv, false), redact.text(&user).into_owned());
        Self { boot_id, run, issue: None, cgroup: None, argv, user, ahead: 0, unkillable: Vec::new(), redact }
    }

    /// Says which issue the run is for.
    pub fn set_issue(&mut self, issue: &str) {
        self.issue = Some(Shared(issue.into()));
    }

    /// The line that declares the torn end of the line before it.
    pub fn torn(&mut self, clock: Clock) -> Line {
        let why = "the line before this one is not whole: its writer ended in the middle of it".to_owned();
        Line { why: Some(why), ..self.line("log.torn", clock.boot, clock) }
    }

    /// The line that declares how many lines before it could not be written.
    pub fn dropped(&mut self, lines: u64, clock: Clock) -> Line {
        let why = format!("{lines} lines before this one could not be written and are lost");
        Line { why: Some(why), ..self.line("log.lost", clock.boot, clock) }
    }

    /// The line of a run that is about to be launched.
    pub fn intent(&mut self, clock: Clock) -> Line {
        Line {
            argv: Some(self.argv.clone()),
            user: Some(self.user.clone()),
            ..self.line("run.intent", clock.boot, clock)
        }
    }

    /// The line of a daemon that goes on with the run of an earlier one.
    pub fn adopted(&mut self, why: String, clock: Clock) -> Line {
        let why = self.redact.text(&why).into_owned();
        Line { why: Some(why), ..self.line("run.adopted", clock.boot, clock) }
    }

    /// The line of somebody who wants the run to end.
    pub fn stop_asked(&mut self, why: String, clock: Clock) -> Line {
        let why = self.redact.text(&why).into_owned();
        Line { why: Some(why), ..self.line("run.stop_asked", clock.boot, clock) }
    }

    /// The line of output whose end may be missing, unseen by anybody.
    pub fn output_unheard(&mut self, why: String, clock: Clock) -> Line {
        Line { why: Some(why), ..self.line("run.output_unheard", clock.boot, clock) }
    }

    /// Names the run's cgroup in its `run.born`.
    pub fn set_cgroup(&mut self, id: u64, mut path: String) {
        self.redact.string(&mut path);
        self.cgroup = Some(Cgroup { id, path });
    }

    /// Says how far our clock is ahead of the one by which the kernel's records tell the time, in nanoseconds.
    pub fn set_clock(&mut self, ahead: i64) {
        self.ahead = ahead;
    }

    /// The line of a host that starts.
    pub fn host(&mut self, mut host: Host, clock: Clock) -> Line {
        host.degraded.iter_mut().for_each(|why| self.redact.string(why));
        let clock_ahead_ns = Some(self.ahead).filter(|ahead| *ahead != 0);
        Line { host: Some(host), clock_ahead_ns, ..self.line("host.start", clock.boot, clock) }
    }

    /// The line of the final sum.
    pub fn stats(&mut self, stats: Stats, clock: Clock) -> Line {
        Line { stats: Some(stats), ..self.line("stats", clock.boot, clock) }
    }

    /// The line of a fact; `None` for what is only for people.
    pub fn fact(&mut self, fact: &Fact, clock: Clock) -> Option<Line> {
        Some(match fact {
            Fact::RunBorn(born) => Line {
                proc: Some(Proc { pidfs_ino: born.ino.map(|ino| ino.0), ..self.proc(born.key) }),
                cgroup: Some(self.cgroup.clone()),
                argv: Some(self.argv.clone()),
                user: Some(self.user.clone()),
                ..self.line("run.born", born.at, clock)
            },
            Fact::Fork { birth, inferred } => Line {
                proc: Some(Proc { pidfs_ino: birth.ino.map(|ino| ino.0), ..self.proc(birth.key) }),
                parent: Some(birth.forker.map(|key| Parent { id: self.id(key), pid: key.tgid })),
                parent_pid: Some(birth.parent_tgid),
                uid: Some(birth.uid),
                discovery: Some(discovery(birth.discovery)),
                inferred: Some(inferred.map(|gap| gap.0)),
                ..self.record("proc.fork", birth.at, clock)
            },
            Fact::Exec(exec) => Line {
                proc: Some(self.proc(exec.key)),
                uid: Some(exec.uid),
                exec: Some(ExecBody {
                    exe: self.redact.text(&exec.filename).into_owned(),
                    argv: self.redact.words(&exec.argv, exec.truncated),
                    argc: exec.argc,
                    argv_total: exec.argv_total,
                    truncated: exec.truncated,
                    cwd: exec.cwd.as_deref().map(|cwd| self.redact.text(cwd).into_owned()),
                    cwd_source: exec.cwd.is_some().then_some("procfs"),
                    file: exec.file.map(|(dev, ino)| FileId { dev, ino }),
                    source: source(exec.source),
                }),
                ..self.record("proc.exec", exec.at, clock)
            },
            Fact::Exit { death, cause, inferred } => Line {
                proc: Some(self.proc(death.key)),
                exit: Some(exit(death.status, cause.word(), death.source)),
                inferred: Some(inferred.map(|gap| gap.0)),
                ..self.record("proc.exit", death.at, clock)
            },
            Fact::Gap(gap) => Line { gap: Some(own::AnyGap::Kernel(gap_body(gap))), ..self.line("gap", gap.to, clock) },
            Fact::SignalIntent { pid, key, signal, cgroup, reason } => Line {
                to: Some(To {
                    id: key.map(|key| self.id(key)),
                    pid: (!cgroup).then_some(*pid),
                    cgroup: cgroup.then(|| self.cgroup.as_ref().map_or(0, |cgroup| cgroup.id)),
                }),
                signal: Some(*signal),
                reason: Some(Some(reason.word())),
                ..self.line("signal.intent", clock.boot, clock)
            },
            Fact::SignalResult(signalled) => self.signal_result(signalled, clock),
            Fact::Phase(Phase::Unkillable { members, since }) => return self.unkillable(members, *since, clock),
            Fact::Phase(Phase::Stopping { .. } | Phase::Step { .. } | Phase::Draining { .. }) => return None,
            Fact::RunKilled { reason, survivors, proven, elapsed } => Line {
                reason: Some(Some(reason.word())),
                survivors: Some(*survivors),
                tree: Some(tree(*proven, *survivors)),
                elapsed_ms: Some(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)),
                ..self.line("run.killed", clock.boot, clock)
            },
            Fact::RunExit(summary) => self.run_exit(summary, clock),
        })
    }

    /// Who withstands SIGKILL; `None` where the same were told last.
    fn unkillable(&mut self, members: &[Member], since: Duration, clock: Clock) -> Option<Line> {
        let pids: Vec<u32> = members.iter().map(|member| member.pid).collect();
        if self.unkillable == pids {
            return None;
        }
        self.unkillable = pids;
        let names: Vec<String> = members.iter().take(NAMED).map(ToString::to_string).collect();
        let more = match members.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let why = format!("not dead {} ms after SIGKILL: {}{more}", since.as_millis(), names.join(", "));
        let why = self.redact.text(&why).into_owned();
        Some(Line { why: Some(why), ..self.line("run.unkillable", clock.boot, clock) })
    }

    /// Completes an intent with the proof that the signal will need.
    #[must_use]
    pub fn with_proof(line: Line, proof: ProofKind) -> Line {
        Line { proof: Some(proof.word()), ..line }
    }

    fn signal_result(&mut self, signalled: &Signalled, clock: Clock) -> Line {
        let to = Some(To { id: signalled.key.map(|key| self.id(key)), pid: Some(signalled.pid), cgroup: None });
        let (kind, result, proof, why) = match &signalled.result {
            SignalResult::Sent(proof) => ("signal.result", "sent", Some(proof.word()), None),
            SignalResult::Gone => ("signal.result", "gone", None, None),
            SignalResult::Refused(why) => ("signal.refused", "refused", None, Some(self.redact.text(why).into_owned())),
        };
        Line {
            to,
            signal: Some(signalled.signal),
            result: Some(result),
            proof,
            why,
            ..self.line(kind, clock.boot, clock)
        }
    }

    fn run_exit(&mut self, summary: &Summary, clock: Clock) -> Line {
        let (outcome, reason, survivors, why) = match &summary.outcome {
            Outcome::Ended => ("ended", None, 0, None),
            Outcome::Stopped(reason) => (reason.word(), Some(reason.word()), 0, None),
            Outcome::LaunchFailed(failure) => {
                ("launch_failed", None, 0, Some(self.redact.text(&failure.step).into_owned()))
            }
            Outcome::NotEmpty { reason, survivors } => ("not_empty", Some(reason.word()), *survivors, None),
        };
        Line {
            outcome: Some(outcome),
            reason: Some(reason),
            why,
            exit: Some(exit(
                summary.status,
                if summary.status.is_some() { "observed" } else { "unknown" },
                summary.status_source,
            )),
            births: Some(summary.births),
            deaths: Some(summary.deaths),
            leftovers: Some(summary.leftovers),
            survivors: Some(survivors),
            tree: Some(tree(summary.proven, survivors)),
            elapsed_ms: Some(u64::try_from(summary.elapsed.as_millis()).unwrap_or(u64::MAX)),
            ..self.line("run.exit", clock.boot, clock)
        }
    }

    /// A line whose time is the kernel's.
    fn record(&mut self, kind: &'static str, at: BootNs, clock: Clock) -> Line {
        Line { time: clock.wall(at.shifted(self.ahead)), ..self.line(kind, at, clock) }
    }

    fn line(&mut self, kind: &'static str, at: BootNs, clock: Clock) -> Line {
        Line {
            kind,
            boot_ns: at.0,
            time: clock.wall(at),
            boot_id: self.boot_id.clone(),
            run: Some(self.run.clone()),
            issue: self.issue.clone(),
            ..Line::default()
        }
    }

    fn proc(&self, key: ProcessKey) -> Proc {
        Proc { id: self.id(key), pid: key.tgid, start_ns: key.start_boottime_ns, pidfs_ino: None }
    }

    fn id(&self, key: ProcessKey) -> ProcId {
        ProcId::of(&self.boot_id.0, key)
    }
}

/// The two clocks read together: decisions use the first, people read the second.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// CLOCK_BOOTTIME.
    pub boot: BootNs,
    /// CLOCK_REALTIME at the same moment, nanoseconds since 1970.
    pub real_ns: i128,
}

impl Clock {
    /// The wall time at a boot time, RFC 3339 in UTC with nanoseconds.
    #[must_use]
    pub fn wall(self, at: BootNs) -> String {
        let ns = self.real_ns - i128::from(self.boot.0) + i128::from(at.0);
        Timestamp::from_nanosecond(ns).map_or_else(|_| String::new(), |time| format!("{time:.9}"))
    }
}

fn exit(status: Option<WaitStatus>, cause: &'static str, from: Source) -> ExitBody {
    let (code, signal, core) = match status {
        Some(WaitStatus::Exited(code)) => (Some(code), None, Some(false)),
        Some(WaitStatus::Signaled { signal, core }) => (None, Some(signal), Some(core)),
        None => (None, None, None),
    };
    let from = if status.is_none() { Source::Unknown } else { from };
    ExitBody { code, signal, core, oom: None, cause, source: source(from) }
}

fn gap_body(gap: &Gap) -> GapBody {
    GapBody {
        id: gap.id.0,
        cause: gap.cause.word(),
        lost: Counts { fork: gap.lost_fork, exec: gap.lost_exec, exit: gap.lost_exit },
        untracked: gap.untracked,
        missed: gap.missed,
        from_ns: gap.from.0,
        to_ns: gap.to.0,
        inferred: Counts { fork: gap.inferred_births, exec: 0, exit: gap.inferred_deaths },
        repaired: gap.repaired,
    }
}

const fn tree(proven: bool, survivors: u32) -> &'static str {
    if survivors > 0 {
        "not empty"
    } else if proven {
        "empty"
    } else {
        "not proven"
    }
}

const fn source(source: Source) -> &'static str {
    match source {
        Source::Kernel => "kernel",
        Source::Waitid => "waitid",
        Source::RunTable => "run_table",
        Source::LiveSet => "live_set",
        Source::Scan => "scan",
        Source::Unknown => "unknown",
    }
}

const fn discovery(discovery: crate::model::Discovery) -> &'static str {
    use crate::model::Discovery;
    match discovery {
        Discovery::Fork => "fork",
        Discovery::Exec => "exec",
        Discovery::Snapshot => "snapshot",
        Discovery::Scan => "scan",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_time_follows_boot_time() {
        let clock = Clock { boot: BootNs(2_000_000_000), real_ns: 1_000_000_000_000_000_000 };
        assert_eq!(clock.wall(BootNs(1_999_999_999)), "2001-09-09T01:46:39.999999999Z");
    }
}

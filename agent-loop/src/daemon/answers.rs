//! What the daemon answers over the control socket.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;

use super::look_up::Waits;
use super::secret;
use super::shell::{Daemon, now};
use super::within::{Reply, give};
use crate::audit::redact;
use crate::config::OnFull;
use crate::control::api::{
    Answer, Ask, Caller, Given, IssueQuestion, KillView, LogFiles, LogView, Problem, ProcessView, Question, RunView,
    StartRequest, StatusView, TreeView,
};
use crate::event::Outcome;
use crate::model::{StopReason, WaitStatus};
use crate::run::{End, Limits, RunId, RunOutcome, RunRecord, Stage, Submission};
use crate::store::{RunFiles, Store as _, StoreError};
use crate::supervise::Leftovers;
use crate::supervise::fleet::FleetEvent;

/// The longest command line that is taken, in bytes: what execve takes is more.
const LONGEST_ARGV: usize = 128 << 10;

/// How many runs may wait for their turn.
const MOST_QUEUED: usize = 1_000;

/// SIGTERM: what an operator's kill is told as.
const SIGTERM: u8 = 15;

/// Who waits for a run to be accepted.
pub(super) enum Accepted {
    /// Who asked for it over the control socket.
    Start(Reply),
    /// The issue loop.
    Order(Reply),
}

impl Accepted {
    fn refuse(self, problem: Problem) {
        let (Self::Start(reply) | Self::Order(reply)) = self;
        // Who asked may have gone.
        let _ = reply.send(Err(problem));
    }
}

/// What is said where the store fails.
pub(super) fn unavailable(error: StoreError) -> Problem {
    Problem::Unavailable(error.to_string())
}

/// Where questions come from.
pub(super) type Questions = mpsc::Receiver<Question>;

/// Bytes of output of runs that are over, by their files.
type Written = BTreeMap<RunId, u64>;

impl Daemon {
    /// Answers what only has to be looked up, and takes a wish to stop; the rest waits until nothing else is under way.
    pub(super) fn answer_soon(&mut self, question: Question) {
        let waits = self.look_up(question);
        self.deferred.extend(waits);
    }

    /// Answers a question, or has it answered once what it waits for is there.
    pub(super) fn answer(&mut self, question: Question) {
        let Some(Question { ask, from, reply }) = self.look_up(question) else { return };
        match ask {
            Ask::Start(request) if request.cwd.is_none() && self.setup.config.agent.user.is_some() => {
                let user = self.setup.config.agent.user.clone().unwrap_or_default();
                self.accounts.account(user, Waits::Start { request, from, reply });
            }
            Ask::Start(request) => self.start_run(&request, from, reply),
            Ask::Issues(ask) => self.hand_over(IssueQuestion { ask, from, reply }),
            Ask::Within(within) => self.within(within, reply),
            // They never wait.
            Ask::Status
            | Ask::Runs { .. }
            | Ask::Run(_)
            | Ask::Tree(_)
            | Ask::Logs(_)
            | Ask::Events
            | Ask::Kill { .. } => {}
        }
    }

    /// Answers what changes nothing, and the wish to stop; hands back what else is asked.
    fn look_up(&mut self, question: Question) -> Option<Question> {
        let Question { ask, from, reply } = question;
        let answer = match ask {
            Ask::Status => Ok(Answer::Status(self.status())),
            Ask::Events => Ok(Answer::Events(self.feed.read())),
            Ask::Runs { all: false, limit } => Ok(Answer::Runs(self.list(&[], limit, &Written::new()))),
            Ask::Runs { all: true, limit } => {
                // What piles up before a disk that does not answer is not read later for nobody.
                if let Some(why) = self.store.silence() {
                    let _ = reply.send(Err(Problem::Unavailable(why)));
                    return None;
                }
                self.store.ask(
                    move |store| store.latest(limit),
                    move |daemon, latest| match latest {
                        Ok(latest) => {
                            let runs = latest.iter().map(|record| record.id).collect();
                            daemon.knowing_output(runs, move |daemon, written| {
                                let _ = reply.send(Ok(Answer::Runs(daemon.list(&latest, limit, written))));
                            });
                        }
                        Err(error) => drop(reply.send(Err(unavailable(error)))),
                    },
                );
                return None;
            }
            Ask::Run(run) => {
                self.of_run(&run, reply, |daemon, record, reply| {
                    let record = record.clone();
                    daemon.knowing_output(vec![record.id], move |daemon, written| {
                        drop(reply.send(Ok(Answer::Run(Box::new(daemon.view(&record, written))))));
                    });
                });
                return None;
            }
            Ask::Tree(run) => {
                self.of_run(&run, reply, |daemon, record, reply| {
                    drop(reply.send(Ok(Answer::Tree(daemon.tree(record)))));
                });
                return None;
            }
            Ask::Logs(run) => {
                self.of_run(&run, reply, |daemon, record, reply| {
                    drop(reply.send(Ok(Answer::Logs(daemon.logs(record)))));
                });
                return None;
            }
            Ask::Kill { run, reason, dry_run } => {
                self.of_run(&run, reply, move |daemon, record, reply| {
                    let answer = daemon.kill(record, &reason, dry_run, &from);
                    // A wish that is carried out later must outlive us first. Who lives is stopped whatever the store does.
                    if matches!(daemon.fleet.state(record.id), Some("queued" | "launching")) {
                        daemon.acknowledged.push((record.id, reply, answer));
                    } else {
                        drop(reply.send(answer));
                    }
                });
                return None;
            }
            other @ (Ask::Start(_) | Ask::Issues(_) | Ask::Within(_)) => {
                return Some(Question { ask: other, from, reply });
            }
        };
        // Who asked may have gone.
        let _ = reply.send(answer);
        None
    }

    /// Answers for one run: at once where it goes on, else by what is remembered of it.
    fn of_run(&mut self, run: &str, reply: Reply, answer: impl FnOnce(&mut Self, &RunRecord, Reply) + Send + 'static) {
        let Ok(id) = run.parse::<RunId>() else {
            return drop(reply.send(Err(Problem::Bad(format!("{run:?} is not the id of a run")))));
        };
        if let Some(record) = self.fleet.record(id).cloned() {
            return answer(self, &record, reply);
        }
        if let Some(why) = self.store.silence() {
            return drop(reply.send(Err(Problem::Unavailable(why))));
        }
        let stored = move |daemon: &mut Self, stored: Result<Option<RunRecord>, StoreError>| {
            let unknown = || Problem::NotFound(format!("there is no run {id}; `agent-loop ps --all` lists them"));
            match stored.map_err(unavailable).and_then(|record| record.ok_or_else(unknown)) {
                Ok(record) => answer(daemon, &record, reply),
                Err(problem) => drop(reply.send(Err(problem))),
            }
        };
        self.store.ask(move |store| store.run(id), stored);
    }

    fn status(&self) -> StatusView {
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
    fn list(&self, latest: &[RunRecord], limit: u32, written: &Written) -> Vec<RunView> {
        let mut views: Vec<RunView> = self.fleet.records().map(|record| self.view(record, written)).collect();
        let over = latest.iter().filter(|record| self.fleet.record(record.id).is_none());
        views.extend(over.map(|record| self.view(record, written)));
        views.sort_by(|a, b| b.run.cmp(&a.run));
        views.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        views
    }

    fn tree(&self, record: &RunRecord) -> TreeView {
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

    fn logs(&self, record: &RunRecord) -> LogFiles {
        let [stdout, stderr] = RunFiles::paths(&self.outputs, record.id);
        // Until its cgroup is removed a keeper may still be draining.
        LogFiles { stdout, stderr, open: self.fleet.record(record.id).is_some() }
    }

    pub(super) fn start_run(&mut self, request: &StartRequest, from: Caller, reply: Reply) {
        match self.submitted(request, &from) {
            Ok(submission) => self.accept(submission, Accepted::Start(reply)),
            Err(problem) => drop(reply.send(Err(problem))),
        }
    }

    fn submitted(&self, request: &StartRequest, from: &Caller) -> Result<Submission, Problem> {
        if !from.may_write {
            return Err(Problem::Forbidden("only root and the owner of the configuration start runs".to_owned()));
        }
        let waiting = self.fleet.records().filter(|record| matches!(record.stage, Stage::Queued)).count();
        if waiting >= MOST_QUEUED {
            return Err(Problem::TooMany(format!("{waiting} runs are waiting already; try again later")));
        }
        self.submission(request, from)
    }

    /// Takes a run; who asked is answered once it is durable.
    pub(super) fn accept(&mut self, mut submission: Submission, accepted: Accepted) {
        let id = match self.ids.generate() {
            Ok(id) => RunId(id),
            Err(error) => return accepted.refuse(Problem::Unavailable(format!("making an id: {error}"))),
        };
        if let Some(whole) = secret::withhold(&mut submission, &redact::ours()) {
            self.withheld.insert(id, whole);
        }
        let record = RunRecord {
            id,
            attempt: 1,
            submission,
            submitted_unix_ns: now().unix_ns,
            boot_id: self.boot_id.clone(),
            stage: Stage::Queued,
            told: Vec::new(),
        };
        self.accepting.insert(id, accepted);
        self.queue.push_back(FleetEvent::Submitted(Box::new(record)));
    }

    /// Answers who waits for a run to be accepted: it is remembered now, or cannot be.
    pub(super) fn accepted(&mut self, id: RunId, failed: Option<String>) {
        let Some(accepted) = self.accepting.remove(&id) else { return };
        match (failed, accepted) {
            (None, Accepted::Start(reply)) => drop(reply.send(Ok(Answer::Started { run: id.to_string() }))),
            (None, Accepted::Order(reply)) => {
                give(reply, Ok(Given::Run(self.fleet.record(id).cloned().map(Box::new))));
            }
            (Some(why), accepted) => {
                // Not remembered is not accepted.
                self.withheld.remove(&id);
                let reason = StopReason::Operator { signal: SIGTERM };
                let told = "Its end was decided by agent-loop: it could not be remembered.".to_owned();
                self.queue.push_back(FleetEvent::StopAsked { id, reason, told });
                let why = format!(
                    "the run cannot be remembered: {why}; mend the disk of its state, or free some space there, and try again"
                );
                accepted.refuse(Problem::Unavailable(why));
            }
        }
    }

    pub(super) fn submission(&self, request: &StartRequest, from: &Caller) -> Result<Submission, Problem> {
        let bad = |text: &str| Problem::Bad(text.to_owned());
        let agent = &self.setup.config.agent;
        let user = agent.user.clone().ok_or_else(|| {
            Problem::Conflict("no `user` is set in `[agent]` of the configuration: nobody to run it as".to_owned())
        })?;
        if request.argv.first().is_none_or(|command| command.is_empty()) {
            return Err(bad("there is no command"));
        }
        if request.argv.iter().map(String::len).sum::<usize>() > LONGEST_ARGV {
            return Err(bad("the command line is longer than 128 KiB; hand long texts over by --stdin"));
        }
        let texts = request.argv.iter().chain(request.env.iter().flat_map(|(name, value)| [name, value]));
        if texts.into_iter().any(|text| text.contains('\0')) {
            return Err(bad("a zero byte cannot be part of a command line or of the environment"));
        }
        if request.env.iter().any(|(name, _)| name.is_empty() || name.contains('=')) {
            return Err(bad("the name of a variable is empty or holds `=`"));
        }
        let stdin = match &request.stdin {
            // It is opened with the daemon's rights.
            Some(_) if from.uid != 0 => {
                return Err(Problem::Forbidden("only root names a file as standard input".to_owned()));
            }
            Some(path) if !path.is_absolute() => return Err(bad("standard input must be an absolute path")),
            other => other.clone(),
        };
        let cwd = match &request.cwd {
            Some(path) if !path.is_absolute() => return Err(bad("the working directory must be an absolute path")),
            Some(path) => path.clone(),
            None => return Err(bad("there is no working directory")),
        };
        let defaults = &self.setup.config.limits;
        let limits = Limits {
            wall: span("limit", request.limit.as_deref())?.or(defaults.run.wall),
            active: span("active_limit", request.active_limit.as_deref())?.or(defaults.run.active),
            idle: span("idle_limit", request.idle_limit.as_deref())?.or(defaults.run.idle),
            output_bytes: request.output_bytes.or(defaults.run.output_bytes),
            memory_bytes: request.memory_bytes.or(defaults.run.memory_bytes),
            tasks: request.tasks.or(defaults.run.tasks),
            cpu_percent: request.cpu_percent.or(defaults.run.cpu_percent),
        };
        Ok(Submission {
            argv: request.argv.clone(),
            env: request.env.clone(),
            cwd,
            user,
            stdin,
            limits,
            grace: grace(request.grace.as_deref())?.unwrap_or(defaults.grace),
            leftovers: match request.leftovers.as_deref() {
                None => defaults.leftovers,
                Some("kill") => Leftovers::Kill,
                Some("wait") => Leftovers::Wait,
                Some(other) => return Err(Problem::Bad(format!("leftovers is `kill` or `wait`, not {other:?}"))),
            },
            asked_by: from.uid,
            part: None,
            withheld: false,
        })
    }

    /// Takes the wish that a run be stopped, which goes before all that waits.
    pub(super) fn kill(
        &mut self,
        record: &RunRecord,
        reason: &str,
        dry_run: bool,
        from: &Caller,
    ) -> Result<Answer, Problem> {
        if !from.may_write {
            return Err(Problem::Forbidden("only root and the owner of the configuration stop runs".to_owned()));
        }
        let state = self.fleet.state(record.id).unwrap_or("ended").to_owned();
        if state == "ended" {
            return Err(Problem::Conflict(format!("run {} is over already", record.id)));
        }
        let view = KillView { run: record.id.to_string(), state, processes: self.tree(record).processes, dry_run };
        if !dry_run {
            let why = format!("asked by {from} over the control socket: {}", redact::said(reason));
            if let Some(watched) = self.runs.get_mut(&record.id) {
                watched.log.write(&mut self.audit, |recorder, clock| recorder.stop_asked(why.clone(), clock));
            }
            self.note(|lines, clock| lines.admin(from.uid, format!("kill {}, as {from}", record.id), clock));
            let reason = StopReason::Operator { signal: SIGTERM };
            let told = crate::audit::end_asked(&why);
            self.queue.push_front(FleetEvent::StopAsked { id: record.id, reason, told });
        }
        Ok(Answer::Killing(view))
    }

    fn view(&self, record: &RunRecord, written: &Written) -> RunView {
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
    fn knowing_output(&mut self, runs: Vec<RunId>, answer: impl FnOnce(&mut Self, &Written) + Send + 'static) {
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

/// The next question, for ever where nobody can ask.
pub(super) async fn next(questions: &mut Option<Questions>) -> Option<Question> {
    match questions {
        Some(questions) => questions.recv().await,
        None => std::future::pending().await,
    }
}

fn remaining(now: u64, deadline: u64) -> i64 {
    let ms = |ns: u64| i64::try_from(ns / 1_000_000).unwrap_or(i64::MAX);
    ms(deadline).saturating_sub(ms(now))
}

fn span(name: &str, text: Option<&str>) -> Result<Option<Duration>, Problem> {
    let Some(text) = text else { return Ok(None) };
    match humantime::parse_duration(text) {
        Ok(span) if span.is_zero() => {
            Err(Problem::Bad(format!("{name} must be longer than 0; leave it out for no limit")))
        }
        Ok(span) => Ok(Some(span)),
        Err(error) => Err(Problem::Bad(format!("{name} {text:?}: {error}; write it like `90s`, `10m` or `1h 30m`"))),
    }
}

fn grace(text: Option<&str>) -> Result<Option<Duration>, Problem> {
    text.map(humantime::parse_duration)
        .transpose()
        .map_err(|error| Problem::Bad(format!("grace: {error}; write it like `10s`")))
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

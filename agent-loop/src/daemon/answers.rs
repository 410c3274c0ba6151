//! What the daemon answers over the control socket.

use std::time::Duration;

use tokio::sync::mpsc;

use super::look_up::Waits;
use super::secret;
use super::shell::{Daemon, now};
use super::views::Written;
use super::within::{Reply, give};
use crate::audit::redact;
use crate::control::api::{Answer, Ask, Caller, Given, IssueQuestion, KillView, Problem, Question, StartRequest};
use crate::model::StopReason;
use crate::run::{Limits, RunId, RunRecord, Stage, Submission};
use crate::store::{Store as _, StoreError};
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
}

/// The next question, for ever where nobody can ask.
pub(super) async fn next(questions: &mut Option<Questions>) -> Option<Question> {
    match questions {
        Some(questions) => questions.recv().await,
        None => std::future::pending().await,
    }
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

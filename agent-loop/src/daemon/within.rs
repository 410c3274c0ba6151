//! What the daemon does for the issue loop: runs that are parts of tasks, tasks remembered, lines written.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::answers::{Accepted, unavailable};
use super::shell::Daemon;
use crate::control::api::{Answer, Caller, Given, IssueQuestion, Order, Problem, StartRequest, Within};
use crate::run::{Part, RunId, RunRecord, Stage};
use crate::store::{SqliteStore, Store as _, StoreError};

/// How long an intent waits to be durable: without it nothing is sent.
const NOTE_WITHIN: Duration = Duration::from_secs(2);

/// Where an answer goes.
pub(super) type Reply = oneshot::Sender<Result<Answer, Problem>>;

/// What reaches the issue loop.
pub type Desk = mpsc::Sender<IssueQuestion>;

impl Daemon {
    /// Answers the issue loop.
    pub(super) fn within(&mut self, within: Within, reply: Reply) {
        let answer = match within {
            Within::Submit(order) => {
                let part = order.part.clone();
                return self.part(part, reply, move |daemon, known, reply| match known {
                    Some(known) => give(reply, Ok(Given::Run(Some(Box::new(known))))),
                    None => daemon.submit(*order, reply),
                });
            }
            Within::RunOf(part) => {
                return self.part(part, reply, |_, known, reply| give(reply, Ok(Given::Run(known.map(Box::new)))));
            }
            Within::Over(run) => return self.over(run, reply),
            Within::Finish => {
                self.finished = true;
                Ok(Given::Done)
            }
            Within::Stop { run, why } => self.stop_for(run, &why),
            Within::Remember(task) => {
                let saved = move |store: &mut SqliteStore| {
                    let failed = |error| Problem::Unavailable(format!("remembering {}: {error}", task.key));
                    store.save_task(&task).map(|()| Given::Done).map_err(failed)
                };
                return self.store.ask(saved, |_, answer| give(reply, answer));
            }
            Within::Tasks => {
                let tasks = |store: &mut SqliteStore| store.tasks().map(Given::Tasks).map_err(unavailable);
                return self.store.ask(tasks, |_, answer| give(reply, answer));
            }
            Within::Note(line) => {
                let first = {
                    let line = self.own_lines.task(*line, crate::clock::both());
                    let first = line.class().is_durable_first();
                    if let Some((_, text)) = self.audit.append(line) {
                        self.feed.send(text.into());
                    }
                    first
                };
                if first && !self.audit.durable(NOTE_WITHIN) {
                    let why = self.audit.progress().failing.unwrap_or_else(|| "its disk does not answer".to_owned());
                    Err(Problem::Unavailable(format!("the audit log cannot be written: {why}")))
                } else {
                    Ok(Given::Done)
                }
            }
        };
        give(reply, answer);
    }

    /// Hands a question of a person to the issue loop.
    pub(super) fn hand_over(&mut self, question: IssueQuestion) {
        let Some(desk) = &self.issues else {
            let why = "no repository is configured: write `[[repo]]` into the configuration, see `config check`";
            return drop(question.reply.send(Err(Problem::Conflict(why.to_owned()))));
        };
        let (question, why) = match desk.try_send(question) {
            Ok(()) => return,
            Err(mpsc::error::TrySendError::Full(question)) => (question, "the issue loop is busy; try again"),
            Err(mpsc::error::TrySendError::Closed(question)) => (question, "the issue loop has ended: a defect"),
        };
        let _ = question.reply.send(Err(Problem::Unavailable(why.to_owned())));
    }

    fn submit(&mut self, order: Order, reply: Reply) {
        let request = StartRequest {
            argv: order.argv,
            cwd: Some(order.cwd),
            stdin: order.stdin,
            output_bytes: order.output_bytes,
            limit: order.limit,
            ..StartRequest::default()
        };
        match self.submission(&request, &Caller::ourselves()) {
            Ok(mut submission) => {
                submission.part = Some(order.part);
                self.accept(submission, Accepted::Order(reply));
            }
            Err(problem) => give(reply, Err(problem)),
        }
    }

    /// Finds the run that is this part, and goes on with it.
    fn part(
        &mut self,
        part: Part,
        reply: Reply,
        then: impl FnOnce(&mut Self, Option<RunRecord>, Reply) + Send + 'static,
    ) {
        if let Some(open) = self.open_part(&part) {
            return then(self, Some(open), reply);
        }
        self.store.ask(
            move |store| (store.run_of(&part), part),
            |daemon, (found, part)| match found {
                // The same may have been submitted meanwhile: never two runs for one part (I13).
                Ok(found) => then(daemon, found.or_else(|| daemon.open_part(&part)), reply),
                Err(error) => give(reply, Err(unavailable(error))),
            },
        );
    }

    fn open_part(&self, part: &Part) -> Option<RunRecord> {
        self.fleet.records().find(|record| record.submission.part.as_ref() == Some(part)).cloned()
    }

    fn over(&mut self, run: RunId, reply: Reply) {
        self.store.ask(move |store| store.run(run), move |daemon, found| daemon.over_or_awaited(run, found, reply));
    }

    fn over_or_awaited(&mut self, run: RunId, found: Result<Option<RunRecord>, StoreError>, reply: Reply) {
        match found {
            Ok(Some(record)) if matches!(record.stage, Stage::Ended(_)) => {
                give(reply, Ok(Given::Run(Some(Box::new(record)))));
            }
            Ok(Some(_)) => {
                let waiting = self.awaited.entry(run).or_default();
                // Who waits only for so long asks again and again.
                waiting.retain(|reply| !reply.is_closed());
                waiting.push(reply);
            }
            Ok(None) => give(reply, Err(Problem::NotFound(format!("there is no run {run}")))),
            Err(error) => give(reply, Err(unavailable(error))),
        }
    }

    /// Tells who waits for the end of a run.
    pub(super) fn tell_the_end(&mut self, record: &RunRecord) {
        for reply in self.awaited.remove(&record.id).into_iter().flatten() {
            give(reply, Ok(Given::Run(Some(Box::new(record.clone())))));
        }
    }

    fn stop_for(&mut self, run: RunId, why: &str) -> Result<Given, Problem> {
        // One that is not there has ended meanwhile.
        let Some(record) = self.fleet.record(run).cloned() else { return Ok(Given::Done) };
        match self.kill(&record, why, false, &Caller::ourselves()) {
            Ok(_) | Err(Problem::Conflict(_)) => Ok(Given::Done),
            Err(problem) => Err(problem),
        }
    }
}

/// Answers the issue loop. Who asked may have gone.
pub(super) fn give(reply: Reply, answer: Result<Given, Problem>) {
    let _ = reply.send(answer.map(Answer::Given));
}

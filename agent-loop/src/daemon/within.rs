//! What the daemon does for the issue loop: runs that are parts of tasks, tasks remembered, lines written.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::shell::Daemon;
use crate::control::api::{Answer, Caller, Given, IssueQuestion, Order, Problem, StartRequest, Within};
use crate::run::{Part, RunId, RunRecord, Stage};
use crate::store::Store as _;

/// How long an intent waits to be durable: without it nothing is sent.
const NOTE_WITHIN: Duration = Duration::from_secs(2);

/// Where an answer goes.
pub(super) type Reply = oneshot::Sender<Result<Answer, Problem>>;

/// What reaches the issue loop.
pub type Desk = mpsc::Sender<IssueQuestion>;

impl Daemon {
    /// Answers the issue loop.
    pub(super) async fn within(&mut self, within: Within, reply: Reply) {
        let answer = match within {
            Within::Submit(order) => self.submit(*order).await,
            Within::RunOf(part) => self.part(&part).map(|record| Given::Run(record.map(Box::new))),
            Within::Over(run) => return self.over(run, reply),
            Within::Finish => {
                self.finished = true;
                Ok(Given::Done)
            }
            Within::Stop { run, why } => self.stop_for(run, &why),
            Within::Remember(task) => self
                .store
                .save_task(&task)
                .map(|()| Given::Done)
                .map_err(|error| Problem::Unavailable(format!("remembering {}: {error}", task.key))),
            Within::Tasks => {
                self.store.tasks().map(Given::Tasks).map_err(|error| Problem::Unavailable(error.to_string()))
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
        // Who asked may have gone.
        let _ = reply.send(answer.map(Answer::Given));
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

    async fn submit(&mut self, order: Order) -> Result<Given, Problem> {
        if let Some(known) = self.part(&order.part)? {
            return Ok(Given::Run(Some(Box::new(known))));
        }
        let request = StartRequest {
            argv: order.argv,
            cwd: Some(order.cwd),
            stdin: order.stdin,
            output_bytes: order.output_bytes,
            limit: order.limit,
            ..StartRequest::default()
        };
        let mut submission = self.submission(&request, &Caller::ourselves())?;
        submission.part = Some(order.part);
        let id = self.accept(submission).await?;
        Ok(Given::Run(self.fleet.record(id).cloned().map(Box::new)))
    }

    fn part(&self, part: &Part) -> Result<Option<RunRecord>, Problem> {
        let open = self.fleet.records().find(|record| record.submission.part.as_ref() == Some(part));
        match open {
            Some(record) => Ok(Some(record.clone())),
            None => self.store.run_of(part).map_err(|error| Problem::Unavailable(error.to_string())),
        }
    }

    fn over(&mut self, run: RunId, reply: Reply) {
        match self.store.run(run) {
            Ok(Some(record)) if matches!(record.stage, Stage::Ended(_)) => {
                let _ = reply.send(Ok(Answer::Given(Given::Run(Some(Box::new(record))))));
            }
            Ok(Some(_)) => {
                let waiting = self.awaited.entry(run).or_default();
                // Who waits only for so long asks again and again.
                waiting.retain(|reply| !reply.is_closed());
                waiting.push(reply);
            }
            Ok(None) => drop(reply.send(Err(Problem::NotFound(format!("there is no run {run}"))))),
            Err(error) => drop(reply.send(Err(Problem::Unavailable(error.to_string())))),
        }
    }

    /// Tells who waits for the end of a run.
    pub(super) fn tell_the_end(&mut self, record: &RunRecord) {
        for reply in self.awaited.remove(&record.id).into_iter().flatten() {
            let _ = reply.send(Ok(Answer::Given(Given::Run(Some(Box::new(record.clone()))))));
        }
    }

    fn stop_for(&mut self, run: RunId, why: &str) -> Result<Given, Problem> {
        match self.kill(&run.to_string(), why, false, &Caller::ourselves()) {
            // It has ended meanwhile.
            Ok(_) | Err(Problem::Conflict(_)) => Ok(Given::Done),
            Err(problem) => Err(problem),
        }
    }
}

//! The daemon, as the issue loop asks it: the same questions that people ask, and some of its own.

use std::path::PathBuf;

use tokio::sync::oneshot;

use crate::audit::TaskLine;
use crate::control::api::{Answer, Ask, Caller, Given, LogFiles, Order, Problem, Question, Questions, Within};
use crate::run::{Part, RunId, RunRecord};
use crate::work::Task;

/// Asks the daemon that this loop lives in.
#[derive(Clone, Debug)]
pub(super) struct Link(Questions);

/// Why the daemon did not do it; for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum LinkError {
    /// It is stopping: nothing is asked any more.
    #[error("the daemon is stopping")]
    Stopping,
    /// In its words.
    #[error("{0}")]
    Problem(#[from] Problem),
}

impl Link {
    pub(super) const fn new(questions: Questions) -> Self {
        Self(questions)
    }

    async fn ask(&self, ask: Ask) -> Result<Answer, LinkError> {
        let (reply, answer) = oneshot::channel();
        let from = Caller::ourselves();
        self.0.send(Question { ask, from, reply }).await.map_err(|_| LinkError::Stopping)?;
        Ok(answer.await.map_err(|_| LinkError::Stopping)??)
    }

    async fn within(&self, within: Within) -> Result<Given, LinkError> {
        let Answer::Given(given) = self.ask(Ask::Within(within)).await? else { return Err(astray()) };
        Ok(given)
    }

    async fn a_run(&self, within: Within) -> Result<RunRecord, LinkError> {
        let Given::Run(Some(record)) = self.within(within).await? else { return Err(astray()) };
        Ok(*record)
    }

    /// Submits a run, or finds the one that was submitted as this part before.
    pub(super) async fn submit(&self, order: Order) -> Result<RunRecord, LinkError> {
        self.a_run(Within::Submit(Box::new(order))).await
    }

    /// The run that is this part of a task.
    pub(super) async fn run_of(&self, part: Part) -> Result<Option<RunRecord>, LinkError> {
        let Given::Run(record) = self.within(Within::RunOf(part)).await? else { return Err(astray()) };
        Ok(record.map(|record| *record))
    }

    /// A run, once it is over.
    pub(super) async fn over(&self, run: RunId) -> Result<RunRecord, LinkError> {
        self.a_run(Within::Over(run)).await
    }

    /// Stops a run.
    pub(super) async fn stop(&self, run: RunId, why: String) -> Result<(), LinkError> {
        self.within(Within::Stop { run, why }).await.map(drop)
    }

    /// Makes a task durable.
    pub(super) async fn remember(&self, task: &Task) -> Result<(), LinkError> {
        self.within(Within::Remember(Box::new(task.clone()))).await.map(drop)
    }

    /// Every task that was ever remembered.
    pub(super) async fn tasks(&self) -> Result<Vec<Task>, LinkError> {
        let Given::Tasks(tasks) = self.within(Within::Tasks).await? else { return Err(astray()) };
        Ok(tasks)
    }

    /// Writes a line; durable where its kind demands it.
    pub(super) async fn note(&self, line: TaskLine) -> Result<(), LinkError> {
        self.within(Within::Note(Box::new(line))).await.map(drop)
    }

    /// Ends the daemon: all that was to be done is done.
    pub(super) async fn finish(&self) -> Result<(), LinkError> {
        self.within(Within::Finish).await.map(drop)
    }

    /// What a run wrote to its standard output.
    pub(super) async fn output(&self, run: RunId) -> Result<PathBuf, LinkError> {
        let Answer::Logs(LogFiles { stdout, .. }) = self.ask(Ask::Logs(run.to_string())).await? else {
            return Err(astray());
        };
        Ok(stdout)
    }
}

fn astray() -> LinkError {
    LinkError::Problem(Problem::Unavailable("the answer does not fit the question: a defect".to_owned()))
}

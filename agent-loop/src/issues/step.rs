//! Steps that are run as the agent, in its clone: ordinary runs of the daemon, parts of a task.

use std::ffi::OsString;

use super::host::STEP;
use super::link::LinkError;
use super::repo::Repo;
use crate::control::api::Order;
use crate::event::Outcome;
use crate::model::WaitStatus;
use crate::run::{Part, RunOutcome, RunRecord, Stage};
use crate::work::Task;

/// How often a step that this host did not bring to its end is begun again.
const TRIES: u32 = 3;

impl Repo {
    /// Runs a step of this attempt and waits for its end: the run, or why it did not succeed.
    ///
    /// What was begun before a restart is gone on with. One that failed is begun anew under another number.
    pub(super) async fn step(
        &self,
        task: &Task,
        what: &str,
        argv: Vec<OsString>,
        output: Option<u64>,
    ) -> Result<Result<RunRecord, String>, LinkError> {
        let mut argv_text = Vec::with_capacity(argv.len());
        for word in argv {
            match word.into_string() {
                Ok(word) => argv_text.push(word),
                Err(word) => return Ok(Err(format!("{} is not UTF-8", word.display()))),
            }
        }
        let mut last = String::new();
        for number in 1..=TRIES {
            let what = format!("{what}/{}/{number}", task.step);
            let order = Order {
                part: Part { issue: task.key.to_string(), attempt: task.attempt, what },
                argv: argv_text.clone(),
                cwd: "/".into(),
                stdin: None,
                output_bytes: output,
                limit: Some(humantime::format_duration(STEP).to_string()),
            };
            let record = self.host.link.submit(order).await?;
            let record = self.host.link.over(record.id).await?;
            let Stage::Ended(end) = &record.stage else { continue };
            match (&end.outcome, end.status) {
                (RunOutcome::Finished(Outcome::Ended | Outcome::Stopped(_)), Some(WaitStatus::Exited(0))) => {
                    return Ok(Ok(record));
                }
                (_, status) => {
                    let status = status.map_or_else(|| "its status is not known".to_owned(), |it| it.to_string());
                    last = format!(
                        "run {} ended with {status}; `agent-loop logs {} --stderr` says more",
                        record.id, record.id
                    );
                    // A failure of its own does not go away by itself.
                    if matches!(end.outcome, RunOutcome::Finished(Outcome::Ended)) {
                        break;
                    }
                }
            }
        }
        Ok(Err(last))
    }
}

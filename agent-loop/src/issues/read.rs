//! What a decision rests on: read of the forge and of this host.

use std::fs::File;
use std::io::Read as _;

use super::repo::Repo;
use super::translate;
use crate::agent::{self, Stream};
use crate::forge::{ForgeError, IssueNumber, MergeSeen, RefName};
use crate::git::{GitError, TakeLimits, Taken};
use crate::run::{End, Part as RunPart, RunRecord, Stage};
use crate::work::{Branch, Claim, Commits, Need, Part, Pull, PullState, Run, Sha, Task};

use super::link::LinkError;

/// Why something could not be read; for people.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// By the forge.
    #[error(transparent)]
    Forge(#[from] ForgeError),
    /// By git.
    #[error(transparent)]
    Git(#[from] GitError),
    /// By the daemon.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// It makes no sense.
    #[error("{0}")]
    Odd(String),
}

/// The most bytes of a run's output that are looked at.
const OUTPUT: u64 = 64 << 20;
/// What is taken from a clone at most.
const TAKE: TakeLimits = TakeLimits { bytes: 512 << 20, objects: 500_000, unpacked: 4 << 30, commits: 500 };

/// What was read; nothing, and why, where this token may not read it.
fn permitted<T>(read: Result<Vec<T>, ForgeError>, hidden: &mut Option<String>) -> Result<Vec<T>, ForgeError> {
    match read {
        Err(error @ ForgeError::NotPermitted { .. }) => {
            hidden.get_or_insert_with(|| error.to_string());
            Ok(Vec::new())
        }
        other => other,
    }
}

/// The run of a task's attempt.
pub(super) fn agent_part(task: &Task, attempt: u32) -> RunPart {
    RunPart { issue: task.key.to_string(), attempt, what: RunPart::AGENT.to_owned() }
}

impl Repo {
    /// Reads a part.
    pub(super) async fn read(&self, task: &Task, need: &Need) -> Result<Part, ReadError> {
        let number = IssueNumber(task.key.number);
        Ok(match need {
            Need::Issue => {
                let issue = self.forge.issue(number).await?;
                let known = translate::issue(&issue);
                Part::Issue(
                    known.ok_or_else(|| ReadError::Odd(format!("{} is in a state that is not known", task.key)))?,
                )
            }
            Need::Claim => Part::Claim(self.claim_of(task).await?),
            Need::Comments => {
                Part::Comments(translate::comments(&self.forge.comments(number).await?, &self.us, &task.key))
            }
            Need::Pulls => Part::Pulls(self.pulls(task).await?),
            Need::Remote => Part::Remote(self.forge.reference(&RefName::branch(&task.branch)).await?),
            Need::Ci(head) => Part::Ci(head.clone(), self.ci(task, head).await?),
            Need::OnBase { head, base } => Part::OnBase(self.forge.contains(base, head).await?),
            Need::Run => Part::Run(self.run(task).await?),
            Need::Commits => Part::Commits(self.commits(task).await?),
        })
    }

    async fn claim_of(&self, task: &Task) -> Result<Claim, ReadError> {
        match self.forge.reference(&RefName::claim(IssueNumber(task.key.number))).await? {
            None => Ok(Claim::Free),
            Some(at) => Ok(self.host.holder.read(&task.key, &self.forge.commit(&at).await?)),
        }
    }

    /// Pull requests of ours from the task's branch: the open ones, those of the commit that was pushed, and the one that the
    /// task made.
    async fn pulls(&self, task: &Task) -> Result<Vec<Pull>, ReadError> {
        let mut pulls = Vec::new();
        for summary in self.forge.pulls_from(&task.branch).await? {
            let known = task.pull == Some(summary.number);
            // A stranger's branch of that name, or a request that somebody else made of ours, is none of the task's.
            let ours = summary.author.as_ref() == Some(&self.us.login)
                && summary
                    .head_repository
                    .as_deref()
                    .is_some_and(|it| it.eq_ignore_ascii_case(&task.key.repo.to_string()));
            let open = summary.state == crate::forge::PullState::Open;
            // One that is over counts where it has the very commit that was pushed: not one of an earlier life of the issue.
            let of_push = task.pushed.as_ref() == Some(&summary.head);
            if !(known || ours && (open || of_push)) {
                continue;
            }
            let read = self.forge.pull(summary.number).await?;
            if let Some(pull) = translate::open_pull(&read) {
                pulls.push(pull);
                continue;
            }
            let head = read.summary.head.clone();
            let state = match self.forge.merged(summary.number, &head).await? {
                MergeSeen::Merged(proof) => PullState::Merged(proof),
                MergeSeen::NotProven(again) if again.merged => {
                    let why =
                        format!("pull request {} is said to be merged, by no commit that is named", summary.number);
                    return Err(ReadError::Odd(why));
                }
                MergeSeen::NotProven(again) if again.summary.state == crate::forge::PullState::Closed => {
                    PullState::Closed
                }
                MergeSeen::NotProven(_) => {
                    return Err(ReadError::Odd(format!("pull request {} changes while it is read", summary.number)));
                }
            };
            let base = read.summary.base.parse::<Branch>().map_err(|error| ReadError::Odd(error.to_string()))?;
            pulls.push(Pull {
                number: summary.number,
                state,
                head,
                base,
                draft: read.summary.draft,
                mergeable: crate::work::Mergeable::Unknown,
            });
        }
        Ok(pulls)
    }

    async fn ci(&self, task: &Task, head: &Sha) -> Result<crate::work::Ci, ReadError> {
        let mut hidden = None;
        let runs = permitted(self.forge.check_runs(head).await, &mut hidden)?;
        let statuses = permitted(self.forge.statuses(head).await, &mut hidden)?;
        let workflows = permitted(self.forge.workflow_runs(head).await, &mut hidden)?;
        let requirements = match self.forge.requirements(&task.base).await {
            Ok(requirements) => Ok(requirements),
            Err(error @ (ForgeError::NotPermitted { .. } | ForgeError::Gone { .. })) => Err(error.to_string()),
            Err(error) => return Err(error.into()),
        };
        // What may not be read could say no: then nothing counts as green.
        let requirements = hidden.map_or(requirements, Err);
        Ok(translate::ci(head, &runs, &statuses, &workflows, &requirements))
    }

    pub(super) async fn run(&self, task: &Task) -> Result<Run, ReadError> {
        if task.attempt == 0 {
            return Ok(Run::Never);
        }
        let Some(record) = self.host.link.run_of(agent_part(task, task.attempt)).await? else { return Ok(Run::Never) };
        let Stage::Ended(end) = &record.stage else { return Ok(Run::Alive) };
        if !end.left_nobody() {
            return Ok(Run::Unproven);
        }
        Ok(Run::Over(self.judged(task, &record, end).await?))
    }

    /// What came out of a run of the agent.
    async fn judged(&self, task: &Task, record: &RunRecord, end: &End) -> Result<crate::work::RunEnd, ReadError> {
        let told = self.told(task, record).await?;
        let preset = self.host.command.preset();
        Ok(agent::judge(preset, end, &told, self.now(), agent::Waits::default()))
    }

    /// What a run of the agent said.
    pub(super) async fn told(&self, task: &Task, record: &RunRecord) -> Result<agent::Told, ReadError> {
        let session = self.place(&task.key).session().ok();
        let path = self.host.link.output(record.id).await?;
        let read = tokio::task::spawn_blocking(move || {
            let mut stream = Stream::new(session);
            let mut file = match File::open(&path) {
                Ok(file) => file.take(OUTPUT),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(stream.finish()),
                Err(error) => return Err(error),
            };
            let mut piece = vec![0; 64 << 10];
            loop {
                match file.read(&mut piece)? {
                    0 => return Ok(stream.finish()),
                    read => stream.feed(piece.get(..read).unwrap_or_default()),
                }
            }
        });
        match read.await {
            Ok(Ok(told)) => Ok(told),
            Ok(Err(error)) => Err(ReadError::Odd(format!("reading the output of run {}: {error}", record.id))),
            Err(error) => Err(ReadError::Odd(format!("reading the output of run {}: {error}", record.id))),
        }
    }

    /// What the agent committed, by the safe path: a bundle that a process of its own rights writes.
    async fn commits(&self, task: &Task) -> Result<Commits, ReadError> {
        let credential = self.forge.credential().await?;
        let Some(base) = self.git.fetch(&task.base, &credential).await? else {
            return Err(ReadError::Odd(format!("there is no branch {} on the forge", task.base)));
        };
        let place = self.place(&task.key);
        // What the agent was given, not the base as it is now: others' merges move it while the agent works.
        let given = place.given().map_err(|error| ReadError::Odd(format!("{error:#}")))?;
        let since = task.pushed.clone().or(given).unwrap_or(base);
        let argv = crate::git::take_argv(self.git_path(), &place.clone(), &task.branch, &since);
        let bundle = match self.step(task, "take", argv, Some(TAKE.bytes)).await? {
            Ok(record) => self.host.link.output(record.id).await?,
            Err(why) => return Ok(Commits::Refused(why)),
        };
        Ok(match self.git.take(&bundle, &task.branch, &since, TAKE).await? {
            Taken::Nothing => Commits::None,
            Taken::Upto { head, .. } => Commits::Upto(head),
            Taken::Refused(why) => Commits::Refused(why),
        })
    }
}

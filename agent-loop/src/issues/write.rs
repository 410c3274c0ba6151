//! Writes: to the forge once each, to this host as often as it takes.

use super::link::LinkError;
use super::read::agent_part;
use super::repo::Repo;
use crate::agent::{Ask, FailedCheck, Subject, Values};
use crate::control::api::Order;
use crate::forge::{
    Conclusion, Create, Deleted, Doubt, ForgeError, IssueNumber, MergeAnswer, Moved, RefName, WriteError,
};
use crate::git::{self, Author, GitError, Pushed};
use crate::run::Stage;
use crate::work::{self, Purpose, Reply, RunEnd, Sha, Task, Write};

/// How many logs of failed jobs go into a prompt, and how many bytes of each.
const LOGS: usize = 5;
const LOG_BYTES: usize = 16 << 10;

impl Repo {
    /// Performs a write. Its answer is no evidence of success: what it changed is read before anything rests on it.
    pub(super) async fn write(&self, task: &Task, write: &Write) -> Reply {
        let number = IssueNumber(task.key.number);
        let done = match write {
            Write::Claim => self.claim(task).await,
            Write::TakeClaim { from, heads } => self.take_claim(task, from, heads).await,
            Write::Release { at } => self.release(task, at).await,
            Write::Label { add, remove } => self.label(number, add, remove).await,
            Write::Comment { edit: None, text, .. } => {
                self.forge.create_comment(number, text).await.map(|_| Reply::Done)
            }
            Write::Comment { edit: Some(id), text, .. } => {
                self.forge.edit_comment(*id, text).await.map(|_| Reply::Done)
            }
            Write::DropComment(id) => self.forge.delete_comment(*id).await.map(|_| Reply::Done),
            Write::Prepare(purpose) => return local(self.prepare(task, purpose).await),
            Write::Launch { attempt, purpose } => return local(self.launch(task, *attempt, purpose).await),
            Write::Stop(gone) => return local(self.stop(task, gone.word()).await),
            Write::Push { head, expect } => return self.push(task, head, expect.as_ref()).await,
            Write::Open => self.open_pull(task).await,
            Write::Merge { pull, head } => {
                let method = self.host.config.merge.method;
                self.forge.merge(*pull, head, method).await.map(|answer| match answer {
                    MergeAnswer::Accepted { .. } => Reply::Done,
                    MergeAnswer::NotMergeable(why) | MergeAnswer::NotNow(why) => Reply::NotNow(why),
                    MergeAnswer::HeadMoved(why) => Reply::Conflict(why),
                })
            }
            Write::Close(proof) => self.forge.close_issue(number, proof).await.map(|()| Reply::Done),
            Write::Clean { branch } => return self.clean(task, branch.as_ref()).await,
        };
        done.unwrap_or_else(|error| self.refusal(error))
    }

    async fn claim(&self, task: &Task) -> Result<Reply, WriteError> {
        let Some(like) = self.forge.reference(&RefName::branch(&task.base)).await? else {
            return Ok(Reply::Refused(format!("there is no branch {}", task.base)));
        };
        let commit = self.forge.create_commit(&self.host.holder.claim(&task.key, &[]), &like, &[]).await?;
        let name = RefName::claim(IssueNumber(task.key.number));
        Ok(match self.forge.create_ref(&name, &commit).await? {
            Create::Created => Reply::Done,
            Create::Taken => Reply::Conflict("another host was first".to_owned()),
        })
    }

    async fn take_claim(&self, task: &Task, from: &Sha, heads: &[Sha]) -> Result<Reply, WriteError> {
        let message = self.host.holder.claim(&task.key, heads);
        self.advance(task, from, &message).await.map(|(reply, _)| reply)
    }

    async fn advance(&self, task: &Task, from: &Sha, message: &str) -> Result<(Reply, Sha), WriteError> {
        let commit = self.forge.create_commit(message, from, std::slice::from_ref(from)).await?;
        let name = RefName::claim(IssueNumber(task.key.number));
        Ok(match self.forge.advance_ref(&name, &commit).await? {
            Moved::Moved => (Reply::Done, commit),
            Moved::Refused(why) => (Reply::Conflict(why), commit),
        })
    }

    /// First it says that it is given up, by comparison: whoever takes it over meanwhile keeps it. Then the ref goes.
    async fn release(&self, task: &Task, at: &Sha) -> Result<Reply, WriteError> {
        let (reply, commit) = self.advance(task, at, &self.host.holder.release(&task.key)).await?;
        if reply != Reply::Done {
            return Ok(reply);
        }
        let name = RefName::claim(IssueNumber(task.key.number));
        Ok(match self.forge.delete_ref(&name, &commit).await? {
            Deleted::Gone | Deleted::WasNot => Reply::Done,
            Deleted::Kept => Reply::Conflict("another host took it over".to_owned()),
        })
    }

    async fn label(&self, issue: IssueNumber, add: &[String], remove: &[String]) -> Result<Reply, WriteError> {
        if !add.is_empty() {
            self.forge.add_labels(issue, add).await?;
        }
        for label in remove {
            self.forge.remove_label(issue, label).await?;
        }
        Ok(Reply::Done)
    }

    async fn open_pull(&self, task: &Task) -> Result<Reply, WriteError> {
        let issue = self.forge.issue(IssueNumber(task.key.number)).await?;
        let (title, text) = work::pull_request(task, &issue.title);
        self.forge.create_pull(&task.branch, &task.base, &title, &text).await.map(|_| Reply::Done)
    }

    async fn push(&self, task: &Task, head: &Sha, expect: Option<&Sha>) -> Reply {
        let credential = match self.forge.credential().await {
            Ok(credential) => credential,
            Err(error) => return self.refusal(error.into()),
        };
        if expect.is_some()
            && let Err(error) = self.git.fetch(&task.branch, &credential).await
        {
            return Reply::Local(error.to_string());
        }
        match self.git.push(&task.branch, head, expect, &credential).await {
            Ok(Pushed::Done) => Reply::Done,
            Ok(Pushed::Moved(why)) => Reply::Conflict(why),
            Ok(Pushed::Refused(why)) => Reply::Refused(why),
            Ok(Pushed::Doubt(why)) => Reply::Doubt(why),
            Err(error) => Reply::Local(error.to_string()),
        }
    }

    /// The clone, whole and at the newest base, and the prompt.
    async fn prepare(&self, task: &Task, purpose: &Purpose) -> Result<(), Failed> {
        let place = self.place(&task.key);
        place.make(self.host.owner)?;
        let credential = self.forge.credential().await?;
        let none = |branch: &work::Branch| Failed(format!("there is no branch {branch} on the forge"));
        let base = self.git.fetch(&task.base, &credential).await?.ok_or_else(|| none(&task.base))?;
        let pushed = self.git.fetch(&task.branch, &credential).await?;
        let at = pushed.unwrap_or_else(|| base.clone());
        let bundle = place.bundle();
        self.git.give(&task.branch, &at, &task.base, &base, &bundle, Some(self.host.owner.uid)).await?;
        let clone = place.clone();
        if place.is_cloned() {
            let argv = git::refresh_argv(self.git_path(), &bundle, &clone, &task.branch, &task.base);
            if self.step(task, "refresh", argv, None).await?.is_err() {
                // Its agent may have broken it: it is made anew from what was pushed.
                place.set_cloned(false)?;
            }
        }
        if !place.is_cloned() {
            self.empty(task).await?;
            let author = Author {
                name: self.us.login.0.clone(),
                email: format!("{}@users.noreply.{}", self.us.login.0, self.mail_host()),
            };
            let argv = git::clone_argv(self.git_path(), &bundle, &clone, &task.branch, Some(&author));
            self.step(task, "clone", argv, None).await?.map_err(Failed)?;
            place.set_given(&at)?;
            place.set_cloned(true)?;
        }
        let prompt = self.prompt(task, purpose).await?;
        place.write_prompt(task.attempt + 1, &prompt)?;
        Ok(())
    }

    /// What the addresses of accounts end with.
    fn mail_host(&self) -> String {
        let url = self.forge.git_url();
        let host = url.split('/').nth(2).unwrap_or_default();
        host.split(':').next().unwrap_or_default().to_owned()
    }

    /// Has the agent's own rights remove what is in its clone.
    async fn empty(&self, task: &Task) -> Result<(), Failed> {
        let clone = self.place(&task.key).clone();
        let is_empty = || std::fs::read_dir(&clone).map_or(true, |mut entries| entries.next().is_none());
        if is_empty() {
            return Ok(());
        }
        // Whether that was needed shows in the next step.
        let _ = self.step(task, "unlock", git::unlock_argv(&self.host.tools.chmod, &clone), None).await?;
        self.step(task, "empty", git::remove_argv(&self.host.tools.find, &clone), None).await?.map_err(Failed)?;
        if is_empty() { Ok(()) } else { Err(Failed(format!("{} could not be emptied", clone.display()))) }
    }

    async fn prompt(&self, task: &Task, purpose: &Purpose) -> Result<String, Failed> {
        let issue = self.forge.issue(IssueNumber(task.key.number)).await?;
        let subject = Subject {
            repo: &task.key.repo,
            number: task.key.number,
            title: &issue.title,
            body: &issue.text,
            author: issue.author.as_ref().map(|login| login.0.as_str()),
            branch: &task.branch,
            base: &task.base,
            attempt: task.attempt + 1,
            session: self.place(&task.key).session()?,
        };
        let text = match purpose {
            Purpose::Work => self.host.templates.render(&subject, &Ask::Work),
            Purpose::Again => {
                let reason = self.last_reason(task).await?;
                self.host.templates.render(&subject, &Ask::Again { reason: &reason })
            }
            Purpose::FixConflict { head } => self.host.templates.render(&subject, &Ask::FixConflict { head }),
            Purpose::FixChecks { head, failed } => {
                let logs = self.logs(head, failed).await?;
                let failed: Vec<FailedCheck<'_>> = logs.iter().map(|(name, log)| FailedCheck { name, log }).collect();
                self.host.templates.render(&subject, &Ask::FixChecks { head, failed: &failed })
            }
        };
        text.map_err(|error| Failed(error.to_string()))
    }

    /// Why the attempt before did not succeed.
    async fn last_reason(&self, task: &Task) -> Result<String, Failed> {
        let run = self.run(task).await.map_err(|error| Failed(error.to_string()))?;
        Ok(match run {
            work::Run::Over(RunEnd::Worked) => "it ended without a commit that could be taken".to_owned(),
            work::Run::Over(RunEnd::Failed(why) | RunEnd::Stopped(why) | RunEnd::Infrastructure(why)) => why,
            work::Run::Over(RunEnd::WaitUntil(_)) => "a limit of its provider was reached".to_owned(),
            work::Run::Never | work::Run::Alive | work::Run::Unproven => "nothing is known of it".to_owned(),
        })
    }

    /// The ends of the logs of these checks, where they can be read.
    async fn logs(&self, head: &Sha, failed: &[String]) -> Result<Vec<(String, String)>, Failed> {
        let mut logs: Vec<(String, String)> = failed.iter().map(|name| (name.clone(), String::new())).collect();
        let mut read = 0;
        for run in self.forge.workflow_runs(head).await? {
            if run.head != *head {
                continue;
            }
            for job in self.forge.jobs(run.id).await? {
                let says_no = matches!(
                    job.conclusion,
                    Some(Conclusion::Failure | Conclusion::TimedOut | Conclusion::StartupFailure)
                );
                let Some((_, log)) = logs.iter_mut().find(|(name, log)| *name == job.name && log.is_empty()) else {
                    continue;
                };
                if !says_no || read >= LOGS {
                    continue;
                }
                read += 1;
                *log = match self.forge.job_log(job.id, LOG_BYTES).await {
                    Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                    // It is there, and is read once there is a token again: no agent is begun without it.
                    Err(error @ ForgeError::Token { .. }) => return Err(error.into()),
                    Err(error) => format!("(its log cannot be read: {error})"),
                };
            }
        }
        Ok(logs)
    }

    async fn launch(&self, task: &Task, attempt: u32, purpose: &Purpose) -> Result<(), Failed> {
        let place = self.place(&task.key);
        let session = place.session()?;
        let values = Values {
            session,
            repo: &task.key.repo,
            number: task.key.number,
            branch: &task.branch,
            base: &task.base,
            attempt,
        };
        let again = *purpose != Purpose::Work && self.has_begun(task, attempt).await?;
        let order = Order {
            part: agent_part(task, attempt),
            argv: self.host.command.argv(&values, again),
            cwd: place.clone(),
            stdin: Some(place.prompt(attempt)),
            output_bytes: None,
            limit: None,
        };
        self.host.link.submit(order).await?;
        Ok(())
    }

    /// Whether an earlier attempt has begun the session, so that it can be gone on with.
    async fn has_begun(&self, task: &Task, attempt: u32) -> Result<bool, Failed> {
        for earlier in (1..attempt).rev().take(5) {
            if let Some(record) = self.host.link.run_of(agent_part(task, earlier)).await? {
                let told = self.told(task, &record).await.map_err(|error| Failed(error.to_string()))?;
                let session = self.place(&task.key).session()?.to_string();
                if told.session.as_ref() == Some(&session) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    async fn stop(&self, task: &Task, why: &str) -> Result<(), Failed> {
        let Some(record) = self.host.link.run_of(agent_part(task, task.attempt)).await? else { return Ok(()) };
        if !matches!(record.stage, Stage::Ended(_)) {
            self.host.link.stop(record.id, format!("issue {}: {why}", task.key)).await?;
        }
        Ok(())
    }

    async fn clean(&self, task: &Task, branch: Option<&Sha>) -> Reply {
        if let Some(at) = branch {
            let gone = self.forge.delete_ref(&RefName::branch(&task.branch), at).await;
            match gone {
                // One that somebody moved on is theirs.
                Ok(Deleted::Gone | Deleted::WasNot | Deleted::Kept) => {}
                Err(error) => return self.refusal(error),
            }
        }
        let put_away = async {
            if std::fs::symlink_metadata(self.place(&task.key).clone()).is_ok() {
                self.empty(task).await?;
            }
            self.place(&task.key).remove()?;
            Ok(())
        };
        local(put_away.await)
    }

    /// What a write that failed comes to.
    fn refusal(&self, error: WriteError) -> Reply {
        match error {
            WriteError::Doubt(Doubt { .. }) => Reply::Doubt(error.to_string()),
            WriteError::NotDone(ForgeError::Limited { wait, until, .. }) => {
                Reply::Limited(until.unwrap_or_else(|| self.now().after(wait.as_secs().max(1))))
            }
            WriteError::NotDone(
                ForgeError::Gone { .. }
                | ForgeError::Moved { .. }
                | ForgeError::NotPermitted { .. }
                | ForgeError::Refused { .. },
            ) => Reply::Refused(error.to_string()),
            // It is mended on this host, or by itself.
            WriteError::NotDone(
                ForgeError::Token { .. } | ForgeError::Unreachable { .. } | ForgeError::Nonsense { .. },
            ) => Reply::Local(error.to_string()),
        }
    }
}

/// The state that a write belongs to is one of the task's, so that its answer counts there.
pub(super) const fn area(write: &Write) -> Option<crate::audit::Area> {
    use crate::audit::Area;
    match write {
        Write::Comment { .. } | Write::DropComment(_) => Some(Area::Comment),
        Write::Merge { .. } => Some(Area::Merge),
        // Runs have lines of their own.
        Write::Prepare(_) | Write::Launch { .. } | Write::Stop(_) => None,
        Write::Claim
        | Write::TakeClaim { .. }
        | Write::Release { .. }
        | Write::Label { .. }
        | Write::Push { .. }
        | Write::Open
        | Write::Close(_)
        | Write::Clean { .. } => Some(Area::Forge),
    }
}

/// Why something on this host was not done; for people.
#[derive(Debug)]
struct Failed(String);

impl From<anyhow::Error> for Failed {
    fn from(error: anyhow::Error) -> Self {
        Self(format!("{error:#}"))
    }
}

impl From<GitError> for Failed {
    fn from(error: GitError) -> Self {
        Self(error.to_string())
    }
}

impl From<ForgeError> for Failed {
    fn from(error: ForgeError) -> Self {
        Self(error.to_string())
    }
}

impl From<LinkError> for Failed {
    fn from(error: LinkError) -> Self {
        Self(error.to_string())
    }
}

fn local(done: Result<(), Failed>) -> Reply {
    match done {
        Ok(()) => Reply::Done,
        Err(Failed(why)) => Reply::Local(why),
    }
}

//! What can be asked of a repository on GitHub: which request, and what its answers mean.

use async_trait::async_trait;
use hyper::Method;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::transport::Freshness;
use super::{GitHub, Login, nonsense, rules, wire};
use crate::forge::{
    At, Branch, CheckRun, Comment, CommentId, Commit, CommitStatus, Create, Credential, Deleted, Doubt, DoubtWhy,
    Forge, ForgeError, Identity, Issue, IssueNumber, Job, JobId, LabelEvent, Limits, Login as Account, MergeAnswer,
    MergeMethod, MergeSeen, MergedProof, Moved, PullNumber, PullRequest, PullSummary, RefName, Reference, RepoName,
    Repository, Requirements, RunId, Scopes, Sha, WorkflowRun, WriteError,
};

/// The most bytes of a file that is read.
const LARGEST_FILE: usize = 1 << 20;

impl GitHub {
    /// Reads one thing.
    async fn one<W: DeserializeOwned>(&self, doing: &str, path: &str) -> Result<W, ForgeError> {
        wire::parse(doing, &self.transport.read(doing, path, Freshness::Conditional).await?.body)
    }

    /// Reads a list, whole.
    async fn all<W: DeserializeOwned>(&self, doing: &str, path: &str) -> Result<Vec<W>, ForgeError> {
        let mut all = Vec::new();
        for page in self.transport.pages(doing, path).await? {
            all.extend(wire::parse::<Vec<W>>(doing, &page)?);
        }
        Ok(all)
    }

    /// Reads a list, whole, that is a part of each page.
    async fn parts<P: DeserializeOwned, W>(
        &self,
        doing: &str,
        path: &str,
        part: fn(P) -> Vec<W>,
    ) -> Result<Vec<W>, ForgeError> {
        let mut all = Vec::new();
        for page in self.transport.pages(doing, path).await? {
            all.extend(part(wire::parse(doing, &page)?));
        }
        Ok(all)
    }

    /// Writes, and reads the answer: one that cannot be read leaves a doubt.
    async fn put<W: DeserializeOwned>(
        &self,
        doing: &str,
        method: Method,
        path: &str,
        body: &serde_json::Value,
    ) -> Result<W, WriteError> {
        let answer = self.transport.write(doing, method, path, Some(body)).await?;
        if answer.status >= 300 {
            return Err(refused(doing, answer.status, answer.said).into());
        }
        wire::parse(doing, &answer.body).map_err(|error| {
            let why = DoubtWhy::Unreadable(error.to_string());
            Doubt { doing: doing.to_owned(), why }.into()
        })
    }

    /// Deletes: what is not there is gone too.
    async fn delete(&self, doing: &str, path: &str) -> Result<Deleted, WriteError> {
        match self.transport.write(doing, Method::DELETE, path, None).await {
            Ok(answer) if answer.status < 300 => Ok(Deleted::Gone),
            Ok(answer) => Err(refused(doing, answer.status, answer.said).into()),
            Err(WriteError::NotDone(ForgeError::Gone { .. })) => Ok(Deleted::WasNot),
            Err(error) => Err(error),
        }
    }
}

fn refused(doing: &str, status: u16, said: String) -> ForgeError {
    ForgeError::Refused { doing: doing.to_owned(), status, said }
}

/// What a write was refused with as not valid (422) or in conflict (409).
fn refusal(error: WriteError) -> Result<String, WriteError> {
    match error {
        WriteError::NotDone(ForgeError::Refused { status: 409 | 422, said, .. }) => Ok(said),
        other @ (WriteError::NotDone(_) | WriteError::Doubt(_)) => Err(other),
    }
}

#[async_trait]
impl Forge for GitHub {
    fn name(&self) -> &RepoName {
        &self.repository
    }

    fn now(&self) -> Option<At> {
        self.transport.now()
    }

    fn limits(&self) -> Limits {
        self.transport.limits()
    }

    fn git_url(&self) -> String {
        self.git.clone()
    }

    async fn credential(&self) -> Result<Credential, ForgeError> {
        let password = self.transport.token("getting a token for git").await?;
        Ok(Credential { user: "x-access-token".to_owned(), password })
    }

    async fn identity(&self) -> Result<Identity, ForgeError> {
        let doing = "asking who we are";
        if let Login::App { app, .. } = self.login {
            let answer = self.transport.as_app(doing, Method::GET, "/app").await?;
            let told: wire::App = wire::parse(doing, &answer.body)?;
            let slug = told.slug.ok_or_else(|| nonsense(doing, &"the app has no name"))?;
            return Ok(Identity { login: Account(format!("{slug}[bot]")), app: Some(app), scopes: Scopes::Untold });
        }
        let answer = self.transport.read(doing, "/user", Freshness::Anew).await?;
        let account: wire::Account = wire::parse(doing, &answer.body)?;
        let scopes = answer.headers.get("x-oauth-scopes").and_then(|scopes| scopes.to_str().ok());
        let scopes = scopes.map_or(Scopes::Untold, |scopes| {
            let each = scopes.split(',').map(str::trim).filter(|scope| !scope.is_empty());
            Scopes::Classic(each.map(str::to_owned).collect())
        });
        Ok(Identity { login: Account(account.login), app: None, scopes })
    }

    async fn repository(&self) -> Result<Repository, ForgeError> {
        let path = self.at(format_args!(""));
        let repository: wire::WireRepository = self.one("reading the repository", &path).await?;
        Ok(repository.into())
    }

    async fn labels(&self) -> Result<Vec<String>, ForgeError> {
        let path = self.at(format_args!("/labels?per_page=100"));
        Ok(wire::labels(self.all("listing the labels", &path).await?))
    }

    async fn open_issues(&self, labels: &[String]) -> Result<Vec<Issue>, ForgeError> {
        let labels: Vec<String> = labels.iter().map(|label| Self::escape(label)).collect();
        let filter = if labels.is_empty() { String::new() } else { format!("&labels={}", labels.join(",")) };
        let path = self.at(format_args!("/issues?state=open&sort=created&direction=asc&per_page=100{filter}"));
        let issues: Vec<wire::WireIssue> = self.all("listing the open issues", &path).await?;
        let mut issues: Vec<Issue> = issues.into_iter().map(Issue::from).filter(|issue| !issue.is_pull).collect();
        // One that moved from page to page while they were read is there twice.
        issues.sort_by_key(|issue| issue.number);
        issues.dedup_by_key(|issue| issue.number);
        Ok(issues)
    }

    async fn issue(&self, issue: IssueNumber) -> Result<Issue, ForgeError> {
        let path = self.at(format_args!("/issues/{}", issue.0));
        let read: wire::WireIssue = self.one(&format!("reading issue {issue}"), &path).await?;
        Ok(read.into())
    }

    async fn label_events(&self, issue: IssueNumber) -> Result<Vec<LabelEvent>, ForgeError> {
        let path = self.at(format_args!("/issues/{}/events?per_page=100", issue.0));
        let events: Vec<wire::WireEvent> = self.all(&format!("reading the events of issue {issue}"), &path).await?;
        Ok(events.into_iter().filter_map(wire::WireEvent::about_a_label).collect())
    }

    async fn comments(&self, issue: IssueNumber) -> Result<Vec<Comment>, ForgeError> {
        let path = self.at(format_args!("/issues/{}/comments?per_page=100", issue.0));
        let all: Vec<wire::WireComment> = self.all(&format!("reading the comments of issue {issue}"), &path).await?;
        let mut comments: Vec<Comment> = all.into_iter().map(Comment::from).collect();
        comments.sort_by_key(|comment| comment.id);
        comments.dedup_by_key(|comment| comment.id);
        Ok(comments)
    }

    async fn reference(&self, name: &RefName) -> Result<Option<Sha>, ForgeError> {
        let path = self.at(format_args!("/git/ref/{}", Self::escape_parts(name.short())));
        match self.one::<wire::WireRef>(&format!("reading {name}"), &path).await {
            Ok(read) => Ok(Some(Reference::from(read).at)),
            Err(ForgeError::Gone { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn references(&self, below: &RefName) -> Result<Vec<Reference>, ForgeError> {
        let path = self.at(format_args!("/git/matching-refs/{}", Self::escape_parts(below.short())));
        let refs: Vec<wire::WireRef> = self.all(&format!("listing the refs below {below}"), &path).await?;
        Ok(refs.into_iter().map(Reference::from).collect())
    }

    async fn commit(&self, commit: &Sha) -> Result<Commit, ForgeError> {
        let path = self.at(format_args!("/git/commits/{commit}"));
        let read: wire::WireCommit = self.one(&format!("reading commit {}", commit.short()), &path).await?;
        Ok(read.into())
    }

    async fn contains(&self, base: &Branch, commit: &Sha) -> Result<bool, ForgeError> {
        let doing = format!("looking whether {} is on {base}", commit.short());
        let base = Self::escape(base.as_str());
        let path = self.at(format_args!("/compare/{base}...{commit}?per_page=1"));
        let compared: wire::Compared = self.one(&doing, &path).await?;
        match compared.status.as_str() {
            "identical" | "behind" => Ok(true),
            "ahead" | "diverged" => Ok(false),
            other => Err(nonsense(&doing, &format_args!("the comparison says {other:?}"))),
        }
    }

    async fn file(&self, path: &str, at: &Branch) -> Result<Option<Vec<u8>>, ForgeError> {
        let doing = format!("reading the file {path:?}");
        let (name, branch) = (Self::escape_parts(path), Self::escape(at.as_str()));
        let url = self.at(format_args!("/contents/{name}?ref={branch}"));
        match self.transport.read_as(&doing, &url, "application/vnd.github.raw+json").await {
            Ok(answer) if answer.body.len() <= LARGEST_FILE => Ok(Some(answer.body.to_vec())),
            Ok(_) => Err(nonsense(&doing, &"it is larger than 1 MiB")),
            Err(ForgeError::Gone { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn pull(&self, pull: PullNumber) -> Result<PullRequest, ForgeError> {
        let path = self.at(format_args!("/pulls/{}", pull.0));
        let read: wire::WirePull = self.one(&format!("reading pull request {pull}"), &path).await?;
        Ok(read.into())
    }

    async fn pulls_from(&self, branch: &Branch) -> Result<Vec<PullSummary>, ForgeError> {
        let head = Self::escape(&format!("{}:{branch}", self.repository.owner()));
        let path = self.at(format_args!("/pulls?state=all&sort=created&direction=desc&per_page=100&head={head}"));
        let doing = format!("listing the pull requests from {branch}");
        let pulls: Vec<wire::WirePull> = self.all(&doing, &path).await?;
        let ours = self.repository.to_string();
        let mut pulls: Vec<PullSummary> = pulls.into_iter().map(|pull| PullRequest::from(pull).summary).collect();
        // A fork of the same owner may have a branch of this name. A head whose repository is gone is no longer ours.
        pulls.retain(|pull| {
            let repository = pull.head_repository.as_deref();
            pull.head_branch == branch.as_str() && repository.is_some_and(|it| it.eq_ignore_ascii_case(&ours))
        });
        pulls.sort_by_key(|pull| std::cmp::Reverse(pull.number));
        pulls.dedup_by_key(|pull| pull.number);
        Ok(pulls)
    }

    async fn merged(&self, pull: PullNumber, head: &Sha) -> Result<MergeSeen, ForgeError> {
        let doing = format!("reading whether pull request {pull} is merged");
        let path = self.at(format_args!("/pulls/{}", pull.0));
        let answer = self.transport.read(&doing, &path, Freshness::Anew).await?;
        let read: wire::WirePull = wire::parse(&doing, &answer.body)?;
        let read = PullRequest::from(read);
        if read.summary.number != pull {
            return Err(nonsense(&doing, &format_args!("it is {}", read.summary.number)));
        }
        Ok(MergeSeen::judge(read, head))
    }

    async fn check_runs(&self, commit: &Sha) -> Result<Vec<CheckRun>, ForgeError> {
        let path = self.at(format_args!("/commits/{commit}/check-runs?filter=latest&per_page=100"));
        let doing = format!("reading the check runs of {}", commit.short());
        let runs = self.parts(&doing, &path, |page: wire::CheckRuns| page.check_runs).await?;
        Ok(runs.into_iter().map(CheckRun::from).filter(|run| run.head == *commit).collect())
    }

    async fn statuses(&self, commit: &Sha) -> Result<Vec<CommitStatus>, ForgeError> {
        let path = self.at(format_args!("/commits/{commit}/status?per_page=100"));
        let doing = format!("reading the statuses of {}", commit.short());
        let statuses = self.parts(&doing, &path, |page: wire::Statuses| page.statuses).await?;
        Ok(statuses.into_iter().map(CommitStatus::from).collect())
    }

    async fn workflow_runs(&self, commit: &Sha) -> Result<Vec<WorkflowRun>, ForgeError> {
        let path = self.at(format_args!("/actions/runs?head_sha={commit}&per_page=100"));
        let doing = format!("reading the workflow runs of {}", commit.short());
        let runs = self.parts(&doing, &path, |page: wire::Runs| page.workflow_runs).await?;
        Ok(runs.into_iter().map(WorkflowRun::from).filter(|run| run.head == *commit).collect())
    }

    async fn jobs(&self, run: RunId) -> Result<Vec<Job>, ForgeError> {
        let path = self.at(format_args!("/actions/runs/{}/jobs?filter=latest&per_page=100", run.0));
        let doing = format!("reading the jobs of workflow run {}", run.0);
        let jobs = self.parts(&doing, &path, |page: wire::Jobs| page.jobs).await?;
        Ok(jobs.into_iter().map(Job::from).collect())
    }

    async fn job_log(&self, job: JobId, most: usize) -> Result<Vec<u8>, ForgeError> {
        let path = self.at(format_args!("/actions/jobs/{}/logs", job.0));
        self.transport.tail(&format!("reading the log of job {}", job.0), &path, most).await
    }

    async fn requirements(&self, branch: &Branch) -> Result<Requirements, ForgeError> {
        let name = Self::escape(branch.as_str());
        let doing = format!("reading what {branch} requires");
        let path = self.at(format_args!("/rules/branches/{name}?per_page=100"));
        let rules: Vec<rules::Rule> = self.all(&doing, &path).await?;
        let path = self.at(format_args!("/branches/{name}"));
        let branch: rules::Protected = self.one(&doing, &path).await?;
        Ok(rules::requirements(rules, branch))
    }

    async fn add_labels(&self, issue: IssueNumber, labels: &[String]) -> Result<Vec<String>, WriteError> {
        let path = self.at(format_args!("/issues/{}/labels", issue.0));
        let doing = format!("adding labels to issue {issue}");
        let all: Vec<wire::WireLabel> = self.put(&doing, Method::POST, &path, &json!({ "labels": labels })).await?;
        Ok(wire::labels(all))
    }

    async fn remove_label(&self, issue: IssueNumber, label: &str) -> Result<Deleted, WriteError> {
        let path = self.at(format_args!("/issues/{}/labels/{}", issue.0, Self::escape(label)));
        self.delete(&format!("removing a label from issue {issue}"), &path).await
    }

    async fn create_comment(&self, issue: IssueNumber, text: &str) -> Result<Comment, WriteError> {
        let path = self.at(format_args!("/issues/{}/comments", issue.0));
        let doing = format!("writing a comment on issue {issue}");
        let comment: wire::WireComment = self.put(&doing, Method::POST, &path, &json!({ "body": text })).await?;
        Ok(comment.into())
    }

    async fn edit_comment(&self, comment: CommentId, text: &str) -> Result<Comment, WriteError> {
        let path = self.at(format_args!("/issues/comments/{}", comment.0));
        let doing = format!("changing comment {}", comment.0);
        let comment: wire::WireComment = self.put(&doing, Method::PATCH, &path, &json!({ "body": text })).await?;
        Ok(comment.into())
    }

    async fn delete_comment(&self, comment: CommentId) -> Result<Deleted, WriteError> {
        let path = self.at(format_args!("/issues/comments/{}", comment.0));
        self.delete(&format!("deleting comment {}", comment.0), &path).await
    }

    async fn close_issue(&self, issue: IssueNumber, _: &MergedProof) -> Result<(), WriteError> {
        let path = self.at(format_args!("/issues/{}", issue.0));
        let body = json!({ "state": "closed", "state_reason": "completed" });
        let _: wire::WireIssue = self.put(&format!("closing issue {issue}"), Method::PATCH, &path, &body).await?;
        Ok(())
    }

    async fn create_commit(&self, message: &str, like: &Sha, parents: &[Sha]) -> Result<Sha, WriteError> {
        let tree = self.commit(like).await?.tree;
        let parents: Vec<&str> = parents.iter().map(Sha::as_str).collect();
        let body = json!({ "message": message, "tree": tree.as_str(), "parents": parents });
        let path = self.at(format_args!("/git/commits"));
        let made: wire::Object = self.put("making a commit object", Method::POST, &path, &body).await?;
        Ok(made.sha.0)
    }

    async fn create_ref(&self, name: &RefName, at: &Sha) -> Result<Create, WriteError> {
        let doing = format!("making {name}");
        let body = json!({ "ref": name.as_str(), "sha": at.as_str() });
        let path = self.at(format_args!("/git/refs"));
        match self.put::<wire::WireRef>(&doing, Method::POST, &path, &body).await {
            Ok(_) => Ok(Create::Created),
            Err(error) => {
                let said = refusal(error)?;
                // 422 says too that the commit does not exist or that the name is not allowed: then nobody has it.
                if said.to_ascii_lowercase().contains("already exists") {
                    return Ok(Create::Taken);
                }
                Err(refused(&doing, 422, said).into())
            }
        }
    }

    async fn advance_ref(&self, name: &RefName, to: &Sha) -> Result<Moved, WriteError> {
        let path = self.at(format_args!("/git/refs/{}", Self::escape_parts(name.short())));
        let body = json!({ "sha": to.as_str(), "force": false });
        match self.put::<wire::WireRef>(&format!("moving {name}"), Method::PATCH, &path, &body).await {
            Ok(_) => Ok(Moved::Moved),
            Err(WriteError::NotDone(ForgeError::Gone { said, .. })) => Ok(Moved::Refused(said)),
            Err(error) => refusal(error).map(Moved::Refused),
        }
    }

    async fn delete_ref(&self, name: &RefName, expected: &Sha) -> Result<Deleted, WriteError> {
        match self.reference(name).await? {
            None => return Ok(Deleted::WasNot),
            Some(at) if at != *expected => return Ok(Deleted::Kept),
            Some(_) => {}
        }
        let path = self.at(format_args!("/git/refs/{}", Self::escape_parts(name.short())));
        match self.delete(&format!("deleting {name}"), &path).await {
            // Of a ref that is not there GitHub says that it is not valid.
            Err(WriteError::NotDone(ForgeError::Refused { status: 422, said, .. }))
                if said.to_ascii_lowercase().contains("does not exist") =>
            {
                Ok(Deleted::WasNot)
            }
            other => other,
        }
    }

    async fn create_pull(
        &self,
        head: &Branch,
        base: &Branch,
        title: &str,
        text: &str,
    ) -> Result<PullRequest, WriteError> {
        let body = json!({ "head": head.as_str(), "base": base.as_str(), "title": title, "body": text });
        let path = self.at(format_args!("/pulls"));
        let pull: wire::WirePull =
            self.put(&format!("opening a pull request from {head}"), Method::POST, &path, &body).await?;
        Ok(pull.into())
    }

    async fn merge(&self, pull: PullNumber, head: &Sha, method: MergeMethod) -> Result<MergeAnswer, WriteError> {
        let doing = format!("merging pull request {pull} at {}", head.short());
        let method = match method {
            MergeMethod::Merge => "merge",
            MergeMethod::Squash => "squash",
            MergeMethod::Rebase => "rebase",
        };
        let path = self.at(format_args!("/pulls/{}/merge", pull.0));
        let body = json!({ "sha": head.as_str(), "merge_method": method });
        let answer = self.transport.write(&doing, Method::PUT, &path, Some(&body)).await?;
        let said = answer.said;
        match answer.status {
            405 => Ok(MergeAnswer::NotMergeable(said)),
            409 if said.to_ascii_lowercase().contains("head branch was modified") => Ok(MergeAnswer::HeadMoved(said)),
            409 => Ok(MergeAnswer::NotNow(said)),
            _ => match wire::parse::<wire::Merged>(&doing, &answer.body) {
                Ok(merged) => Ok(MergeAnswer::Accepted { merged: merged.merged, commit: merged.sha.map(|id| id.0) }),
                Err(error) => Err(Doubt { doing, why: DoubtWhy::Unreadable(error.to_string()) }.into()),
            },
        }
    }
}

//! What the fake GitHub remembers, and what people do there.

use std::collections::{BTreeMap, BTreeSet};

use super::git::Git;

/// A repository with its issues and pull requests, as GitHub remembers them.
#[derive(Debug)]
pub struct World {
    pub(super) git: Git,
    pub(super) owner: String,
    pub(super) name: String,
    /// The tokens that are accepted.
    pub tokens: BTreeSet<String>,
    /// Who the token belongs to.
    pub login: String,
    /// The scopes of a classic token; `None` for another.
    pub scopes: Option<String>,
    /// Whether the token may not read check runs, as a fine-grained one of an account may not.
    pub hides_checks: bool,
    /// Issues and pull requests by their number.
    pub issues: BTreeMap<u64, Issue>,
    /// The labels that there are.
    pub labels: BTreeSet<String>,
    /// Comments by their id.
    pub comments: BTreeMap<u64, Comment>,
    /// What a pull request has beside its issue.
    pub pulls: BTreeMap<u64, Pull>,
    /// What continuous integration does with every head.
    pub ci: Ci,
    /// Check runs of a commit, instead of what `ci` says: name, status, conclusion.
    pub checks: BTreeMap<String, Vec<(String, String, Option<String>)>>,
    /// Statuses of a commit: context and state.
    pub statuses: BTreeMap<String, Vec<(String, String)>>,
    /// Names of required checks, in a ruleset.
    pub required: Vec<String>,
    /// Names of required checks, in the older protection of the branch.
    pub protected: Vec<String>,
    /// Whether the base wants a merge queue.
    pub merge_queue: bool,
    /// Whether a head must not be behind its base.
    pub up_to_date: bool,
    /// How often a pull request is read before it is known whether it can be merged.
    pub mergeable_after: u32,
    /// How often is read what does not show yet what was made over the API: the list of a comment or a pull request, and a
    /// pull request that was merged. So old are the copies that GitHub may answer from.
    pub shown_after: u32,
    pub(super) unshown: BTreeMap<(Made, u64), u32>,
    /// Whether "Closes #N" in a merged pull request closes the issue.
    pub closes: bool,
    /// How far GitHub's clock is ahead of the host's, seconds.
    pub clock_ahead: i64,
    /// What is left of the hourly limit.
    pub remaining: u64,
    /// Logs of jobs by their id.
    pub logs: BTreeMap<u64, String>,
    pub(super) next_number: u64,
    pub(super) next_id: u64,
    pub(super) reads_of_ci: u64,
    /// Installations' tokens that were asked for.
    pub(super) minted: u64,
}

/// An issue, or what a pull request has of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// Its title.
    pub title: String,
    /// Its text.
    pub body: Option<String>,
    /// Whether it is open.
    pub open: bool,
    /// Who wrote it; `None` for an account that is gone.
    pub author: Option<String>,
    /// Its labels.
    pub labels: Vec<String>,
    /// Labels put on (`true`) and taken off, and by whom.
    pub events: Vec<(bool, String, String)>,
    /// How many times it was closed.
    pub closed: u32,
}

/// A comment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comment {
    /// On which issue.
    pub issue: u64,
    /// Who wrote it.
    pub author: String,
    /// Its text.
    pub body: String,
}

/// A pull request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pull {
    /// The branch that it comes from.
    pub head_branch: String,
    /// The repository that the branch is in.
    pub from: Origin,
    /// The head commit; while it is open that of the branch.
    pub head: String,
    /// The branch that it goes to.
    pub base: String,
    /// Whether it is a draft.
    pub draft: bool,
    /// The commit on the base and who merged it, once merged.
    pub merged: Option<(String, String)>,
    /// How often it was read.
    pub(super) reads: u32,
}

/// Which repository a pull request comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This one.
    Here,
    /// A fork, `owner/name`.
    Fork(String),
    /// A fork of this owner that was deleted since: what GitHub says of its repository is null.
    Gone(String),
}

/// What continuous integration does with a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ci {
    /// Nothing ever starts.
    Never,
    /// Runs without an end.
    Running,
    /// Passes.
    Passing,
    /// Fails.
    Failing,
    /// Waits for a person's approval.
    Approval,
    /// Was cancelled.
    Cancelled,
    /// Was skipped.
    Skipped,
    /// Is neutral.
    Neutral,
    /// Was given up.
    Stale,
    /// Passes and fails by turns, each time it is read.
    Flapping,
    /// Says words that nobody knows.
    Strange,
}

/// What is made over the API and may be shown late.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Made {
    Comment,
    Pull,
    Merge,
}

impl Ci {
    /// Status and conclusion, at this turn.
    pub(super) fn says(self, turn: u64) -> Option<(&'static str, Option<&'static str>)> {
        let done = |conclusion| Some(("completed", Some(conclusion)));
        match self {
            Self::Never => None,
            Self::Running => Some(("in_progress", None)),
            Self::Passing => done("success"),
            Self::Failing => done("failure"),
            Self::Approval => done("action_required"),
            Self::Cancelled => done("cancelled"),
            Self::Skipped => done("skipped"),
            Self::Neutral => done("neutral"),
            Self::Stale => done("stale"),
            Self::Flapping => done(if turn.is_multiple_of(2) { "success" } else { "failure" }),
            Self::Strange => Some(("percolating", Some("sunny"))),
        }
    }
}

impl Pull {
    /// Who owns the repository that it comes from.
    pub(super) fn head_owner<'a>(&'a self, ours: &'a str) -> &'a str {
        match &self.from {
            Origin::Here => ours,
            Origin::Fork(name) => name.split('/').next().unwrap_or_default(),
            Origin::Gone(owner) => owner,
        }
    }
}

impl World {
    pub(super) fn new(owner: &str, name: &str, token: &str) -> Self {
        Self {
            git: Git::new(owner, name),
            owner: owner.to_owned(),
            name: name.to_owned(),
            tokens: BTreeSet::from([token.to_owned()]),
            login: "agent-loop-bot".to_owned(),
            scopes: Some("repo, workflow".to_owned()),
            hides_checks: false,
            issues: BTreeMap::new(),
            labels: ["State/Ready", "State/InProgress", "State/Question"].map(str::to_owned).into(),
            comments: BTreeMap::new(),
            pulls: BTreeMap::new(),
            ci: Ci::Passing,
            checks: BTreeMap::new(),
            statuses: BTreeMap::new(),
            required: Vec::new(),
            protected: Vec::new(),
            merge_queue: false,
            up_to_date: false,
            mergeable_after: 0,
            shown_after: 0,
            unshown: BTreeMap::new(),
            closes: true,
            clock_ahead: 0,
            remaining: 5_000,
            logs: BTreeMap::new(),
            next_number: 1,
            next_id: 1_000,
            reads_of_ci: 0,
            minted: 0,
        }
    }

    pub(super) fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Opens an issue.
    pub fn open_issue(&mut self, title: &str, author: &str, labels: &[&str]) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        let labels: Vec<String> = labels.iter().map(|&label| label.to_owned()).collect();
        let events = labels.iter().map(|label| (true, label.clone(), author.to_owned())).collect();
        let issue = Issue {
            title: title.to_owned(),
            body: Some(format!("Please do: {title}")),
            open: true,
            author: Some(author.to_owned()),
            labels,
            events,
            closed: 0,
        };
        self.issues.insert(number, issue);
        number
    }

    /// Puts a label on an issue.
    pub fn label(&mut self, issue: u64, label: &str, by: &str) {
        if let Some(issue) = self.issues.get_mut(&issue)
            && !issue.labels.iter().any(|it| it == label)
        {
            issue.labels.push(label.to_owned());
            issue.events.push((true, label.to_owned(), by.to_owned()));
        }
    }

    /// Takes a label off an issue; whether it was there.
    pub fn unlabel(&mut self, issue: u64, label: &str, by: &str) -> bool {
        let Some(issue) = self.issues.get_mut(&issue) else { return false };
        let before = issue.labels.len();
        issue.labels.retain(|it| it != label);
        let was = issue.labels.len() < before;
        if was {
            issue.events.push((false, label.to_owned(), by.to_owned()));
        }
        was
    }

    /// Closes an issue or a pull request.
    pub fn close(&mut self, number: u64) {
        if let Some(issue) = self.issues.get_mut(&number)
            && issue.open
        {
            issue.open = false;
            issue.closed += 1;
        }
    }

    /// Writes a comment.
    pub fn comment(&mut self, issue: u64, author: &str, body: &str) -> u64 {
        let id = self.id();
        self.comments.insert(id, Comment { issue, author: author.to_owned(), body: body.to_owned() });
        id
    }

    /// Notes that something was made over the API, so that it is not shown at once.
    pub(super) fn made(&mut self, what: Made, id: u64) {
        self.unshown.insert((what, id), self.shown_after);
    }

    /// How many things that were made over the API were not shown at first, and are now.
    #[must_use]
    pub fn shown_late(&self) -> usize {
        self.unshown.values().filter(|left| **left == 0).count()
    }

    /// Whether a read that would show it does not yet. Each such read is counted.
    pub(super) fn is_unshown(&mut self, what: Made, id: u64) -> bool {
        let left = self.unshown.get_mut(&(what, id)).filter(|left| **left > 0);
        left.map(|left| *left -= 1).is_some()
    }

    /// Pushes a commit with this file to a branch, made from `main` where it is not there.
    ///
    /// # Panics
    /// When git does not do it.
    pub fn push(&mut self, branch: &str, file: &str, text: &str) -> String {
        let name = format!("refs/heads/{branch}");
        let old = self.git.at(&name);
        let on = old.clone().or_else(|| self.git.at("refs/heads/main")).expect("main is there");
        let commit = self.git.commit(&[(file, text)], Some(&on), &[&on], &format!("change {file}"));
        assert!(self.git.update(&name, &commit, old.as_deref()), "nobody else writes");
        self.see_pushes();
        commit
    }

    /// Opens a pull request from a branch that was pushed.
    ///
    /// # Panics
    /// When the branch is not there.
    pub fn open_pull(&mut self, head: &str, base: &str, title: &str, body: &str, by: &str) -> u64 {
        let at = self.git.at(&format!("refs/heads/{head}")).expect("the branch was pushed");
        self.open_pull_at(head, at, Origin::Here, base, title, body, by)
    }

    /// Opens a pull request from a branch of this name in a fork, with one commit that adds this file to `main`.
    ///
    /// # Panics
    /// When git does not do it.
    pub fn open_pull_of_fork(&mut self, from: Origin, head: &str, file: &str, body: &str, by: &str) -> u64 {
        let main = self.git.at("refs/heads/main").expect("main is there");
        let at = self.git.commit(&[(file, "mine")], Some(&main), &[&main], &format!("add {file}"));
        self.open_pull_at(head, at, from, "main", "fix", body, by)
    }

    #[expect(clippy::too_many_arguments, reason = "what a pull request is made of")]
    fn open_pull_at(
        &mut self,
        head_branch: &str,
        head: String,
        from: Origin,
        base: &str,
        title: &str,
        body: &str,
        by: &str,
    ) -> u64 {
        let number = self.open_issue(title, by, &[]);
        if let Some(issue) = self.issues.get_mut(&number) {
            issue.body = Some(body.to_owned());
        }
        let (head_branch, base) = (head_branch.to_owned(), base.to_owned());
        self.pulls.insert(number, Pull { head_branch, from, head, base, draft: false, merged: None, reads: 0 });
        number
    }

    /// Merges a pull request, whoever asks: by a merge commit, or one commit on top. `None` where it cannot be.
    pub fn merge(&mut self, number: u64, squash: bool, by: &str) -> Option<String> {
        self.see_pushes();
        let pull = self.pulls.get(&number)?.clone();
        let issue = self.issues.get(&number)?.clone();
        if !issue.open || pull.draft {
            return None;
        }
        let base_ref = format!("refs/heads/{}", pull.base);
        let base = self.git.at(&base_ref)?;
        let tree = self.git.merged_tree(&base, &pull.head)?;
        let parents: &[&str] = if squash { &[&base] } else { &[&base, &pull.head] };
        let commit = self.git.commit_tree(&tree, parents, &format!("{} (#{number})", issue.title))?;
        if !self.git.update(&base_ref, &commit, Some(&base)) {
            return None;
        }
        if let Some(pull) = self.pulls.get_mut(&number) {
            pull.merged = Some((commit.clone(), by.to_owned()));
        }
        self.close(number);
        let closes = issue.body.as_deref().and_then(|body| {
            let at = body.split("Closes #").nth(1)?;
            at.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok()
        });
        if let Some(closes) = closes.filter(|_| self.closes) {
            self.close(closes);
        }
        Some(commit)
    }

    /// Whether it can be merged, as git says.
    pub(super) fn can_merge(&self, pull: &Pull) -> bool {
        let base = self.git.at(&format!("refs/heads/{}", pull.base));
        base.is_some_and(|base| self.git.merged_tree(&base, &pull.head).is_some())
    }

    /// Whether its base has gone on.
    pub(super) fn is_behind(&self, pull: &Pull) -> bool {
        let base = self.git.at(&format!("refs/heads/{}", pull.base));
        base.is_some_and(|base| !self.git.is_ancestor(&base, &pull.head))
    }

    /// Whether every required check has passed.
    pub(super) fn is_green(&self, head: &str) -> bool {
        let mut required = self.required.iter().chain(&self.protected);
        required.all(|name| {
            let passed = |conclusion: Option<&str>| matches!(conclusion, Some("success" | "neutral" | "skipped"));
            let by_check = match self.checks.get(head) {
                Some(checks) => checks.iter().any(|(of, _, conclusion)| of == name && passed(conclusion.as_deref())),
                None => self.ci.says(0).is_some_and(|(_, conclusion)| passed(conclusion)),
            };
            let statuses = self.statuses.get(head).into_iter().flatten();
            by_check || statuses.into_iter().any(|(context, state)| context == name && state == "success")
        })
    }

    /// Open pull requests follow their branches, whoever pushed.
    pub(super) fn see_pushes(&mut self) {
        for (number, pull) in &mut self.pulls {
            if pull.from == Origin::Here
                && self.issues.get(number).is_some_and(|issue| issue.open)
                && let Some(at) = self.git.at(&format!("refs/heads/{}", pull.head_branch))
            {
                pull.head = at;
            }
        }
    }

    /// What a ref points at.
    #[must_use]
    pub fn at(&self, name: &str) -> Option<String> {
        self.git.at(name)
    }

    /// A file of a commit, where it has one.
    #[must_use]
    pub fn file(&self, commit: &str, path: &str) -> Option<String> {
        self.git.file(commit, path)
    }

    /// Sets a ref that is not there, as another host would.
    pub fn create_ref(&mut self, name: &str, at: &str) -> bool {
        self.git.update(name, at, None)
    }

    /// Makes a commit with the tree and the one parent of which is `on`.
    ///
    /// # Panics
    /// When `on` is no commit.
    pub fn commit_on(&mut self, on: &str, message: &str) -> String {
        self.git.commit(&[], Some(on), &[on], message)
    }

    /// Moves a ref, wherever it is.
    pub fn set_ref(&mut self, name: &str, at: &str) -> bool {
        let old = self.git.at(name);
        self.git.update(name, at, old.as_deref())
    }

    /// Removes a ref.
    pub fn delete_ref(&mut self, name: &str) -> bool {
        self.git.delete(name)
    }

    /// The directory of the bare repository.
    #[must_use]
    pub fn git_dir(&self) -> &std::path::Path {
        self.git.dir()
    }

    /// Whether the first commit is in the history of the second.
    #[must_use]
    pub fn is_ancestor(&self, first: &str, second: &str) -> bool {
        self.git.is_ancestor(first, second)
    }
}

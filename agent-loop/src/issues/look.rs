//! Which issues are taken: looked for once in a while, and when somebody asks.

use std::collections::BTreeSet;
use std::rc::Rc;

use super::repo::{Handle, Repo, say};
use super::tend::Tender;
use crate::forge::{ForgeError, IssueNumber};
use crate::work::{Candidate, IssueKey, Order, Skip, State, Task, pick};

/// A file of a repository that says that no agent works in it.
const FORBIDS: &str = ".agent-loop/no-agents";

impl Repo {
    /// Looks for issues for ever, and tends those that are taken.
    pub(super) async fn keep(self: Rc<Self>, tasks: Vec<Task>) {
        for task in tasks {
            if task.state == State::Cleaned {
                self.board.state.borrow_mut().known.insert(task.key.clone(), task);
            } else {
                self.begin(task);
            }
        }
        loop {
            match self.look().await {
                Ok(trouble) => {
                    let mut state = self.board.state.borrow_mut();
                    state.looked = Some(self.now());
                    state.trouble = trouble;
                }
                Err(why) => {
                    let why = format!("looking for issues: {why}");
                    if self.board.state.borrow().trouble.as_ref() != Some(&why) {
                        say(&format!("{}: {why}", self.settings.name));
                    }
                    self.board.state.borrow_mut().trouble = Some(why);
                }
            }
            self.note_limits();
            tokio::select! {
                () = tokio::time::sleep(self.settings.poll) => {}
                () = self.board.look.notified() => {}
            }
        }
    }

    /// Looks once; what stands in the way of all issues, where something does.
    async fn look(self: &Rc<Self>) -> Result<Option<String>, String> {
        let wanted = std::mem::take(&mut self.board.state.borrow_mut().wanted);
        if !wanted.is_empty() {
            if let Some(why) = self.forbids().await? {
                return Ok(Some(why));
            }
            for key in wanted {
                self.take(key).await?;
            }
        }
        let order = self.settings.order();
        let issues =
            self.forge.open_issues(std::slice::from_ref(&order.ready)).await.map_err(|error| error.to_string())?;
        let mut candidates = Vec::with_capacity(issues.len());
        for issue in issues {
            let author = issue.author.map(|login| login.0).unwrap_or_default();
            let allowed = order.allowed.iter().any(|it| it.eq_ignore_ascii_case(&author));
            let labeller =
                if allowed { None } else { self.labeller(issue.number, &order).await.map_err(|it| it.to_string())? };
            candidates.push(Candidate {
                key: IssueKey { repo: self.settings.name.clone(), number: issue.number.0 },
                labels: issue.labels,
                author,
                labeller,
                created: issue.created,
                is_pull: issue.is_pull,
            });
        }
        let active: BTreeSet<IssueKey> = self.board.state.borrow().tasks.keys().cloned().collect();
        let (waiting, skipped) = pick(candidates, &order, &active);
        let mut left = Vec::new();
        // It is looked for only where something would be begun: looking costs a request each time.
        let forbids = if waiting.is_empty() || !self.has_room() { None } else { self.forbids().await? };
        for candidate in waiting {
            if forbids.is_none() && self.has_room() {
                self.take(candidate.key).await?;
            } else {
                left.push(candidate.key);
            }
        }
        let mut state = self.board.state.borrow_mut();
        state.waiting = left;
        state.skipped = skipped
            .into_iter()
            .filter_map(|(key, skip)| {
                let why = match skip {
                    Skip::Kept => "a label keeps it",
                    Skip::NotAllowed => "neither its author nor who set the label is on the list",
                    Skip::Pull | Skip::NotReady | Skip::Known => return None,
                };
                Some((key, why.to_owned()))
            })
            .collect();
        drop(state);
        Ok(forbids)
    }

    /// Whether the repository says that no agent works in it, in words.
    async fn forbids(&self) -> Result<Option<String>, String> {
        let file = self.forge.file(FORBIDS, &self.base).await.map_err(|error| error.to_string())?;
        Ok(file.map(|_| format!("the repository says by its file {FORBIDS} that no agent works in it")))
    }

    /// Who set the label of ready issues last.
    async fn labeller(&self, issue: IssueNumber, order: &Order) -> Result<Option<String>, ForgeError> {
        let events = self.forge.label_events(issue).await?;
        let last = events.into_iter().rev().find(|event| event.label == order.ready);
        Ok(last.filter(|event| event.added).and_then(|event| event.by).map(|login| login.0))
    }

    /// Whether another issue may be worked on: one that waits for a person takes no place.
    fn has_room(&self) -> bool {
        let state = self.board.state.borrow();
        let busy = state.tasks.values().filter(|task| task.view.borrow().state != "needs_human").count();
        busy < self.settings.max_tasks as usize
    }

    /// Takes an issue: durably, before anything is done for it.
    async fn take(self: &Rc<Self>, key: IssueKey) -> Result<(), String> {
        if self.board.state.borrow().tasks.contains_key(&key) {
            return Ok(());
        }
        let branch = self.settings.branch_of(key.number).map_err(|error| error.to_string())?;
        let mut task = Task::new(key.clone(), branch, self.base.clone());
        // Its runs are told apart by their attempts, for ever.
        task.attempt = self.board.state.borrow().known.get(&key).map_or(0, |known| known.attempt);
        self.host.link.remember(&task).await.map_err(|error| error.to_string())?;
        self.begin(task);
        Ok(())
    }

    fn begin(self: &Rc<Self>, task: Task) {
        let handle = Rc::new(Handle::default());
        self.board.state.borrow_mut().tasks.insert(task.key.clone(), Rc::clone(&handle));
        tokio::task::spawn_local(Tender::new(Rc::clone(self), handle, task).tend());
    }
}

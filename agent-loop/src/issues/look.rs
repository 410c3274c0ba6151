//! Which issues are taken: looked for once in a while, and when somebody asks.

use std::collections::BTreeSet;
use std::rc::Rc;

use super::repo::{Handle, Pending, Repo};
use super::survey::{Found, Survey};
use super::tend::Tender;
use crate::control::api::LookView;
use crate::say::{self, About};
use crate::work::{IssueKey, State, Task};

impl Repo {
    /// Looks for issues for ever, and tends those that are taken.
    pub(super) async fn keep(self: Rc<Self>, tasks: Vec<Task>) {
        self.go_on(tasks);
        loop {
            let pending = std::mem::take(&mut self.board.state.borrow_mut().pending);
            let (dry, wet): (Vec<Pending>, Vec<Pending>) = pending.into_iter().partition(|it| it.dry_run);
            for pending in dry {
                // Who asked may have gone.
                let _ = pending.reply.send(self.would_take().await);
            }
            let taken = self.look_now().await;
            for pending in wet {
                let _ = pending.reply.send(self.board.look_view(&self.settings.name, taken.clone()));
            }
            tokio::select! {
                () = tokio::time::sleep(self.settings.poll) => {}
                () = self.board.look.notified() => {}
            }
        }
    }

    /// One pass: what was begun is gone on with, issues are taken, and all of them are brought as far as they go without
    /// waiting for anybody but an agent.
    pub(super) async fn pass(self: Rc<Self>, tasks: Vec<Task>) -> LookView {
        self.go_on(tasks);
        let taken = self.look_now().await;
        // A tender that ends may not begin another: this is one pass.
        let tenders = std::mem::take(&mut self.board.state.borrow_mut().tenders);
        for tender in tenders {
            // One that panicked has told so.
            let _ = tender.await;
        }
        self.board.look_view(&self.settings.name, taken)
    }

    fn go_on(self: &Rc<Self>, tasks: Vec<Task>) {
        for task in tasks {
            if task.state == State::Cleaned {
                self.board.state.borrow_mut().known.insert(task.key.clone(), task);
            } else {
                self.begin(task);
            }
        }
    }

    /// Looks once, takes what is to be taken, and notes what stands in the way; what was taken.
    async fn look_now(self: &Rc<Self>) -> Vec<IssueKey> {
        let looked = self.look().await;
        self.note_limits();
        match looked {
            Ok((taken, trouble)) => {
                let mut state = self.board.state.borrow_mut();
                state.looked = Some(self.now());
                state.trouble = trouble;
                taken
            }
            Err(why) => {
                let why = format!("looking for issues: {why}");
                if self.board.state.borrow().trouble.as_ref() != Some(&why) {
                    say::info(About::Itself, &format!("{}: {why}", self.settings.name));
                }
                self.board.state.borrow_mut().trouble = Some(why);
                Vec::new()
            }
        }
    }

    async fn look(self: &Rc<Self>) -> Result<(Vec<IssueKey>, Option<String>), String> {
        let wanted = std::mem::take(&mut self.board.state.borrow_mut().wanted);
        if !wanted.is_empty() {
            if let Some(why) = self.survey().forbids().await.map_err(|error| error.to_string())? {
                return Ok((Vec::new(), Some(why)));
            }
            for key in wanted {
                self.take(key).await?;
            }
        }
        let Found { next, mut waiting, skipped, forbids } = self.found().await?;
        let mut taken = Vec::new();
        // Somebody may have paused it while it was looked at.
        if self.board.state.borrow().paused {
            waiting.splice(0..0, next);
        } else {
            for key in next {
                self.take(key.clone()).await?;
                taken.push(key);
            }
        }
        let mut state = self.board.state.borrow_mut();
        (state.waiting, state.skipped) = (waiting, skipped);
        Ok((taken, forbids))
    }

    async fn found(&self) -> Result<Found, String> {
        let mut claims = std::mem::take(&mut self.board.state.borrow_mut().claims);
        let found = self.survey().look(&mut claims).await;
        self.board.state.borrow_mut().claims = claims;
        found.map_err(|error| error.to_string())
    }

    /// What would be taken now; nothing is.
    async fn would_take(&self) -> LookView {
        let found = self.found().await;
        self.note_limits();
        let view = self.board.look_view(&self.settings.name, Vec::new());
        match found {
            Ok(found) => would(view, found),
            Err(why) => LookView { trouble: Some(format!("looking for issues: {why}")), ..view },
        }
    }

    fn survey(&self) -> Survey<'_> {
        let active: BTreeSet<IssueKey> = self.board.state.borrow().tasks.keys().cloned().collect();
        Survey {
            forge: &*self.forge,
            settings: &self.settings,
            base: &self.base,
            holder: &self.host.holder,
            stale: self.rules.claim_stale,
            active,
            room: self.room(),
        }
    }

    /// How many other issues may be worked on: one that waits for a person takes no place.
    fn room(&self) -> usize {
        let state = self.board.state.borrow();
        if state.paused {
            return 0;
        }
        let busy = state.tasks.values().filter(|task| task.view.borrow().state != "needs_human").count();
        (self.settings.max_tasks as usize).saturating_sub(busy)
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
        let tender = tokio::task::spawn_local(Tender::new(Rc::clone(self), handle, task).tend());
        if self.host.once {
            self.board.state.borrow_mut().tenders.push(tender);
        }
    }
}

/// What would be taken, as it is shown.
pub(super) fn would(view: LookView, found: Found) -> LookView {
    let names = |keys: Vec<IssueKey>| keys.iter().map(ToString::to_string).collect();
    let skipped = found.skipped.into_iter().map(super::repo::skipped).collect();
    LookView { trouble: found.forbids, taken: names(found.next), waiting: names(found.waiting), skipped, ..view }
}

//! One task, from its claim to its end: decide, remember, perform one act, and again.

use std::rc::Rc;
use std::time::Duration;

use super::lines;
use super::read::agent_part;
use super::repo::{Handle, Repo, time};
use super::write::area;
use crate::control::api::TaskView;
use crate::fault::{self, Role};
use crate::say::{self, About};
use crate::work::{
    Act, At, Kind, Part, PullState, Reply, Seen, Sha, State, Step, Task, Verdict, Write, decide, verdict,
};

/// How long what could not be read or remembered waits before it is tried again, at first.
const AGAIN: Duration = Duration::from_secs(5);
/// The longest such wait.
const LONGEST: Duration = Duration::from_secs(300);

/// After so many failures in a row a single pass leaves a task to the next one.
const PASS_FAILURES: u32 = 3;

/// A task in the hands of the loop.
pub(super) struct Tender {
    repo: Rc<Repo>,
    handle: Rc<Handle>,
    task: Task,
    seen: Seen,
    trouble: Option<String>,
    failures: u32,
    /// The verdict that was recorded last.
    told: Option<(Sha, Verdict)>,
    /// Whether the proof of its merge was recorded.
    proven: bool,
    run: Option<(u32, crate::run::RunId)>,
}

impl Tender {
    pub(super) fn new(repo: Rc<Repo>, handle: Rc<Handle>, task: Task) -> Self {
        let (seen, trouble) = (Seen::default(), None);
        Self { repo, handle, task, seen, trouble, failures: 0, told: None, proven: false, run: None }
    }

    /// Tends it until nothing of it is left.
    pub(super) async fn tend(mut self) {
        if self.task.attempt > 0 {
            self.know_the_run().await;
        }
        self.show();
        let rests = loop {
            if self.repo.host.once && self.failures >= PASS_FAILURES {
                // The next pass tries again.
                break false;
            }
            if !self.wishes().await {
                self.pause_for_trouble().await;
                continue;
            }
            let now = self.repo.now();
            let Step { task, act } = decide(&self.task, &self.seen, now, &self.repo.rules);
            if !self.comes_to(task).await {
                self.pause_for_trouble().await;
                continue;
            }
            match act {
                Act::Read(need) => match self.repo.read(&self.task, &need).await {
                    Ok(part) => {
                        self.failures = 0;
                        self.trouble = None;
                        self.note_evidence(&part).await;
                        self.seen.read(self.repo.now(), part);
                    }
                    Err(error) => {
                        self.fails(&format!("reading: {error}"));
                        self.pause_for_trouble().await;
                        self.seen.forget();
                    }
                },
                Act::Write(write) => self.write(&write).await,
                Act::Wait(_) if self.repo.host.once && self.waits_for_others() => break false,
                Act::Wait(until) => {
                    self.wait(until, now).await;
                    self.seen.forget();
                }
                Act::Forget => self.seen.forget(),
                Act::Rest => break true,
            }
            self.repo.note_limits();
            self.show();
        };
        if !rests {
            self.repo.note_limits();
            return self.show();
        }
        let mut state = self.repo.board.state.borrow_mut();
        state.tasks.remove(&self.task.key);
        state.known.insert(self.task.key.clone(), self.task);
        drop(state);
        self.repo.board.look.notify_one();
    }

    /// Whether what it waits for is neither its agent nor the forge's word on what it just wrote.
    fn waits_for_others(&self) -> bool {
        if self.task.writing.is_some() {
            return false;
        }
        match self.task.state {
            State::CiWait(_)
            | State::CiMissing(_)
            | State::CiApproval(_)
            | State::MergeGate { .. }
            | State::Backoff { .. }
            | State::NeedsHuman(_) => true,
            State::Eligible | State::Preparing(_) => self.task.paused,
            State::Running { .. }
            | State::Exited(_)
            | State::Pushing(_)
            | State::Opening(_)
            | State::Merging(_)
            | State::MergeUnknown { .. }
            | State::Closing { .. }
            | State::Done
            | State::Superseded(_)
            | State::Cleaned => false,
        }
    }

    /// Takes up what a person wants.
    async fn wishes(&mut self) -> bool {
        let wish = std::mem::take(&mut *self.handle.wish.borrow_mut());
        let mut task = self.task.clone();
        task.paused = wish.paused.unwrap_or(task.paused);
        task.retry |= wish.retry;
        task == self.task || self.comes_to(task).await
    }

    /// Makes the task durable as it is from now on, and says what it came to.
    async fn comes_to(&mut self, task: Task) -> bool {
        if task == self.task {
            return true;
        }
        fault::step(Role::Issues);
        if let Err(error) = self.repo.host.link.remember(&task).await {
            self.fails(&error.to_string());
            return false;
        }
        fault::step(Role::Issues);
        let is_new = task.step != self.task.step;
        self.task = task;
        if is_new {
            // What is lost here is in the store, and in what follows.
            let _ = self.repo.host.link.note(lines::state(&self.task)).await;
            self.say(&crate::work::says(&self.task));
        }
        self.show();
        true
    }

    async fn write(&mut self, write: &Write) {
        let area = area(write);
        if let Some(area) = area
            && let Err(error) = self.repo.host.link.note(lines::intent(&self.task, area, write)).await
        {
            // Without a durable intent nothing is sent (I19).
            self.fails(&error.to_string());
            self.pause_for_trouble().await;
            self.seen.forget();
            return;
        }
        fault::step(Role::Issues);
        let reply = self.repo.write(&self.task, write).await;
        fault::step(Role::Issues);
        if let Some(area) = area {
            let _ = self.repo.host.link.note(lines::result(&self.task, area, write, &reply)).await;
        }
        self.trouble = match &reply {
            Reply::Done => None,
            Reply::Conflict(why) | Reply::NotNow(why) | Reply::Refused(why) | Reply::Doubt(why) | Reply::Local(why) => {
                Some(why.clone())
            }
            Reply::Limited(until) => Some(format!("the forge asks to wait until {}", time(*until))),
        };
        if let Some(why) = &self.trouble {
            self.say(why);
        }
        if write.kind() == Kind::Launch {
            self.know_the_run().await;
        }
        self.seen.written(write.kind(), self.task.step, reply);
    }

    /// Learns which run the attempt is, for people.
    async fn know_the_run(&mut self) {
        let attempt = self.task.attempt;
        let record = self.repo.host.link.run_of(agent_part(&self.task, attempt)).await.ok().flatten();
        self.run = record.map(|record| (attempt, record.id));
    }

    /// What a read proves goes into the log: a verdict that is another one, a merge.
    async fn note_evidence(&mut self, part: &Part) {
        match part {
            Part::Ci(head, ci) => {
                let says = verdict(ci, &self.repo.rules.ci);
                if self.told.as_ref() != Some(&(head.clone(), says.clone())) {
                    let line = lines::verdict(&self.task, head, ci, &self.repo.rules.ci);
                    let _ = self.repo.host.link.note(line).await;
                    self.told = Some((head.clone(), says));
                }
            }
            Part::Pulls(pulls) if !self.proven => {
                let ours = pulls.iter().find(|pull| Some(pull.number) == self.task.pull);
                if let Some(PullState::Merged(proof)) = ours.map(|pull| &pull.state) {
                    let _ = self.repo.host.link.note(lines::proven(&self.task, proof)).await;
                    self.proven = true;
                }
            }
            Part::Issue(_)
            | Part::Claim(_)
            | Part::Comments(_)
            | Part::Pulls(_)
            | Part::Remote(_)
            | Part::OnBase(_)
            | Part::Run(_)
            | Part::Commits(_) => {}
        }
    }

    /// Waits until then, until somebody asks, or until its run is over.
    async fn wait(&mut self, until: At, now: At) {
        let span = Duration::from_secs(until.since(now).max(1));
        let running = matches!(self.task.state, State::Running { .. });
        let repo = Rc::clone(&self.repo);
        let part = agent_part(&self.task, self.task.attempt);
        let over = async move {
            if running
                && let Ok(Some(record)) = repo.host.link.run_of(part).await
                && repo.host.link.over(record.id).await.is_ok()
            {
                return;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = tokio::time::sleep(span) => {}
            () = self.handle.poke.notified() => {}
            () = over => {}
        }
    }

    fn say(&self, text: &str) {
        let key = self.task.key.to_string();
        say::info(About::Issue(&key), &format!("{key}: {text}"));
    }

    fn fails(&mut self, why: &str) {
        self.failures = self.failures.saturating_add(1);
        if self.trouble.as_deref() != Some(why) {
            self.say(why);
        }
        self.trouble = Some(why.to_owned());
        self.show();
    }

    async fn pause_for_trouble(&self) {
        let span = AGAIN.saturating_mul(1 << self.failures.saturating_sub(1).min(10)).min(LONGEST);
        tokio::select! {
            () = tokio::time::sleep(span) => {}
            () = self.handle.poke.notified() => {}
        }
    }

    /// What people are shown.
    fn show(&self) {
        let task = &self.task;
        *self.handle.view.borrow_mut() = TaskView {
            issue: task.key.to_string(),
            state: task.state.word().to_owned(),
            says: crate::work::says(task),
            since: task.history.last().map(|passed| time(passed.at)),
            attempt: task.attempt,
            // That of an attempt before is not told as this one's.
            run: self.run.filter(|(attempt, _)| *attempt == task.attempt).map(|(_, run)| run.to_string()),
            branch: task.branch.to_string(),
            pull: task.pull.map(|pull| pull.0),
            head: task.state.head().map(ToString::to_string),
            paused: task.paused,
            trouble: self.trouble.clone(),
        };
    }
}

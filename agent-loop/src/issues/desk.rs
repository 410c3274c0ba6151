//! What people ask of the issue loop, answered.

use std::path::Path;

use tokio::sync::{mpsc, oneshot};

use super::Boards;
use super::link::{Link, LinkError};
use super::place;
use super::read::agent_part;
use super::repo::{Pending, time};
use crate::control::api::{
    Answer, AttemptView, IssueAsk, IssueQuestion, LookView, PassedView, Problem, QueueView, RepoVerb, RepoView,
    StoryView, TaskVerb, TaskView, TickView,
};
use crate::work::{self, IssueKey, RepoName, Task};

/// How many of the latest agents of an issue are told.
const AGENTS: u32 = 50;

/// Where people ask.
pub(super) struct Desk<'a> {
    pub(super) boards: &'a Boards,
    /// The daemon, which remembers tasks and runs.
    pub(super) link: &'a Link,
    /// Where the state is.
    pub(super) state: &'a Path,
    /// Whether this is a single pass.
    pub(super) once: bool,
}

impl Desk<'_> {
    /// Answers for as long as somebody can ask.
    pub(super) async fn serve(&self, mut asked: mpsc::Receiver<IssueQuestion>) {
        while let Some(IssueQuestion { ask, from, reply }) = asked.recv().await {
            let answer = match ask {
                IssueAsk::Queue => {
                    let repos = self.boards.iter().map(|(name, board)| board.view(&name.to_string())).collect();
                    Ok(Answer::Queue(QueueView { repos }))
                }
                IssueAsk::Story(key) => {
                    let link = self.link.clone();
                    tokio::task::spawn_local(async move {
                        let _ = reply.send(story(&link, &key).await);
                    });
                    continue;
                }
                IssueAsk::Act(..) | IssueAsk::Steer(..) | IssueAsk::Tick { .. } if !from.may_write => {
                    Err(Problem::Forbidden("only root and the owner of the configuration steer tasks".to_owned()))
                }
                IssueAsk::Act(key, verb) => self.act(&key, verb).map(|view| Answer::Task(Box::new(view))),
                IssueAsk::Steer(repo, verb) => self.steer(&repo, verb).map(|view| Answer::Repo(Box::new(view))),
                IssueAsk::Tick { dry_run } if self.once => {
                    Ok(Answer::Tick(TickView { dry_run, under_way: true, repos: Vec::new() }))
                }
                IssueAsk::Tick { dry_run } => {
                    self.tick(dry_run, reply);
                    continue;
                }
            };
            // Who asked may have gone.
            let _ = reply.send(answer);
        }
    }

    /// Has every repository looked at now, and answers when that is done.
    fn tick(&self, dry_run: bool, reply: oneshot::Sender<Result<Answer, Problem>>) {
        let mut looks = Vec::new();
        for (name, board) in self.boards {
            let (told, tells) = oneshot::channel();
            board.state.borrow_mut().pending.push(Pending { dry_run, reply: told });
            board.look.notify_one();
            looks.push((name.to_string(), tells));
        }
        tokio::task::spawn_local(async move {
            let mut repos = Vec::new();
            for (repo, look) in looks {
                let lost =
                    LookView { repo, trouble: Some("nobody looks at it: a defect".to_owned()), ..LookView::default() };
                repos.push(look.await.unwrap_or(lost));
            }
            let _ = reply.send(Ok(Answer::Tick(TickView { dry_run, under_way: false, repos })));
        });
    }

    /// Stops or starts the taking of issues of a repository, over restarts too.
    fn steer(&self, repo: &RepoName, verb: RepoVerb) -> Result<RepoView, Problem> {
        let board = self.boards.get(repo).ok_or_else(|| unknown(repo))?;
        let paused = verb == RepoVerb::Pause;
        place::set_paused(&place::paused(self.state, repo), paused)
            .map_err(|error| Problem::Unavailable(format!("remembering that {repo} is paused: {error:#}")))?;
        board.state.borrow_mut().paused = paused;
        board.look.notify_one();
        Ok(board.view(&repo.to_string()))
    }

    /// Does what a person wants with a task.
    fn act(&self, key: &IssueKey, verb: TaskVerb) -> Result<TaskView, Problem> {
        let board = self.boards.get(&key.repo).ok_or_else(|| unknown(&key.repo))?;
        let handle = board.state.borrow().tasks.get(key).cloned();
        match (verb, handle) {
            (TaskVerb::Start, None) if board.state.borrow().paused => {
                Err(Problem::Conflict(format!("{0} is paused; `agent-loop resume {0}` lets issues be taken", key.repo)))
            }
            (TaskVerb::Start, None) => {
                board.state.borrow_mut().wanted.push(key.clone());
                board.look.notify_one();
                Ok(TaskView { issue: key.to_string(), state: "wanted".to_owned(), ..TaskView::default() })
            }
            (TaskVerb::Start, Some(_)) => Err(Problem::Conflict(format!("{key} is being worked on already"))),
            (TaskVerb::Retry | TaskVerb::Pause | TaskVerb::Resume, None) => {
                Err(Problem::NotFound(format!("{key} is not being worked on; see `agent-loop queue`")))
            }
            (verb @ (TaskVerb::Retry | TaskVerb::Pause | TaskVerb::Resume), Some(handle)) => {
                let mut wish = handle.wish.borrow_mut();
                match verb {
                    TaskVerb::Pause => wish.paused = Some(true),
                    TaskVerb::Resume => wish.paused = Some(false),
                    TaskVerb::Retry | TaskVerb::Start => (wish.retry, wish.paused) = (true, Some(false)),
                }
                drop(wish);
                handle.poke.notify_one();
                Ok(handle.view.borrow().clone())
            }
        }
    }
}

/// What became of an issue, as it is remembered: also one that is over, and one of a repository that is not configured any
/// more.
async fn story(link: &Link, key: &IssueKey) -> Result<Answer, Problem> {
    let problem = |error: LinkError| match error {
        LinkError::Problem(problem) => problem,
        LinkError::Stopping => Problem::Unavailable(LinkError::Stopping.to_string()),
    };
    let tasks = link.tasks().await.map_err(problem)?;
    let Some(task) = tasks.into_iter().find(|task| task.key == *key) else {
        return Err(Problem::NotFound(format!("{key} was never worked on by this host; see `agent-loop queue`")));
    };
    let mut runs = Vec::new();
    for attempt in task.attempt.saturating_sub(AGENTS) + 1..=task.attempt {
        // One that was prepared and never accepted has none.
        if let Some(record) = link.run_of(agent_part(&task, attempt)).await.map_err(problem)? {
            runs.push(AttemptView { attempt, run: record.id.to_string() });
        }
    }
    Ok(Answer::Story(Box::new(told(&task, runs))))
}

fn told(task: &Task, runs: Vec<AttemptView>) -> StoryView {
    let steps = task.history.iter().map(|passed| PassedView {
        at: time(passed.at),
        state: passed.word.to_owned(),
        says: work::passed(passed),
        attempt: passed.attempt,
        head: passed.head.as_ref().map(ToString::to_string),
    });
    StoryView {
        issue: task.key.to_string(),
        state: task.state.word().to_owned(),
        says: work::says(task),
        branch: task.branch.to_string(),
        pull: task.pull.map(|pull| pull.0),
        steps: steps.collect(),
        runs,
    }
}

fn unknown(repo: &RepoName) -> Problem {
    Problem::NotFound(format!("{repo} is no repository of the configuration; see `agent-loop queue`"))
}

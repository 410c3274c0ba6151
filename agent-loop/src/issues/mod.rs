//! Flow 2 performed: issues are taken, agents work on them, pull requests are merged, issues closed.
//!
//! ```text
//!   look --> pick (pure) --> a task each:  decide (pure) -> remember -> one act -> read again
//!                                            |                 |          |
//!                                          work/             store     forge, git, runs of the daemon
//! ```
//! It lives in a thread of its own and asks the daemon as people do, with some questions of its own (`link`): a slow forge
//! holds nobody up (I12). `translate`, `claim`, `lines` are pure; `read` and `write` are the only ones that act.
//!
//! Not inside: a decision (`work`), a process (the daemon's), the API of a forge (`forge`). Called by `serve` alone.

mod claim;
mod host;
mod lines;
mod link;
mod look;
mod place;
mod read;
mod repo;
mod step;
mod tend;
mod translate;
mod write;

use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use tokio::sync::mpsc;

use self::host::Host;
use self::link::Link;
use self::repo::{Board, Repo, say};
use crate::config::Config;
use crate::control::api::{Answer, IssueAsk, IssueQuestion, Problem, Questions, QueueView, TaskVerb, TaskView};
use crate::daemon::Desk;
use crate::work::{IssueKey, RepoName, Task};

/// How many questions of people may wait.
const QUESTIONS: usize = 64;

/// Starts the loop for the repositories of the configuration; where it is asked.
///
/// # Errors
/// Where no thread can be had.
pub fn start(config: Config, daemon: Questions) -> io::Result<Desk> {
    let (desk, asked) = mpsc::channel(QUESTIONS);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("issues".to_owned()).spawn(move || {
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, run(config, Link::new(daemon), asked));
    })?;
    Ok(desk)
}

type Boards = BTreeMap<RepoName, Rc<Board>>;

async fn run(config: Config, link: Link, mut asked: mpsc::Receiver<IssueQuestion>) {
    let boards: Boards = config.repos.iter().map(|repo| (repo.name.clone(), Rc::default())).collect();
    match Host::new(config, link) {
        Ok(host) => {
            let host = Rc::new(host);
            let tasks = match host.link.tasks().await {
                Ok(tasks) => tasks,
                // What is not known cannot be gone on with, and nothing new is begun beside it.
                Err(error) => return refuse(&boards, &format!("reading the tasks: {error}"), &mut asked).await,
            };
            for settings in &host.config.repos {
                let tasks: Vec<Task> = tasks.iter().filter(|task| task.key.repo == settings.name).cloned().collect();
                let (host, settings) = (Rc::clone(&host), settings.clone());
                let Some(board) = boards.get(&settings.name).cloned() else { continue };
                tokio::task::spawn_local(async move {
                    let repo = Rc::new(Repo::reach(&host, &settings, &board).await);
                    say(&format!("{}: its issues are taken", settings.name));
                    repo.keep(tasks).await;
                });
            }
            serve(&boards, &mut asked).await;
        }
        Err(error) => refuse(&boards, &format!("{error:#}"), &mut asked).await,
    }
}

async fn refuse(boards: &Boards, why: &str, asked: &mut mpsc::Receiver<IssueQuestion>) {
    say(&format!("no issue is taken: {why}"));
    boards.values().for_each(|board| board.state.borrow_mut().trouble = Some(why.to_owned()));
    serve(boards, asked).await;
}

async fn serve(boards: &Boards, asked: &mut mpsc::Receiver<IssueQuestion>) {
    while let Some(IssueQuestion { ask, from, reply }) = asked.recv().await {
        let answer = match ask {
            IssueAsk::Queue => {
                let repos = boards.iter().map(|(name, board)| board.view(&name.to_string())).collect();
                Ok(Answer::Queue(QueueView { repos }))
            }
            IssueAsk::Act(..) if !from.may_write => {
                Err(Problem::Forbidden("only root and the owner of the configuration steer tasks".to_owned()))
            }
            IssueAsk::Act(key, verb) => act(boards, &key, verb).map(|view| Answer::Task(Box::new(view))),
        };
        // Who asked may have gone.
        let _ = reply.send(answer);
    }
}

/// Does what a person wants with a task.
fn act(boards: &Boards, key: &IssueKey, verb: TaskVerb) -> Result<TaskView, Problem> {
    let board = boards.get(&key.repo).ok_or_else(|| {
        Problem::NotFound(format!("{} is no repository of the configuration; see `agent-loop queue`", key.repo))
    })?;
    let handle = board.state.borrow().tasks.get(key).cloned();
    match (verb, handle) {
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

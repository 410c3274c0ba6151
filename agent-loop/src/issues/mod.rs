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
mod desk;
mod host;
mod lines;
mod link;
mod look;
mod place;
mod probe;
mod read;
mod repo;
mod step;
mod survey;
mod tend;
mod translate;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::rc::Rc;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

pub use self::probe::{Finding, Level, probe};

use self::host::Host;
use self::link::Link;
use self::repo::{Board, Repo};
use crate::config::Config;
use crate::control::api::{IssueQuestion, LookView, Questions, TickView};
use crate::daemon::Desk;
use crate::say::{self, About};
use crate::work::{RepoName, Task};

/// How many questions of people may wait.
const QUESTIONS: usize = 64;

/// Starts the loop for the repositories of the configuration; where it is asked.
///
/// # Errors
/// Where no thread can be had.
pub fn start(config: Config, daemon: Questions) -> io::Result<Desk> {
    begin(config, daemon, None)
}

/// The same for one pass: it is told what that came to, and the daemon ends then.
///
/// # Errors
/// Where no thread can be had.
pub fn start_one_pass(config: Config, daemon: Questions) -> io::Result<(Desk, oneshot::Receiver<TickView>)> {
    let (told, tells) = oneshot::channel();
    Ok((begin(config, daemon, Some(told))?, tells))
}

/// What one pass would take: only the forge is read, and nothing is written, there or here.
pub async fn would_take(config: &Config) -> TickView {
    let mut repos = Vec::new();
    for settings in &config.repos {
        let view = LookView { repo: settings.name.to_string(), ..LookView::default() };
        let looked = async {
            let (forge, _, base) = repo::reach(settings).await?;
            let rules = settings.rules(config);
            let survey = survey::Survey {
                forge: &forge,
                settings,
                base: &base,
                // Whose a claim is does not matter where nobody holds one here.
                holder: &claim::Holder { host: String::new(), instance: String::new() },
                stale: rules.claim_stale,
                active: BTreeSet::new(),
                room: settings.max_tasks as usize,
            };
            anyhow::Ok(survey.look(&mut survey::Claims::new()).await?)
        };
        let paused = place::is_paused(&place::paused(&config.host.state_dir, &settings.name)).unwrap_or(false);
        let view = LookView { paused, ..view };
        repos.push(match looked.await {
            Ok(mut found) if paused => {
                found.waiting.splice(0..0, std::mem::take(&mut found.next));
                look::would(view, found)
            }
            Ok(found) => look::would(view, found),
            Err(error) => LookView { trouble: Some(format!("{error:#}")), ..view },
        });
    }
    TickView { dry_run: true, under_way: false, repos }
}

fn begin(config: Config, daemon: Questions, once: Option<oneshot::Sender<TickView>>) -> io::Result<Desk> {
    let (desk, asked) = mpsc::channel(QUESTIONS);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("issues".to_owned()).spawn(move || {
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, run(config, Link::new(daemon), asked, once));
    })?;
    Ok(desk)
}

type Boards = BTreeMap<RepoName, Rc<Board>>;

async fn run(
    config: Config,
    link: Link,
    asked: mpsc::Receiver<IssueQuestion>,
    once: Option<oneshot::Sender<TickView>>,
) {
    let boards: Boards = config.repos.iter().map(|repo| (repo.name.clone(), Rc::default())).collect();
    let state = config.host.state_dir.clone();
    let desk = desk::Desk { boards: &boards, link: &link, state: &state, once: once.is_some() };
    let passes = match ready(config, link.clone(), &boards, once.is_some()).await {
        Ok((host, tasks)) => set_out(&host, &tasks, &boards),
        Err(why) => {
            say::info(About::Itself, &format!("no issue is taken: {why}"));
            boards.values().for_each(|board| board.state.borrow_mut().trouble = Some(why.clone()));
            let views = boards.iter().map(|(name, board)| board.look_view(name, Vec::new()));
            views.map(|view| tokio::task::spawn_local(async { view })).collect()
        }
    };
    let Some(told) = once else { return desk.serve(asked).await };
    let pass = async {
        let mut repos = Vec::new();
        for pass in passes {
            // One that panicked has told so.
            repos.extend(pass.await.ok());
        }
        TickView { dry_run: false, under_way: false, repos }
    };
    let view = tokio::select! {
        view = pass => view,
        () = desk.serve(asked) => return,
    };
    // Who waited may have gone; the daemon ends in any case.
    let _ = told.send(view);
    let _ = link.finish().await;
}

/// What tasks need of this host, and every task that was ever remembered.
async fn ready(config: Config, link: Link, boards: &Boards, once: bool) -> Result<(Rc<Host>, Vec<Task>), String> {
    let host = Host::new(config, link, once).map_err(|error| format!("{error:#}"))?;
    for (name, board) in boards {
        let mark = place::paused(&host.config.host.state_dir, name);
        board.state.borrow_mut().paused = place::is_paused(&mark).map_err(|error| format!("{error:#}"))?;
    }
    // What is not known cannot be gone on with, and nothing new is begun beside it.
    let tasks = host.link.tasks().await.map_err(|error| format!("reading the tasks: {error}"))?;
    Ok((Rc::new(host), tasks))
}

/// Begins with each repository; what a single pass over it comes to.
fn set_out(host: &Rc<Host>, tasks: &[Task], boards: &Boards) -> Vec<JoinHandle<LookView>> {
    let mut passes = Vec::new();
    for settings in &host.config.repos {
        let tasks: Vec<Task> = tasks.iter().filter(|task| task.key.repo == settings.name).cloned().collect();
        let (host, settings) = (Rc::clone(host), settings.clone());
        let Some(board) = boards.get(&settings.name).cloned() else { continue };
        passes.push(tokio::task::spawn_local(async move {
            if host.once {
                return match Repo::open(&host, &settings, &board).await {
                    Ok(repo) => Rc::new(repo).pass(tasks).await,
                    Err(error) => {
                        board.state.borrow_mut().trouble = Some(format!("{error:#}"));
                        board.look_view(&settings.name, Vec::new())
                    }
                };
            }
            let repo = Rc::new(Repo::reach(&host, &settings, &board).await);
            say::info(About::Itself, &format!("{}: its issues are taken", settings.name));
            repo.keep(tasks).await;
            board.look_view(&settings.name, Vec::new())
        }));
    }
    passes
}

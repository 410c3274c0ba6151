//! A repository whose issues are taken: its forge, our bare repository of it, what people are shown.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::{Notify, oneshot};

use super::host::Host;
use super::place::{self, Place};
use super::survey::Claims;
use crate::config;
use crate::control::api::{LookView, RepoView, SkippedView, TaskView};
use crate::forge::github::{GitHub, Options, Patience};
use crate::forge::{Forge, Identity};
use crate::git;
use crate::say::{self, About};
use crate::store::StateDir;
use crate::work::{At, Branch, IssueKey, RepoName, Rules, Task};

/// A repository that was reached.
#[derive(Debug)]
pub(super) struct Repo {
    pub(super) host: Rc<Host>,
    pub(super) settings: config::Repo,
    pub(super) rules: Rules,
    pub(super) forge: Box<dyn Forge>,
    pub(super) git: git::Repository,
    pub(super) us: Identity,
    pub(super) base: Branch,
    pub(super) board: Rc<Board>,
}

/// What is known of a repository and of its tasks: for people, and for what they ask.
#[derive(Debug, Default)]
pub(super) struct Board {
    pub(super) state: RefCell<BoardState>,
    /// Somebody wants it to be looked at now.
    pub(super) look: Notify,
}

/// The same, as it is now.
#[derive(Debug, Default)]
pub(super) struct BoardState {
    pub(super) trouble: Option<String>,
    pub(super) looked: Option<At>,
    pub(super) limits: crate::forge::Limits,
    pub(super) tasks: BTreeMap<IssueKey, Rc<Handle>>,
    /// Every task that was ever remembered here, its attempts going on where they were.
    pub(super) known: BTreeMap<IssueKey, Task>,
    pub(super) waiting: Vec<IssueKey>,
    pub(super) skipped: Vec<(IssueKey, String)>,
    /// Issues that somebody asked for by name.
    pub(super) wanted: Vec<IssueKey>,
    /// Whether a person holds it back.
    pub(super) paused: bool,
    /// Claims of other hosts that were read.
    pub(super) claims: Claims,
    /// Who waits for a look.
    pub(super) pending: Vec<Pending>,
    /// The tenders of a pass.
    pub(super) tenders: Vec<tokio::task::JoinHandle<()>>,
}

/// Somebody who waits for a look.
#[derive(Debug)]
pub(super) struct Pending {
    /// Whether nothing is to be taken by it.
    pub(super) dry_run: bool,
    /// Where the answer goes.
    pub(super) reply: oneshot::Sender<LookView>,
}

/// A task that is being tended.
#[derive(Debug, Default)]
pub(super) struct Handle {
    pub(super) view: RefCell<TaskView>,
    pub(super) wish: RefCell<Wish>,
    pub(super) poke: Notify,
}

/// What a person wants of a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) paused: Option<bool>,
    pub(super) retry: bool,
}

/// How patient reads are while a repository is not reached.
const AGAIN: Duration = Duration::from_secs(30);

impl Repo {
    /// Reaches a repository, for as long as that takes; what stands in the way is shown.
    pub(super) async fn reach(host: &Rc<Host>, settings: &config::Repo, board: &Rc<Board>) -> Self {
        loop {
            match Self::open(host, settings, board).await {
                Ok(repo) => {
                    board.state.borrow_mut().trouble = None;
                    return repo;
                }
                Err(error) => {
                    let why = format!("{error:#}");
                    if board.state.borrow().trouble.as_ref() != Some(&why) {
                        say::info(About::Itself, &format!("{}: {why}", settings.name));
                    }
                    board.state.borrow_mut().trouble = Some(why);
                    let pending = std::mem::take(&mut board.state.borrow_mut().pending);
                    for Pending { reply, .. } in pending {
                        // Who asked may have gone.
                        let _ = reply.send(board.look_view(&settings.name, Vec::new()));
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(settings.poll.max(AGAIN)) => {}
                () = board.look.notified() => {}
            }
        }
    }

    /// Reaches a repository, or says what stands in the way.
    pub(super) async fn open(host: &Rc<Host>, settings: &config::Repo, board: &Rc<Board>) -> anyhow::Result<Self> {
        let (forge, us, base) = reach(settings).await?;
        let place = place::repository(&host.config.host.state_dir, &settings.name);
        let parent = place.parent().context("a place without a parent")?;
        StateDir::open(parent)?;
        let git = git::Repository::open(&place, &host.config.host.git, forge.git_url()).await?;
        Ok(Self {
            host: Rc::clone(host),
            settings: settings.clone(),
            rules: settings.rules(&host.config),
            forge: Box::new(forge),
            git,
            us,
            base,
            board: Rc::clone(board),
        })
    }

    /// Now, by the forge's clock.
    pub(super) fn now(&self) -> At {
        // It has answered, else we were not here.
        self.forge.now().unwrap_or_default()
    }

    /// The files of a task.
    pub(super) fn place(&self, key: &IssueKey) -> Place {
        Place::of(&self.host.config.host.state_dir, &self.host.config.host.work_dir, key)
    }

    /// Programs as paths.
    pub(super) fn git_path(&self) -> &PathBuf {
        &self.host.config.host.git
    }

    /// Keeps what the forge said of its limits for people.
    pub(super) fn note_limits(&self) {
        self.board.state.borrow_mut().limits = self.forge.limits();
    }
}

/// The forge of a repository, who we are there, and what pull requests go into.
///
/// # Errors
/// What stands in the way.
pub(super) async fn reach(settings: &config::Repo) -> anyhow::Result<(GitHub, Identity, Branch)> {
    let options = Options {
        api: settings.api.clone(),
        repository: settings.name.clone(),
        login: settings.login.clone(),
        patience: Patience { between_writes: settings.write_pause, ..Patience::default() },
    };
    let forge = GitHub::new(&options)?;
    let us = forge.identity().await?;
    let known = forge.repository().await?;
    anyhow::ensure!(!known.archived, "the repository is archived: take it out of the configuration");
    let base = match &settings.base {
        Some(base) => base.clone(),
        None => known.default_branch.parse().context("the default branch")?,
    };
    Ok((forge, us, base))
}

/// An issue that is not taken, as it is shown.
pub(super) fn skipped((issue, why): (IssueKey, String)) -> SkippedView {
    SkippedView { issue: issue.to_string(), why }
}

impl Board {
    /// What a look found, as it is shown.
    pub(super) fn look_view(&self, name: &RepoName, taken: Vec<IssueKey>) -> LookView {
        let state = self.state.borrow();
        LookView {
            repo: name.to_string(),
            trouble: state.trouble.clone(),
            paused: state.paused,
            taken: taken.iter().map(ToString::to_string).collect(),
            waiting: state.waiting.iter().map(ToString::to_string).collect(),
            skipped: state.skipped.iter().cloned().map(skipped).collect(),
            tasks: state.tasks.values().rev().map(|task| task.view.borrow().clone()).collect(),
        }
    }

    /// What people are shown.
    pub(super) fn view(&self, name: &str) -> RepoView {
        let state = self.state.borrow();
        RepoView {
            repo: name.to_owned(),
            trouble: state.trouble.clone(),
            looked: state.looked.map(time),
            requests: state.limits.requests,
            not_modified: state.limits.not_modified,
            remaining: state.limits.hourly.as_ref().map(|hourly| hourly.remaining),
            tasks: state.tasks.values().rev().map(|task| task.view.borrow().clone()).collect(),
            waiting: state.waiting.iter().map(ToString::to_string).collect(),
            skipped: state.skipped.iter().cloned().map(skipped).collect(),
            limit: state.limits.hourly.as_ref().map(|hourly| hourly.limit),
            resets: state.limits.hourly.as_ref().map(|hourly| time(hourly.reset)),
            held_seconds: state.limits.paused.map(|held| held.as_secs()),
            paused: state.paused,
        }
    }
}

/// A moment of the forge's clock, RFC 3339.
pub(super) fn time(at: At) -> String {
    jiff::Timestamp::from_second(at.0).map_or_else(|_| at.0.to_string(), |time| time.to_string())
}

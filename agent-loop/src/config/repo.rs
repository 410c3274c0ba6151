//! What the issue loop is told: repositories, checks, merges, budgets.

use std::path::PathBuf;
use std::time::Duration;

use crate::agent::{AgentCommand, CommandError};
use crate::forge::MergeMethod;
use crate::forge::github::Login;
use crate::work::{Accept, Branch, Budgets, CiRules, Labels, Order, RepoName, Rules};

/// `[[repo]]`: a repository whose issues are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repo {
    /// `owner/name`.
    pub name: RepoName,
    /// The API. Default `https://api.github.com`; a GitHub Enterprise Server's is `https://HOST/api/v3`.
    pub api: String,
    /// How agent-loop logs in there.
    pub login: Login,
    /// What pull requests go into; without it the default branch of the repository.
    pub base: Option<Branch>,
    /// The branch of an issue, with `{number}` in it. Default `issue-{number}-fix`.
    pub branch: String,
    /// The labels.
    pub labels: Labels,
    /// Labels that go first, the first of them first.
    pub priority: Vec<String>,
    /// Whose issues are taken, or whose label counts: account names.
    pub allowed: Vec<String>,
    /// How many issues are worked on at once. Default 1.
    pub max_tasks: u32,
    /// How often the forge is looked at. Default one minute.
    pub poll: Duration,
    /// How long a write waits after the one before it. Default one second, which GitHub asks for.
    pub write_pause: Duration,
}

/// `[ci]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checks {
    /// Names of required checks, beside those that the forge requires.
    pub required: Vec<String>,
    /// Results beside success that a required check may have: `skipped`, `neutral`.
    pub accept: Vec<Accept>,
    /// Whether a repository without any checks is wanted (`none`). Default `checks`.
    pub expect_none: bool,
    /// How long a commit may be without a check. Default 15 minutes.
    pub start_grace: Duration,
    /// How long its checks may take. Default 2 hours.
    pub timeout: Duration,
}

/// `[merge]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Merge {
    /// Whether agent-loop merges what is green; else a person does. Default `true`.
    pub enabled: bool,
    /// How. Default `squash`.
    pub method: MergeMethod,
    /// Whether the branch goes after its merge. Default `true`.
    pub delete_branch: bool,
}

/// `[claim]`: how hosts that share a repository keep out of each other's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claims {
    /// How old a claim may get before its host renews it. Default 10 minutes.
    pub renew: Duration,
    /// How old a claim of another host has to be before it is taken over. Default 1 hour.
    pub stale: Duration,
}

impl Default for Checks {
    fn default() -> Self {
        let rules = Rules::default();
        Self {
            required: Vec::new(),
            accept: Vec::new(),
            expect_none: false,
            start_grace: Duration::from_secs(rules.ci_start_grace),
            timeout: Duration::from_secs(rules.ci_timeout),
        }
    }
}

impl Default for Merge {
    fn default() -> Self {
        Self { enabled: true, method: MergeMethod::Squash, delete_branch: true }
    }
}

impl Default for Claims {
    fn default() -> Self {
        let rules = Rules::default();
        Self { renew: Duration::from_secs(rules.claim_renew), stale: Duration::from_secs(rules.claim_stale) }
    }
}

impl Repo {
    /// The branch of an issue.
    ///
    /// # Errors
    /// Where the template does not make a branch that can be used safely.
    pub fn branch_of(&self, number: u64) -> Result<Branch, crate::work::NotAName> {
        self.branch.replace("{number}", &number.to_string()).parse()
    }

    /// Which issues are taken.
    #[must_use]
    pub fn order(&self) -> Order {
        Order {
            ready: self.labels.ready.clone(),
            not: vec![self.labels.in_progress.clone(), self.labels.question.clone()],
            priority: self.priority.clone(),
            allowed: self.allowed.clone(),
        }
    }

    /// The rules that decisions in this repository follow.
    #[must_use]
    pub fn rules(&self, config: &super::Config) -> Rules {
        let checks = &config.ci;
        Rules {
            labels: self.labels.clone(),
            budgets: config.budgets,
            ci: CiRules {
                required: checks.required.clone(),
                accept: checks.accept.clone(),
                expect_none: checks.expect_none,
            },
            ci_start_grace: checks.start_grace.as_secs(),
            ci_timeout: checks.timeout.as_secs(),
            merge: config.merge.enabled,
            delete_branch: config.merge.delete_branch,
            poll: self.poll.as_secs().max(1),
            claim_renew: config.claim.renew.as_secs(),
            claim_stale: config.claim.stale.as_secs(),
            ..Rules::default()
        }
    }
}

/// What an `[agent]` is beside its user: the command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// What it is: `claude`, whose answers are understood, or `command`, whose exit status counts. Default `claude`.
    pub kind: AgentKind,
    /// The program and its first arguments; without it `claude`.
    pub command: Vec<String>,
    /// A directory of templates for the prompts: those that are not in it are the built-in ones.
    pub prompts: Option<PathBuf>,
}

/// What `claude` is started with where nothing is written: it may edit and commit, and run what it is allowed.
const CLAUDE: [&str; 5] = ["claude", "--permission-mode", "acceptEdits", "--allowedTools", "Bash(git:*)"];

impl Command {
    /// What is run as an agent.
    ///
    /// # Errors
    /// Where the words make no command.
    pub fn agent(&self) -> Result<AgentCommand, CommandError> {
        match self.kind {
            AgentKind::Claude => {
                let built_in = CLAUDE.map(str::to_owned);
                let words = if self.command.is_empty() { &built_in[..] } else { &self.command };
                let (program, extra) = words.split_first().ok_or(CommandError::Empty)?;
                AgentCommand::claude(program, extra.to_vec())
            }
            AgentKind::Command => AgentCommand::other(&self.command, None),
        }
    }
}

/// What kind of agent it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AgentKind {
    /// Claude Code.
    #[default]
    Claude,
    /// Any command.
    Command,
}

/// The budgets of an issue.
#[must_use]
pub(super) fn budgets() -> Budgets {
    Rules::default().budgets
}

//! The sections that say what work is taken and how it is brought to its merge. [pure]

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::read::{Context, Written, seconds, span, word};
use crate::config::{Checks, Claims, ConfigError, Merge, Repo};
use crate::forge::MergeMethod;
use crate::forge::github::Login;
use crate::work::{Accept, Branch, Budgets, Labels, RepoName};

/// The API of GitHub itself.
const GITHUB: &str = "https://api.github.com";
/// The branch of an issue.
const BRANCH: &str = "issue-{number}-fix";

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct CiSection {
    required: Option<Vec<Spanned<String>>>,
    accept: Option<Vec<Spanned<String>>>,
    expect: Written<String>,
    start_grace: Written<String>,
    timeout: Written<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct MergeSection {
    enabled: Option<bool>,
    method: Written<String>,
    delete_branch: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ClaimSection {
    renew: Written<String>,
    stale: Written<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct BudgetsSection {
    failures: Written<u32>,
    host_failures: Written<u32>,
    check_fixes: Written<u32>,
    conflict_fixes: Written<u32>,
    merges: Written<u32>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RepoSection {
    name: Written<String>,
    api: Written<String>,
    token_file: Written<PathBuf>,
    app_id: Written<u64>,
    installation_id: Written<u64>,
    key_file: Written<PathBuf>,
    base: Written<String>,
    branch: Written<String>,
    ready: Written<String>,
    in_progress: Written<String>,
    question: Written<String>,
    priority: Option<Vec<Spanned<String>>>,
    allowed: Option<Vec<Spanned<String>>>,
    max_tasks: Written<u32>,
    poll: Written<String>,
    write_pause: Written<String>,
}

impl Context<'_> {
    pub(super) fn ci(&self, it: CiSection) -> Result<Checks, ConfigError> {
        let default = Checks::default();
        let accept = |text: &str| match text {
            "skipped" => Ok(Accept::Skipped),
            "neutral" => Ok(Accept::Neutral),
            _ => Err("write \"skipped\" or \"neutral\"; success is always accepted".to_owned()),
        };
        let accepted = self.list("ci.accept", it.accept, |text| accept(text).map(drop))?.unwrap_or_default();
        Ok(Checks {
            required: self.list("ci.required", it.required, word)?.unwrap_or_default(),
            accept: accepted.iter().filter_map(|text| accept(text).ok()).collect(),
            expect_none: self
                .read("ci.expect", it.expect, |text| match text {
                    "checks" => Ok(false),
                    "none" => Ok(true),
                    _ => Err("write \"checks\" or \"none\"".to_owned()),
                })?
                .unwrap_or(default.expect_none),
            start_grace: self.read("ci.start_grace", it.start_grace, seconds)?.unwrap_or(default.start_grace),
            timeout: self.read("ci.timeout", it.timeout, seconds)?.unwrap_or(default.timeout),
        })
    }

    pub(super) fn merge(&self, it: MergeSection) -> Result<Merge, ConfigError> {
        let default = Merge::default();
        Ok(Merge {
            enabled: it.enabled.unwrap_or(default.enabled),
            method: self
                .read("merge.method", it.method, |text| match text {
                    "merge" => Ok(MergeMethod::Merge),
                    "squash" => Ok(MergeMethod::Squash),
                    "rebase" => Ok(MergeMethod::Rebase),
                    _ => Err("write \"squash\", \"merge\" or \"rebase\"".to_owned()),
                })?
                .unwrap_or(default.method),
            delete_branch: it.delete_branch.unwrap_or(default.delete_branch),
        })
    }

    pub(super) fn claim(&self, it: ClaimSection) -> Result<Claims, ConfigError> {
        let default = Claims::default();
        let renew = self.read("claim.renew", it.renew, seconds)?.unwrap_or(default.renew);
        let place = it.stale.as_ref().map(Spanned::span).unwrap_or_default();
        let stale = self.read("claim.stale", it.stale, seconds)?.unwrap_or(default.stale);
        if stale < renew * 3 {
            let why = "write at least three times `renew`: a host that lives must never seem dead".to_owned();
            return Err(self.wrong("claim.stale", &place, why));
        }
        Ok(Claims { renew, stale })
    }

    pub(super) fn budgets(&self, it: BudgetsSection) -> Result<Budgets, ConfigError> {
        let default = crate::config::repo::budgets();
        let some = |key, written| {
            self.checked(key, written, |number: &u32| {
                if (1..=100).contains(number) { Ok(()) } else { Err("write a number from 1 to 100".to_owned()) }
            })
        };
        let any = |key, written| {
            self.checked(key, written, |number: &u32| {
                if *number <= 100 { Ok(()) } else { Err("write a number from 0 to 100".to_owned()) }
            })
        };
        Ok(Budgets {
            failures: some("budgets.failures", it.failures)?.unwrap_or(default.failures),
            host: some("budgets.host_failures", it.host_failures)?.unwrap_or(default.host),
            check_fixes: any("budgets.check_fixes", it.check_fixes)?.unwrap_or(default.check_fixes),
            conflict_fixes: any("budgets.conflict_fixes", it.conflict_fixes)?.unwrap_or(default.conflict_fixes),
            merges: some("budgets.merges", it.merges)?.unwrap_or(default.merges),
        })
    }

    pub(super) fn repos(&self, written: Vec<Spanned<RepoSection>>) -> Result<Vec<Repo>, ConfigError> {
        let mut repos: Vec<Repo> = Vec::new();
        for section in written {
            let place = section.span();
            let repo = self.repo(section)?;
            if repos.iter().any(|known| known.name == repo.name && known.api == repo.api) {
                let why = format!("{} is there twice: leave one out", repo.name);
                return Err(self.wrong("repo.name", &place, why));
            }
            repos.push(repo);
        }
        Ok(repos)
    }

    fn repo(&self, section: Spanned<RepoSection>) -> Result<Repo, ConfigError> {
        let place = section.span();
        let it = section.into_inner();
        let missing = |key: &str, why: &str| self.wrong(key, &place, why.to_owned());
        let name =
            self.read("repo.name", it.name, |text| text.parse::<RepoName>().map_err(|error| error.to_string()))?;
        let name = name.ok_or_else(|| missing("repo.name", "write the repository's name, as \"owner/name\""))?;
        let file = |key, written| self.directory(key, written);
        let (token, key) = (file("repo.token_file", it.token_file)?, file("repo.key_file", it.key_file)?);
        let number = |key, written: Written<u64>| self.checked(key, written, |_| Ok(()));
        let (app, installation) =
            (number("repo.app_id", it.app_id)?, number("repo.installation_id", it.installation_id)?);
        let login = match (token, app, installation, key) {
            (Some(token), None, None, None) => Login::Token(token),
            (None, Some(app), Some(installation), Some(key)) => Login::App { app, installation, key },
            _ => {
                let why = "write either `token_file`, or `app_id`, `installation_id` and `key_file` together";
                return Err(missing("repo.token_file", why));
            }
        };
        let branch = self.checked("repo.branch", it.branch, |text: &String| {
            let safe = text.matches("{number}").count() == 1 && text.replace("{number}", "7").parse::<Branch>().is_ok();
            if safe {
                Ok(())
            } else {
                Err("write a branch with `{number}` in it, as \"issue-{number}-fix\"".to_owned())
            }
        })?;
        let default = Labels::default();
        let label = |key, written, default| {
            let found = self.read(key, written, |text| word(text).map(|()| text.to_owned()))?;
            Ok::<_, ConfigError>(found.unwrap_or(default))
        };
        let labels = Labels {
            ready: label("repo.ready", it.ready, default.ready)?,
            in_progress: label("repo.in_progress", it.in_progress, default.in_progress)?,
            question: label("repo.question", it.question, default.question)?,
        };
        if labels.ready == labels.in_progress
            || labels.ready == labels.question
            || labels.in_progress == labels.question
        {
            return Err(missing("repo.ready", "the three labels `ready`, `in_progress` and `question` must differ"));
        }
        let allowed = self.list("repo.allowed", it.allowed, word)?.unwrap_or_default();
        if allowed.is_empty() {
            let why = "write whose issues are taken: without a list nobody's are, and that is never meant";
            return Err(missing("repo.allowed", why));
        }
        Ok(Repo {
            name,
            api: self.checked("repo.api", it.api, |text| word(text))?.unwrap_or_else(|| GITHUB.to_owned()),
            login,
            base: self.read("repo.base", it.base, |text| text.parse::<Branch>().map_err(|error| error.to_string()))?,
            branch: branch.unwrap_or_else(|| BRANCH.to_owned()),
            labels,
            priority: self.list("repo.priority", it.priority, word)?.unwrap_or_default(),
            allowed,
            max_tasks: self
                .checked("repo.max_tasks", it.max_tasks, |number| {
                    if (1..=64).contains(number) { Ok(()) } else { Err("write a number from 1 to 64".to_owned()) }
                })?
                .unwrap_or(1),
            poll: self.read("repo.poll", it.poll, seconds)?.unwrap_or(Duration::from_secs(60)),
            write_pause: self.read("repo.write_pause", it.write_pause, span)?.unwrap_or(Duration::from_secs(1)),
        })
    }
}

//! Which issues would be taken now: read of the forge, and nothing written.

use std::collections::{BTreeMap, BTreeSet};

use super::claim::Holder;
use crate::config;
use crate::forge::{Forge, ForgeError, Issue, IssueNumber, IssueState, LabelEvent, RefName};
use crate::work::{At, Branch, Candidate, Claim, IssueKey, Order, Sha, Skip, pick};

/// A file of a repository that says that no agent works in it.
const FORBIDS: &str = ".agent-loop/no-agents";

/// The commits of claims that were read before: a commit never changes.
pub(super) type Claims = BTreeMap<Sha, Claim>;

/// A repository as it is looked at.
pub(super) struct Survey<'a> {
    pub(super) forge: &'a dyn Forge,
    pub(super) settings: &'a config::Repo,
    pub(super) base: &'a Branch,
    pub(super) holder: &'a Holder,
    /// How old the claim of another host has to be before it is taken over, seconds.
    pub(super) stale: u64,
    /// Issues that are worked on here.
    pub(super) active: BTreeSet<IssueKey>,
    /// How many may be begun.
    pub(super) room: usize,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// To be taken, the first one first.
    pub(super) next: Vec<IssueKey>,
    /// What waits for its turn.
    pub(super) waiting: Vec<IssueKey>,
    /// What is not taken, and why.
    pub(super) skipped: Vec<(IssueKey, String)>,
    /// What stands in the way of all issues.
    pub(super) forbids: Option<String>,
}

impl Survey<'_> {
    /// Looks once.
    ///
    /// An idle look costs two requests that are answered "not modified" where nothing changed: the list of issues that are
    /// ready, page by page, and the list of claims.
    pub(super) async fn look(&self, claims: &mut Claims) -> Result<Found, ForgeError> {
        let order = self.settings.order();
        let issues = self.forge.open_issues(std::slice::from_ref(&order.ready)).await?;
        let mut candidates = Vec::with_capacity(issues.len());
        for issue in issues {
            let labeller = if author_is_allowed(&issue, &order) { None } else { self.labeller(&issue, &order).await? };
            candidates.push(Candidate {
                key: self.key(issue.number),
                labels: issue.labels,
                author: issue.author.map(|login| login.0).unwrap_or_default(),
                labeller,
                created: issue.created,
                is_pull: issue.is_pull,
            });
        }
        let (ready, skipped) = pick(candidates, &order, &self.active);
        // What another host has begun goes before what nobody has.
        let mut all = self.abandoned(&order, claims).await?;
        all.extend(
            ready.into_iter().map(|candidate| candidate.key).filter(|key| !all.contains(key)).collect::<Vec<_>>(),
        );
        // It is looked for only where something would be begun: looking costs a request each time.
        let forbids = if all.is_empty() || self.room == 0 { None } else { self.forbids().await? };
        let begun = if forbids.is_some() { 0 } else { self.room.min(all.len()) };
        let waiting = all.split_off(begun);
        let skipped = skipped.into_iter().filter_map(|(key, skip)| Some((key, why(skip)?.to_owned()))).collect();
        Ok(Found { next: all, waiting, skipped, forbids })
    }

    fn key(&self, number: IssueNumber) -> IssueKey {
        IssueKey { repo: self.settings.name.clone(), number: number.0 }
    }

    /// Issues that a host had begun which gave no sign for so long that they are taken over.
    async fn abandoned(&self, order: &Order, claims: &mut Claims) -> Result<Vec<IssueKey>, ForgeError> {
        let references = self.forge.references(&RefName::claims()).await?;
        let there: BTreeSet<&Sha> = references.iter().map(|reference| &reference.at).collect();
        claims.retain(|at, _| there.contains(at));
        let mut found = Vec::new();
        for reference in &references {
            let Some(number) = reference.claimed() else { continue };
            let key = self.key(number);
            if self.active.contains(&key) {
                continue;
            }
            if !claims.contains_key(&reference.at) {
                let claim = self.holder.read(&key, &self.forge.commit(&reference.at).await?);
                claims.insert(reference.at.clone(), claim);
            }
            let now = self.forge.now().unwrap_or_default();
            let Some(Claim::Theirs { time, .. }) = claims.get(&reference.at) else { continue };
            // One that was given up is about to go.
            if *time == At(i64::MIN) || now.since(*time) <= self.stale {
                continue;
            }
            let issue = match self.forge.issue(number).await {
                Ok(issue) => issue,
                Err(ForgeError::Gone { .. }) => continue,
                Err(error) => return Err(error),
            };
            let begun = issue.state == IssueState::Open
                && !issue.is_pull
                && issue.labels.contains(&self.settings.labels.in_progress)
                && !issue.labels.contains(&order.ready);
            if begun && (author_is_allowed(&issue, order) || self.was_allowed(&issue, order).await?) {
                found.push(key);
            }
        }
        Ok(found)
    }

    /// Whether the repository says that no agent works in it, in words.
    pub(super) async fn forbids(&self) -> Result<Option<String>, ForgeError> {
        let file = self.forge.file(FORBIDS, self.base).await?;
        Ok(file.map(|_| format!("the repository says by its file {FORBIDS} that no agent works in it")))
    }

    /// Who set the label of ready issues last, where it is set.
    async fn labeller(&self, issue: &Issue, order: &Order) -> Result<Option<String>, ForgeError> {
        let events = self.events(issue, order).await?;
        Ok(events.into_iter().next_back().filter(|event| event.added).and_then(|event| event.by).map(|login| login.0))
    }

    /// Whether who set the label last, before a host took it off, is on the list.
    async fn was_allowed(&self, issue: &Issue, order: &Order) -> Result<bool, ForgeError> {
        let events = self.events(issue, order).await?;
        let by = events.into_iter().rfind(|event| event.added).and_then(|event| event.by);
        Ok(by.is_some_and(|login| is_allowed(&login.0, order)))
    }

    async fn events(&self, issue: &Issue, order: &Order) -> Result<Vec<LabelEvent>, ForgeError> {
        let events = self.forge.label_events(issue.number).await?;
        Ok(events.into_iter().filter(|event| event.label == order.ready).collect())
    }
}

fn author_is_allowed(issue: &Issue, order: &Order) -> bool {
    issue.author.as_ref().is_some_and(|login| is_allowed(&login.0, order))
}

fn is_allowed(login: &str, order: &Order) -> bool {
    order.allowed.iter().any(|it| it.eq_ignore_ascii_case(login))
}

const fn why(skip: Skip) -> Option<&'static str> {
    match skip {
        Skip::Kept => Some("a label keeps it"),
        Skip::NotAllowed => Some("neither its author nor who set the label is on the list"),
        Skip::Pull | Skip::NotReady | Skip::Known => None,
    }
}

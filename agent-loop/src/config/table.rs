//! Every setting in one table: for showing them, for comparing them, for the test of the example file.

use std::path::Path;
use std::time::Duration;

use toml::Value;

use super::{AgentKind, Config, Keeper, OnFull, Repo};
use crate::forge::MergeMethod;
use crate::forge::github::Login;
use crate::supervise::Leftovers;
use crate::work::Accept;

/// One setting.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its section.
    pub section: &'static str,
    /// Its name there.
    pub key: &'static str,
    /// Its value as it is written in the file; `None` where it is left out.
    pub value: Option<Value>,
    /// Whether a change takes effect only after a restart of the daemon.
    pub restart: bool,
}

/// The settings, section by section.
pub(super) fn entries(config: &Config) -> Vec<Entry> {
    let Config { host, kernel, agent, limits, audit, ci, merge, claim, budgets, repos: _ } = config;
    let restarted = |section, key, value| Entry { section, key, value, restart: true };
    let live = |section, key, value| Entry { section, key, value, restart: false };
    vec![
        restarted("host", "state_dir", Some(path(&host.state_dir))),
        restarted("host", "log_dir", Some(path(&host.log_dir))),
        restarted("host", "runtime_dir", Some(path(&host.runtime_dir))),
        restarted("host", "work_dir", Some(path(&host.work_dir))),
        restarted("host", "git", Some(path(&host.git))),
        restarted("host", "pins", Some(path(&host.pins))),
        restarted("host", "cgroup_root", host.cgroup_root.as_deref().map(path)),
        live("host", "max_agents", Some(Value::Integer(host.max_agents.into()))),
        restarted("host", "socket_group", host.socket_group.as_deref().map(text)),
        restarted("host", "owner", host.owner.as_deref().map(text)),
        restarted("host", "keeper", Some(text(keeper(host.keeper)))),
        restarted("kernel", "ring_bytes", Some(Value::Integer(kernel.ring_bytes.into()))),
        restarted("kernel", "execs_ring_bytes", Some(Value::Integer(kernel.execs_ring_bytes.into()))),
        restarted("kernel", "live_entries", Some(Value::Integer(kernel.live_entries.into()))),
        restarted("kernel", "watch", Some(list(&kernel.watch))),
        live("agent", "user", agent.user.as_deref().map(text)),
        live("agent", "allow_root", Some(Value::Boolean(agent.allow_root))),
        live("agent", "env", Some(list(&agent.env))),
        restarted("agent", "kind", Some(text(kind(agent.command.kind)))),
        restarted("agent", "command", Some(list(&agent.command.command))),
        restarted("agent", "prompts", agent.command.prompts.as_deref().map(path)),
        live("limits", "wall", limits.run.wall.map(span)),
        live("limits", "active", limits.run.active.map(span)),
        live("limits", "idle", limits.run.idle.map(span)),
        live("limits", "grace", Some(span(limits.grace))),
        live("limits", "output_bytes", limits.run.output_bytes.map(number)),
        live("limits", "memory_bytes", limits.run.memory_bytes.map(number)),
        live("limits", "tasks", limits.run.tasks.map(number)),
        live("limits", "cpu_percent", limits.run.cpu_percent.map(|percent| number(percent.into()))),
        live("limits", "leftovers", Some(text(leftovers(limits.leftovers)))),
        restarted("audit", "redact_names", Some(list(&audit.redact_names))),
        restarted("audit", "redact_patterns", Some(list(&audit.redact_patterns))),
        restarted("audit", "segment_bytes", Some(number(audit.segment_bytes))),
        restarted("audit", "segment_age", Some(span(audit.segment_age))),
        restarted("audit", "keep_bytes", audit.keep_bytes.map(number)),
        restarted("audit", "keep_age", audit.keep_age.map(span)),
        restarted("audit", "on_full", Some(text(on_full(audit.on_full)))),
        restarted("audit", "anchor_dir", audit.anchor_dir.as_deref().map(path)),
        restarted("audit", "anchor_journal", Some(Value::Boolean(audit.anchor_journal))),
        restarted("audit", "anchor_every", Some(span(audit.anchor_every))),
        restarted("ci", "required", Some(list(&ci.required))),
        restarted("ci", "accept", Some(list(&ci.accept.iter().map(|it| accept(*it).to_owned()).collect::<Vec<_>>()))),
        restarted("ci", "expect", Some(text(if ci.expect_none { "none" } else { "checks" }))),
        restarted("ci", "start_grace", Some(span(ci.start_grace))),
        restarted("ci", "timeout", Some(span(ci.timeout))),
        restarted("merge", "enabled", Some(Value::Boolean(merge.enabled))),
        restarted("merge", "method", Some(text(method(merge.method)))),
        restarted("merge", "delete_branch", Some(Value::Boolean(merge.delete_branch))),
        restarted("claim", "renew", Some(span(claim.renew))),
        restarted("claim", "stale", Some(span(claim.stale))),
        restarted("budgets", "failures", Some(number(budgets.failures.into()))),
        restarted("budgets", "host_failures", Some(number(budgets.host.into()))),
        restarted("budgets", "check_fixes", Some(number(budgets.check_fixes.into()))),
        restarted("budgets", "conflict_fixes", Some(number(budgets.conflict_fixes.into()))),
        restarted("budgets", "merges", Some(number(budgets.merges.into()))),
    ]
}

/// The settings of a repository.
pub(super) fn repo_entries(repo: &Repo) -> Vec<Entry> {
    let restarted = |key, value| Entry { section: "repo", key, value, restart: true };
    let (token, app) = match &repo.login {
        Login::Token(file) => (Some(path(file)), None),
        Login::App { app, installation, key } => (None, Some((*app, *installation, path(key)))),
    };
    vec![
        restarted("name", Some(text(&repo.name.to_string()))),
        restarted("api", Some(text(&repo.api))),
        restarted("token_file", token),
        restarted("app_id", app.as_ref().map(|it| number(it.0))),
        restarted("installation_id", app.as_ref().map(|it| number(it.1))),
        restarted("key_file", app.map(|it| it.2)),
        restarted("base", repo.base.as_ref().map(|base| text(base.as_str()))),
        restarted("branch", Some(text(&repo.branch))),
        restarted("ready", Some(text(&repo.labels.ready))),
        restarted("in_progress", Some(text(&repo.labels.in_progress))),
        restarted("question", Some(text(&repo.labels.question))),
        restarted("priority", Some(list(&repo.priority))),
        restarted("allowed", Some(list(&repo.allowed))),
        restarted("max_tasks", Some(number(repo.max_tasks.into()))),
        restarted("poll", Some(span(repo.poll))),
        restarted("write_pause", Some(span(repo.write_pause))),
    ]
}

/// One sentence for each setting that differs.
pub(super) fn difference(old: &Config, new: &Config) -> Vec<String> {
    let show = |value: &Option<Value>| value.as_ref().map_or_else(|| "nothing".to_owned(), Value::to_string);
    let pairs = entries(old).into_iter().zip(entries(new)).filter(|(old, new)| old != new);
    let repos = (old.repos != new.repos)
        .then(|| "the repositories are others, from the next restart of agent-loop on".to_owned());
    let settings = pairs.map(|(old, new)| {
        let when = if new.restart { ", from the next restart of agent-loop on" } else { "" };
        format!("{}.{}: {} becomes {}{when}", new.section, new.key, show(&old.value), show(&new.value))
    });
    settings.chain(repos).collect()
}

const fn kind(kind: AgentKind) -> &'static str {
    match kind {
        AgentKind::Claude => "claude",
        AgentKind::Command => "command",
    }
}

const fn accept(accept: Accept) -> &'static str {
    match accept {
        Accept::Skipped => "skipped",
        Accept::Neutral => "neutral",
    }
}

const fn method(method: MergeMethod) -> &'static str {
    match method {
        MergeMethod::Merge => "merge",
        MergeMethod::Squash => "squash",
        MergeMethod::Rebase => "rebase",
    }
}

const fn keeper(keeper: Keeper) -> &'static str {
    match keeper {
        Keeper::Start => "start",
        Keeper::Expect => "expect",
    }
}

const fn leftovers(leftovers: Leftovers) -> &'static str {
    match leftovers {
        Leftovers::Kill => "kill",
        Leftovers::Wait => "wait",
    }
}

const fn on_full(on_full: OnFull) -> &'static str {
    match on_full {
        OnFull::StopLaunching => "stop-launching",
        OnFull::Launch => "launch",
    }
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

fn path(path: &Path) -> Value {
    // It came from a TOML text: it is UTF-8.
    Value::String(path.display().to_string())
}

fn list(names: &[String]) -> Value {
    Value::Array(names.iter().map(|name| text(name)).collect())
}

fn span(span: Duration) -> Value {
    Value::String(humantime::format_duration(span).to_string())
}

fn number(number: u64) -> Value {
    // It came from a TOML number, which has a sign.
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

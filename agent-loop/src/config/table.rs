//! Every setting in one table: for showing them, for comparing them, for the test of the example file.

use std::path::Path;
use std::time::Duration;

use toml::Value;

use super::{Config, Keeper, OnFull};
use crate::supervise::Leftovers;

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
    let Config { host, kernel, agent, limits, audit } = config;
    let restarted = |section, key, value| Entry { section, key, value, restart: true };
    let live = |section, key, value| Entry { section, key, value, restart: false };
    vec![
        restarted("host", "state_dir", Some(path(&host.state_dir))),
        restarted("host", "log_dir", Some(path(&host.log_dir))),
        restarted("host", "runtime_dir", Some(path(&host.runtime_dir))),
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
    ]
}

/// One sentence for each setting that differs.
pub(super) fn difference(old: &Config, new: &Config) -> Vec<String> {
    let show = |value: &Option<Value>| value.as_ref().map_or_else(|| "nothing".to_owned(), Value::to_string);
    let pairs = entries(old).into_iter().zip(entries(new)).filter(|(old, new)| old != new);
    pairs
        .map(|(old, new)| {
            let when = if new.restart { ", from the next restart of agent-loop on" } else { "" };
            format!("{}.{}: {} becomes {}{when}", new.section, new.key, show(&old.value), show(&new.value))
        })
        .collect()
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

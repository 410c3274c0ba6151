//! `GET /metrics`: the daemon's state as OpenMetrics text. Labels have few values: no run, no process, no command.
//!
//! Format: OpenMetrics 1.0, <https://prometheus.io/docs/specs/om/open_metrics_spec/>.

use std::fmt::Write as _;

use crate::control::api::{QueueView, RepoView, StatusView};
use crate::work::State;

/// The media type of the text.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The states of a run that have a value of their own; any other is counted as `other`.
const STATES: [&str; 7] = ["queued", "launching", "running", "draining", "stopping", "unkillable", "ended"];

/// The metrics of this state; those of issues where there is an issue loop that answers.
pub(super) fn text(status: &StatusView, queue: Option<&QueueView>) -> String {
    let mut text = String::new();
    family(&mut text, "agent_loop_build", "info", "The daemon's version and how it watches.");
    let _ = writeln!(
        text,
        "agent_loop_build_info{{version=\"{}\",backend=\"{}\"}} 1",
        escaped(&status.version),
        escaped(&status.backend)
    );
    if let Ok(since) = status.since.parse::<jiff::Timestamp>() {
        family(&mut text, "agent_loop_start_time_seconds", "gauge", "When the daemon started, seconds since 1970.");
        let _ = writeln!(text, "agent_loop_start_time_seconds {}", since.as_second());
    }
    family(&mut text, "agent_loop_keeper_up", "gauge", "Whether the keeper answers.");
    let _ = writeln!(text, "agent_loop_keeper_up {}", u8::from(status.keeper.is_ok()));
    family(&mut text, "agent_loop_degraded_reasons", "gauge", "Things that are missing; 0 where all is there.");
    let _ = writeln!(text, "agent_loop_degraded_reasons {}", status.degraded.len());
    family(&mut text, "agent_loop_runs", "gauge", "Runs that the daemon holds, by state.");
    for state in STATES {
        let _ = writeln!(text, "agent_loop_runs{{state=\"{state}\"}} {}", status.runs.get(state).unwrap_or(&0));
    }
    let other: u64 =
        status.runs.iter().filter(|(state, _)| !STATES.contains(&state.as_str())).map(|(_, count)| count).sum();
    let _ = writeln!(text, "agent_loop_runs{{state=\"other\"}} {other}");
    family(&mut text, "agent_loop_max_agents", "gauge", "How many runs may be alive at once.");
    let _ = writeln!(text, "agent_loop_max_agents {}", status.max_agents);
    family(&mut text, "agent_loop_observed_processes", "gauge", "Agents that nobody started through agent-loop.");
    let _ = writeln!(text, "agent_loop_observed_processes {}", status.observed.len());
    family(&mut text, "agent_loop_lost_records", "counter", "Records that the kernel could not deliver.");
    let _ = writeln!(text, "agent_loop_lost_records_total {}", status.lost);
    family(&mut text, "agent_loop_log_lines", "counter", "Lines of the audit log that are on the disk.");
    let _ = writeln!(text, "agent_loop_log_lines_total {}", status.log.durable);
    family(&mut text, "agent_loop_log_unsigned_lines", "gauge", "Of these, those that no checkpoint covers yet.");
    let unsigned = status.log.durable.saturating_sub(status.log.signed);
    let _ = writeln!(text, "agent_loop_log_unsigned_lines {unsigned}");
    if let Some(age) = status.log.checkpoint_age_ms {
        family(&mut text, "agent_loop_log_checkpoint_age_seconds", "gauge", "Since the newest checkpoint was signed.");
        let _ = writeln!(text, "agent_loop_log_checkpoint_age_seconds {}.{:03}", age / 1_000, age % 1_000);
    }
    if let Some(queue) = queue {
        issues(&mut text, queue);
    }
    text.push_str("# EOF\n");
    text
}

/// What the issue loop holds. A label is a repository of the configuration, or a state: no issue, no person.
fn issues(text: &mut String, queue: &QueueView) {
    family(text, "agent_loop_tasks", "gauge", "Issues that are worked on, by repository and state.");
    for repo in &queue.repos {
        let name = escaped(&repo.repo);
        let count = |wanted: &dyn Fn(&str) -> bool| repo.tasks.iter().filter(|task| wanted(&task.state)).count();
        for state in State::WORDS {
            let held = count(&|it| it == state);
            let _ = writeln!(text, "agent_loop_tasks{{repo=\"{name}\",state=\"{state}\"}} {held}");
        }
        let other = count(&|it| !State::WORDS.contains(&it));
        let _ = writeln!(text, "agent_loop_tasks{{repo=\"{name}\",state=\"other\"}} {other}");
    }
    let mut each = |name: &str, kind: &str, help: &str, value: &dyn Fn(&RepoView) -> Option<u64>| {
        family(text, name, kind, help);
        let end = if kind == "counter" { "_total" } else { "" };
        for repo in &queue.repos {
            if let Some(value) = value(repo) {
                let _ = writeln!(text, "{name}{end}{{repo=\"{}\"}} {value}", escaped(&repo.repo));
            }
        }
    };
    let waiting = |repo: &RepoView| Some(repo.waiting.len() as u64);
    each("agent_loop_issues_waiting", "gauge", "Issues that wait for their turn.", &waiting);
    let trouble = |repo: &RepoView| Some(u64::from(repo.trouble.is_some()));
    each("agent_loop_repo_trouble", "gauge", "Whether something is wrong with the repository.", &trouble);
    each("agent_loop_forge_requests", "counter", "Requests that were sent to the forge.", &|repo| Some(repo.requests));
    let free = |repo: &RepoView| Some(repo.not_modified);
    each("agent_loop_forge_not_modified", "counter", "Of these, those to which nothing had changed.", &free);
    each("agent_loop_forge_remaining", "gauge", "Requests that are left in this hour.", &|repo| repo.remaining);
}

fn family(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# TYPE {name} {kind}\n# HELP {name} {help}");
}

/// A label value with its special characters escaped.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

//! One thing in full: the daemon, a run, why it ended, what a kill does.

use super::Page;
use super::text::{Colour, ago, bytes, columns, command, count, cut, paint, span, standing, standing_colour, visible};
use crate::control::api::{ForgeView, KillView, ProcessView, RunView, StatusView};

/// Where the values stand.
const INDENT: usize = 12;

/// Names and values, each value on a line of its own.
struct Facts {
    page: Page,
    text: String,
}

impl Facts {
    const fn new(page: Page) -> Self {
        Self { page, text: String::new() }
    }

    /// A name and its value, which is wrapped at its words.
    fn fact(&mut self, name: &str, value: &str) {
        self.painted(name, value, None);
    }

    fn painted(&mut self, name: &str, value: &str, colour: Option<Colour>) {
        for (at, line) in wrapped(value, self.page.width.saturating_sub(INDENT)).into_iter().enumerate() {
            let name = if at == 0 { name } else { "" };
            let pad = " ".repeat(INDENT.saturating_sub(name.len()));
            let name = if name.is_empty() { String::new() } else { paint(self.page, Colour::Bold, name) };
            let line = colour.map_or_else(|| line.clone(), |colour| paint(self.page, colour, &line));
            self.text.push_str(&format!("{name}{pad}{line}\n"));
        }
    }

    /// A value that is there.
    fn some(&mut self, name: &str, value: Option<String>) {
        if let Some(value) = value {
            self.fact(name, &value);
        }
    }

    /// A name and many values.
    fn list(&mut self, name: &str, values: impl IntoIterator<Item = String>) {
        for (at, value) in values.into_iter().enumerate() {
            self.fact(if at == 0 { name } else { "" }, &value);
        }
    }
}

/// The lines of a text of so many columns; a word that is longer than a line is broken.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    // Room for at least one character of any width in each line.
    let width = width.max(8);
    let (mut lines, mut line) = (Vec::new(), String::new());
    for word in text.split(' ') {
        if !line.is_empty() && columns(&line) + 1 + columns(word) > width {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        let mut rest = word;
        while columns(&line) + columns(rest) > width {
            let mut head = cut(rest, width);
            // The mark of the cut.
            head.pop();
            rest = rest.get(head.len()..).unwrap_or_default();
            lines.push(head);
        }
        line.push_str(rest);
    }
    lines.push(line);
    lines
}

/// The daemon.
pub(in crate::cli::client) fn status(view: &StatusView, now: jiff::Timestamp, page: Page) -> String {
    let mut facts = Facts::new(page);
    facts.fact("agent-loop", &format!("{}, process {}", visible(&view.version), view.pid));
    facts.fact("since", &since(&view.since, now));
    let backend = match view.backend.as_str() {
        "ebpf" => "by eBPF: births and deaths are exact".to_owned(),
        "pidfd" => "by pidfds and looks at the tree: births can be missed".to_owned(),
        other => visible(other),
    };
    facts.fact("watches", &backend);
    match &view.keeper {
        Ok(pid) => facts.fact("keeper", &format!("process {pid}")),
        Err(why) => facts.painted("keeper", &format!("none: {}", visible(why)), Some(Colour::Red)),
    }
    let runs: Vec<String> = view.runs.iter().map(|(state, count)| format!("{count} {}", visible(state))).collect();
    let runs = if runs.is_empty() { "none".to_owned() } else { runs.join(", ") };
    facts.fact("runs", &format!("{runs}; at most {} at once", view.max_agents));
    facts.fact("lost", &format!("{} of the kernel", count(view.lost, "record", "records")));
    let signed = view
        .log
        .checkpoint_age_ms
        .map_or_else(|| "not signed yet".to_owned(), |age| format!("signed {} ago", span(age)));
    facts.fact("log", &format!("{} on the disk, {signed}", count(view.log.durable, "line", "lines")));
    let forge = |forge: &ForgeView| {
        let trouble = forge.trouble.as_ref().map_or_else(String::new, |why| format!("; {}", visible(why)));
        format!("{}: {}{trouble}", visible(&forge.repo), visible(&super::queue::patience(forge)))
    };
    facts.list("forge", view.forges.iter().map(forge));
    facts.list("degraded", view.degraded.iter().map(|reason| visible(reason)));
    facts.list("observed", view.observed.iter().map(|process| line(process, page)));
    facts.text
}

/// A run.
pub(in crate::cli::client) fn run(view: &RunView, now: jiff::Timestamp, page: Page) -> String {
    let mut facts = Facts::new(page);
    facts.fact("run", &visible(&view.run));
    facts.painted("state", &visible(&view.state), Some(standing_colour(view)));
    facts.fact("command", &command(&view.argv));
    facts.fact("user", &visible(&view.user));
    facts.fact("submitted", &since(&view.submitted, now));
    facts.some("born", view.born.as_deref().map(|born| since(born, now)));
    facts.some(if view.state == "ended" { "took" } else { "age" }, view.elapsed_ms.map(span));
    let open = view.state != "ended";
    facts.some("limit", view.remaining_ms.filter(|_| open).map(limit));
    facts.some("main", view.main_pid.map(|pid| format!("process {pid}")));
    facts.fact("alive", &count(view.alive, "process", "processes"));
    facts.fact("output", &view.output_bytes.map_or_else(|| "not known".to_owned(), bytes));
    facts.some("reason", view.reason.as_deref().map(visible));
    facts.some("outcome", view.outcome.as_deref().map(visible));
    facts.some("status", view.status.as_deref().map(visible));
    facts.some("left behind", (view.leftovers > 0).then(|| count(view.leftovers, "process", "processes")));
    facts.some("tree", view.proven.map(|proven| if proven { "proven empty" } else { "not proven empty" }.to_owned()));
    facts.list("why", view.why.iter().map(|why| visible(why)));
    facts.text
}

fn limit(remaining_ms: i64) -> String {
    match u64::try_from(remaining_ms) {
        Ok(left) => format!("in {}", span(left)),
        Err(_) => format!("passed {} ago", span(remaining_ms.unsigned_abs())),
    }
}

fn since(time: &str, now: jiff::Timestamp) -> String {
    // Parts of a second are for programs.
    let short = time.parse::<jiff::Timestamp>().map(|time| format!("{time:.0}"));
    let shown = short.unwrap_or_else(|_| visible(time));
    ago(time, now).map_or_else(|| shown.clone(), |ms| format!("{shown} ({} ago)", span(ms)))
}

/// Why a run ended, or that it has not.
pub(in crate::cli::client) fn why(view: &RunView, page: Page) -> String {
    let mut text = String::new();
    for (at, line) in wrapped(&ending(view), page.width.saturating_sub(4)).into_iter().enumerate() {
        text.push_str(if at == 0 { "" } else { "    " });
        text.push_str(&paint(page, standing_colour(view), &line));
        text.push('\n');
    }
    for sentence in &view.why {
        for (at, line) in wrapped(&visible(sentence), page.width.saturating_sub(4)).into_iter().enumerate() {
            text.push_str(if at == 0 { "  - " } else { "    " });
            text.push_str(&line);
            text.push('\n');
        }
    }
    text
}

/// How a run ended, as one sentence.
pub(in crate::cli::client) fn ending(view: &RunView) -> String {
    format!("run {} {}", visible(&view.run), ending_words(view))
}

fn ending_words(view: &RunView) -> String {
    let took = view.elapsed_ms.map_or_else(String::new, |ms| format!(" ({})", span(ms)));
    if view.state != "ended" {
        let reason = view.reason.as_deref().map_or_else(String::new, |reason| format!(", {}", cause(reason)));
        return format!("is {}{reason}{took}", visible(&view.state));
    }
    let status = visible(view.status.as_deref().unwrap_or("status unknown"));
    let words = match view.outcome.as_deref() {
        Some("ended") => format!("ended by itself: {status}"),
        Some("launch_failed") => "could not be started".to_owned(),
        Some("lost_to_reboot") => "was lost: the host was started again, and nobody saw its end".to_owned(),
        Some("withdrawn") => "was withdrawn before it was launched".to_owned(),
        Some("not_empty") => "was NOT stopped: processes of it are left".to_owned(),
        Some(reason) => format!("was stopped, {}; its command: {status}", cause(reason)),
        None => format!("ended: {}", standing(view)),
    };
    format!("{words}{took}")
}

/// A reason of a stop, as a clause.
fn cause(reason: &str) -> String {
    match reason {
        "deadline" => "its limit was reached".to_owned(),
        "active_limit" | "active" => "its limit of active time was reached".to_owned(),
        "idle" => "it wrote nothing for too long".to_owned(),
        "output_budget" => "its output budget was reached".to_owned(),
        "leftovers" => "the command left others behind".to_owned(),
        "operator" => "an operator asked".to_owned(),
        "output_failed" => "its output could not be written".to_owned(),
        "internal" => "agent-loop failed".to_owned(),
        other => visible(other),
    }
}

/// What a kill does.
pub(in crate::cli::client) fn killing(view: &KillView, page: Page) -> String {
    let verb = if view.dry_run { "would stop" } else { "stopping" };
    let number = u64::try_from(view.processes.len()).unwrap_or(u64::MAX);
    let processes = count(number, "process", "processes");
    let mut text = format!("{verb} run {} ({}): {processes}\n", visible(&view.run), visible(&view.state));
    for process in &view.processes {
        text.push_str(&format!("  {}\n", line(process, Page { width: page.width.saturating_sub(2), ..page })));
    }
    text
}

fn line(process: &ProcessView, page: Page) -> String {
    cut(&format!("{} {}", process.pid, visible(&process.command)), page.width.saturating_sub(INDENT))
}

//! A line of the event log for people.

use serde::Deserialize;

use super::Page;
use super::text::{Colour, command, cut, paint, short, visible};

/// What is shown of a line; a kind has some of it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Line {
    time: String,
    kind: String,
    run: Option<String>,
    proc: Option<Pid>,
    to: Option<To>,
    exec: Option<Exec>,
    argv: Option<Vec<String>>,
    exit: Option<Exit>,
    signal: Option<i64>,
    result: Option<String>,
    outcome: Option<String>,
    reason: Option<String>,
    why: Option<String>,
    tree: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Pid {
    pid: u32,
}

#[derive(Debug, Deserialize)]
struct To {
    pid: Option<u32>,
    cgroup: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Exec {
    #[serde(default)]
    argv: Vec<String>,
    #[serde(default)]
    exe: String,
}

#[derive(Debug, Deserialize)]
struct Exit {
    code: Option<i64>,
    signal: Option<i64>,
}

/// One line: time, run, process, kind, and what the kind has to say.
pub(in crate::cli) fn event(line: &str, page: Page) -> String {
    let Ok(event) = serde_json::from_str::<Line>(line) else { return cut(&visible(line), page.width) };
    let time = event.time.parse::<jiff::Timestamp>().map(|time| format!("{time:.3}"));
    let time = time.unwrap_or_else(|_| visible(&event.time));
    // The day is for the log: who follows knows it.
    let clock = time.split_once('T').map_or(time.as_str(), |(_, clock)| clock).trim_end_matches('Z');
    let run = event.run.as_deref().map(|run| short(&[run]).concat()).unwrap_or_default();
    let pid = event.proc.as_ref().map(|proc| proc.pid).or_else(|| event.to.as_ref()?.pid);
    let pid = pid.map(|pid| pid.to_string()).unwrap_or_default();
    let head = format!("{clock:<12}  {:<8}  {pid:>7}  {:<13}", visible(&run), visible(&event.kind));
    let text = format!("{}  {}", head, details(&event));
    let text = cut(text.trim_end(), page.width);
    match event.kind.as_str() {
        "gap" | "signal.refused" => paint(page, Colour::Red, &text),
        "run.born" | "run.exit" | "run.killed" => paint(page, Colour::Bold, &text),
        _ => text,
    }
}

fn details(event: &Line) -> String {
    let exec =
        event.exec.as_ref().map(|exec| if exec.argv.is_empty() { visible(&exec.exe) } else { command(&exec.argv) });
    let status = event.exit.as_ref().map(|exit| match (exit.code, exit.signal) {
        (Some(code), _) => format!("exit {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "status unknown".to_owned(),
    });
    let cgroup = event.to.as_ref().and_then(|to| to.cgroup).map(|_| "the run's cgroup".to_owned());
    let named = |name: &str, value: &Option<String>| value.as_deref().map(|value| format!("{name} {}", visible(value)));
    let parts = [
        event.argv.as_deref().map(command),
        exec,
        cgroup,
        event.signal.map(|signal| format!("signal {signal}")),
        event.result.as_deref().map(visible),
        named("outcome", &event.outcome),
        status,
        named("reason", &event.reason),
        named("tree", &event.tree),
        event.why.as_deref().map(visible),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

//! The console as a picture: 80 columns and 24 lines are enough, colours say nothing that words do not. [pure]

use jiff::Timestamp;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph};

use super::screen::{Look, Screen};
use crate::cli::client::draw::{self, Colour, Page, text};
use crate::control::api::{RepoView, RunView, TaskView};

/// The least lines that the runs are given, and the most that issues are.
const RUNS_LEAST: u16 = 5;
const ISSUES_MOST: u16 = 6;
/// From this width on processes and events stand side by side.
const WIDE: u16 = 120;
/// The width of the bar from a run's birth to its limit.
const BAR: u64 = 5;
const KEYS: &str = " up/down: choose a run   a: ended ones too   q: quit";

/// Draws the console.
pub(super) fn draw(frame: &mut Frame<'_>, screen: &Screen, now: Timestamp, colour: bool) {
    let ink = Ink { colour };
    let area = frame.area();
    let Some(look) = &screen.look else {
        let text = screen.trouble.as_deref().unwrap_or("asking the daemon");
        frame.render_widget(Paragraph::new(text::visible(text)).wrap(ratatui::widgets::Wrap { trim: true }), area);
        return;
    };
    let strip = strip(screen, look, now, usize::from(area.width), ink);
    let issues = issues(look, usize::from(area.width), ink);
    let rows = |lines: usize| u16::try_from(lines).unwrap_or(u16::MAX);
    let issue_rows = if issues.is_empty() { 0 } else { rows(issues.len() + 1).min(ISSUES_MOST) };
    let below = (area.height.saturating_sub(rows(strip.len()) + issue_rows + 1)) / 2;
    let [top, runs_at, issues_at, below, keys] = Layout::vertical([
        Constraint::Length(rows(strip.len())),
        Constraint::Min(RUNS_LEAST),
        Constraint::Length(issue_rows),
        Constraint::Length(below),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(Paragraph::new(strip), top);
    runs(frame, screen, look, runs_at, ink);
    panel(frame, "issues", issues, issues_at, ink);
    let halves = if area.width >= WIDE { Layout::horizontal } else { Layout::vertical };
    let [tree_at, events_at] = halves([Constraint::Fill(1), Constraint::Fill(1)]).areas(below);
    let plain = |width: u16| Page { width: usize::from(width), colour: false };
    let tree: Vec<Line<'_>> = look.tree.as_ref().map_or_else(Vec::new, |tree| {
        draw::tree(tree, plain(tree_at.width)).lines().skip(1).map(|line| Line::from(line.to_owned())).collect()
    });
    panel(frame, "processes of the chosen run", tree, tree_at, ink);
    let room = usize::from(events_at.height.saturating_sub(1));
    let newest = screen.events.iter().skip(screen.events.len().saturating_sub(room));
    let events = newest.map(|line| Line::from(draw::event(line, plain(events_at.width)))).collect();
    panel(frame, "events", events, events_at, ink);
    frame.render_widget(Paragraph::new(Line::styled(KEYS, ink.of(Colour::Dim))), keys);
}

/// Where colours are not seen, none is used; weight and reversal stay.
#[derive(Clone, Copy)]
struct Ink {
    colour: bool,
}

impl Ink {
    fn of(self, colour: Colour) -> Style {
        let style = Style::new();
        match colour {
            Colour::Bold => style.add_modifier(Modifier::BOLD),
            Colour::Dim => style.add_modifier(Modifier::DIM),
            Colour::Red | Colour::Green | Colour::Yellow if !self.colour => style,
            Colour::Red => style.fg(Color::Red),
            Colour::Green => style.fg(Color::Green),
            Colour::Yellow => style.fg(Color::Yellow),
        }
    }
}

fn panel(frame: &mut Frame<'_>, title: &str, lines: Vec<Line<'_>>, at: Rect, ink: Ink) {
    let title = Line::styled(format!(" {title} "), ink.of(Colour::Bold));
    let block = Block::new().borders(Borders::TOP).border_style(ink.of(Colour::Dim)).title(title);
    frame.render_widget(Paragraph::new(lines).block(block), at);
}

/// The health of the daemon, in three lines at most.
fn strip(screen: &Screen, look: &Look, now: Timestamp, width: usize, ink: Ink) -> Vec<Line<'static>> {
    let status = &look.status;
    let keeper = match &status.keeper {
        Ok(pid) => format!("keeper {pid}"),
        Err(_) => "NO KEEPER".to_owned(),
    };
    let up = text::ago(&status.since, now).map_or_else(String::new, |ms| format!(" · up {}", text::span(ms)));
    let (word, colour) = match (&screen.trouble, status.degraded.is_empty() && status.keeper.is_ok()) {
        (Some(_), _) => ("OLD".to_owned(), Colour::Red),
        (None, true) => ("ok".to_owned(), Colour::Green),
        (None, false) => ("DEGRADED".to_owned(), Colour::Red),
    };
    let head =
        format!("agent-loop {} · {} · {keeper}{up}", text::visible(&status.version), text::visible(&status.backend));
    let head = text::cut(&head, width.saturating_sub(word.len() + 2));
    let gap = " ".repeat(width.saturating_sub(text::columns(&head) + word.len()));
    let style = ink.of(colour).add_modifier(Modifier::BOLD);
    let mut lines =
        vec![Line::from(vec![Span::styled(head, ink.of(Colour::Bold)), Span::raw(gap), Span::styled(word, style)])];
    let of = |state: &str| status.runs.get(state).copied().unwrap_or(0);
    let alive: u64 = status
        .runs
        .iter()
        .filter(|(state, _)| !matches!(state.as_str(), "queued" | "ended"))
        .map(|(_, count)| count)
        .sum();
    let signed = status
        .log
        .checkpoint_age_ms
        .map_or_else(|| "not signed".to_owned(), |age| format!("signed {} ago", text::span(age)));
    let numbers = format!(
        "runs {alive} of {} · queued {} · lost {} · log {} lines, {signed} · observed {}",
        status.max_agents,
        of("queued"),
        status.lost,
        status.log.durable,
        status.observed.len()
    );
    lines.push(Line::from(text::cut(&numbers, width)));
    let why = screen.trouble.as_ref().or(status.keeper.as_ref().err()).or(status.degraded.first());
    if let Some(why) = why {
        let more = if screen.trouble.is_none() && status.degraded.len() > 1 {
            format!(" (and {} more: `agent-loop status`)", status.degraded.len() - 1)
        } else {
            String::new()
        };
        lines.push(Line::styled(text::cut(&format!("{}{more}", text::visible(why)), width), ink.of(Colour::Red)));
    }
    lines
}

fn runs(frame: &mut Frame<'_>, screen: &Screen, look: &Look, at: Rect, ink: Ink) {
    let width = usize::from(at.width);
    let ids: Vec<&str> = look.runs.iter().map(|run| run.run.as_str()).collect();
    let names = text::short(&ids);
    let head =
        format!("  {:<9} {:<11} {:>8} {:<13} {:>5} {:>9}  COMMAND", "RUN", "STATE", "AGE", "LIMIT", "ALIVE", "OUTPUT");
    let place = screen.place().unwrap_or(0);
    let room = usize::from(at.height.saturating_sub(2)).max(1);
    // The chosen one is in sight.
    let first = (place + 1).saturating_sub(room);
    let mut lines = vec![Line::styled(text::cut(&head, width), ink.of(Colour::Dim))];
    for (number, (run, name)) in look.runs.iter().zip(&names).enumerate().skip(first).take(room) {
        let chosen = number == place;
        let (before, after) = row(run, name, chosen);
        let state = format!("{:<11}", text::cut(&text::standing(run), 11));
        let rest = text::cut(&after, width.saturating_sub(before.len() + 11));
        let style = if chosen { Style::new().add_modifier(Modifier::REVERSED) } else { Style::new() };
        let state_style = if chosen { style } else { ink.of(text::standing_colour(run)) };
        let pad = " ".repeat(width.saturating_sub(before.len() + 11 + text::columns(&rest)));
        lines.push(Line::from(vec![
            Span::styled(before, style),
            Span::styled(state, state_style),
            Span::styled(rest + &pad, style),
        ]));
    }
    if look.runs.is_empty() {
        lines.push(Line::from("  none: `agent-loop start -- COMMAND` starts one"));
    }
    let title = if screen.all { "runs, those that are over too" } else { "runs" };
    panel(frame, title, lines, at, ink);
}

/// What stands before and after the state of a run.
fn row(run: &RunView, name: &str, chosen: bool) -> (String, String) {
    let age = run.elapsed_ms.map_or_else(|| "-".to_owned(), text::span);
    let limit = match (run.elapsed_ms, run.remaining_ms) {
        (Some(elapsed), Some(remaining)) if run.state != "ended" => limit(elapsed, remaining),
        _ => String::new(),
    };
    let after = format!(
        " {age:>8} {limit:<13} {:>5} {:>9}  {}",
        run.alive,
        run.output_bytes.map_or_else(|| "?".to_owned(), text::bytes),
        text::command(&run.argv)
    );
    (format!("{} {name:<9} ", if chosen { '>' } else { ' ' }), after)
}

/// How much of its time a run has used, and what is left.
fn limit(elapsed_ms: u64, remaining_ms: i64) -> String {
    let Ok(left) = u64::try_from(remaining_ms) else { return format!("{} passed", "█".repeat(5)) };
    let whole = elapsed_ms.saturating_add(left).max(1);
    let used = u64::try_from(u128::from(elapsed_ms) * u128::from(BAR) / u128::from(whole)).unwrap_or(BAR);
    let bar: String = (0..BAR).map(|at| if at < used { '█' } else { '░' }).collect();
    format!("{bar} {}", text::span(left))
}

fn issues(look: &Look, width: usize, ink: Ink) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    for repo in &look.queue.repos {
        lines.extend(repo.tasks.iter().map(|task| Line::from(text::cut(&of_task(task), width))));
        let (about, troubled) = of_repo(repo);
        let style = ink.of(if troubled { Colour::Red } else { Colour::Dim });
        lines.push(Line::styled(text::cut(&about, width), style));
    }
    lines
}

fn of_task(task: &TaskView) -> String {
    let paused = if task.paused { ", paused" } else { "" };
    let pull = task.pull.map_or_else(String::new, |pull| format!(" (pull request #{pull})"));
    let says = task.trouble.as_ref().unwrap_or(&task.says);
    let state = task.state.replace('_', " ");
    text::visible(&format!("  {}  {state}{paused}, attempt {}: {says}{pull}", task.issue, task.attempt))
}

fn of_repo(repo: &RepoView) -> (String, bool) {
    if let Some(trouble) = &repo.trouble {
        return (text::visible(&format!("  {}: {trouble}", repo.repo)), true);
    }
    let left = repo.remaining.map_or_else(String::new, |left| format!(", {left} requests left in this hour"));
    let text = format!("  {}: {} waiting, {} not taken{left}", repo.repo, repo.waiting.len(), repo.skipped.len());
    (text::visible(&text), false)
}

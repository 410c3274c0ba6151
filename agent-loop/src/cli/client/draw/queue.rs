//! The repositories and their issues. [pure]

use super::Page;
use super::text::{Colour, cut, paint, visible};
use crate::control::api::{ForgeView, QueueView, RepoView, StoryView, TaskView, TickView};

/// All repositories, each with its tasks, what waits, and what stands in the way.
pub(in crate::cli) fn queue(view: &QueueView, page: Page) -> String {
    view.repos.iter().map(|repo| one(repo, page)).collect::<Vec<_>>().join("\n")
}

fn one(repo: &RepoView, page: Page) -> String {
    let line = |text: &str| format!("{}\n", cut(&visible(text), page.width));
    let mut text = format!("{}\n", paint(page, Colour::Bold, &cut(&visible(&repo.repo), page.width)));
    if let Some(trouble) = &repo.trouble {
        text.push_str(&format!("{}\n", paint(page, Colour::Red, &cut(&visible(&format!("  {trouble}")), page.width))));
    }
    if repo.paused {
        text.push_str(&line("  paused: no issue of it is taken; `agent-loop resume` goes on"));
    }
    for task in &repo.tasks {
        text.push_str(&line(&format!("  {}", sentence(task))));
        if let Some(trouble) = &task.trouble {
            text.push_str(&line(&format!("      {trouble}")));
        }
    }
    if repo.tasks.is_empty() {
        text.push_str(&line("  no issue is worked on"));
    }
    for issue in &repo.waiting {
        text.push_str(&line(&format!("  {issue}  waits for its turn")));
    }
    for skipped in &repo.skipped {
        text.push_str(&line(&format!("  {}  not taken: {}", skipped.issue, skipped.why)));
    }
    let looked = repo.looked.as_ref().map_or_else(|| "not looked at yet".to_owned(), |at| format!("looked at {at}"));
    text.push_str(&line(&format!("  {looked}; {}", patience(&ForgeView::from(repo.clone())))));
    text
}

/// What became of an issue: what it is now, what it passed, and where to look further.
pub(in crate::cli::client) fn story(view: &StoryView, page: Page) -> String {
    let line = |text: &str| format!("{}\n", cut(&visible(text), page.width));
    let mut text = format!("{}\n", paint(page, Colour::Bold, &cut(&visible(&view.issue), page.width)));
    text.push_str(&line(&format!("  now: {}", view.says)));
    if let Some(pull) = view.pull {
        text.push_str(&line(&format!("  pull request {pull}, from {}", view.branch)));
    }
    view.steps.iter().for_each(|step| text.push_str(&line(&format!("  {}  {}", step.at, step.says))));
    for run in &view.runs {
        text.push_str(&line(&format!(
            "  attempt {}: `agent-loop why {1}`, `agent-loop logs {1}`",
            run.attempt, run.run
        )));
    }
    text
}

/// What was asked of a forge, and what is left of its patience.
pub(in crate::cli::client) fn patience(forge: &ForgeView) -> String {
    let mut text = format!("{} requests, {} of them free", forge.requests, forge.not_modified);
    if let Some(left) = forge.remaining {
        let of = forge.limit.map_or_else(String::new, |limit| format!(" of {limit}"));
        let until = forge.resets.as_ref().map_or_else(String::new, |at| format!(" until {at}"));
        text.push_str(&format!(", {left}{of} left{until}"));
    }
    if let Some(seconds) = forge.held_seconds {
        text.push_str(&format!("; the forge asked for a pause: nothing is sent for {seconds} s"));
    }
    text
}

/// What a pass took, or would take.
pub(in crate::cli) fn tick(view: &TickView, page: Page) -> String {
    let line = |text: &str| format!("{}\n", cut(&visible(text), page.width));
    let mut text = String::new();
    for repo in &view.repos {
        text.push_str(&format!("{}\n", paint(page, Colour::Bold, &cut(&visible(&repo.repo), page.width))));
        if let Some(trouble) = &repo.trouble {
            let trouble = cut(&visible(&format!("  {trouble}")), page.width);
            text.push_str(&format!("{}\n", paint(page, Colour::Red, &trouble)));
        }
        if repo.paused {
            text.push_str(&line("  paused: no issue of it is taken; `agent-loop resume` goes on"));
        }
        let verb = if view.dry_run { "would be taken" } else { "taken" };
        repo.taken.iter().for_each(|issue| text.push_str(&line(&format!("  {issue}  {verb}"))));
        repo.tasks.iter().for_each(|task| text.push_str(&line(&format!("  {}", sentence(task)))));
        repo.waiting.iter().for_each(|issue| text.push_str(&line(&format!("  {issue}  waits for its turn"))));
        for skipped in &repo.skipped {
            text.push_str(&line(&format!("  {}  not taken: {}", skipped.issue, skipped.why)));
        }
        if repo.trouble.is_none() && repo.taken.is_empty() && repo.tasks.is_empty() && repo.waiting.is_empty() {
            text.push_str(&line("  nothing to do"));
        }
    }
    text
}

fn sentence(task: &TaskView) -> String {
    let pull = task.pull.map_or_else(String::new, |pull| format!(" (pull request #{pull})"));
    let paused = if task.paused { ", paused" } else { "" };
    let state = task.state.replace('_', " ");
    format!("{}  {state}{paused}: {}{pull}", task.issue, task.says)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::api::{LookView, SkippedView};

    #[test]
    fn a_queue_says_what_is_done_what_waits_and_what_is_in_the_way() {
        let task = TaskView {
            issue: "o/r#7".to_owned(),
            state: "ci_wait".to_owned(),
            says: "waiting for the checks of `abc`".to_owned(),
            pull: Some(9),
            paused: true,
            trouble: Some("no\u{1b}[31m answer".to_owned()),
            ..TaskView::default()
        };
        let repo = RepoView {
            repo: "o/r".to_owned(),
            tasks: vec![task],
            waiting: vec!["o/r#8".to_owned()],
            skipped: vec![SkippedView { issue: "o/r#9".to_owned(), why: "a label keeps it".to_owned() }],
            requests: 12,
            not_modified: 10,
            ..RepoView::default()
        };
        let page = Page { width: 100, colour: false };
        let text = queue(&QueueView { repos: vec![repo] }, page);
        let expected = "o/r\n  o/r#7  ci wait, paused: waiting for the checks of `abc` (pull request #9)\n";
        assert!(text.starts_with(expected), "{text}");
        assert!(text.contains("o/r#8  waits for its turn\n  o/r#9  not taken: a label keeps it\n"), "{text}");
        assert!(text.ends_with("  not looked at yet; 12 requests, 10 of them free\n"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }

    #[test]
    fn the_patience_of_a_forge_is_told_with_its_end() {
        let forge = ForgeView {
            requests: 12,
            not_modified: 10,
            remaining: Some(4_990),
            limit: Some(5_000),
            resets: Some("2026-11-25T21:00:00Z".to_owned()),
            held_seconds: Some(60),
            ..ForgeView::default()
        };
        let expected = "12 requests, 10 of them free, 4990 of 5000 left until 2026-11-25T21:00:00Z; the forge asked for a pause: \
                        nothing is sent for 60 s";
        assert_eq!(patience(&forge), expected);
    }

    #[test]
    fn a_dry_run_says_what_would_be_done_and_a_pass_what_was() {
        let look = LookView { repo: "o/r".to_owned(), taken: vec!["o/r#7".to_owned()], ..LookView::default() };
        let idle = LookView { repo: "o/s".to_owned(), ..LookView::default() };
        let page = Page { width: 100, colour: false };
        let dry = TickView { dry_run: true, under_way: false, repos: vec![look, idle] };
        assert_eq!(tick(&dry, page), "o/r\n  o/r#7  would be taken\no/s\n  nothing to do\n");
        let wet = TickView { dry_run: false, ..dry };
        assert!(tick(&wet, page).starts_with("o/r\n  o/r#7  taken\n"));
    }
}

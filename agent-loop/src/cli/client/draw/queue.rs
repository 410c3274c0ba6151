//! The repositories and their issues. [pure]

use super::Page;
use super::text::{Colour, cut, paint, visible};
use crate::control::api::{QueueView, RepoView, TaskView};

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
    let left = repo.remaining.map_or_else(String::new, |left| format!(", {left} left in this hour"));
    text.push_str(&line(&format!("  {looked}; {} requests, {} of them free{left}", repo.requests, repo.not_modified)));
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
    use crate::control::api::SkippedView;

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
}

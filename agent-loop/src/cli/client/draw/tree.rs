//! The processes of a run as a tree.

use std::collections::{BTreeMap, BTreeSet};

use super::Page;
use super::text::{Colour, count, cut, paint, visible};
use crate::control::api::{ProcessView, TreeView};

/// Deeper than this, processes are drawn as if they were siblings.
const DEEPEST: usize = 12;

/// The tree, each process on a line below the one that forked it.
pub(in crate::cli::client) fn tree(view: &TreeView, page: Page) -> String {
    let number = u64::try_from(view.processes.len()).unwrap_or(u64::MAX);
    let head = format!("run {}: {}", visible(&view.run), count(number, "process", "processes"));
    let mut text = paint(page, Colour::Bold, &head) + "\n";
    let known: BTreeSet<u32> = view.processes.iter().map(|process| process.pid).collect();
    let mut below: BTreeMap<u32, Vec<&ProcessView>> = BTreeMap::new();
    let mut roots = Vec::new();
    for process in &view.processes {
        match process.parent.filter(|parent| known.contains(parent) && *parent != process.pid) {
            Some(parent) => below.entry(parent).or_default().push(process),
            None => roots.push(process),
        }
    }
    let mut drawn = BTreeSet::new();
    for root in roots {
        draw(&mut text, root, &below, &mut drawn, page);
    }
    // Parents that are each other's: a number was used again. Nobody is left out for that.
    for process in &view.processes {
        if !drawn.contains(&process.pid) {
            draw(&mut text, process, &below, &mut drawn, page);
        }
    }
    text
}

/// A process whose line is still to be drawn.
struct Branch<'a> {
    process: &'a ProcessView,
    /// What stands before its own mark, and before the lines below it.
    before: String,
    mark: &'static str,
    depth: usize,
}

fn draw(
    text: &mut String,
    root: &ProcessView,
    below: &BTreeMap<u32, Vec<&ProcessView>>,
    drawn: &mut BTreeSet<u32>,
    page: Page,
) {
    let mut waiting = vec![Branch { process: root, before: String::new(), mark: "", depth: 0 }];
    while let Some(Branch { process, before, mark, depth }) = waiting.pop() {
        if !drawn.insert(process.pid) {
            continue;
        }
        let line = format!("{before}{mark}{} {}", process.pid, visible(&process.command));
        text.push_str(&cut(&line, page.width));
        text.push('\n');
        let deeper = match mark {
            "" => before.clone(),
            "└─ " => format!("{before}   "),
            _ => format!("{before}│  "),
        };
        let before = if depth < DEEPEST { deeper } else { before };
        let children = below.get(&process.pid).map(Vec::as_slice).unwrap_or_default();
        for (at, child) in children.iter().enumerate().rev() {
            let mark = if at + 1 == children.len() { "└─ " } else { "├─ " };
            waiting.push(Branch { process: child, before: before.clone(), mark, depth: depth + 1 });
        }
    }
}

//! What has to hold at the forge in the end.

use crate::fake_github::FakeGitHub;

/// Whether something holds, and what it is.
pub(super) type Check = (bool, String);

/// Whether an issue went from its label to one verified merge, by what the forge itself remembers and heard.
pub(super) fn at_the_forge(forge: &FakeGitHub, number: u64) -> Vec<Check> {
    let world = forge.world();
    let issue = &world.issues[&number];
    let merged: Vec<_> = world.pulls.values().filter_map(|pull| Some((pull, pull.merged.as_ref()?))).collect();
    let main = world.at("refs/heads/main");
    let on_main = merged.iter().all(|(_, (commit, _))| main.as_ref().is_some_and(|it| world.is_ancestor(commit, it)));
    let heard = forge.heard();
    let merges: Vec<_> = heard.iter().filter(|it| it.method == "PUT" && it.path.ends_with("/merge")).collect();
    let pinned = merges.iter().all(|it| merged.iter().any(|(pull, _)| it.body["sha"] == pull.head.as_str()));
    let comments = world.comments.values().filter(|it| it.author == world.login && it.issue == number).count();
    let branch = merged.iter().any(|(pull, _)| world.at(&format!("refs/heads/{}", pull.head_branch)).is_some());
    vec![
        ((issue.open, issue.closed) == (false, 1), format!("the issue is closed, once ({} times)", issue.closed)),
        (
            world.pulls.len() == 1 && merged.len() == 1 && on_main,
            format!("one pull request, merged, its commit on main ({} of {})", merged.len(), world.pulls.len()),
        ),
        (
            merges.len() == 1 && pinned,
            format!("the merge was asked for once, for the very head that was green ({} requests)", merges.len()),
        ),
        (comments == 1, format!("one comment tells the story ({comments})")),
        (
            !branch && world.at(&format!("refs/agent-loop/claims/{number}")).is_none() && issue.labels.is_empty(),
            "branch, claim and labels are gone".to_owned(),
        ),
        (forge.wrong().is_empty(), "every request and answer was as GitHub describes it".to_owned()),
    ]
}

/// Prints each with its outcome; whether all of them hold.
pub(super) fn print(checks: &[Check]) -> bool {
    for (holds, text) in checks {
        println!("    {:<4} {text}", if *holds { "ok" } else { "FAIL" });
    }
    checks.iter().all(|(holds, _)| *holds)
}
